"""Estimators: from log-probabilities and rewards to a loss whose gradient improves the policy.

`exact`: the admissible answers are few, so the expected reward is computed, not sampled:

    loss = - mean_x  sum_y pi(y | x) r(y, x),      pi normalised over the options

The sampled ones see G answers a prompt, drawn from the policy itself, and have in expectation the
gradient of - mean_x E_{y ~ pi(. | x)} r(y, x):

    loss = - mean_{x, g}  (r_xg - b_xg) log pi(y_xg | x)

`reinforce`: b is the mean reward of all other prompts' answers (Williams 1992, with a baseline that
does not see the answer it is for). `rloo`: b is the mean reward of the other answers to the same
prompt (Kool et al. 2019; Ahmadian et al. 2024, arXiv 2402.14740), so that a prompt's own difficulty
cancels. Both leave one out, which keeps them unbiased. `grpo` and `ppo` are in `clipped.py`.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

EstimatorName = Literal["exact", "reinforce", "rloo", "grpo", "ppo"]


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
    _check(log_probs, rewards, "a reward for every option of every choice")
    return -(log_probs.softmax(-1) * rewards).sum(-1).mean()


def reinforce(log_probs: Tensor, rewards: Tensor, baseline: Tensor | None = None) -> Tensor:
    """Policy gradient with a baseline that does not see the answer it is for.

    Args:
        log_probs: (N, G) log-probability of every sampled answer.
        rewards: (N, G).
        baseline: what broadcasts to (N, G): `mean_of_others` when not given.

    Returns:
        A scalar; its gradient counts, not its value.

    Raises:
        ValueError: shapes that differ.
    """
    _check(log_probs, rewards, "a reward for every sampled answer")
    if baseline is None:
        baseline = mean_of_others(rewards)
    return -((rewards - baseline).detach() * log_probs).mean()


def mean_of_others(
    rewards: Tensor, total: Tensor | None = None, prompts: Tensor | float | None = None
) -> Tensor:
    """(N, 1) mean reward of the answers to all other prompts; 0 where there are none.

    Args:
        rewards: (N, G).
        total: sum of the rewards of all prompts; these N when not given. Several processes give
            the sum over all of them.
        prompts: how many prompts `total` is of.
    """
    count = float(len(rewards) if prompts is None else prompts)
    everything = rewards.sum() if total is None else total
    others = everything - rewards.sum(-1, keepdim=True)
    return others / max(1.0, (count - 1) * rewards.shape[1])


def rloo(log_probs: Tensor, rewards: Tensor) -> Tensor:
    """Policy gradient with the mean reward of the prompt's other answers as the baseline.

    Args:
        log_probs: (N, G) log-probability of every sampled answer, G at least 2.
        rewards: (N, G).

    Returns:
        A scalar; its gradient counts, not its value.

    Raises:
        ValueError: shapes that differ, or one answer a prompt.
    """
    _check(log_probs, rewards, "a reward for every sampled answer")
    samples = rewards.shape[1]
    if samples < 2:
        raise ValueError("rloo compares a prompt's answers: sample at least 2 a prompt, got 1")
    baseline = (rewards.sum(-1, keepdim=True) - rewards) / (samples - 1)
    return -((rewards - baseline).detach() * log_probs).mean()


CLIPPED: tuple[EstimatorName, ...] = ("grpo", "ppo")
"""Estimators of the single tokens' probability ratios (`clipped.py`)."""


def _check(log_probs: Tensor, rewards: Tensor, wanted: str) -> None:
    if log_probs.shape != rewards.shape:
        raise ValueError(
            f"log_probs {tuple(log_probs.shape)} and rewards {tuple(rewards.shape)} must have one "
            f"shape: {wanted}"
        )
