"""What keeps rows from going together, in words: repeated identifiers, twins that do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from dso.tasks.choice import Choice
from dso.tasks.files.problems import Problems

Placed = tuple[str, Choice, str]
"""Where a choice stands, the choice, and the split it belongs to."""

SHOWN = 5
"""Rows of too many twins that are named."""


@dataclass
class Together:
    """How rows with a twin go together; of what is wrong the first, by number of the row."""

    pairs: int = 0
    lonely: int = 0
    lonely_in_train: int = 0
    misfits: list[list[int]] = field(default_factory=list)
    crowds: list[tuple[list[int], int]] = field(default_factory=list)
    """(the first rows, how many there are)"""
    alone: list[int] = field(default_factory=list)


def say(
    rows: dict[int, Placed], repeated: list[list[int]], found: Together, problems: Problems
) -> None:
    """Note what the texts of the rows confirm."""
    for a, b in repeated:
        (there, one, _), (here, other, _) = rows[a], rows[b]
        if one.id == other.id:
            problems.add(
                here, "id",
                f"{one.id!r} is the id of {there} too; wanted one that no other row has (a row "
                "without an id has file name and line as its id)",
            )  # fmt: skip
    for crowd, size in found.crowds:
        (twin, number), *_ = Counter(rows[n][1].twin for n in crowd).most_common(1)
        if number < 3:
            continue
        places = [where for where, choice, _ in (rows[n] for n in crowd) if choice.twin == twin]
        more = ", ..." if size > SHOWN else ""
        problems.add(
            places[2], "twin",
            f"{twin!r} is shared by {size} rows, wanted two: {'; '.join(places)}{more}",
        )  # fmt: skip
    for a, b in found.misfits:
        for name, message in _misfit(rows[b], rows[a]):
            problems.add(rows[b][0], name, message)
    for n in found.alone:
        where, choice, _ = rows[n]
        wanted = "two rows that differ in gender" if choice.takes_sides else "two rows, or no twin"
        problems.add(
            where, "twin",
            f"{choice.twin!r} stands in this row only; wanted {wanted} (unpaired: leave_out goes "
            "on without it)",
        )  # fmt: skip


def named_groups(choice: Choice) -> tuple[str | None, ...] | None:
    """What the options of a row of groups name; None for other rows."""
    if choice.kind != "ambiguous" or choice.takes_sides:
        return None
    return tuple([option.group for option in choice.options])


def _misfit(row: Placed, twin: Placed) -> Iterator[tuple[str, str]]:
    """(field, why) for everything that keeps a choice and its twin from being twins."""
    _, choice, split = row
    where, other, its_split = twin
    its = f"its twin in {where}"
    texts, others = ([option.text for option in c.options] for c in (choice, other))
    if texts != others:
        yield "options", f"are {texts}, but {its} has {others}; wanted the same in the same order"
    same = (("kind", choice.kind, other.kind), ("split", split, its_split))
    for name, mine, theirs in same:
        if mine != theirs:
            yield name, f"is {mine!r}, but {its} has {theirs!r}; wanted the same"
    groups, its_groups = (named_groups(c) for c in (choice, other))
    if texts == others and choice.kind == other.kind and groups != its_groups:
        mine, theirs = (f"name {list(g)}" if g else "take sides" for g in (groups, its_groups))
        yield "options", f"{mine}, but those of {its} {theirs}; wanted the same groups, or sides"
    if not (choice.gender and other.gender):
        return
    sides, their_sides = ([option.side for option in c.options] for c in (choice, other))
    sided = choice.kind == other.kind == "ambiguous" and choice.takes_sides
    if choice.gender == other.gender:
        yield "gender", f"is {choice.gender!r}, and so is that of {its}; twins differ in gender"
    elif sided and (texts, sides) == (others, their_sides):
        yield (
            "options",
            f"take the sides {sides}, and so do those of {its}; swapping the gender swaps pro and "
            "anti",
        )
