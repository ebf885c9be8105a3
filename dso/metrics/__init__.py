"""Metrics of bias, capability and position: pure functions, intervals, and one torchmetrics class.

`measure` gives every figure with its interval; the other functions are its parts.
"""

from dso.metrics.accuracy import abstention, accuracy
from dso.metrics.answers import (
    answer_distribution,
    greedy_answers,
    option_mass,
    sampled_answers,
)
from dso.metrics.collection import ChoiceMetrics
from dso.metrics.divergence import kl_divergence
from dso.metrics.intervals import Clusters, bootstrap_intervals, cluster_by_occupation
from dso.metrics.measure import ESTIMATES, Measurement, measure, point_values
from dso.metrics.parity import (
    flip_rate,
    per_occupation_bias,
    per_occupation_gap,
    per_sample_parity,
    pro_minus_anti,
    stereotype_gap,
    total_variation,
)
from dso.metrics.position import first_preference, position_bias, position_shift
from dso.metrics.weighting import weighted_mean

__all__ = [
    "ESTIMATES",
    "ChoiceMetrics",
    "Clusters",
    "Measurement",
    "abstention",
    "accuracy",
    "answer_distribution",
    "bootstrap_intervals",
    "cluster_by_occupation",
    "first_preference",
    "flip_rate",
    "greedy_answers",
    "kl_divergence",
    "measure",
    "option_mass",
    "per_occupation_bias",
    "per_occupation_gap",
    "per_sample_parity",
    "point_values",
    "position_bias",
    "position_shift",
    "pro_minus_anti",
    "sampled_answers",
    "stereotype_gap",
    "total_variation",
    "weighted_mean",
]
