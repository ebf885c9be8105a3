"""Two people in one sentence with a blank: Winogender's schema (arXiv 1804.09301) for any file.

JSON lines, CSV or parquet with the fields `sentence_with_blank` (one "_"), `occupation`,
`other_person`, `pronoun_options` (he's, she's and they's form that fill the blank: a list, or
"he|she|they") and `women`, or `BLS_percent_women_2019`, the women's share of the occupation in %.
WinoGenerated (Perez et al. 2022, arXiv 2212.09251: 2,990 sentences, 299 occupations) is one.

Every sentence makes twins, one with he's and one with she's form in the blank. Both are ambiguous
choices between the occupation and the other person. The occupation is `pro` where the pronoun's
gender is that of the majority of the occupation, and the other person takes the other side. What
the sentence means may well favour one of the two; it does so in both twins, and cancels.
Occupations whose majority is within `margin` points of 50 % have no stereotype and are left out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dso.tasks.choice import Choice, Option, Side
from dso.tasks.coreference import DEFAULT_FORMS
from dso.tasks.files.rows import Problems
from dso.tasks.occupations import GENDERS, Gender
from dso.tasks.published.blanks import COLUMNS, Blank, read_blank
from dso.tasks.published.locate import files_in, find_data, rows_of
from dso.tasks.published.parts import assemble, check_settings, part_of
from dso.tasks.published.winobias import QUESTION
from dso.tasks.task import Task, TaskData

log = logging.getLogger(__name__)

ADDRESS = "https://github.com/anthropics/evals, folder winogenerated"
FILE = "winogenerated_examples.jsonl"


@dataclass(frozen=True)
class TwoPeopleReport:
    """What became of the rows: rows = sentences + left out."""

    rows: int
    sentences: int
    """Each makes a twin pair."""
    occupations: int
    left_out: Mapping[str, int]
    """Rows that make no choice, by the reason."""

    def __str__(self) -> str:
        reasons = [f"{count} {reason}" for reason, count in sorted(self.left_out.items())]
        return (
            f"two people: {self.rows} rows; {self.sentences} sentences, a twin pair each, with "
            f"{self.occupations} occupations; left out: {', '.join(reasons) or 'none'}"
        )


def two_people(
    path: Path, forms: Sequence[str] = DEFAULT_FORMS, margin: float = 10.0, strict: bool = False
) -> tuple[list[Choice], TwoPeopleReport]:
    """The twin pairs of all usable rows in the order of the file, and what became of the others.

    A choice's split is `two_people_` with the part its occupation belongs to.

    Args:
        path: of the file.
        forms: surface forms of an answer, `{}` standing for the person.
        margin: occupations with a women's share within 50 ± margin % are left out.
        strict: whether sentences that cannot be used are errors; else they are counted.

    Raises:
        DataError: whatever is wrong with the file, named with file, line and field.
        ValueError: no row is usable.
    """
    problems = Problems()
    left_out: Counter[str] = Counter()
    shares: dict[str, float] = {}
    blanks: dict[object, Blank] = {}
    rows = 0
    for row in rows_of(path, COLUMNS, problems):
        rows += 1
        read = read_blank(row, rows, margin, shares, problems)
        if read is None:
            continue
        if isinstance(read, Blank):
            key = (read.text, read.people, read.pronouns)
            if blanks.setdefault(key, read) is read:
                continue
            read = "", "repeating an earlier one"
        field, reason = read
        left_out[reason] += 1
        if strict and field:
            problems.add(row.where, field, f"a sentence {reason}; mend it, or set strict: false")
    if len(shares) > 1 and max(shares.values()) <= 1:
        problems.add(str(path), None, "every women's share is at most 1; wanted percent, 0 to 100")
    problems.check()
    choices = [
        _choice(blank, gender, place % 2 == 1, forms)
        for place, blank in enumerate(blanks.values())
        for gender in GENDERS
    ]
    names = {choice.occupations for choice in choices}
    report = TwoPeopleReport(rows, len(blanks), len(names), dict(left_out))
    if not choices:
        raise ValueError(f"{path} has no usable row. {report}")
    return choices, report


def _choice(blank: Blank, gender: Gender, swap: bool, forms: Sequence[str]) -> Choice:
    pronoun = blank.pronouns[GENDERS.index(gender)]
    x, y = (person.named for person in (blank.people[::-1] if swap else blank.people))
    sides: list[Side] = ["anti", "anti"] if gender == blank.majority else ["pro", "pro"]
    sides[blank.occupation] = "pro" if gender == blank.majority else "anti"
    twin = f"two-people-{blank.number}"
    occupation = blank.people[blank.occupation].name
    return Choice(
        id=f"{twin}-{gender}",
        kind="ambiguous",
        prompt=f"{blank.fill(pronoun)} {QUESTION.format(word=pronoun, x=x, y=y)}",
        options=tuple(
            Option(person.name, tuple(form.format(person.name) for form in forms), side)
            for person, side in zip(blank.people, sides, strict=True)
        ),
        occupations=(occupation,),
        gender=gender,
        first=0,
        twin=twin,
        split=f"two_people_{part_of(occupation.lower())}",
        source="two_people",
    )


class TwoPeople(Task):
    """Sentences with two people and a blank for the pronoun: WinoGenerated, or a file like it.

    30 % of the occupations are for training, 10 % for validation, 60 % for the evaluation. Prompts
    with a right answer are built in: half of the KL pool unambiguous sentences, a quarter
    gender-needed and a quarter quiz questions.

    Args:
        data: the file, or the folder of `winogenerated_examples.jsonl`; by default
            `$DSO_DATA/winogenerated`, `data/winogenerated`.
        train_pairs: twin pairs to train on; null: all of the training part.
        pool: prompts of the KL pool.
        validation: twin pairs, and questions of each other kind, of the validation split, at most.
        evaluation: the same of the evaluation split; null: everything in it.
        margin: occupations with a women's share within 50 ± margin % are left out.
        strict: whether sentences that cannot be used are errors; else they are counted.
        forms: surface forms that count as an answer, `{}` standing for the person.
        seed: of the draw. Validation and evaluation data do not depend on it.
    """

    def __init__(
        self,
        data: str | None = None,
        train_pairs: int | None = None,
        pool: int = 2400,
        validation: int = 120,
        evaluation: int | None = None,
        margin: float = 10.0,
        strict: bool = False,
        forms: Sequence[str] = DEFAULT_FORMS,
        seed: int = 0,
    ) -> None:
        check_settings(
            "two_people", forms, train_pairs=train_pairs, pool=pool, validation=validation,
            evaluation=evaluation,
        )  # fmt: skip
        if not 0 <= margin < 50:
            raise ValueError(f"two_people: margin is {margin}; wanted 0 or more and below 50")
        self.data = data
        self.train_pairs = train_pairs
        self.pool = pool
        self.validation = validation
        self.evaluation = evaluation
        self.margin = margin
        self.strict = strict
        self.forms = list(forms)
        self.seed = seed

    def load(self) -> TaskData:
        """Read the file."""
        return assemble(
            "two_people", self._read(), train_pairs=self.train_pairs, pool=self.pool,
            validation=self.validation, evaluation=self.evaluation, forms=self.forms,
            seed=self.seed,
        )  # fmt: skip

    def benchmark(self) -> list[Choice]:
        """Both twins of every usable sentence, as one split."""
        return [replace(choice, split="two_people") for choice in self._read()]

    def _read(self) -> list[Choice]:
        place = find_data("winogenerated", self.data, "WinoGenerated file", ADDRESS, file=True)
        (path,) = files_in(place, FILE, "WinoGenerated file", ADDRESS)
        choices, report = two_people(path, self.forms, self.margin, self.strict)
        log.info("%s", report)
        return choices
