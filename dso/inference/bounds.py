"""p-values for "the mean loss is at least `bound`", valid for any sample size.

Losses are independent and at most 1, with weights w that sum to 1 and do not depend on the losses.
They need not have the same distribution: what is tested is the weighted mean of their means. A
small p-value says that it lies below the bound.

    betting            p = 1 / e,   e = mean over bets c of prod_i (1 + c v_i (b - z_i) / (1 - b))
                       with v_i = w_i / max w. Where the null is true the means of a product's
                       factors average to at most 1, and so, by the inequality of arithmetic and
                       geometric means, does their product: E[e] <= 1 and, by Markov,
                       P(p <= u) <= u. Losses may be as negative as they like.
    Hoeffding–Bentkus  p = min(exp(-n kl(m, b)), e P(Binomial(n, b) <= ceil(n m)))
                       with m the weighted mean of losses in [0, 1]. Both parts follow from
                       E f(n m) <= E f(Binomial(n, E m)) for every convex f. That is Hoeffding's
                       for n equal weights. It holds for n = floor(1 / max w) too: E f is convex
                       in w, and the corners of {w <= 1/n, sum w = 1, E m given} have n - 1 weights
                       1/n and two that share 1/n, which together are one more loss in [0, 1].

Betting has more power where losses are far from being 0 or 1, as probabilities are: it sees how
little they vary. Sources: betting, Waudby-Smith and Ramdas, arXiv 2010.09686 (here with bets that
are fixed beforehand, so that means may differ); Hoeffding–Bentkus, Bates et al., arXiv 2101.02703,
after Bentkus, Annals of Probability 32 (2004), and Hoeffding, JASA 58 (1963) and Annals of
Mathematical Statistics 27 (1956).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, rel_entr
from scipy.stats import binom

Array = npt.NDArray[np.float64]

_ROUNDING = 1e-9


def betting(losses: Array, bound: float, weights: Array | None = None) -> Array:
    """p-value of a bettor who gains while losses stay below the bound.

    Args:
        losses: (..., N), at most 1.
        bound: b, in (0, 1).
        weights: (N,), not negative, of sum 1; equal when not given.

    Returns:
        (...) in [0, 1].

    Raises:
        ValueError: no losses, losses above 1, a bound outside (0, 1), or wrong weights.
    """
    losses, weights = _checked(losses, bound, weights)
    size = 1 / weights.max()
    gains = weights * size * (bound - losses) / (1 - bound)  # at least -1
    bets = _bets(size, bound).reshape(-1, *(1,) * losses.ndim)
    with np.errstate(divide="ignore"):  # a full bet on a loss of 1 loses everything
        growth = np.log1p(np.maximum(bets * gains, -1)).sum(-1)
    wealth = logsumexp(growth, axis=0) - math.log(len(bets))
    return np.asarray(np.exp(-np.maximum(wealth, 0)))


def hoeffding_bentkus(losses: Array, bound: float, weights: Array | None = None) -> Array:
    """The smaller of Hoeffding's and Bentkus' p-value.

    Args:
        losses: (..., N) in [0, 1].
        bound: b, in (0, 1).
        weights: (N,), not negative, of sum 1; equal when not given.

    Returns:
        (...) in [0, 1].

    Raises:
        ValueError: as `betting`, or losses below 0.
    """
    losses, weights = _checked(losses, bound, weights)
    if bool((losses < 0).any()):
        raise ValueError(f"losses go down to {losses.min()}; Hoeffding–Bentkus wants 0 to 1")
    size = math.floor(1 / weights.max() + _ROUNDING)
    mean = np.minimum(losses @ weights, bound)  # from the bound on there is no evidence
    kl = rel_entr(mean, bound) + rel_entr(1 - mean, 1 - bound)
    bentkus = math.e * binom.cdf(np.ceil(size * mean - _ROUNDING), size, bound)
    return np.asarray(np.minimum(np.exp(-size * kl), np.minimum(bentkus, 1)))


def _bets(size: float, bound: float) -> Array:
    """Shares of the largest bet that cannot ruin: 1, 1/2, 1/4, ... down to what losses of 0 or 1,
    the most variable, call for at about 5 %."""
    smallest = math.sqrt(6 * (1 - bound) / (size * bound))
    halvings = max(1, math.ceil(-math.log2(smallest)))
    return np.asarray(0.5 ** np.arange(halvings + 1))


def _checked(losses: Array, bound: float, weights: Array | None) -> tuple[Array, Array]:
    losses = np.asarray(losses, dtype=np.float64)
    if losses.ndim == 0 or losses.shape[-1] == 0:
        raise ValueError(f"losses must have shape (..., N), N at least 1; got {losses.shape}")
    if not bool((losses <= 1 + _ROUNDING).all()):
        raise ValueError(f"losses must be numbers of at most 1; the largest is {losses.max()}")
    if not 0 < bound < 1:
        raise ValueError(f"the bound is {bound}; wanted a number between 0 and 1")
    count = losses.shape[-1]
    if weights is None:
        weights = np.full(count, 1 / count)
    if weights.shape != (count,) or weights.min() < 0 or abs(weights.sum() - 1) > 1e-6:
        raise ValueError(
            f"weights must be {count} numbers that are not negative and add up to 1; got shape "
            f"{weights.shape}, sum {weights.sum()}"
        )
    return np.minimum(losses, 1), weights
