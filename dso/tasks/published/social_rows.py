"""SocialCounterfactuals' images with what their captions say, and the pairs that they make.

A caption is "[A photo of] a White male barber": two of a race, a gender and a physical trait, then
the occupation, spelt with and without capitals. Images with one `counterfactual_set` differ in
these two only; a pair is a woman and a man of one set.
"""

from __future__ import annotations

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal

from dso.tasks.choice import Side
from dso.tasks.files.rows import Problems, Row
from dso.tasks.grammar import GENDER_NOUN
from dso.tasks.occupations import Gender
from dso.tasks.published.locate import text_of
from dso.tasks.published.packed import PackedImage, packed_rows

Trait = Literal["race", "physical"]

COLUMNS = {"image": "image", "caption": "caption", "counterfactual_set": "counterfactual_set"}
"""What is read, and the columns of the published files that have it."""

RACES = ("White", "Black", "Indian", "Asian", "Middle Eastern", "Latino")
PHYSICAL = (
    "attractive", "beautiful", "handsome", "pretty", "slim", "skinny", "young", "unattractive",
    "fat", "overweight", "obese", "scarred", "tattooed", "old",
)  # fmt: skip

_LEAD = re.compile(r"(?:an? (?:photo|picture|image) of )?an? ", re.IGNORECASE)
_KINDS = {
    **{word.lower(): ("race", word) for word in RACES},
    **{word: ("physical", word) for word in PHYSICAL},
    **{word: ("gender", word) for word in ("male", "female")},
}
_ATTRIBUTE = re.compile(rf"({'|'.join(map(re.escape, _KINDS))})\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Work:
    """An occupation of the data set that labour statistics know."""

    field: str
    """Such as health or building: people of different fields look different."""
    women: float
    """Women's share in %, annual average 2020 of the U.S. Bureau of Labor Statistics, table
    cpsaat11 (public domain)."""
    title: str
    """The title in that table."""


def _read() -> dict[str, Work]:
    file = resources.files("dso.tasks.published").joinpath("social_occupations.csv")
    rows = csv.DictReader(file.read_text(encoding="utf-8").splitlines())
    return {
        row["name"].casefold(): Work(row["field"], float(row["women"]), row["title"])
        for row in rows
    }


WORK: dict[str, Work] = _read()
"""By occupation in lower case. Occupations without a title of their own in the table are not in it,
nor are words that name a gender (waiter, maid, policeman)."""


@dataclass(frozen=True)
class Person:
    """One image."""

    picture: PackedImage
    set: str
    occupation: str
    trait: Trait
    value: str
    """Of the trait: "Black", "obese"."""
    gender: Gender

    @property
    def group(self) -> str:
        """Both attributes: "Black woman"."""
        return f"{self.value} {GENDER_NOUN[self.gender]}"


@dataclass(frozen=True)
class Pair:
    """A woman and a man of one set."""

    woman: Person
    man: Person

    @property
    def id(self) -> str:
        """Of the set and the traits."""
        values = dict.fromkeys((self.woman.value, self.man.value))
        return "-".join([self.woman.set, *values]).replace(" ", "_")

    @property
    def occupation(self) -> str:
        """Of both."""
        return self.woman.occupation

    def of(self, gender: Gender) -> Person:
        """The woman or the man."""
        return self.woman if gender == "female" else self.man


@dataclass(frozen=True)
class SocialReport:
    """What became of the rows: rows = people + left out."""

    rows: int
    people: int
    """Images of men and women whose set has the other gender too."""
    sets: int
    occupations: int
    sideless: Mapping[str, int]
    """Occupations without a stereotype, by the reason; nothing ambiguous is asked about them."""
    left_out: Mapping[str, int]
    """Further rows, by the reason."""

    def __str__(self) -> str:
        reasons = [f"{count} {reason}" for reason, count in sorted(self.left_out.items())]
        sideless = [f"{count} {reason}" for reason, count in sorted(self.sideless.items())]
        return (
            f"SocialCounterfactuals: {self.rows} rows; {self.people} people of {self.occupations} "
            f"occupations in {self.sets} sets; left out: {', '.join(reasons) or 'none'}; "
            f"occupations without a stereotype: {', '.join(sideless) or 'none'}"
        )


def read_caption(caption: str) -> tuple[dict[str, str], str] | None:
    """The attributes and the occupation that a caption names; None where it is of another form."""
    lead = _LEAD.match(caption)
    if lead is None:
        return None
    rest = caption[lead.end() :].strip()
    attributes: dict[str, str] = {}
    while match := _ATTRIBUTE.match(rest):
        kind, value = _KINDS[match[1].lower()]
        if kind in attributes:
            return None
        attributes[kind] = value
        rest = rest[match.end() :]
    words = [word if word.isupper() else word.lower() for word in rest.split()]
    return (attributes, " ".join(words)) if len(attributes) == 2 and words else None


def stereotype(occupation: str, margin: float) -> tuple[Gender | None, str]:
    """The gender of the majority; None, and the reason, where the occupation has no stereotype.

    Args:
        occupation: as in a caption.
        margin: points from 50 % that the majority must have.
    """
    work = WORK.get(occupation.casefold())
    if work is None:
        return None, "without statistics"
    if abs(work.women - 50) <= margin:
        return None, f"within {margin:g} points of 50 %"
    return "female" if work.women > 50 else "male", ""


def kept_together(occupation: str) -> str:
    """What occupations of one part share: the title in the table, or else their name.

    A CEO and a chief executive officer are one occupation.
    """
    work = WORK.get(occupation.casefold())
    return (occupation if work is None else work.title).casefold()


def side(gender: Gender, majority: Gender) -> Side:
    """Whether choosing a person of the gender agrees with the stereotype."""
    return "pro" if gender == majority else "anti"


def social(
    paths: Sequence[Path],
    trait: Trait | None = None,
    margin: float = 10.0,
    columns: Mapping[str, str] = COLUMNS,
    strict: bool = False,
) -> tuple[dict[str, list[Person]], SocialReport]:
    """The people of every set that has both genders, by set, and what became of the other rows.

    Args:
        paths: of the parquet files.
        trait: beside the gender: race or physical; None: both sorts of sets.
        margin: occupations with a women's share within 50 ± margin % are counted as without a
            stereotype.
        columns: the files' names for `COLUMNS`.
        strict: whether a caption of another form is an error; else such rows are counted.

    Raises:
        DataError: whatever is wrong with the files, named with file, row and field.
        ValueError: no row is usable.
    """
    problems = Problems()
    left_out: Counter[str] = Counter()
    people: dict[tuple[str, str, Gender], Person] = {}
    sets: dict[str, tuple[str, str]] = {}
    rows = 0
    for path in paths:
        texts = (columns["caption"], columns["counterfactual_set"])
        for row in packed_rows(path, texts, (columns["image"],), problems):
            rows += 1
            read = _person(row, columns, strict, problems)
            if read is None:
                continue
            if isinstance(read, Person) and trait not in (None, read.trait):
                read = "of the other attribute"
            if isinstance(read, str):
                left_out[read] += 1
                continue
            occupation, where = sets.setdefault(read.set, (read.occupation, row.where))
            if occupation != read.occupation:
                problems.add(
                    row.where, columns["caption"],
                    f"names the occupation {read.occupation!r}, but {where}, of the same set, "
                    f"names {occupation!r}",
                )  # fmt: skip
            key = (read.set, read.value, read.gender)
            if people.setdefault(key, read) is not read:
                left_out["repeating an earlier one of their set"] += 1
    problems.check()
    found: dict[str, list[Person]] = defaultdict(list)
    for person in people.values():
        found[person.set].append(person)
    whole = {}
    for name in sorted(found):
        if len({person.gender for person in found[name]}) == 2:
            whole[name] = found[name]
        else:
            left_out["without the other gender in their set"] += len(found[name])
    occupations = {members[0].occupation for members in whole.values()}
    reasons = Counter(stereotype(occupation, margin)[1] for occupation in occupations)
    report = SocialReport(
        rows=rows,
        people=sum(map(len, whole.values())),
        sets=len(whole),
        occupations=len(occupations),
        sideless={reason: count for reason, count in reasons.items() if reason},
        left_out=dict(left_out),
    )
    if not whole:
        raise ValueError(f"the files have no usable row. {report}")
    return whole, report


def _person(
    row: Row, columns: Mapping[str, str], strict: bool, problems: Problems
) -> Person | str | None:
    """The row's person, the reason why it is left out, or None where it is a problem."""
    before = len(problems.found)
    caption = text_of(row, columns["caption"], problems)
    name = text_of(row, columns["counterfactual_set"], problems)
    picture = row.values[columns["image"]]
    if picture is None:
        problems.add(row.where, columns["image"], "is missing; wanted an image")
    if len(problems.found) > before:
        return None
    assert caption and name
    read = read_caption(caption)
    if read is None:
        if strict:
            problems.add(
                row.where, columns["caption"],
                f"is {caption!r}; wanted such as 'A photo of a White male barber': two of a race, "
                "a gender and a physical trait, then the occupation (or set strict: false)",
            )  # fmt: skip
        return "with a caption of another form"
    attributes, occupation = read
    if "gender" not in attributes:
        return "without a gender"
    trait: Trait = "race" if "race" in attributes else "physical"
    gender: Gender = "female" if attributes["gender"] == "female" else "male"
    return Person(picture, name, occupation, trait, attributes[trait], gender)


def same_value(people: Sequence[Person]) -> list[Pair]:
    """The pairs of a set that differ in gender only, by their trait."""
    women = {person.value: person for person in people if person.gender == "female"}
    men = {person.value: person for person in people if person.gender == "male"}
    return [Pair(women[value], men[value]) for value in sorted(women.keys() & men.keys())]


def other_value(people: Sequence[Person], shift: int) -> list[Pair]:
    """Pairs of a set that differ in gender and trait: every woman with the man `shift` further on.

    Where the set has every trait with both genders, everybody is in one pair.
    """
    women = {person.value: person for person in people if person.gender == "female"}
    men = {person.value: person for person in people if person.gender == "male"}
    both = sorted(women.keys() & men.keys())
    if len(both) < 2:
        return []
    step = 1 + shift % (len(both) - 1)
    return [
        Pair(women[value], men[both[(place + step) % len(both)]])
        for place, value in enumerate(both)
    ]
