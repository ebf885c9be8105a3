"""The presets. `configs/` holds the same as YAML; a test keeps them equal."""

from __future__ import annotations

from typing import Any, Literal

from dso.sampling import Sampling
from dso.training.constraint import KLBudget
from dso.training.objective import Objective
from dso.training.settings import Optimisation, Steering

Preset = Literal["default", "paper", "rloo"]

STEPS = 600
"""Training steps of every preset."""

SHAPED = Objective(twin_prior=1.0, twin_consistency=0.0, pair_anchor=0.0, option_mass=0.0)
"""What asks for consistency as a reward, which sampled answers can carry and trl knows too."""


def preset(name: Preset) -> dict[str, Any]:
    """Arguments of `SteeringModule` for a preset.

    `default`: every norm but the final one, so that the adapter folds exactly; the sign reward with
    twin consistency and pair anchor. `paper` (arXiv 2512.15926): all norms, the sign reward alone,
    an abstention counts as success, l1, and the KL budget. `rloo`: the default's norms, trained
    from sampled answers with the sign and the twin prior as rewards.
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
    if name == "rloo":
        return {
            "steering": Steering(),
            "estimator": "rloo",
            "sampling": Sampling(samples=4),
            "objective": SHAPED,
        }
    raise ValueError(f"no preset {name!r}; wanted 'default', 'paper' or 'rloo'")
