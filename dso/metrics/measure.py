"""Every figure that applies to a set of choices, with its interval.

From the model's log-probabilities of the options (N, K), -inf for padding, and the table of the
choices. Each metric is computed on the choices it is about:

    per_occupation_bias, stereotype_gap, abstention,       ambiguous, with sides
    per_sample_parity
    total_variation                                        ambiguous, of groups without sides
    position_bias                                          with sides and a first option
    flip_rate                                              twin pairs with sides
    position_shift                                         the same, given the base model too
    unambiguous_accuracy, gender_needed_accuracy,          of that kind
    capability
    option_mass                                            all
    unparsed                                               all, given generated answers
    kl                                                     prompts given apart, in nats

Metrics that have no choices are left out. Where the estimate makes a difference there are three
figures: expected ("probability"), one draw per choice ("sampled") and "greedy"; and a fourth,
"generated", where texts were generated and read. Intervals are 95 % bootstrap intervals clustered
by occupation (see `intervals`).

Source: arXiv 2512.15926, section 3, and the additions that the other modules name.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from dso.metrics.accuracy import abstention, accuracy
from dso.metrics.answers import (
    answer_distribution,
    greedy_answers,
    option_mass,
    sampled_answers,
)
from dso.metrics.intervals import Clusters, bootstrap_intervals, cluster_by_occupation
from dso.metrics.parity import (
    flip_rate,
    per_occupation_bias,
    per_sample_parity,
    stereotype_gap,
    total_variation,
)
from dso.metrics.position import first_preference, position_bias, position_shift
from dso.metrics.weighting import weighted_mean
from dso.tasks.table import ChoiceTable

ESTIMATES = ("probability", "sampled", "greedy", "generated")

_ACCURACIES = {
    "unambiguous": "unambiguous_accuracy",
    "gender_needed": "gender_needed_accuracy",
    "capability": "capability",
}
_KL_SLACK = 1e-3
_SHARE_SLACK = 1e-4


@dataclass(frozen=True)
class Measurement:
    """One figure of one model on one set of choices."""

    metric: str
    """Its name, as in the list above."""
    value: float
    """A fraction, not percent; nats for `kl`."""
    low: float | None
    """Lower end of the 95 % interval; None where there are too few clusters for one."""
    high: float | None
    """Upper end."""
    n: int
    """Number of samples: choices, twin pairs or prompts."""
    estimate: str
    """One of `ESTIMATES`."""


@dataclass(frozen=True)
class _Figure:
    """A metric as a function of (sample weights, cluster counts), both None for the plain value."""

    metric: str
    estimate: str
    statistic: Callable[[Tensor | None, Tensor | None], Tensor]


def _weighted(metric: Callable[..., Tensor], *given: Tensor) -> Callable[..., Tensor]:
    """A metric of weighted samples as a statistic that has no use for the clusters' counts."""

    def statistic(weights: Tensor | None, _counts: Tensor | None) -> Tensor:
        return metric(*given, weights)

    return statistic


@dataclass(frozen=True)
class _Group:
    """Figures on the same samples."""

    clusters: Clusters
    figures: tuple[_Figure, ...]

    @property
    def n(self) -> int:
        return self.clusters.index.shape[0]


def measure(
    log_probs: Tensor,
    table: ChoiceTable,
    base_log_probs: Tensor | None = None,
    *,
    seed: int = 0,
    replicates: int = 1000,
    kl: Tensor | None = None,
    generated: Tensor | None = None,
) -> list[Measurement]:
    """Every figure that applies to the choices of `table`, the main one first.

    Args:
        log_probs: (N, K) of the model, true log-probabilities.
        table: of the N choices.
        base_log_probs: (N, K) of the base model on the same choices, for `position_shift`.
        seed: of the sampled answers and of the bootstrap.
        replicates: of the bootstrap.
        kl: (P,) KL(steered || base) per prompt in nats, for `kl`; see `kl_divergence`.
        generated: (N, K) share of each choice's generated answers that mean each option; rows sum
            to less than 1 where texts meant none.

    Raises:
        ValueError: wrong shapes, or log-probabilities that are none.
    """
    log_probs, table = _on_cpu(log_probs, table, "log_probs")
    generator = torch.Generator().manual_seed(seed)
    answers = {
        "probability": answer_distribution(log_probs, table.mask),
        "sampled": sampled_answers(log_probs, table.mask, generator),
        "greedy": greedy_answers(log_probs, table.mask),
    }
    if generated is not None:
        answers["generated"] = _shares(generated, table)
    groups = _groups(log_probs, answers, table, base_log_probs)
    if generated is not None:
        groups.append(_unparsed_group(answers["generated"], table))
    if kl is not None:
        groups.append(_kl_group(kl))
    measurements = []
    for group in groups:
        intervals = bootstrap_intervals(
            [figure.statistic for figure in group.figures],
            group.clusters,
            seed=seed,
            replicates=replicates,
        )
        for figure, interval in zip(group.figures, intervals, strict=True):
            low, high = interval if interval is not None else (None, None)
            value = float(figure.statistic(None, None))
            measurements.append(
                Measurement(figure.metric, value, low, high, group.n, figure.estimate)
            )
    return measurements


