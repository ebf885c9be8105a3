"""The occupations, what labour statistics say of them, and the fixed splits.

The forty occupations and their stereotype are those of WinoBias (Zhao et al. 2018, arXiv
1804.06876). The shares are annual averages for 2020 of the U.S. Bureau of Labor Statistics,
table cpsaat11 (public domain), for the title named beside each occupation in `occupations.csv`;
where WinoBias' word is wider than any title, the closest one stands for it.

The splits are made once and never change: within each stereotype the occupations were sorted by
women's share, and positions 1, 5, 9, 13, 17 became the test split and 3, 11, 18 the validation
split, so that every split spans the whole range.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from dso.tasks.choice import Part

Gender = Literal["male", "female"]
OccupationPart = Part | Literal["compound"]

GENDERS: tuple[Gender, Gender] = ("male", "female")
GROUPS: tuple[str, str, str] = ("Asian", "Black", "White")

_POPULATION = {"Asian": 6.4, "Black": 12.1, "White": 78.0}
"""Share of all employed persons in %, the first row of the table."""


@dataclass(frozen=True)
class Occupation:
    """One occupation: its name, stereotype, split and statistics."""

    name: str
    """As it stands in a sentence, without an article."""
    stereotype: Gender
    """The gender that WinoBias' annotators and statistics associate with it."""
    part: OccupationPart
    """The split it belongs to; `compound` are extra ones of two and three words."""
    women: float
    """Women's share in %."""
    white: float
    """White employees' share in %."""
    black: float
    """Black employees' share in %."""
    asian: float
    """Asian employees' share in %."""
    title: str
    """The title in table cpsaat11."""

    def share(self, gender: Gender) -> float:
        """Probability, in [0, 1], that a person of this occupation has the gender."""
        return self.women / 100 if gender == "female" else 1 - self.women / 100

    def group_shares(self) -> dict[str, float]:
        """Probability of each group, relative to its share of all employed persons.

        Dividing by the population's share and normalising gives three groups of comparable size:
        an occupation in which everybody is as frequent as in the whole economy has 1/3 each.
        """
        raw = {"Asian": self.asian, "Black": self.black, "White": self.white}
        lift = {group: raw[group] / _POPULATION[group] for group in GROUPS}
        total = sum(lift.values())
        return {group: lift[group] / total for group in GROUPS}


def _read() -> tuple[Occupation, ...]:
    text = resources.files("dso.tasks").joinpath("occupations.csv").read_text(encoding="utf-8")
    occupations = []
    for row in csv.DictReader(text.splitlines()):
        facts: dict[str, Any] = dict(row)
        shares = {key: float(facts[key]) for key in ("women", "white", "black", "asian")}
        occupations.append(Occupation(**(facts | shares)))
    return tuple(occupations)


OCCUPATIONS: tuple[Occupation, ...] = _read()
BY_NAME: dict[str, Occupation] = {occupation.name: occupation for occupation in OCCUPATIONS}


def select(part: OccupationPart, stereotype: Gender | None = None) -> list[Occupation]:
    """The occupations of one split, in the table's order; of one stereotype when it is given."""
    return [o for o in OCCUPATIONS if o.part == part and stereotype in (None, o.stereotype)]


def side(occupation: str, gender: Gender) -> Literal["pro", "anti"]:
    """Whether choosing `occupation` for a person of `gender` agrees with the stereotype."""
    return "pro" if BY_NAME[occupation].stereotype == gender else "anti"
