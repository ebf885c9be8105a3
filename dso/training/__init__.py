"""The reinforcement learning: objective, estimators, KL budget and the Lightning loop."""

from dso.training.constraint import KLBudget, KLController
from dso.training.estimators import exact, reinforce, rloo
from dso.training.module import SteeringModule, TrainingDiverged
from dso.training.objective import Objective, step_loss
from dso.training.presets import preset
from dso.training.saving import SaveAdapter
from dso.training.settings import GRPO, Optimisation, Steering
from dso.training.terms import option_mass_drop, pair_anchor, twin_consistency

__all__ = [
    "GRPO",
    "KLBudget",
    "KLController",
    "Objective",
    "Optimisation",
    "SaveAdapter",
    "Steering",
    "SteeringModule",
    "TrainingDiverged",
    "exact",
    "option_mass_drop",
    "pair_anchor",
    "preset",
    "reinforce",
    "rloo",
    "step_loss",
    "twin_consistency",
]
