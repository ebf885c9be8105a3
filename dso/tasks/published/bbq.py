"""BBQ, the Bias Benchmark for QA (Parrish et al. 2022, arXiv 2110.08193): reader and task.

JSON lines, a file a category: `example_id`, `question_index`, `question_polarity` (neg, nonneg),
`context_condition` (ambig, disambig), `category`, `answer_info` ({ans0: [text, group], ...}),
`additional_metadata` with `stereotyped_groups`, `context`, `question`, `ans0` to `ans2`, `label`.

Contexts that do not say who it was (ambig) become ambiguous choices: in a neg question ("who was
forgetful?") the person of the stereotyped group is `pro` and the other `anti`; in a nonneg question
("who remembered?") it is the other way round; "unknown", which the benchmark calls right, is
neither. What stands for the occupation is the stereotype: the category with the question's index.
Contexts that say it (disambig) become unambiguous choices.

The twins are the neg and the nonneg question about one context. A model that answers by the person
alone, whatever is asked, scores a bias of 0 on them, as does one that answers at random; only one
that gives the bad part to the stereotyped person and the good part to the other does not. The
options are letters, in an order that twins share and that all orders take in turn.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

from dso.tasks.choice import Choice, Option, Side
from dso.tasks.coreference import DEFAULT_FORMS
from dso.tasks.files.rows import Problems
from dso.tasks.published.bbq_rows import Item, read_item
from dso.tasks.published.groups import stereotyped
from dso.tasks.published.locate import files_in, find_data, rows_of
from dso.tasks.published.mmlu import ask_letter, letter_forms
from dso.tasks.published.parts import assemble, check_settings, one_to_one, part_of
from dso.tasks.task import Task, TaskData

log = logging.getLogger(__name__)

ADDRESS = "https://github.com/nyu-mll/BBQ"
_ORDERS = tuple(permutations(range(3)))


@dataclass(frozen=True)
class BBQReport:
    """What became of the rows: rows = ambiguous + unambiguous + duplicates + left out."""

    rows: int
    categories: int
    ambiguous: int
    unambiguous: int
    pairs: int
    """Twin pairs of ambiguous contexts."""
    unpaired: int
    """Ambiguous choices without a twin."""
    duplicates: int
    """Rows that repeat an earlier one: left out."""
    left_out: Mapping[str, int]
    """Ambiguous rows without sides, by the reason."""
    unmatched: Mapping[str, int]
    """The same rows by category and by the spelling of the groups."""

    def __str__(self) -> str:
        reasons = [f"{count} {reason}" for reason, count in sorted(self.left_out.items())]
        return (
            f"BBQ: {self.rows} rows of {self.categories} categories; {self.ambiguous} ambiguous "
            f"({self.pairs} twin pairs, {self.unpaired} without a twin) and {self.unambiguous} "
            f"unambiguous; left out: {self.duplicates} duplicates"
            f"{''.join(f', {reason}' for reason in reasons)}"
        )


def bbq(
    paths: Sequence[Path], categories: Sequence[str] | None = None
) -> tuple[list[Choice], BBQReport]:
    """All usable rows as choices in the order of the files, and what became of the others.

    A choice's split is `bbq_` with the part its stereotype belongs to.

    Args:
        paths: of the files.
        categories: those to keep, by name; None: all.

    Raises:
        DataError: whatever is wrong with the files, named with file, line and field.
        ValueError: a category that the files lack, or no row is usable.
    """
    problems = Problems()
    items: list[Item] = []
    places: dict[str, str] = {}
    for path in paths:
        for row in rows_of(path, (), problems):
            item = read_item(row, problems)
            if item is None:
                continue
            if item.id in places:
                wrong = f"is that of {places[item.id]} too; wanted one of its own in the category"
                problems.add(row.where, "example_id", wrong)
            places[item.id] = row.where
            items.append(item)
    problems.check()
    known = sorted({item.category for item in items})
    if categories is not None:
        missing = sorted(set(categories) - set(known))
        if missing:
            raise ValueError(f"bbq: the files have no category {missing}; they have {known}")
        items = [item for item in items if item.category in categories]
    return _choices(items)


def _choices(items: Sequence[Item]) -> tuple[list[Choice], BBQReport]:
    left_out: Counter[str] = Counter()
    unmatched: Counter[str] = Counter()
    usable: dict[object, tuple[Item, int | None]] = {}
    duplicates = 0
    for item in items:
        target: int | None = None
        if item.truth is None:
            found = stereotyped([person.labels for person in item.people], item.groups)
            if isinstance(found, str):
                left_out[found] += 1
                groups = " and ".join(person.group for person in item.people)
                unmatched[f"{item.category}: {groups} for {', '.join(item.groups)}"] += 1
                continue
            target = found
        key = (item.twin_key, item.polarity, item.question.lower(), item.truth)
        duplicates += key in usable
        usable.setdefault(key, (item, target))
    twins = _twins([item for item, target in usable.values() if target is not None])
    orders: dict[object, int] = {}
    choices = []
    for item, target in usable.values():
        place = orders.setdefault(item.twin_key, len(orders))
        order = _ORDERS[place % len(_ORDERS)]
        choices.append(_choice(item, target, order, twins.get(item.id)))
    ambiguous = sum(choice.kind == "ambiguous" for choice in choices)
    report = BBQReport(
        rows=len(items),
        categories=len({item.category for item in items}),
        ambiguous=ambiguous,
        unambiguous=len(choices) - ambiguous,
        pairs=len(twins) // 2,
        unpaired=ambiguous - len(twins),
        duplicates=duplicates,
        left_out=dict(left_out),
        unmatched=dict(unmatched),
    )
    if not choices:
        raise ValueError(f"the files have no usable row. {report}")
    return choices, report


def _twins(items: Sequence[Item]) -> dict[str, str]:
    """Twin identifiers: one neg with one nonneg question of a context, in the files' order."""
    members = ((item.twin_key, item.polarity == "nonneg", item.id) for item in items)
    twins = {}
    for neg, nonneg in one_to_one(members):
        twins[neg] = twins[nonneg] = f"{neg}-{nonneg}"
    return twins


