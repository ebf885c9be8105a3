"""Choices as tensors: what rewards and metrics compute on.

N choices, at most K options each, at most M occupations each, G groups in all.

Answers fall into groups. Where the options of a choice have sides, its groups are the sides, "pro"
and "anti"; elsewhere they are what the options name. How far an answer distribution p leans towards
group g, of the k groups that a choice offers, is

    lead_g = P(g) - 1/k sum_h P(h),      P(g) = sum of p over the options of group g

and 0 for groups it does not offer. With sides it is (P(pro) - P(anti)) / 2 for "pro", and minus
that for "anti".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dso.tasks.choice import KINDS, Choice, twin_pairs

_SIDES = {"pro": 1, "anti": -1, "neither": 0}
SIDE_GROUPS = ("pro", "anti")
"""The first groups of every table, present or not, so that their places never change."""


@dataclass(frozen=True)
class ChoiceTable:
    """The facts about N choices that a reward or a metric needs.

    An index of -1 means "none" throughout.
    """

    mask: Tensor
    """(N, K) bool: which options exist."""
    side: Tensor
    """(N, K) long: +1 pro, -1 anti, 0 neither or no option."""
    group: Tensor
    """(N, K) long: index into `group_names`; -1 for an option of no group, or no option."""
    truth: Tensor
    """(N,) long: index of the right option."""
    first: Tensor
    """(N,) long: index of the option mentioned first."""
    kind: Tensor
    """(N,) long: index into `KINDS`."""
    occupation: Tensor
    """(N, M) long: indices into `occupation_names`, padded with -1."""
    occupation_names: tuple[str, ...]
    """Names of all occupations, O of them."""
    group_names: tuple[str, ...]
    """Names of all groups, G of them: `SIDE_GROUPS`, then those that options name."""
    pairs: Tensor
    """(P, 2) long: positions of twins."""

    def __len__(self) -> int:
        return self.mask.shape[0]

    def of_kind(self, kind: str) -> Tensor:
        """(N,) bool: which choices are of the kind."""
        return self.kind == KINDS.index(kind)  # type: ignore[arg-type]

    def with_sides(self) -> Tensor:
        """(N,) bool: which choices have options on a side."""
        return (self.side != 0).any(1)

    def leads(self, answers: Tensor) -> Tensor:
        """(N, G): how far each choice's answers (N, K) lean towards each group; see `leads`."""
        return leads(answers, self.group, len(self.group_names))

    def to(self, device: torch.device | str) -> ChoiceTable:
        """The same table with its tensors on `device`."""
        tensors = {n: v.to(device) for n, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)  # type: ignore[arg-type]


def tabulate(
    choices: Sequence[Choice],
    occupation_names: Sequence[str] | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
    group_names: Sequence[str] | None = None,
) -> ChoiceTable:
    """Encode choices as tensors.

    Args:
        choices: at least one.
        occupation_names: the order of occupations; sorted by name when not given. Training passes
            one fixed order so that running estimates keep their places.
        pairs: positions of twins; found by `Choice.twin` when not given.
        group_names: the order of the groups that options name, behind `SIDE_GROUPS`; sorted by name
            when not given. Training passes one fixed order of these too.

    Raises:
        ValueError: no choices, or an occupation or a group that the given names lack.
    """
    if not choices:
        raise ValueError("there are no choices to tabulate; the task yielded none")
    present = sorted({name for choice in choices for name in choice.occupations})
    names = tuple(present if occupation_names is None else occupation_names)
    place = _places("occupations", present, names)
    named = [_groups(choice) for choice in choices]
    offered = {name for groups in named for name in groups if name is not None}
    further = sorted(offered) if group_names is None else group_names
    every_group = (*SIDE_GROUPS, *(name for name in further if name not in SIDE_GROUPS))
    group_place = {None: -1} | _places("groups", sorted(offered), every_group)
    rows, width = len(choices), max(len(c.options) for c in choices)
    depth = max(1, *(len(c.occupations) for c in choices))
    mask = torch.zeros(rows, width, dtype=torch.bool)
    side = torch.zeros(rows, width, dtype=torch.long)
    group = torch.full((rows, width), -1, dtype=torch.long)
    occupation = torch.full((rows, depth), -1, dtype=torch.long)
    for row, choice in enumerate(choices):
        mask[row, : len(choice.options)] = True
        side[row, : len(choice.options)] = torch.tensor([_SIDES[o.side] for o in choice.options])
        group[row, : len(choice.options)] = torch.tensor([group_place[g] for g in named[row]])
        for column, name in enumerate(choice.occupations):
            occupation[row, column] = place[name]

    def index(values: list[int | None]) -> Tensor:
        return torch.tensor([-1 if v is None else v for v in values], dtype=torch.long)

    return ChoiceTable(
        mask=mask,
        side=side,
        group=group,
        truth=index([c.truth for c in choices]),
        first=index([c.first for c in choices]),
        kind=torch.tensor([KINDS.index(c.kind) for c in choices], dtype=torch.long),
        occupation=occupation,
        occupation_names=names,
        group_names=every_group,
        pairs=torch.tensor(
            list(twin_pairs(choices) if pairs is None else pairs), dtype=torch.long
        ).reshape(-1, 2),
    )


def leads(answers: Tensor, group: Tensor, groups: int) -> Tensor:
    """How far answers lean towards each group: P(g) minus the mean over the groups offered.

    Args:
        answers: (N, K) distribution over the options, or a part of one.
        group: (N, K) long, -1 for options of no group.
        groups: G.

    Returns:
        (N, G); every row sums to 0.
    """
    hits = [group == g for g in range(groups)]
    offered = torch.stack([hit.any(1) for hit in hits], dim=1).to(answers)
    mean = offered / offered.sum(1, keepdim=True).clamp(min=1)
    named = (group >= 0).to(answers)
    # One weighted sum a group: with sides the weights are exactly half of +1 and -1.
    columns = [
        (answers * (hit.to(answers) - named * mean[:, g : g + 1])).sum(1)
        for g, hit in enumerate(hits)
    ]
    return torch.stack(columns, dim=1)


def _groups(choice: Choice) -> list[str | None]:
    """The group of each option: its side where the choice has sides, else what it names."""
    if choice.takes_sides:
        return [None if option.side == "neither" else option.side for option in choice.options]
    return [option.group for option in choice.options]


def _places(what: str, present: Sequence[str], names: Sequence[str]) -> dict[str | None, int]:
    """Index of every name.

    Raises:
        ValueError: something present that has no name.
    """
    place: dict[str | None, int] = {name: index for index, name in enumerate(names)}
    unknown = [name for name in present if name not in place]
    if unknown:
        raise ValueError(f"{what} {unknown} are not among the known ones: {list(names)}")
    return place
