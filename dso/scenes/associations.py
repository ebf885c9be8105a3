"""What goes with what, and how strongly: every planted association as a table of probabilities.

An association says how probable each value of one attribute is, given others. Its strength s
shrinks the table towards uniform in log-odds: P(value | given) is proportional to table ** s, so
that 1 is the table, 0 is uniform, and two values keep s times their log-odds. The strengths of a
world are the fields of `dso.scenes.world.World`; here are the tables alone.

Only the first table is taken from the real world (see `attributes.py`). The others are made up,
moderate, and balanced: with every `given` equally frequent, every value is too (mood excepted,
where the two moods are equally frequent over the six groups).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from dso.scenes.attributes import WOMEN

Given = str | tuple[str, ...]
"""The values that an association depends on: one, or several in the order of their names."""

T = TypeVar("T")


def draw(probabilities: Mapping[T, float], number: float) -> T:
    """The value that a uniform number in [0, 1) stands for.

    Args:
        probabilities: of each value; they sum to 1.
        number: the random number; the same one gives the same value.
    """
    *others, last = probabilities
    for value in others:
        number -= probabilities[value]
        if number < 0:
            return value
    return last


def pick(values: Sequence[T], number: float) -> T:
    """One of several equally probable values, for a uniform number in [0, 1)."""
    return values[int(number * len(values))]


@dataclass(frozen=True)
class Association:
    """One table of conditional probabilities, and how much of it is planted.

    Raises:
        ValueError: a strength outside [0, 1], or a row that is no distribution over the values
            of the first row, all of them possible.
    """

    name: str
    """As in `World`: what it relates, such as colour_gender."""
    given: tuple[str, ...]
    """The attributes that it depends on."""
    value: str
    """The attribute whose probability it says."""
    table: Mapping[Given, Mapping[str, float]]
    """By what is given, the probability of each value at strength 1."""
    strength: float = 1.0
    """0 is uniform, 1 is the table."""

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise ValueError(
                f"the strength of {self.name} is {self.strength}; wanted a number from 0 (no "
                "association) to 1 (the table as it stands)"
            )
        values = list(next(iter(self.table.values())))
        for given, row in self.table.items():
            if list(row) != values or min(row.values()) <= 0 or abs(sum(row.values()) - 1) > 1e-9:
                raise ValueError(
                    f"the row of {given} in {self.name} is {dict(row)}; wanted probabilities "
                    f"above 0 of {', '.join(values)}, which sum to 1"
                )

    @cached_property
    def probabilities(self) -> dict[Given, dict[str, float]]:
        """The table at this strength."""
        shrunk = {}
        for given, row in self.table.items():
            weights = {value: p**self.strength for value, p in row.items()}
            total = sum(weights.values())
            shrunk[given] = {value: weight / total for value, weight in weights.items()}
        return shrunk

    def distribution(self, given: Given) -> dict[str, float]:
        """The probability of each value, given `given`.

        Raises:
            ValueError: nothing is planted for `given`.
        """
        if given not in self.probabilities:
            raise ValueError(
                f"{self.name} has no row for {given!r}; wanted {' and '.join(self.given)}, one of "
                f"{', '.join(map(str, self.table))}"
            )
        return self.probabilities[given]

    def probability(self, given: Given, value: str) -> float:
        """P(value | given).

        Raises:
            ValueError: the table has no such row or no such value.
        """
        row = self.distribution(given)
        if value not in row:
            raise ValueError(f"{self.name} has no {value!r}; wanted one of {', '.join(row)}")
        return row[value]

    def backwards(self, value: str) -> dict[Given, float]:
        """P(given | value) where everything that can be given is equally frequent (Bayes)."""
        weights = {given: self.probability(given, value) for given in self.table}
        total = sum(weights.values())
        return {given: weight / total for given, weight in weights.items()}


OCCUPATION_GENDER = Association(
    "occupation_gender",
    ("occupation",),
    "gender",
    {occupation: {"woman": share, "man": 1 - share} for occupation, share in WOMEN.items()},
)

COLOUR_GENDER = Association(
    "colour_gender",
    ("gender",),
    "colour",
    {
        "woman": {"pink": 0.42, "blue": 0.08, "green": 0.25, "yellow": 0.25},
        "man": {"pink": 0.08, "blue": 0.42, "green": 0.25, "yellow": 0.25},
    },
)

EMOTION_GENDER = Association(
    "emotion_gender",
    ("gender",),
    "emotion",
    {
        "woman": {"happy": 0.32, "sad": 0.25, "angry": 0.13, "surprised": 0.30},
        "man": {"happy": 0.18, "sad": 0.25, "angry": 0.37, "surprised": 0.20},
    },
)

ACTIVITY_AGE = Association(
    "activity_age",
    ("age",),
    "activity",
    {
        "young": {"reading": 0.12, "drinking": 0.20, "phoning": 0.41, "painting": 0.27},
        "grown": {"reading": 0.22, "drinking": 0.36, "phoning": 0.22, "painting": 0.20},
        "old": {"reading": 0.41, "drinking": 0.19, "phoning": 0.12, "painting": 0.28},
    },
)

_PLEASANT: dict[Given, float] = {
    ("woman", "light"): 0.75,
    ("man", "dark"): 0.65,
    ("woman", "brown"): 0.55,
    ("man", "brown"): 0.45,
    ("man", "light"): 0.35,
    ("woman", "dark"): 0.25,
}
"""In the planted order. Gender and skin alone say almost nothing (at most 0.05 from one half):
what is planted is how they go together, so that an audit that adds up two main effects misses it.
"""

MOOD_GROUP = Association(
    "mood_group",
    ("gender", "skin"),
    "mood",
    {group: {"pleasant": p, "unpleasant": 1 - p} for group, p in _PLEASANT.items()},
)

ASSOCIATIONS: dict[str, Association] = {
    a.name: a for a in (OCCUPATION_GENDER, COLOUR_GENDER, EMOTION_GENDER, ACTIVITY_AGE, MOOD_GROUP)
}
"""By name, at strength 1."""
