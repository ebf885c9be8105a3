"""Settings of a training run that are neither data nor objective."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Steering:
    """Which norms are steered and how."""

    final_norm: bool = False
    """Whether the norm after the last block is steered too (the paper does; then the adapter does
    not fold exactly)."""
    qk_norms: bool = False
    """Whether per-head norms of queries and keys are steered too."""
    scale: bool = True
    """Whether a scale a is trained."""
    shift: bool = True
    """Whether a shift b is trained."""


@dataclass(frozen=True)
class Optimisation:
    """Adam with warm-up and a cosine decay to zero."""

    learning_rate: float = 2e-2
    """Peak rate. The vectors start at 0 and the way they go matters: too small a rate is the usual
    failure."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Adam's decay rates."""
    warmup: int = 20
    """Steps over which the rate rises linearly."""

    def __post_init__(self) -> None:
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning_rate is {self.learning_rate}; wanted a positive number")
        if self.warmup < 0:
            raise ValueError(f"warmup is {self.warmup}; wanted a number of steps >= 0")

    def factor(self, step: int, steps: int) -> float:
        """The rate at a step, as a share of the peak."""
        warm = min(1.0, (step + 1) / (self.warmup + 1))
        return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, steps))))