def point_values(
    log_probs: Tensor, table: ChoiceTable, base_log_probs: Tensor | None = None
) -> dict[str, float]:
    """The values of `measure` without intervals: expected answers, greedy for the flip rate.

    Args:
        log_probs: (N, K) of the model, true log-probabilities.
        table: of the N choices.
        base_log_probs: (N, K) of the base model on the same choices, for `position_shift`.

    Raises:
        ValueError: as `measure`.
    """
    log_probs, table = _on_cpu(log_probs, table, "log_probs")
    answers = {"probability": answer_distribution(log_probs, table.mask)}
    groups = _groups(log_probs, answers, table, base_log_probs)
    return {
        figure.metric: float(figure.statistic(None, None))
        for group in groups
        for figure in group.figures
    }


def _groups(
    log_probs: Tensor,
    answers: dict[str, Tensor],
    table: ChoiceTable,
    base_log_probs: Tensor | None,
) -> list[_Group]:
    """The figures that apply, for each of the estimates in `answers`."""
    groups = []
    ambiguous = table.of_kind("ambiguous")
    sided = ambiguous & table.with_sides()
    if bool(sided.any()):
        groups.append(_bias_group(answers, table, sided.nonzero().squeeze(1)))
    of_groups = ambiguous & ~sided
    if bool(of_groups.any()):
        groups.append(_variation_group(answers, table, of_groups.nonzero().squeeze(1)))
    for kind, metric in _ACCURACIES.items():
        rows = table.of_kind(kind).nonzero().squeeze(1)
        if rows.numel():
            groups.append(_accuracy_group(answers, table, rows, metric))
    groups.append(_mass_group(log_probs, table))
    placed = sided & (table.first >= 0)
    if bool(placed.any()):
        groups.append(_position_group(answers, table, placed.nonzero().squeeze(1)))
    # A placed pair is one both of whose twins have a first option.
    placed_pairs = table.pairs[placed[table.pairs].all(dim=1)]
    if base_log_probs is not None:
        base, _ = _on_cpu(base_log_probs, table, "base_log_probs")
        if placed_pairs.numel():
            base_answers = answer_distribution(base, table.mask)
            expected = answers["probability"]
            groups.append(_shift_group(expected, base_answers, table, placed_pairs))
    pairs = table.pairs[sided[table.pairs].all(dim=1)]
    if pairs.numel():
        groups.append(_flip_group(greedy_answers(log_probs, table.mask), table, pairs))
    return groups


def _bias_group(answers: dict[str, Tensor], table: ChoiceTable, rows: Tensor) -> _Group:
    clusters = cluster_by_occupation(table.occupation[rows])
    side = table.side[rows]
    figures = []
    for estimate, given in _rows(answers, rows).items():
        # Every ambiguous choice names an occupation, so the clusters are the occupations.
        bias = partial(per_occupation_bias, given, side, clusters.index)
        figures += [
            _Figure("per_occupation_bias", estimate, bias),
            _Figure("stereotype_gap", estimate, _weighted(stereotype_gap, given, side)),
            _Figure("abstention", estimate, _weighted(abstention, given, side)),
        ]
    expected = answers["probability"][rows]
    parity = _weighted(per_sample_parity, expected, side)
    figures.append(_Figure("per_sample_parity", "probability", parity))
    return _Group(clusters, tuple(figures))


def _variation_group(answers: dict[str, Tensor], table: ChoiceTable, rows: Tensor) -> _Group:
    clusters = cluster_by_occupation(table.occupation[rows])
    figures = [
        _Figure(
            "total_variation",
            estimate,
            partial(total_variation, given, table.group[rows], clusters.index),
        )
        for estimate, given in _rows(answers, rows).items()
    ]
    return _Group(clusters, tuple(figures))


