"""Does the answer depend on where the option stands?

First is the occupation mentioned first (coreference) or the person on the left (images). A model
that always answers it has Per-Occupation Bias 0 on balanced data; it is not fair.

    F               = P(first) + 1/2 P(neither or no answer)
    position bias   = |mean over samples of F - 1/2|
    position shift  = mean over twin pairs of |mean over the twins of (F - F of the base model)|

F is P(first) wherever nobody abstains; an abstention takes no position, so it counts as half of
each and cannot look like a position bias. The shift averages over the twins first, so that removing
a stereotype (which moves the twins in opposite directions) does not count as a shift; unlike the
bias it does not cancel across sentences.

`answers` (N, K) is one of the estimates in `answers`; `weights` may carry leading bootstrap
dimensions, which the result keeps.

Source: an addition to arXiv 2512.15926.
"""

from __future__ import annotations

from torch import Tensor

from dso.metrics.weighting import check_pairs, check_sides, index_per_sample, weighted_mean

_SLACK = 1e-4
"""By how much a probability may leave [0, 1] through rounding."""


def first_preference(answers: Tensor, first: Tensor, side: Tensor) -> Tensor:
    """P(first), with an abstention counted as half.

    Args:
        answers: (N, K).
        first: (N,) long, index of the option that stands first.
        side: (N, K) long: +1 pro, -1 anti, 0 neither.

    Returns:
        (N,) float64 in [0, 1]; 1/2 is no preference.

    Raises:
        ValueError: wrong shapes, no samples, or a choice without a first option or without sides.
    """
    answers, side = check_sides(answers, side)
    index = index_per_sample(first, answers, "first")
    at_first = answers.gather(1, index).squeeze(1)
    # The option that stands first is none of the others, whichever side it takes.
    elsewhere = (answers * side.abs()).scatter(1, index, 0.0).sum(dim=1)
    return (1 + at_first - elsewhere) / 2


def position_bias(
    answers: Tensor, first: Tensor, side: Tensor, weights: Tensor | None = None
) -> Tensor:
    """|P(first) - 1/2| over all samples, an abstention counted as half.

    Args:
        answers: (N, K).
        first: (N,) long, index of the option that stands first.
        side: (N, K) long.
        weights: (..., N).

    Returns:
        (...) float64 in [0, 1/2].

    Raises:
        ValueError: as `first_preference`.
    """
    return weighted_mean(first_preference(answers, first, side) - 0.5, weights).abs()


def position_shift(
    preference: Tensor, base_preference: Tensor, pairs: Tensor, weights: Tensor | None = None
) -> Tensor:
    """How far steering moved the preference for the first option, pair by pair.

    Args:
        preference: (N,) of the steered model, from `first_preference`.
        base_preference: (N,) of the base model on the same choices.
        pairs: (P, 2) long, positions of twins.
        weights: (..., P), one per pair.

    Returns:
        (...) float64 in [0, 1].

    Raises:
        ValueError: preferences of different shapes or that are no probabilities, or no pairs.
    """
    if preference.ndim != 1 or preference.shape != base_preference.shape:
        raise ValueError(
            f"preference has shape {tuple(preference.shape)} and the base's "
            f"{tuple(base_preference.shape)}; wanted (N,) of both, on the same choices"
        )
    for name, given in (("preference", preference), ("base_preference", base_preference)):
        # Written so that NaN fails too.
        if not bool(((given >= -_SLACK) & (given <= 1 + _SLACK)).all()):
            raise ValueError(f"{name} must lie between 0 and 1; first_preference computes it")
    pairs = check_pairs(pairs, preference.shape[0])
    moved = preference.double() - base_preference.double()
    return weighted_mean(moved[pairs].mean(dim=1).abs(), weights)
