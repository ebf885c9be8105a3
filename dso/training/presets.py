"""The two presets. `configs/` holds the same as YAML; a test keeps them equal."""

from __future__ import annotations

from typing import Any, Literal

from dso.training.constraint import KLBudget
from dso.training.objective import Objective
from dso.training.settings import Optimisation, Steering

Preset = Literal["default", "paper"]

STEPS = 600
"""Training steps of both presets."""


def preset(name: Preset) -> dict[str, Any]:
    """Arguments of `SteeringModule` for a preset.

    `default`: every norm but the final one, so that the adapter folds exactly; the sign reward with
    twin consistency and pair anchor. `paper` (arXiv 2512.15926): all norms, the sign reward alone,
    an abstention counts as success, l1, and the KL budget.
    """
    if name == "default":
        return {"steering": Steering(), "objective": Objective()}
    if name == "paper":
        return {
            "steering": Steering(final_norm=True),
            "objective": Objective(twin_consistency=0.0, pair_anchor=0.0, abstention=1.0, l1=0.01),
            "kl": KLBudget(budget=0.02),
            "optimisation": Optimisation(learning_rate=1e-2),
        }
    raise ValueError(f"no preset {name!r}; wanted 'default' or 'paper'")
