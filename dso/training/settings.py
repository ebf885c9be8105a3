"""Settings of a training run that are neither data nor objective."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from dso.steering.config import RankNorms
from dso.training.clipped import LossType, Scale


@dataclass(frozen=True)
class Steering:
    """Which norms are steered and how."""

    final_norm: bool = False
    """Whether the norm after the last block is steered too (the paper does; then the adapter does
    not fold exactly)."""
    qk_norms: bool = False
    """Whether per-head norms of queries and keys are steered too."""
    vision: bool = False
    """Whether the norms of a vision-language model's image tower and projector are steered too."""
    scale: bool = True
    """Whether a scale a is trained."""
    shift: bool = True
    """Whether a shift b is trained."""
    only_foldable: bool = False
    """Whether a shift is trained only on norms where `dso fold` has a place for it, so that the
    adapter can be written into the base's own weights."""
    rank: int = 0
    """Rank of a low-rank part U Vᵀ h beside scale and shift, an extension of the paper's form; 0 is
    without. It folds into the linear layers that read the norm, not into the norm."""
    rank_norms: RankNorms = "input"
    """Which of the norms steered have the low-rank part: `input` is each block's first norm, `all`
    is every one."""
    rank_rate: float = 0.3
    """The learning rate of the low-rank part, as a share of the others'."""

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise ValueError(f"steering.rank is {self.rank}; wanted a whole number >= 0")
        if self.rank_norms not in get_args(RankNorms):
            raise ValueError(f"steering.rank_norms is {self.rank_norms!r}; wanted input or all")
        if not (self.rank_rate > 0 and math.isfinite(self.rank_rate)):
            raise ValueError(f"steering.rank_rate is {self.rank_rate}; wanted a positive number")


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


@dataclass(frozen=True)
class GRPO:
    """Settings of the estimator grpo."""

    loss_type: LossType = "dapo"
    """How tokens are averaged: grpo (per answer), bnpo and dapo (over all tokens), dr_grpo (over
    the longest possible answers), or cispo (clipped weights instead of a clipped ratio)."""
    scale: Scale = "group"
    """What an advantage is divided by: the standard deviation of its group, of the batch, or
    nothing (none)."""
    clip_low: float = 0.2
    """How far below 1 a token's probability ratio may lie before it loses its gradient."""
    clip_high: float = 0.2
    """How far above."""

    def __post_init__(self) -> None:
        for name, clip in (("clip_low", self.clip_low), ("clip_high", self.clip_high)):
            if not clip > 0:
                raise ValueError(f"grpo.{name} is {clip}; wanted a positive number")
        for name, value, known in (
            ("loss_type", str(self.loss_type), get_args(LossType)),
            ("scale", str(self.scale), get_args(Scale)),
        ):
            if value not in known:
                raise ValueError(f"grpo.{name} is {value!r}; wanted one of {', '.join(known)}")


@dataclass(frozen=True)
class PPO:
    """Settings of the estimator ppo."""

    clip: float = 0.2
    """How far from 1 a token's probability ratio may lie before it loses its gradient."""
    value_rate: float = 1e-2
    """Peak learning rate of the baseline, with the schedule of the adapter's."""
    value_clip: float | None = None
    """How far from its value when the answers were drawn the baseline may move to lower its loss;
    null for no bound."""

    def __post_init__(self) -> None:
        if not self.clip > 0:
            raise ValueError(f"ppo.clip is {self.clip}; wanted a positive number")
        if not (self.value_rate > 0 and math.isfinite(self.value_rate)):
            raise ValueError(f"ppo.value_rate is {self.value_rate}; wanted a positive number")
        if self.value_clip is not None and not self.value_clip > 0:
            raise ValueError(f"ppo.value_clip is {self.value_clip}; wanted a positive number")
