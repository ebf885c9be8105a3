"""SynthBias (arXiv 2505.23996): reader of the published file, and the task.

A CSV file with the columns `type`, `sample`, `occ_1`, `occ_2`, `pronoun`, `is_stereotypical`: a
sentence with two of WinoBias' occupations and one pronoun, and almost always its twin, the same
sentence with the pronoun of the other gender, somewhere else in the file. Type 1 is ambiguous by
syntax and becomes an ambiguous choice between its two people; in type 2 the pronoun means `occ_1`,
the right answer. The order of `occ_1` and `occ_2` is not that of mention, which is what `first` and
the order of the options go by.

Every row becomes a choice or is counted by the reason why not (`SynthBiasReport`). Training on
300 twin pairs, 600 sentences, follows arXiv 2512.15926.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dso.tasks.choice import Choice
from dso.tasks.coreference import DEFAULT_FORMS, options_for, person
from dso.tasks.files.rows import Problems, Row
from dso.tasks.occupations import BY_NAME, Gender, side
from dso.tasks.published.locate import files_in, find_data, rows_of, text_of
from dso.tasks.published.parts import assemble, check_settings, one_to_one, part_of
from dso.tasks.published.winobias import PRONOUN_GENDER, QUESTION
from dso.tasks.task import Task, TaskData

log = logging.getLogger(__name__)

ADDRESS = "https://github.com/apple/ml-synthbias"
FILE = "synthbias_data.csv"
COLUMNS = ("type", "sample", "occ_1", "occ_2", "pronoun", "is_stereotypical")

_LABELS = {"type1": ("ambiguous",), "type2": ("true", "false")}
_PRONOUN = re.compile(r"\b(" + "|".join(PRONOUN_GENDER) + r")\b", re.IGNORECASE)
_NAMES = {name: re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE) for name in BY_NAME}
_LOWER = {name.lower(): name for name in BY_NAME}


@dataclass(frozen=True)
class Sentence:
    """One usable row."""

    number: int
    """Of the row in the file, from 1."""
    text: str
    neutral: str
    """The text without the gender of its pronouns and without case: twins share it."""
    pronoun: str
    """In lower case."""
    people: tuple[str, str]
    """In the order of mention."""
    referent: int | None
    """Index into `people`; None where the sentence is ambiguous."""
    disagrees: bool
    """Whether `is_stereotypical` is not what the stereotypes say."""

    @property
    def gender(self) -> Gender:
        """Of the pronoun."""
        return PRONOUN_GENDER[self.pronoun]

    @property
    def twin_key(self) -> tuple[str, tuple[str, str], int | None]:
        """What two rows share that differ only in gender."""
        return (self.neutral, self.people, self.referent)


@dataclass(frozen=True)
class SynthBiasReport:
    """What became of the rows: rows = ambiguous + unambiguous + duplicates + left out."""

    rows: int
    ambiguous: int
    unambiguous: int
    pairs: int
    """Twin pairs of ambiguous sentences."""
    unambiguous_pairs: int
    unpaired: int
    """Ambiguous sentences without a twin."""
    duplicates: int
    """Rows that repeat an earlier one: left out."""
    left_out: Mapping[str, int]
    """Further rows that are no choice, by the reason."""
    both_types: int
    """Sentences that the file calls ambiguous in one row and unambiguous in another; kept."""
    disagreements: int
    """Unambiguous rows whose `is_stereotypical` is not what the stereotypes say; kept."""

    def __str__(self) -> str:
        reasons = [f"{count} {reason}" for reason, count in sorted(self.left_out.items())]
        return (
            f"SynthBias: {self.rows} rows; {self.ambiguous} ambiguous ({self.pairs} twin pairs, "
            f"{self.unpaired} without a twin) and {self.unambiguous} unambiguous "
            f"({self.unambiguous_pairs} twin pairs); left out: {self.duplicates} duplicates"
            f"{''.join(f', {reason}' for reason in reasons)}; {self.both_types} sentences stand "
            f"in both types and {self.disagreements} labels differ from the stereotypes"
        )


def synthbias(
    path: Path, forms: Sequence[str] = DEFAULT_FORMS
) -> tuple[list[Choice], SynthBiasReport]:
    """All usable rows as choices in the order of the file, and what became of the others.

    A choice's split is `synthbias_` with the part its sentence belongs to.

    Raises:
        DataError: rows or columns that cannot be read, named with file, line and field.
        ValueError: no row is usable.
    """
    problems = Problems()
    left_out: Counter[str] = Counter()
    sentences: list[Sentence] = []
    rows = 0
    for row in rows_of(path, COLUMNS, problems):
        rows += 1
        read = _sentence(row, rows, problems)
        if isinstance(read, str):
            left_out[read] += 1
        elif read is not None:
            sentences.append(read)
    problems.check()
    first: dict[object, Sentence] = {}
    for sentence in sentences:
        first.setdefault((sentence.twin_key, sentence.text.lower(), sentence.pronoun), sentence)
    distinct = list(first.values())
    twins = _twins(distinct)
    orders: dict[str, int] = {}
    choices = []
    for sentence in distinct:
        # Twins share a place in the count, so every other pair swaps the people of the question.
        place = orders.setdefault(sentence.neutral, len(orders))
        choices.append(_choice(sentence, twins.get(sentence.number), place % 2 == 1, forms))
    ambiguous = {s.number: s.text for s in distinct if s.referent is None}
    clear = {s.number: s.text for s in distinct if s.referent is not None}
    report = SynthBiasReport(
        rows=rows,
        ambiguous=len(ambiguous),
        unambiguous=len(clear),
        pairs=len(ambiguous.keys() & twins.keys()) // 2,
        unambiguous_pairs=len(clear.keys() & twins.keys()) // 2,
        unpaired=len(ambiguous.keys() - twins.keys()),
        duplicates=len(sentences) - len(distinct),
        left_out=dict(left_out),
        both_types=len(set(ambiguous.values()) & set(clear.values())),
        disagreements=sum(sentence.disagrees for sentence in distinct),
    )
    if not choices:
        raise ValueError(f"{path} has no usable row. {report}")
    return choices, report


def _sentence(row: Row, number: int, problems: Problems) -> Sentence | str | None:
    """The row's sentence, the reason why it is left out, or None where it is a problem."""
    before = len(problems.found)
    type_, text, one, two, pronoun, label = (text_of(row, name, problems) for name in COLUMNS)
    if type_ is not None and type_ not in _LABELS:
        problems.add(row.where, "type", f"is {type_!r}; wanted type1 or type2")
    elif type_ is not None and label is not None and label.lower() not in _LABELS[type_]:
        wanted = " or ".join(_LABELS[type_])
        problems.add(row.where, "is_stereotypical", f"is {label!r}; wanted {wanted} with {type_}")
    if pronoun is not None and pronoun.lower() not in PRONOUN_GENDER:
        wanted = ", ".join(PRONOUN_GENDER)
        problems.add(row.where, "pronoun", f"is {pronoun!r}; wanted one of {wanted}")
    if one is not None and two is not None and one.lower() == two.lower():
        problems.add(row.where, "occ_2", f"is {two!r}, as occ_1 is; wanted two people")
    if len(problems.found) > before:
        return None
    assert type_ and text and one and two and pronoun and label
    names = [_LOWER.get(name.lower()) for name in (one, two)]
    if None in names:
        return "with an unknown occupation"
    found = [(_mention(name, text), name) for name in names if name is not None]
    if any(place is None for place, _ in found):
        return "without their occupations in the sentence"
    words = [word.lower() for word in _PRONOUN.findall(text)]
    if pronoun.lower() not in words:
        return "without their pronoun in the sentence"
    if len({PRONOUN_GENDER[word] for word in words}) > 1:
        return "with pronouns of both genders"
    people = [name for _, name in sorted(found, key=lambda pair: pair[0] or 0)]
    if type_ == "type1" and len({BY_NAME[name].stereotype for name in people}) == 1:
        return "ambiguous between occupations of one stereotype"
    who, gender = found[0][1], PRONOUN_GENDER[pronoun.lower()]
    return Sentence(
        number=number,
        text=text,
        neutral=_PRONOUN.sub("_", text).lower(),
        pronoun=pronoun.lower(),
        people=(people[0], people[1]),
        referent=people.index(who) if type_ == "type2" else None,
        disagrees=type_ == "type2" and (side(who, gender) == "pro") != (label.lower() == "true"),
    )


