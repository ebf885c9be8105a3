"""Choices as tensors: what rewards and metrics compute on.

N choices, at most K options each, at most M occupations each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dso.tasks.choice import KINDS, Choice, twin_pairs

_SIDES = {"pro": 1, "anti": -1, "neither": 0}


@dataclass(frozen=True)
class ChoiceTable:
    """The facts about N choices that a reward or a metric needs.

    An index of -1 means "none" throughout.
    """

    mask: Tensor
    """(N, K) bool: which options exist."""
    side: Tensor
    """(N, K) long: +1 pro, -1 anti, 0 neither or no option."""
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
    pairs: Tensor
    """(P, 2) long: positions of twins."""

    def __len__(self) -> int:
        return self.mask.shape[0]

    def of_kind(self, kind: str) -> Tensor:
        """(N,) bool: which choices are of the kind."""
        return self.kind == KINDS.index(kind)  # type: ignore[arg-type]

    def to(self, device: torch.device | str) -> ChoiceTable:
        """The same table with its tensors on `device`."""
        tensors = {n: v.to(device) for n, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **tensors)  # type: ignore[arg-type]


def tabulate(
    choices: Sequence[Choice],
    occupation_names: Sequence[str] | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
) -> ChoiceTable:
    """Encode choices as tensors.

    Args:
        choices: at least one.
        occupation_names: the order of occupations; sorted by name when not given. Training passes
            one fixed order so that running estimates keep their places.
        pairs: positions of twins; found by `Choice.twin` when not given.

    Raises:
        ValueError: no choices, or an occupation that `occupation_names` lacks.
    """
    if not choices:
        raise ValueError("there are no choices to tabulate; the task yielded none")
    present = sorted({name for choice in choices for name in choice.occupations})
    names = tuple(present if occupation_names is None else occupation_names)
    place = {name: index for index, name in enumerate(names)}
    unknown = [name for name in present if name not in place]
    if unknown:
        raise ValueError(f"occupations {unknown} are not among the known ones: {list(names)}")
    rows, width = len(choices), max(len(c.options) for c in choices)
    depth = max(1, *(len(c.occupations) for c in choices))
    mask = torch.zeros(rows, width, dtype=torch.bool)
    side = torch.zeros(rows, width, dtype=torch.long)
    occupation = torch.full((rows, depth), -1, dtype=torch.long)
    for row, choice in enumerate(choices):
        mask[row, : len(choice.options)] = True
        side[row, : len(choice.options)] = torch.tensor([_SIDES[o.side] for o in choice.options])
        for column, name in enumerate(choice.occupations):
            occupation[row, column] = place[name]

    def index(values: list[int | None]) -> Tensor:
        return torch.tensor([-1 if v is None else v for v in values], dtype=torch.long)

    return ChoiceTable(
        mask=mask,
        side=side,
        truth=index([c.truth for c in choices]),
        first=index([c.first for c in choices]),
        kind=torch.tensor([KINDS.index(c.kind) for c in choices], dtype=torch.long),
        occupation=occupation,
        occupation_names=names,
        pairs=torch.tensor(
            list(twin_pairs(choices) if pairs is None else pairs), dtype=torch.long
        ).reshape(-1, 2),
    )
