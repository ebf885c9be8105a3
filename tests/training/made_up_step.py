"""A small step for tests of rewards and losses."""

from __future__ import annotations

from typing import Any

import torch

from dso.tasks import Choice, Option, tabulate
from dso.training.step import Scored

SIDES = {"he": ("pro", "anti", "neither"), "she": ("anti", "pro", "neither")}


def choices() -> list[Choice]:
    """Two twin pairs with three options, and a question with two."""
    ambiguous = [
        Choice(
            f"{pair}-{word}",
            "ambiguous",
            "Who?",
            tuple(Option(t, side=s) for t, s in zip("ABC", sides, strict=True)),
            occupations=("guard", "nurse")[: 1 + pair],
            twin=f"{pair}",
            first=0,
        )
        for pair in range(2)
        for word, sides in SIDES.items()
    ]
    right = Choice("q", "capability", "2 + 2?", (Option("4"), Option("5")), truth=0)
    return [*ambiguous, right]


def log_probs(seed: int) -> torch.Tensor:
    """(5, 3) log-probabilities of options, some mass left to other answers."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(5, 4, generator=generator, dtype=torch.float64).log_softmax(-1)[:, :3]
    values[4, 2] = -torch.inf
    return values


def scored(values: torch.Tensor | None = None, **changed: Any) -> Scored:
    """The step with the log-probabilities `values`; (0.4, -0.2) is the running gap."""
    settings = {
        "choices": choices(),
        "table": tabulate(choices()),
        "log_probs": log_probs(0) if values is None else values,
        "base_log_probs": log_probs(1),
        "lead": torch.tensor([0.4, -0.2], dtype=torch.float64),
    }
    return Scored(**(settings | changed))
