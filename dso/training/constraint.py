"""The KL budget: a multiplier that holds KL(steered || base) at a budget epsilon.

    e  = clip( EMA(KL) / epsilon - 1, -1, 2 )
    mu = exp( I + P e ),      I <- I + G e

A proportional-integral controller on the logarithm of the multiplier. The smoothed estimate and the
clipped error bound how fast it moves; on the logarithm a step is a factor, so one setting serves
budgets of any size. Plain dual ascent (mu <- max(0, mu + eta (KL - epsilon))) overshoots.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class KLBudget:
    """How far the steered model may move from its base on prompts that are not ambiguous."""

    budget: float = 0.003
    """Epsilon: mean next-token KL(steered || base) at the answers of the pool, in nats."""
    smoothing: float = 0.9
    """Weight that the moving average of the KL gives to its past."""
    proportional: float = 0.7
    """P: how strongly the multiplier answers the present error."""
    integral: float = 0.05
    """G: how fast the multiplier adapts to a lasting error."""
    initial: float = 1.0
    """Multiplier at the first step."""
    maximum: float = 1e4
    """Bound of exp(I), the multiplier's integral part: it stays from 1 / maximum to maximum."""

    def __post_init__(self) -> None:
        if not (self.budget > 0 and math.isfinite(self.budget)):
            raise ValueError(f"the KL budget is {self.budget}; wanted a positive number of nats")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing is {self.smoothing}; wanted a number in [0, 1)")
        for name in ("proportional", "integral"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ValueError(f"{name} is {value}; wanted a number >= 0")
        if not (self.maximum >= 1 and math.isfinite(self.maximum)):
            raise ValueError(f"maximum is {self.maximum}; wanted a number >= 1")
        if not 1 / self.maximum <= self.initial <= self.maximum:
            raise ValueError(
                f"initial is {self.initial}; wanted a number from 1 / maximum to maximum, which is "
                f"{self.maximum}"
            )


class KLController:
    """The controller's state; one `update` a step."""

    def __init__(self, config: KLBudget) -> None:
        self.config = config
        self.integral = math.log(config.initial)
        self.average: float | None = None

    @property
    def multiplier(self) -> float:
        """mu for the next loss."""
        return math.exp(self.integral + self.config.proportional * self._error())

    def update(self, kl: float) -> None:
        """Take in one measured KL (nats, finite)."""
        if not math.isfinite(kl):
            raise ValueError(f"the KL is {kl}; a controller cannot act on that")
        past = self.config.smoothing
        self.average = kl if self.average is None else past * self.average + (1 - past) * kl
        bound = math.log(self.config.maximum)
        moved = self.integral + self.config.integral * self._error()
        self.integral = min(bound, max(-bound, moved))

    def _error(self) -> float:
        if self.average is None:
            return 0.0
        return min(2.0, max(-1.0, self.average / self.config.budget - 1.0))

    def state_dict(self) -> dict[str, float | None]:
        """What a checkpoint keeps."""
        return {"integral": self.integral, "average": self.average}

    def load_state_dict(self, state: dict[str, float | None]) -> None:
        """Restore what `state_dict` returned."""
        self.integral = state["integral"] or 0.0
        self.average = state["average"]
