"""Several rewards of the same answers: their spread within a prompt's group, and their sum.

A group is what is compared: the answers to one prompt. Its mean and spread are those over the
answers sampled, or, where every option has a reward, those under the policy's own distribution,
which is what many samples would give:

    mean = sum_y p(y) r(y),      spread = sqrt( sum_y p(y) (r(y) - mean)^2 )

`sum` adds rewards by their weights. `normalised` first makes each (r - mean) / (spread + epsilon),
so that a reward of large numbers does not drown the others. A group whose rewards are all alike
carries no signal: its advantages are 0.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dso.training.objective import Combine

EPSILON = 1e-4
"""Added to a spread that is divided by."""
NO_SIGNAL = 1e-6
"""A spread of at most this is none."""


def spread(rewards: Tensor, probabilities: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(mean, spread) of each row, (N, 1) both.

    Args:
        rewards: (N, A), of A answers.
        probabilities: (N, A), rows sum to 1; alike for all answers when not given, and then the
            spread has Bessel's correction, that of a single answer being 0.
    """
    if probabilities is not None:
        mean = (probabilities * rewards).sum(-1, keepdim=True)
        variance = (probabilities * (rewards - mean).square()).sum(-1, keepdim=True)
        return mean, variance.sqrt()
    # From each row's first, so that equal rewards have spread 0 and no rounding error.
    centred = rewards - rewards[:, :1]
    mean = centred.mean(-1, keepdim=True)
    deviation = centred.std(-1, keepdim=True) if rewards.shape[1] > 1 else torch.zeros_like(mean)
    return mean + rewards[:, :1], deviation


def combined(
    rewards: Mapping[str, Tensor],
    weights: Mapping[str, float],
    combine: Combine = "sum",
    probabilities: Tensor | None = None,
) -> Tensor:
    """(N, A) the rewards of one population as one; (N, A) zeros where all weights are 0.

    Args:
        rewards: by name, (N, A) each, at least one.
        weights: by name.
        combine: see the module.
        probabilities: as for `spread`.
    """
    total: Tensor | None = None
    for name, values in rewards.items():
        if weights[name] == 0:
            continue
        part = weights[name] * values
        if combine == "normalised":
            mean, deviation = spread(values, probabilities)
            part = weights[name] * (values - mean) / (deviation + EPSILON)
        total = part if total is None else total + part
    return torch.zeros_like(next(iter(rewards.values()))) if total is None else total
