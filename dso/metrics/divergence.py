"""How far is the steered model from its base?

    KL(p || q) = sum_v p_v (log p_v - log q_v)        in nats, over the whole vocabulary

p is the steered model, q the base (arXiv 2512.15926, section 4). A token of probability 0 under p
adds nothing; a token that only q excludes makes the divergence infinite.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SLACK = 0.1
"""By how much a log-softmax may miss a total of 1, as a log: bfloat16 rounds by about 0.03."""


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) of every row, differentiable in both.

    Args:
        log_p: (..., V), full log-softmax vectors.
        log_q: (..., V), the same shape.

    Returns:
        (...) in nats, float32 or float64 (half precision is raised to float32). Rounding may leave
        a value slightly below 0.

    Raises:
        ValueError: shapes differ, or a row is no log-softmax.
    """
    if log_p.shape != log_q.shape or log_p.ndim == 0:
        raise ValueError(
            f"log_p has shape {tuple(log_p.shape)} and log_q {tuple(log_q.shape)}; wanted the same "
            "(..., V)"
        )
    if log_p.numel() == 0:
        raise ValueError(f"there is nothing to compare: log_p has shape {tuple(log_p.shape)}")
    log_p, log_q = (_full_precision(x) for x in (log_p, log_q))
    for name, x in (("log_p", log_p), ("log_q", log_q)):
        total = x.detach().logsumexp(-1)
        # Written so that NaN fails too.
        if not bool((total.abs() <= _SLACK).all()):
            raise ValueError(
                f"{name} must be log-softmax vectors over the whole vocabulary; a row sums to "
                f"exp({float(total.flatten()[int(total.abs().argmax())]):.4g}) instead of 1"
            )
    # Filled before multiplying: 0 * inf would be NaN in the value and in the gradient.
    ratio = (log_p - log_q).masked_fill(log_p.isneginf(), 0.0)
    return (log_p.exp() * ratio).sum(dim=-1)


def _full_precision(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