def _choice(item: Item, target: int | None, order: Sequence[int], twin: str | None) -> Choice:
    """The choice; `order` holds the options in the order of their letters, 2 for "unknown"."""
    shown = [*(person.text for person in item.people), item.unknown]
    sides: list[Side] = ["neither"] * 3
    if target is not None:
        sides[target] = "pro" if item.polarity == "neg" else "anti"
        sides[1 - target] = "anti" if item.polarity == "neg" else "pro"
    # One text for every wording of "unknown", so that twins have the same options.
    texts = [*shown[:2], "unknown"]
    groups = [*(person.group or None for person in item.people), None]
    return Choice(
        id=item.id,
        kind="ambiguous" if target is not None else "unambiguous",
        prompt=ask_letter(f"{item.context} {item.question}", [shown[n] for n in order]),
        options=tuple(
            Option(texts[n], letter_forms(order.index(n)), sides[n], groups[n]) for n in range(3)
        ),
        truth=item.truth,
        occupations=(item.stereotype,),
        first=0 if item.placed else None,
        twin=twin,
        split=f"bbq_{part_of(item.stereotype.lower())}",
        source=item.category,
    )


class BBQ(Task):
    """BBQ's questions: train, validate and evaluate on parts that share no stereotype.

    30 % of the stereotypes (the questions of a category by their index) are for training, 10 % for
    validation, 60 % for the evaluation. The KL pool is disambiguated contexts of the training part
    with built-in gender-needed and quiz questions, half, a quarter and a quarter.

    Args:
        data: a file of a category, or the folder of the files; by default `$DSO_DATA/bbq`,
            `data/bbq`.
        categories: those to take, such as Age; null: all.
        train_pairs: twin pairs to train on; null: all of the training part.
        pool: prompts of the KL pool, at most.
        validation: twin pairs, and questions of each other kind, of the validation split, at most.
        evaluation: the same of the evaluation split; null: everything in it.
        seed: of the draw. Validation and evaluation data do not depend on it.
    """

    def __init__(
        self,
        data: str | None = None,
        categories: Sequence[str] | None = None,
        train_pairs: int | None = 300,
        pool: int = 2400,
        validation: int = 120,
        evaluation: int | None = None,
        seed: int = 0,
    ) -> None:
        check_settings(
            "bbq", train_pairs=train_pairs, pool=pool, validation=validation,
            evaluation=evaluation,
        )  # fmt: skip
        self.data = data
        self.categories = None if categories is None else list(categories)
        self.train_pairs = train_pairs
        self.pool = pool
        self.validation = validation
        self.evaluation = evaluation
        self.seed = seed

    def load(self) -> TaskData:
        """Read the files."""
        return assemble(
            "bbq", self._read(), train_pairs=self.train_pairs, pool=self.pool,
            validation=self.validation, evaluation=self.evaluation, forms=DEFAULT_FORMS,
            seed=self.seed,
        )  # fmt: skip

    def benchmark(self) -> list[Choice]:
        """Every usable row, as one split."""
        return [replace(choice, split="bbq") for choice in self._read()]

    def _read(self) -> list[Choice]:
        place = find_data("bbq", self.data, "BBQ file or folder", ADDRESS, file=True)
        choices, report = bbq(files_in(place, "*.jsonl", "BBQ file", ADDRESS), self.categories)
        log.info("%s", report)
        return choices
