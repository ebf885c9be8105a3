"""What must hold of all rows together: unique identifiers, twins that fit, balanced occupations.

A row of groups, ambiguous and without sides, needs no twin, and its occupations no second gender.

A ledger keeps 8 bytes of a row, and 20 more of one with a twin: hashes and its place. Only where a
hash says that something is wrong are the rows read again, and then the texts decide.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from dso.tasks.choice import Choice
from dso.tasks.files.problems import Problems
from dso.tasks.own.misfits import SHOWN, Placed, Together, named_groups, say

Unpaired = Literal["refuse", "leave_out"]

Places = npt.NDArray[np.integer[Any]]

PARTS = 16
"""Many hashes are sorted in so many parts, in the room of one."""
SMALL = 2**16
"""Up to so many are sorted at once."""


@dataclass(frozen=True)
class Twins:
    """How the rows of a data set are paired."""

    pairs: int
    lonely: int
    """Rows whose twin is nowhere."""
    untwinned: int
    """Ambiguous rows with sides that name no twin."""
    left_out: int
    """Ambiguous rows of train without a twin, of both sorts."""
    grouped: int
    """Rows of groups that name no twin and need none."""


class Ledger:
    """Collects what all rows together are checked for.

    Args:
        training: whether the data are trained on, so that ambiguous rows in train that take sides
            need a twin.
        unpaired: what happens to those that have none.
    """

    def __init__(self, training: bool, unpaired: Unpaired) -> None:
        self.strict = training and unpaired == "refuse"
        self.genders: dict[tuple[str, str], tuple[set[str], str]] = {}
        """(genders, where it is first) of each (split, occupation) of ambiguous rows with sides."""
        self.rows = 0
        self._untwinned = self._untwinned_in_train = self._grouped = 0
        self._codes: dict[object, int] = {}
        self._id = array("q")
        self._twin = array("q")
        self._fit = array("i")  # of options, groups, split and kind
        self._gender = array("H")
        self._sides = array("H")  # 0 unless ambiguous with sides
        self._place = array("I")  # 2 · number of the row + whether it is trained on

    def add(self, where: str, choice: Choice, split: str, problems: Problems) -> None:
        """Take note of a row.

        Raises:
            DataError: more problems than `problems` collects.
        """
        ambiguous = choice.kind == "ambiguous"
        groups = named_groups(choice)
        sided = ambiguous and groups is None
        trained = ambiguous and split == "train"
        self._id.append(hash(choice.id))
        if choice.twin is not None:
            texts = tuple([option.text for option in choice.options])
            sides = tuple([option.side for option in choice.options])
            self._twin.append(hash(choice.twin))
            self._fit.append(hash((texts, groups, split, choice.kind)) & 0x7FFFFFFF)
            self._gender.append(self._code(choice.gender) if choice.gender else 0)
            self._sides.append(self._code(sides) if sided else 0)
            self._place.append(2 * self.rows + trained)
        elif sided:
            self._untwinned += 1
            self._untwinned_in_train += trained
            if trained and self.strict:
                problems.add(
                    where, "twin",
                    "is missing; an ambiguous row in train with sides needs its gender-swapped "
                    "twin, or a fair model does not score 0 (unpaired: leave_out trains on the "
                    "others)",
                )  # fmt: skip
        elif ambiguous:
            self._grouped += 1
        if sided and choice.gender:
            for name in choice.occupations:
                seen = self.genders.get((split, name))
                if seen is None:
                    self.genders[split, name] = ({choice.gender}, where)
                else:
                    seen[0].add(choice.gender)
        self.rows += 1

    def _code(self, value: object) -> int:
        """A number from 1 for each distinct value; the same for all from the 65,535th."""
        return self._codes.setdefault(value, min(len(self._codes) + 1, 65_535))

    def one_sided(self) -> list[tuple[str, str, str, str]]:
        """(split, occupation, gender, where it is first) of occupations with one gender."""
        return [
            (split, name, next(iter(genders)), where)
            for (split, name), (genders, where) in self.genders.items()
            if len(genders) == 1
        ]

    def check(self, again: Callable[[], Iterator[Placed]], problems: Problems) -> Twins:
        """Note what is wrong with the rows together.

        Args:
            again: reads the same rows once more.
            problems: takes what is wrong. If it has some already, the rows that were not understood
                are missing here, so that nothing is said of twins that are nowhere.

        Raises:
            DataError: more problems than `problems` collects.
        """
        complete = not problems.found
        repeated = self._repeated(problems.limit)
        found = self._groups(problems.limit)
        if not (self.strict and complete):
            found.alone = []
        crowded = [rows for rows, _ in found.crowds]
        wanted = {n for rows in (*repeated, *found.misfits, *crowded, found.alone) for n in rows}
        if wanted:
            say(_fetch(again(), wanted), repeated, found, problems)
        if self.strict and not problems.found:
            for split, name, only, where in self.one_sided():
                if split == "train":
                    problems.add(
                        where, "gender",
                        f"is {only!r} in every ambiguous row in train that is about {name!r} and "
                        "has a gender; wanted its gender-swapped twins too",
                    )  # fmt: skip
        return Twins(
            found.pairs,
            found.lonely,
            self._untwinned,
            self._untwinned_in_train + found.lonely_in_train,
            self._grouped,
        )

    def _repeated(self, limit: int) -> list[list[int]]:
        """(first row, later row) of the first so many repeated identifiers, in order."""
        ids = _numbers(self._id)
        found: list[tuple[int, int]] = []
        for rows, starts in _groups_of(ids):
            sizes = np.diff(starts, append=len(rows))
            for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
                same = rows[start : start + min(size, limit + 1)].tolist()
                found += [(later, same[0]) for later in same[1:]]
            found = sorted(found)[:limit]
        return [[first, later] for later, first in found]

    def _groups(self, limit: int) -> Together:
        """How the rows with a twin go together; of each thing wrong so many."""
        twins, place = _numbers(self._twin), _numbers(self._place)
        gender, sides, fit = map(_numbers, (self._gender, self._sides, self._fit))
        found = Together()
        for order, starts in _groups_of(twins):
            sizes = np.diff(starts, append=len(order))
            two = starts[sizes == 2]
            first, second = order[two], order[two + 1]
            given = (gender[first] != 0) & (gender[second] != 0)
            same_sides = (sides[first] != 0) & (sides[first] == sides[second])
            wrong = given & ((gender[first] == gender[second]) | same_sides)
            wrong |= fit[first] != fit[second]
            found.pairs += len(two)
            bad = np.stack([place[first[wrong]], place[second[wrong]]], 1) // 2
            found.misfits = sorted([*found.misfits, *bad.tolist()], key=itemgetter(1))[:limit]
            for start, size in zip(starts[sizes > 2], sizes[sizes > 2], strict=True):
                rows = place[order[start : start + min(size, SHOWN)]] // 2
                found.crowds.append((rows.tolist(), int(size)))
            found.crowds = sorted(found.crowds, key=lambda crowd: crowd[0][2])[:limit]
            lonely = place[order[starts[sizes == 1]]]
            found.lonely += len(lonely)
            found.lonely_in_train += int((lonely % 2).sum())
            found.alone = sorted([*found.alone, *np.sort(lonely // 2)[:limit].tolist()])[:limit]
        return found


def _numbers(values: array[int]) -> Places:
    return np.frombuffer(values, values.typecode) if values else np.zeros(0, np.int64)


def _groups_of(hashes: Places) -> Iterator[tuple[Places, Places]]:
    """Places of equal hashes, next to each other, and where each group starts; a part at a time."""
    parts = PARTS if len(hashes) > SMALL else 1
    part = hashes.view(np.uint8)[:: hashes.itemsize] % parts
    for number in range(parts):
        places = np.flatnonzero(part == number)
        places = places[np.argsort(hashes[places], kind="stable")]
        ordered = hashes[places]
        yield places, np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(places)])


def _fetch(rows: Iterator[Placed], wanted: set[int]) -> dict[int, Placed]:
    """The rows of some numbers."""
    found: dict[int, Placed] = {}
    last = max(wanted)
    for number, row in enumerate(rows):
        if number in wanted:
            found[number] = row
        if number == last:
            break
    return found
