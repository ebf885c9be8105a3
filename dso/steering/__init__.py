"""Steering adapters for frozen language models: h' = h + ω (a ⊙ h + b) behind every norm.

Importing this package makes the method known to peft, so that `PeftModel.from_pretrained` loads
its adapters. Source: arXiv 2512.15926.
"""

from dso.steering.backbone import find_norms, fingerprint, language_backbone
from dso.steering.config import SteeringConfig
from dso.steering.fold import Folded, fold
from dso.steering.folder import RECORD_NAME, attach, load_adapter, save_adapter
from dso.steering.layer import AffineSteering, affine, low_rank
from dso.steering.readers import CannotFold
from dso.steering.sparsity import neurons_kept, soft_threshold_, sparsify, sparsity
from dso.steering.strength import Strength
from dso.steering.summary import NormSummary, SteeringSummary
from dso.steering.tuner import SteeringModel, register

__all__ = [
    "RECORD_NAME",
    "AffineSteering",
    "CannotFold",
    "Folded",
    "NormSummary",
    "SteeringConfig",
    "SteeringModel",
    "SteeringSummary",
    "Strength",
    "affine",
    "attach",
    "find_norms",
    "fingerprint",
    "fold",
    "language_backbone",
    "load_adapter",
    "low_rank",
    "neurons_kept",
    "register",
    "save_adapter",
    "soft_threshold_",
    "sparsify",
    "sparsity",
]

register()
