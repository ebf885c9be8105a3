"""Learn-then-Test: the smallest strength whose bias and capability losses are proven small.

R(ω) is the bias loss and D_k(ω) the drop of accuracy on questions of kind k. The promise, with
probability at least 1 - δ over the calibration questions, is

    R(ω) <= τ   and   D_k(ω) <= κ for every kind k       for the strength ω that is returned, if any

**Bias.** The loss of a twin pair is l = |mean over the twins of (P(pro) - P(anti))|, in [0, 1], and
0 for a model blind to gender. The weight of pair i is w_i = (1/|O|) sum over its occupations o of
1/n_o, where n_o pairs concern o. So sum_i w_i l_i is the mean over occupations of their mean loss.
By Jensen's inequality, |mean of x| <= mean of |x| within each occupation, it is at least
Per-Occupation Bias. Weights depend on which occupations meet in which pair and not on the answers:
given that, the losses are independent, which is what `bounds` asks for, though a pair concerns two
occupations and occupations have different numbers of pairs. The promise is about new questions in
which the same occupations meet as often.

**Drop.** The loss of a question is P_base(right) - P_ω(right), in [-1, 1]; its mean is the drop of
accuracy. Twins are one question, with the mean of their losses and twice the weight. ω is kept when
the null "D_k > κ" is rejected for every k; the p-value is then the largest of theirs
(intersection-union). Hoeffding–Bentkus, for losses in [0, 1], tests the mean of what was lost,
which is at least the drop: gains do not count.

**Many strengths.** Two fixed sequences, each of which stops at its first failure:

    1. drops, from the smallest strength up, at level 1 - sqrt(1 - δ); it ends at ω_max;
    2. bias, from ω_max down, at the same level, or at δ where the first came to its end.

The order of the first is fixed, that of the second depends on other questions only. So the first
keeps a false strength with probability at most a = 1 - sqrt(1 - δ), and the second, given the
first, with at most a: together 1 - (1 - a)² = δ. At δ the second is tested only when no drop's null
is true or the first has erred already. Bias falls with the strength and drops grow, as a rule, so
that both sequences get far wherever the strengths that pass lie; where it is otherwise power is
lost and the promise holds all the same.

Sources: Angelopoulos et al., "Learn then Test", arXiv 2110.01052 (fixed-sequence testing); arXiv
2512.15926 for the metrics. The two sequences are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from dso.inference.bounds import Array, betting, hoeffding_bentkus

Test = Literal["betting", "hoeffding_bentkus"]

SMALLEST_LIMIT = 1e-4


@dataclass(frozen=True)
class Promise:
    """What the chosen strength is to keep.

    Raises:
        ValueError: a number out of range, an unknown test.
    """

    bias: float
    """τ, the largest bias loss."""
    drop: float
    """κ, the largest drop of any accuracy."""
    confidence: float = 0.9
    """1 - δ."""
    test: Test = "betting"
    """Where p-values come from, see `bounds`."""

    def __post_init__(self) -> None:
        for name in ("bias", "drop"):
            value = getattr(self, name)
            if not SMALLEST_LIMIT <= value < 1:
                raise ValueError(
                    f"{name} is {value}; wanted a fraction from {SMALLEST_LIMIT} to below 1, such "
                    "as 0.05 (a smaller one takes tens of thousands of questions to show)"
                )
        if not 0 < self.confidence < 1:
            raise ValueError(
                f"confidence is {self.confidence}; wanted a probability above 0 and below 1, such "
                "as 0.9"
            )
        if self.test not in get_args(Test):
            raise ValueError(f"test is {self.test!r}; wanted one of {', '.join(get_args(Test))}")

    @property
    def level(self) -> float:
        """At which each of the two sequences is tested."""
        return 1 - math.sqrt(self.confidence)

    def bias_p(self, losses: Array, weights: Array | None = None) -> Array:
        """p-value (...) of "the mean of the bias losses (..., N) is above `bias`"."""
        return _TESTS[self.test](losses, self.bias, weights)

    def drop_p(self, losses: Array, weights: Array | None = None) -> Array:
        """p-value (...) of "the mean of the losses of accuracy (..., N) is above `drop`"."""
        kept = losses if self.test == "betting" else np.maximum(losses, 0)
        return _TESTS[self.test](kept, self.drop, weights)


_TESTS: dict[Test, Callable[[Array, float, Array | None], Array]] = {
    "betting": betting,
    "hoeffding_bentkus": hoeffding_bentkus,
}


@dataclass(frozen=True)
class Sample:
    """Independent losses at S strengths.

    Raises:
        ValueError: shapes that do not fit.
    """

    losses: Array
    """(S, N)."""
    weights: Array
    """(N,) how much each counts, not negative and of sum 1, whatever the losses."""

    def __post_init__(self) -> None:
        if self.losses.ndim != 2 or self.weights.shape != self.losses.shape[1:]:
            raise ValueError(
                f"losses have shape {self.losses.shape} and weights {self.weights.shape}; wanted "
                "(strengths, samples) and (samples,)"
            )

    @property
    def means(self) -> Array:
        """(S,) weighted mean at each strength."""
        return self.losses @ self.weights


@dataclass(frozen=True)
class Losses:
    """What calibration questions say of S strengths.

    Raises:
        ValueError: no strengths or not in ascending order, no kind, losses of another number of
            strengths.
    """

    strengths: tuple[float, ...]
    """Ascending."""
    bias: Sample
    """Bias losses of twin pairs, weighted as `pair_weights` says."""
    drops: Mapping[str, Sample]
    """Accuracy lost on questions, by kind."""

    def __post_init__(self) -> None:
        count = len(self.strengths)
        if not count or any(a >= b for a, b in pairwise(self.strengths)):
            raise ValueError(f"strengths are {self.strengths}; wanted some, in ascending order")
        if not self.drops:
            raise ValueError("there are no losses of accuracy; wanted those of one kind at least")
        for name, sample in (("bias", self.bias), *self.drops.items()):
            if len(sample.losses) != count:
                raise ValueError(
                    f"there are losses of {name} at {len(sample.losses)} strengths; wanted {count}"
                )


@dataclass(frozen=True)
class Tested:
    """One strength: what was measured on the calibration questions, and what is shown by it."""

    strength: float
    """ω."""
    bias: float
    """The bias loss, occupations counted equally."""
    bias_p: float
    """p-value of "the bias is above the limit"."""
    bias_shown: bool
    """Whether the bias is shown to be within its limit, at the level of its sequence."""
    drops: dict[str, float]
    """Drop of accuracy by kind; below 0 where it rose."""
    drop_p: dict[str, float]
    """p-value of "the drop is above the limit" by kind."""
    drop_shown: bool
    """Whether every drop is shown to be within the limit."""


@dataclass(frozen=True)
class Decision:
    """The outcome."""

    strength: float | None
    """The smallest strength that keeps the promise; None when none is shown to."""
    drop_level: float
    """Level of the first sequence."""
    drop_order: tuple[float, ...]
    """Strengths as the first sequence tested them; the last may have failed."""
    bias_level: float
    """Level of the second sequence."""
    bias_order: tuple[float, ...]
    """Strengths as the second sequence tested them; the last may have failed."""
    tested: tuple[Tested, ...]
    """Every strength, ascending."""


def pair_weights(concerns: npt.NDArray[np.bool_]) -> Array:
    """Weights with which the mean over pairs is the mean over occupations of their means.

    Args:
        concerns: (N, O), whether the pair concerns the occupation.

    Returns:
        (N,) of sum 1.

    Raises:
        ValueError: a pair without an occupation, or an occupation without a pair.
    """
    if concerns.ndim != 2 or not (concerns.any(1).all() and concerns.any(0).all()):
        raise ValueError("every pair must concern an occupation, and every occupation have a pair")
    return np.asarray((concerns / concerns.sum(0)).sum(1) / concerns.shape[1])


def choose(losses: Losses, promise: Promise) -> Decision:
    """The smallest strength that is shown to keep the promise, or none."""
    strengths = losses.strengths
    places = range(len(strengths))
    bias_p = promise.bias_p(losses.bias.losses, losses.bias.weights)
    drop_p = {k: promise.drop_p(kind.losses, kind.weights) for k, kind in losses.drops.items()}
    worst_p = np.max(list(drop_p.values()), axis=0)

    drops_shown, drop_order = in_sequence(worst_p, places, promise.level)
    complete = len(drops_shown) == len(strengths)
    bias_level = 1 - promise.confidence if complete else promise.level
    bias_shown, bias_order = in_sequence(bias_p, drops_shown[::-1], bias_level)
    bias = losses.bias.means
    drops = {kind: sample.means for kind, sample in losses.drops.items()}
    tested = tuple(
        Tested(
            strength=strengths[place],
            bias=float(bias[place]),
            bias_p=float(bias_p[place]),
            bias_shown=place in bias_shown,
            drops={kind: float(means[place]) for kind, means in drops.items()},
            drop_p={kind: float(p[place]) for kind, p in drop_p.items()},
            drop_shown=place in drops_shown,
        )
        for place in places
    )
    return Decision(
        strength=strengths[min(bias_shown)] if bias_shown else None,
        drop_level=promise.level,
        drop_order=tuple(strengths[place] for place in drop_order),
        bias_level=bias_level,
        bias_order=tuple(strengths[place] for place in bias_order),
        tested=tested,
    )


def in_sequence(
    p: Array, order: Sequence[int], level: float
) -> tuple[Sequence[int], Sequence[int]]:
    """Fixed-sequence testing: hypotheses are rejected in order up to the first that is not.

    Args:
        p: (S,) p-values.
        order: places in `p`; it must not depend on what the p-values were computed from.
        level: of the family.

    Returns:
        (places that were rejected, places that were tested), in order.
    """
    for done, place in enumerate(order):
        if p[place] > level:
            return order[:done], order[: done + 1]
    return order, order


def least(p_value: Callable[[Array], Array], level: float) -> int:
    """How many questions it takes to show anything: fewer do not reach the level without a loss."""
    low, high = 0, 1
    while p_value(np.zeros(high)) > level:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if p_value(np.zeros(middle)) > level:
            low = middle
        else:
            high = middle
    return high
