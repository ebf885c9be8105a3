"""A model's answers as tensors: expected, greedy and sampled.

`log_probs` (N, K) holds the log of the model's own probability of each option, surface forms
summed; padding is -inf. Three estimates of the answers, each (N, K) in float64:

    probability   p_k = pi_k / sum_j pi_j             expected answers over the options ("soft")
    greedy        1 at argmax_k pi_k                  the lowest index wins a tie
    sampled       1 at k with probability pi_k        a row of zeros with probability 1 - sum_k pi_k

A row of zeros is "no answer": the model said something that is no option. It counts as abstention.

Source: arXiv 2512.15926, section 3; the option mass sum_k pi_k is an addition. It shows a broken
model that would look fair once it is normalised over the options.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SLACK = 1e-2
"""By how much the options' total may exceed 1 through rounding (bfloat16 logits)."""


def answer_distribution(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Probability of each option among the options.

    Args:
        log_probs: (N, K), padding ignored.
        mask: (N, K) bool, which options exist.

    Returns:
        (N, K) float64; rows sum to 1, padding is 0.

    Raises:
        ValueError: wrong shapes, no choices, NaN or +inf, or a choice all of whose options have
            probability zero.
    """
    return _checked(log_probs, mask).softmax(dim=1)


def greedy_answers(log_probs: Tensor, mask: Tensor) -> Tensor:
    """The most likely option, one-hot; of equally likely ones the first.

    Args:
        log_probs: (N, K), padding ignored.
        mask: (N, K) bool, which options exist.

    Returns:
        (N, K) float64 of zeros and ones; rows sum to 1.

    Raises:
        ValueError: as `answer_distribution`.
    """
    return _one_hot(_checked(log_probs, mask).argmax(dim=1), log_probs.shape[1])


def sampled_answers(log_probs: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """One draw per choice from the model's own probabilities, one-hot; zeros for no answer.

    Args:
        log_probs: (N, K), true log-probabilities; padding ignored.
        mask: (N, K) bool, which options exist.
        generator: source of the draws.

    Returns:
        (N, K) float64 of zeros and ones; rows sum to 1, or to 0 where no option was drawn.

    Raises:
        ValueError: as `answer_distribution`, or options whose probabilities sum to more than 1.
    """
    checked = _checked(log_probs, mask)
    mass = option_mass(checked)
    # Rounding may push the total above 1; the draw must not favour the first options for it.
    probabilities = checked.exp() / checked.exp().sum(1, keepdim=True) * mass.unsqueeze(1)
    uniform = torch.rand(
        checked.shape[0], 1, generator=generator, device=generator.device, dtype=torch.float64
    ).to(checked.device)
    drawn = (uniform >= probabilities.cumsum(1)).sum(1)
    return _one_hot(drawn, checked.shape[1] + 1)[:, :-1]


def option_mass(log_probs: Tensor) -> Tensor:
    """Probability the model puts on the admissible answers together.

    Args:
        log_probs: (N, K), true log-probabilities; padding is -inf.

    Returns:
        (N,) float64 in [0, 1]. A total above 1 by no more than rounding is cut to 1.

    Raises:
        ValueError: a wrong shape, no choices, NaN, or a total above 1 (logits instead of
            log-probabilities, or a surface form counted twice).
    """
    _check_values(log_probs)
    mass = log_probs.double().exp().sum(dim=1)
    if bool((mass > 1 + _SLACK).any()):
        row = int(mass.argmax())
        raise ValueError(
            f"the options of choice {row} have a total probability of {float(mass[row]):.4g}; "
            "log_probs must be log-probabilities, with every surface form counted once"
        )
    return mass.clamp(max=1.0)


def _check_values(log_probs: Tensor) -> None:
    if log_probs.ndim != 2 or log_probs.shape[0] == 0:
        raise ValueError(
            f"log_probs must have shape (N, K) with N of at least 1; got {tuple(log_probs.shape)}"
        )
    if bool((log_probs.isnan() | log_probs.isposinf()).any()):
        row = int((log_probs.isnan() | log_probs.isposinf()).any(1).nonzero()[0])
        raise ValueError(f"log_probs of choice {row} are {log_probs[row].tolist()}")


def _checked(log_probs: Tensor, mask: Tensor) -> Tensor:
    """`log_probs` as float64 with -inf at the padding."""
    if mask.shape != log_probs.shape:
        raise ValueError(
            f"log_probs have shape {tuple(log_probs.shape)} and mask {tuple(mask.shape)}; wanted "
            "the same (N, K)"
        )
    masked = log_probs.double().masked_fill(~mask, -torch.inf)
    _check_values(masked)
    dead = masked.isneginf().all(1)
    if bool(dead.any()):
        raise ValueError(
            f"all options of choice {int(dead.nonzero()[0])} have probability zero "
            f"({int(dead.sum())} of {dead.numel()} choices are so); there is no answer to measure"
        )
    return masked


def _one_hot(index: Tensor, width: int) -> Tensor:
    return torch.nn.functional.one_hot(index, width).double()