def _mention(name: str, text: str) -> int | None:
    """Where a sentence first names an occupation, as a word of its own and in either case."""
    found = _NAMES[name].search(text)
    return None if found is None else found.start()


def _twins(sentences: Iterable[Sentence]) -> dict[int, str]:
    """Twin identifiers by row number: one male with one female sentence, in the file's order."""
    members = ((s.twin_key, s.gender == "female", s.number) for s in sentences)
    twins = {}
    for male, female in one_to_one(members):
        twins[male] = twins[female] = f"synthbias-{male}-{female}"
    return twins


def _choice(sentence: Sentence, twin: str | None, swap: bool, forms: Sequence[str]) -> Choice:
    x, y = map(person, reversed(sentence.people) if swap else sentence.people)
    ambiguous = sentence.referent is None
    return Choice(
        id=f"synthbias-{sentence.number}",
        kind="ambiguous" if ambiguous else "unambiguous",
        prompt=f"{sentence.text} {QUESTION.format(word=sentence.pronoun, x=x, y=y)}",
        options=options_for(sentence.people, forms, sentence.gender if ambiguous else None),
        truth=sentence.referent,
        occupations=sentence.people,
        gender=sentence.gender,
        first=0,
        twin=twin,
        split=f"synthbias_{part_of(sentence.neutral)}",
        source="synthbias_type1" if ambiguous else "synthbias_type2",
    )


