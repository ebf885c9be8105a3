"""Weighted means over samples, with leading dimensions for bootstrap replicates.

    mean_w(x) = sum_i w_i x_i / sum_i w_i

Values have shape (N,), weights (..., N), the result (...). No weights means equal weights. A
replicate whose weights are all zero has no mean and gets NaN, which `intervals` drops; no samples
at all is an error.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SLACK = 1e-4
"""By how much a row of probabilities may exceed 1 through rounding."""


def weighted_mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of `values` (N,) under `weights` (..., N), as float64 of shape (...).

    Raises:
        ValueError: no samples, or weights of another length, negative or not finite.
    """
    if values.ndim != 1 or values.shape[0] == 0:
        raise ValueError(
            f"a mean needs values of shape (N,) with N of at least 1; got {tuple(values.shape)}"
        )
    values = values.double()
    if weights is None:
        return values.mean()
    weights = check_weights(weights, values.shape[0])
    return (weights @ values) / weights.sum(-1)


def check_weights(weights: Tensor, samples: int) -> Tensor:
    """`weights` as float64, after checking that they are (..., samples), finite and not negative.

    Raises:
        ValueError: they are not.
    """
    if weights.ndim == 0 or weights.shape[-1] != samples:
        raise ValueError(
            f"weights have shape {tuple(weights.shape)}; wanted (..., {samples}), one per sample"
        )
    weights = weights.double()
    if not bool((weights.isfinite() & (weights >= 0)).all()):
        raise ValueError("weights must be finite and not negative")
    return weights


def check_answers(answers: Tensor) -> Tensor:
    """`answers` (N, K) as float64, after checking that every row is a distribution or part of one.

    Raises:
        ValueError: no samples, a wrong shape, or rows that are not probabilities.
    """
    if answers.ndim != 2 or answers.shape[0] == 0:
        raise ValueError(
            f"answers must have shape (N, K) with N of at least 1; got {tuple(answers.shape)}"
        )
    answers = answers.double()
    valid = answers.isfinite().all(1) & (answers >= 0).all(1) & (answers.sum(1) <= 1 + _SLACK)
    if not bool(valid.all()):
        row = int((~valid).nonzero()[0])
        raise ValueError(
            f"answers must be probabilities that sum to at most 1; row {row} is "
            f"{[round(p, 4) for p in answers[row].tolist()]} (log-probabilities go through "
            "answer_distribution first)"
        )
    return answers


def check_sides(answers: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
    """`answers` and `side` (N, K), after checking that every choice has an option on a side.

    Raises:
        ValueError: shapes differ, a side is not +1, -1 or 0, or a choice has no sides.
    """
    answers = check_answers(answers)
    if side.shape != answers.shape:
        raise ValueError(
            f"side has shape {tuple(side.shape)} and answers {tuple(answers.shape)}; wanted one"
        )
    if not bool((side.abs() <= 1).all()):
        raise ValueError("side must be +1 (pro), -1 (anti) or 0 (neither)")
    without = (side == 0).all(1)
    if bool(without.any()):
        row = int(without.nonzero()[0])
        raise ValueError(
            f"choice {row} has no option on either side; keep the ambiguous choices only"
        )
    return answers, side


def check_groups(answers: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """`answers` and `group` (N, K), after checking that every choice offers two groups or more.

    Raises:
        ValueError: shapes differ, or a choice whose options name fewer groups.
    """
    answers = check_answers(answers)
    if group.shape != answers.shape:
        raise ValueError(
            f"group has shape {tuple(group.shape)} and answers {tuple(answers.shape)}; wanted one"
        )
    highest = group.max(dim=1, keepdim=True).values
    alone = ((group < 0) | (group == highest)).all(1)
    if bool(alone.any()):
        row = int(alone.nonzero()[0])
        raise ValueError(
            f"choice {row} has options of fewer than two groups: {group[row].tolist()}; keep only "
            "the choices that have more"
        )
    return answers, group


def check_pairs(pairs: Tensor, samples: int) -> Tensor:
    """`pairs` (P, 2), after checking that there are some and that they are positions of samples.

    Raises:
        ValueError: they are not.
    """
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.shape[0] == 0:
        raise ValueError(
            f"pairs must have shape (P, 2) with P of at least 1; got {tuple(pairs.shape)}"
        )
    if not bool(((pairs >= 0) & (pairs < samples)).all()):
        raise ValueError(f"pairs must be positions of the {samples} samples, 0 to {samples - 1}")
    return pairs


def index_per_sample(index: Tensor, answers: Tensor, name: str) -> Tensor:
    """`index` (N,) as (N, 1), after checking that it names an option of every sample.

    Raises:
        ValueError: a wrong shape, or a sample without such an option.
    """
    rows, width = answers.shape
    if index.shape != (rows,):
        raise ValueError(f"{name} has shape {tuple(index.shape)}; wanted ({rows},)")
    outside = (index < 0) | (index >= width)
    if bool(outside.any()):
        row = int(outside.nonzero()[0])
        raise ValueError(
            f"{name} of choice {row} is {int(index[row])}, no option (0 to {width - 1}); keep only "
            f"the choices that have one"
        )
    return torch.unsqueeze(index, 1)
