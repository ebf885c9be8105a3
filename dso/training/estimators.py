"""Estimators: from log-probabilities and rewards to a loss whose gradient improves the policy.

`exact`: the admissible answers are few, so the expected reward is computed, not sampled:

    loss = - mean_x  sum_y pi(y | x) r(y, x),      pi normalised over the options

Its gradient is what every sampled estimator approximates.
"""

from __future__ import annotations

from torch import Tensor


def exact(log_probs: Tensor, rewards: Tensor) -> Tensor:
    """Negative expected reward.

    Args:
        log_probs: (N, K) log-probability of every option, -inf where there is none.
        rewards: (N, K).

    Returns:
        A scalar.

    Raises:
        ValueError: shapes that differ.
    """
    if log_probs.shape != rewards.shape:
        raise ValueError(
            f"log_probs {tuple(log_probs.shape)} and rewards {tuple(rewards.shape)} must have one "
            "shape: a reward for every option of every choice"
        )
    return -(log_probs.softmax(-1) * rewards).sum(-1).mean()