class SynthBias(Task):
    """SynthBias' sentences: train, validate and evaluate on parts that share no sentence.

    30 % of the sentences are for training, 10 % for validation, 60 % for the evaluation; twins
    stand in one part. The KL pool is unambiguous sentences of the training part, built-in
    gender-needed questions and capability questions, half, a quarter and a quarter, and smaller
    than asked for where one of the three has too few.

    Args:
        data: `synthbias_data.csv` or its folder; by default `$DSO_DATA/synthbias`,
            `data/synthbias`.
        capability: a task such as MMLU, whose capability questions are taken in, those of its
            validation and evaluation all; without one the built-in quiz.
        train_pairs: twin pairs to train on.
        pool: prompts of the KL pool, at most.
        validation: twin pairs, and questions of each other kind, of the validation split, at most.
        evaluation: the same of the evaluation split; null: everything in it.
        forms: surface forms that count as an answer, `{}` standing for the occupation.
        seed: of the draw. Validation and evaluation data do not depend on it.
    """

    def __init__(
        self,
        data: str | None = None,
        capability: Task | None = None,
        train_pairs: int = 300,
        pool: int = 2400,
        validation: int = 120,
        evaluation: int | None = None,
        forms: Sequence[str] = DEFAULT_FORMS,
        seed: int = 0,
    ) -> None:
        check_settings(
            "synthbias", forms, train_pairs=train_pairs, pool=pool, validation=validation,
            evaluation=evaluation,
        )  # fmt: skip
        self.data = data
        self.capability = capability
        self.train_pairs = train_pairs
        self.pool = pool
        self.validation = validation
        self.evaluation = evaluation
        self.forms = list(forms)
        self.seed = seed

    def load(self) -> TaskData:
        """Read the file, and the capability task's data."""
        return assemble(
            "synthbias", self._read(), train_pairs=self.train_pairs, pool=self.pool,
            validation=self.validation, evaluation=self.evaluation, forms=self.forms,
            seed=self.seed, capability=self.capability,
        )  # fmt: skip

    def benchmark(self) -> list[Choice]:
        """Every sentence of the file, as one split."""
        return [replace(choice, split="synthbias") for choice in self._read()]

    def _read(self) -> list[Choice]:
        place = find_data("synthbias", self.data, "SynthBias file", ADDRESS, file=True)
        (path,) = files_in(place, FILE, "SynthBias file", ADDRESS)
        choices, report = synthbias(path, self.forms)
        log.info("%s", report)
        return choices
