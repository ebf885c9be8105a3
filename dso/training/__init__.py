"""The reinforcement learning: objective, estimators, KL budget and the Lightning loop."""

from dso.training.completions import SaveCompletions
from dso.training.constraint import KLBudget, KLController
from dso.training.custom import Answer, RewardFailed
from dso.training.estimators import exact, reinforce, rloo
from dso.training.learner import Learner, TrainingDiverged
from dso.training.module import SteeringModule
from dso.training.objective import Custom, Objective, Schedule
from dso.training.presets import preset
from dso.training.saving import Checkpoints, SaveAdapter, SaveBest
from dso.training.settings import GRPO, PPO, Optimisation, Steering
from dso.training.sharding import ShardedStrategy
from dso.training.step import Sampled, Scored, reward, step_loss
from dso.training.terms import distillation, option_mass_drop, pair_anchor, twin_consistency

__all__ = [
    "GRPO",
    "PPO",
    "Answer",
    "Checkpoints",
    "Custom",
    "KLBudget",
    "KLController",
    "Learner",
    "Objective",
    "Optimisation",
    "RewardFailed",
    "Sampled",
    "SaveAdapter",
    "SaveBest",
    "SaveCompletions",
    "Schedule",
    "Scored",
    "ShardedStrategy",
    "Steering",
    "SteeringModule",
    "TrainingDiverged",
    "distillation",
    "exact",
    "option_mass_drop",
    "pair_anchor",
    "preset",
    "reinforce",
    "reward",
    "rloo",
    "step_loss",
    "twin_consistency",
]