def _accuracy_group(
    answers: dict[str, Tensor], table: ChoiceTable, rows: Tensor, metric: str
) -> _Group:
    truth = table.truth[rows]
    figures = [
        _Figure(metric, estimate, _weighted(accuracy, given, truth))
        for estimate, given in _rows(answers, rows).items()
    ]
    return _Group(cluster_by_occupation(table.occupation[rows]), tuple(figures))


def _mass_group(log_probs: Tensor, table: ChoiceTable) -> _Group:
    mass = option_mass(log_probs.masked_fill(~table.mask, -torch.inf))
    figure = _Figure("option_mass", "probability", _weighted(weighted_mean, mass))
    return _Group(cluster_by_occupation(table.occupation), (figure,))


def _unparsed_group(generated: Tensor, table: ChoiceTable) -> _Group:
    missing = 1 - generated.sum(1)
    figure = _Figure("unparsed", "generated", _weighted(weighted_mean, missing))
    return _Group(cluster_by_occupation(table.occupation), (figure,))


def _position_group(answers: dict[str, Tensor], table: ChoiceTable, rows: Tensor) -> _Group:
    first, side = table.first[rows], table.side[rows]
    figures = [
        _Figure("position_bias", estimate, _weighted(position_bias, given, first, side))
        for estimate, given in _rows(answers, rows).items()
    ]
    return _Group(cluster_by_occupation(table.occupation[rows]), tuple(figures))


def _shift_group(
    answers: Tensor, base_answers: Tensor, table: ChoiceTable, pairs: Tensor
) -> _Group:
    rows, renumbered = torch.unique(pairs, return_inverse=True)
    first, side = table.first[rows], table.side[rows]
    now = first_preference(answers[rows], first, side)
    before = first_preference(base_answers[rows], first, side)
    shift = _weighted(position_shift, now, before, renumbered)
    return _Group(_cluster_pairs(table, pairs), (_Figure("position_shift", "probability", shift),))


def _flip_group(greedy: Tensor, table: ChoiceTable, pairs: Tensor) -> _Group:
    figure = _Figure("flip_rate", "greedy", _weighted(flip_rate, greedy, pairs))
    return _Group(_cluster_pairs(table, pairs), (figure,))


def _kl_group(kl: Tensor) -> _Group:
    kl = kl.detach().cpu().double()
    if kl.ndim != 1 or kl.numel() == 0:
        raise ValueError(f"kl must have shape (P,), one value per prompt; got {tuple(kl.shape)}")
    if not bool((kl.isfinite() & (kl >= -_KL_SLACK)).all()):
        raise ValueError(
            f"kl must be finite and not negative; it runs from {float(kl.min()):.4g} to "
            f"{float(kl.max()):.4g}"
        )
    figure = _Figure("kl", "probability", _weighted(weighted_mean, kl))
    prompts = torch.empty(kl.numel(), 0, dtype=torch.long)
    return _Group(cluster_by_occupation(prompts), (figure,))


def _cluster_pairs(table: ChoiceTable, pairs: Tensor) -> Clusters:
    """A twin pair is one sample, which concerns the occupations of both twins."""
    return cluster_by_occupation(table.occupation[pairs].flatten(start_dim=1))


def _shares(generated: Tensor, table: ChoiceTable) -> Tensor:
    """Shares on the CPU, checked."""
    given = generated.detach().cpu().double()
    if given.shape != table.mask.shape:
        raise ValueError(
            f"generated has shape {tuple(given.shape)}; wanted {tuple(table.mask.shape)}, a share "
            "for every option of every choice"
        )
    if not bool(((given >= 0) & (given.sum(1, keepdim=True) <= 1 + _SHARE_SLACK)).all()):
        raise ValueError("generated must hold shares: not negative, rows of at most 1")
    return given


def _rows(answers: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {estimate: given[rows] for estimate, given in answers.items()}


def _on_cpu(log_probs: Tensor, table: ChoiceTable, name: str) -> tuple[Tensor, ChoiceTable]:
    """Both on the CPU: float64 and the bootstrap's generator are not on every accelerator."""
    if log_probs.shape != table.mask.shape:
        raise ValueError(
            f"{name} has shape {tuple(log_probs.shape)}, but the table holds {len(table)} choices "
            f"of at most {table.mask.shape[1]} options: wanted {tuple(table.mask.shape)}"
        )
    return log_probs.detach().cpu().double(), table.to("cpu")
