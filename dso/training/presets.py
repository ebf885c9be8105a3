"""The presets. `configs/` holds the same as YAML; a test keeps them equal."""

from __future__ import annotations

from typing import Any, Literal, get_args

from dso.sampling import Sampling
from dso.training.constraint import KLBudget
from dso.training.objective import Objective
from dso.training.settings import Optimisation, Steering

Preset = Literal["default", "paper", "rloo", "vlm"]

FOR_LLM: tuple[Preset, ...] = ("default", "paper", "rloo")
"""Those for the language organism, the usual one first."""
FOR_VLM: tuple[Preset, ...] = ("vlm",)
"""Those for the vision-language organism, the usual one first."""

STEPS = 600
"""Training steps of every preset on texts."""
VLM_STEPS = 150
"""Training steps of the preset on pictures, each of which costs as much as several on texts."""
VLM_POOL = 32
"""Prompts of its KL pool in a step."""

SHAPED = Objective(twin_prior=1.0, twin_consistency=0.0, pair_anchor=0.0, option_mass=0.0)
"""What asks for consistency as a reward, which sampled answers can carry and trl knows too."""


def preset(name: Preset) -> dict[str, Any]:
    """Arguments of `SteeringModule` for a preset.

    `default`: every norm but the final one, so that the adapter folds exactly; the sign reward with
    twin consistency and pair anchor. `paper` (arXiv 2512.15926): all norms, the sign reward alone,
    an abstention counts as success, l1, and the KL budget. `rloo`: the default's norms, trained
    from sampled answers with the sign and the twin prior as rewards. `vlm`: the default's
    norms and objective on pictures, with a larger budget, in fewer steps (`steps_of`,
    `data_of`).
    """
    if name == "default":
        return {"steering": Steering(), "objective": Objective()}
    if name == "vlm":
        return {
            "steering": Steering(),
            "objective": Objective(),
            "kl": KLBudget(budget=0.01),
        }
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
    raise ValueError(f"no preset {name!r}; wanted one of {', '.join(get_args(Preset))}")


def steps_of(name: Preset) -> int:
    """Training steps of a preset."""
    return VLM_STEPS if name in FOR_VLM else STEPS


def data_of(name: Preset) -> dict[str, int]:
    """Arguments of `ChoiceDataModule` for a preset, where they are not its defaults."""
    return {"pool_per_step": VLM_POOL} if name in FOR_VLM else {}
