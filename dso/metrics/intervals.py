"""Bootstrap intervals for samples that share occupations.

A sentence concerns two crossed occupations, so its answers are correlated with those of every other
sentence about either of them: resampling sentences would give intervals that are too narrow. Here
the occupations are resampled (the pigeonhole bootstrap of Owen, "The pigeonhole bootstrap", Annals
of Applied Statistics 1(2), 2007, arXiv 0712.1111):

    w ~ Multinomial(C; 1/C, ..., 1/C)         how often each of the C clusters was drawn
    weight of sample i = product over its clusters c of w_c

With one occupation per sample this is the usual cluster bootstrap. A sample without occupations is
a cluster of its own, so samples without any are resampled one by one. Means over occupations weigh
each occupation by its own w_c. The interval runs between the percentiles of the statistic.

Noise pushes the absolute value of a mean up, and more so in a resample than in the sample. The
interval of a bias near 0 therefore lies high, and may leave out the value itself at its lower end.
It errs towards reporting bias, never towards hiding it.

Replicates in which the statistic is undefined (no sample was drawn) are dropped. There is no
interval, None, with fewer than two clusters or when fewer than three quarters of the replicates are
defined: two or three crossed occupations do not say how much occupations differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Interval = tuple[float, float]
"""Lower and upper end."""

Statistic = Callable[[Tensor, Tensor], Tensor]
"""(weights (B, N), counts (B, C)) -> (B,), NaN where undefined."""

_CHUNK_ELEMENTS = 2**21
"""Replicates are computed in chunks of about this many weights (16 MB in float64)."""

_VALID_SHARE = 0.75


@dataclass(frozen=True)
class Clusters:
    """Which clusters each of N samples belongs to."""

    index: Tensor
    """(N, M) long: the distinct clusters of each sample, padded with -1."""
    count: int
    """How many clusters there are, C; every one has a sample."""


def cluster_by_occupation(occupation: Tensor) -> Clusters:
    """Clusters of samples that concern the same occupation.

    Occupations keep their order but are renumbered without those that no sample concerns. A sample
    without an occupation becomes a cluster of its own, numbered after the occupations.

    Args:
        occupation: (N, M) long, padded with -1; (N, 0) for samples without occupations.

    Raises:
        ValueError: a wrong shape or no samples.
    """
    if occupation.ndim != 2 or occupation.shape[0] == 0:
        raise ValueError(
            f"occupation must have shape (N, M) with N of at least 1; got {tuple(occupation.shape)}"
        )
    index = torch.full((occupation.shape[0], max(1, occupation.shape[1])), -1, dtype=torch.long)
    index[:, : occupation.shape[1]] = occupation.cpu().sort(dim=1, descending=True).values
    # An occupation that is named twice is still drawn once.
    index[:, 1:].masked_fill_(index[:, 1:] == index[:, :-1], -1)
    named = index >= 0
    present, renumbered = torch.unique(index[named], return_inverse=True)
    index[named] = renumbered
    free = ~named.any(dim=1)
    index[free, 0] = torch.arange(int(free.sum())) + present.numel()
    return Clusters(index=index, count=present.numel() + int(free.sum()))


def draw_counts(count: int, replicates: int, generator: torch.Generator) -> Tensor:
    """How often each of `count` clusters was drawn in `count` draws with replacement.

    Returns:
        (B, C) float64 of whole numbers; every row sums to C.
    """
    drawn = torch.randint(count, (replicates, count), generator=generator)
    counts = torch.zeros(replicates, count, dtype=torch.float64)
    return counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))


def sample_weights(counts: Tensor, clusters: Clusters) -> Tensor:
    """Product of the counts (B, C) of each sample's clusters.

    Returns:
        (B, N) float64.
    """
    # A column of ones at the end, which -1 selects: padding multiplies by one.
    padded = torch.cat([counts, counts.new_ones(counts.shape[0], 1)], dim=1)
    weights = padded[:, clusters.index[:, 0]]
    for column in clusters.index.T[1:]:
        weights = weights * padded[:, column]
    return weights


def bootstrap_intervals(
    statistics: Sequence[Statistic],
    clusters: Clusters,
    *,
    seed: int = 0,
    replicates: int = 1000,
    level: float = 0.95,
    chunk_elements: int = _CHUNK_ELEMENTS,
) -> list[Interval | None]:
    """Percentile intervals of statistics of the same samples, from the same replicates.

    Args:
        statistics: each maps sample weights (B, N) and cluster counts (B, C) to (B,).
        clusters: of the N samples.
        seed: of the draws; it is the only source of randomness.
        replicates: how many times the clusters are resampled.
        level: probability the interval is meant to cover.
        chunk_elements: bound on B * max(N, C) at a time; it changes memory, not the result.

    Returns:
        One interval or None per statistic, in their order.

    Raises:
        ValueError: a level outside (0, 1), or fewer than one replicate.
    """
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; wanted a probability between 0 and 1, such as 0.95")
    if replicates < 1:
        raise ValueError(f"replicates is {replicates}; wanted at least 1, usually 1000")
    if clusters.count < 2:
        return [None] * len(statistics)
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, chunk_elements // max(clusters.index.shape[0], clusters.count))
    values: list[list[Tensor]] = [[] for _ in statistics]
    for start in range(0, replicates, chunk):
        counts = draw_counts(clusters.count, min(chunk, replicates - start), generator)
        weights = sample_weights(counts, clusters)
        for collected, statistic in zip(values, statistics, strict=True):
            collected.append(statistic(weights, counts))
    return [_percentiles(torch.cat(collected), level) for collected in values]


def _percentiles(values: Tensor, level: float) -> Interval | None:
    """The middle `level` of the defined values (B,); None where too few are defined."""
    valid = values[~values.isnan()]
    if valid.numel() < _VALID_SHARE * values.numel():
        return None
    ends = valid.new_tensor([(1 - level) / 2, (1 + level) / 2])
    low, high = torch.quantile(valid, ends).tolist()
    return low, high
