"""Steering adapters for language models: train by reinforcement learning, load with a knob.

The dozen names most users need; each room's own `__init__` lists the rest.
"""

from dso import _noise  # noqa: F401
from dso.evaluation import evaluate
from dso.inference import SteeredPipeline, load
from dso.policy import Policy
from dso.steering import (
    SteeringConfig,
    attach,
    fold,
    load_adapter,
    save_adapter,
    sparsify,
)
from dso.tasks import Choice, Coreference, Option, Own, SynthBias, WinoBias
from dso.training import Objective, SteeringModule

__version__ = "0.1.0"

__all__ = [
    "Choice",
    "Coreference",
    "Objective",
    "Option",
    "Own",
    "Policy",
    "SteeredPipeline",
    "SteeringConfig",
    "SteeringModule",
    "SynthBias",
    "WinoBias",
    "attach",
    "evaluate",
    "fold",
    "load",
    "load_adapter",
    "save_adapter",
    "sparsify",
]
