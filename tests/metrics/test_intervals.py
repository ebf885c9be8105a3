"""The pigeonhole bootstrap against a plain loop, and what it must not depend on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dso.metrics import answer_distribution, bootstrap_intervals, cluster_by_occupation
from dso.metrics.intervals import draw_counts, sample_weights
from dso.metrics.parity import per_occupation_bias, pro_minus_anti, stereotype_gap
from dso.metrics.weighting import weighted_mean
from dso.tasks.table import tabulate
from tests.metrics.made_up_choices import random_model, sentences

TABLE = tabulate(sentences())
ANSWERS = answer_distribution(random_model(TABLE), TABLE.mask)


def statistics(answers: Tensor, side: Tensor, index: Tensor):
    return [
        lambda w, c: per_occupation_bias(answers, side, index, w, c),
        lambda w, _: stereotype_gap(answers, side, w),
    ]


def plain_loop(occupation: list[list[int]], difference: list[float], counts: list[float]):
    """Bias and stereotype gap of one replicate, straight from the definition."""
    weights = []
    for row in occupation:
        weight = 1.0
        for cluster in row:
            weight *= counts[cluster]
        weights.append(weight)
    bias = total = 0.0
    for cluster, count in enumerate(counts):
        about = [i for i, row in enumerate(occupation) if cluster in row and weights[i] > 0]
        if not about:
            continue
        mean = sum(weights[i] * difference[i] for i in about) / sum(weights[i] for i in about)
        bias, total = bias + count * abs(mean), total + count
    if total == 0:
        return None
    mean = sum(w * d for w, d in zip(weights, difference, strict=True)) / sum(weights)
    return bias / total, abs(mean)


def test_the_vectorised_bootstrap_is_the_plain_loop():
    replicates, seed = 80, 3
    clusters = cluster_by_occupation(TABLE.occupation)
    found = bootstrap_intervals(
        statistics(ANSWERS, TABLE.side, clusters.index), clusters, seed=seed, replicates=replicates
    )
    counts = draw_counts(clusters.count, replicates, torch.Generator().manual_seed(seed))
    difference = pro_minus_anti(ANSWERS, TABLE.side).tolist()
    rows = clusters.index.tolist()
    looped = [plain_loop(rows, difference, count) for count in counts.tolist()]
    valid = torch.tensor([pair for pair in looped if pair is not None], dtype=torch.float64)
    for column, interval in enumerate(found):
        expected = torch.quantile(
            valid[:, column], torch.tensor([0.025, 0.975], dtype=torch.float64)
        )
        assert interval == pytest.approx(expected.tolist(), abs=1e-12)


def test_small_chunks_change_nothing():
    clusters = cluster_by_occupation(TABLE.occupation)
    given = statistics(ANSWERS, TABLE.side, clusters.index)
    whole = bootstrap_intervals(given, clusters, replicates=50)
    parts = bootstrap_intervals(given, clusters, replicates=50, chunk_elements=7 * len(TABLE))
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, abs=1e-12)


def test_repeating_every_sample_does_not_narrow_the_interval():
    twice = torch.cat([TABLE.occupation] * 2)
    one, two = cluster_by_occupation(TABLE.occupation), cluster_by_occupation(twice)
    answers, side = torch.cat([ANSWERS] * 2), torch.cat([TABLE.side] * 2)
    narrow = bootstrap_intervals(statistics(ANSWERS, TABLE.side, one.index), one, replicates=60)
    repeated = bootstrap_intervals(statistics(answers, side, two.index), two, replicates=60)
    for first, second in zip(narrow, repeated, strict=True):
        assert first == pytest.approx(second, abs=1e-12)


def test_the_interval_depends_on_the_seed_only():
    clusters = cluster_by_occupation(TABLE.occupation)
    given = statistics(ANSWERS, TABLE.side, clusters.index)
    one, again, other = (
        bootstrap_intervals(given, clusters, seed=s, replicates=50) for s in (1, 1, 2)
    )
    assert one == again
    assert one != other


def test_clusters_are_the_occupations_present_and_the_samples_without_any():
    occupation = torch.tensor([[5, 2], [-1, -1], [2, 2], [-1, 5], [-1, -1]])
    clusters = cluster_by_occupation(occupation)
    assert clusters.count == 4
    assert [sorted(c for c in row if c >= 0) for row in clusters.index.tolist()] == [
        [0, 1],
        [2],
        [0],
        [1],
        [3],
    ]
    counts = torch.tensor([[2.0, 3.0, 0.0, 1.0]])
    assert sample_weights(counts, clusters).tolist() == [[6.0, 0.0, 2.0, 3.0, 1.0]]


def test_counts_are_multinomial():
    counts = draw_counts(6, 4000, torch.Generator().manual_seed(0))
    assert (counts.sum(1) == 6).all()
    assert counts.mean(0).tolist() == pytest.approx([1.0] * 6, abs=0.08)
    assert counts.var(0).tolist() == pytest.approx([5 / 6] * 6, abs=0.12)


def test_samples_without_occupations_give_the_textbook_interval():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    clusters = cluster_by_occupation(torch.empty(400, 0, dtype=torch.long))
    (interval,) = bootstrap_intervals([lambda w, _: weighted_mean(values, w)], clusters)
    assert interval is not None
    half = 1.96 * values.std().item() / 400**0.5
    mean = values.mean().item()
    assert interval == pytest.approx((mean - half, mean + half), abs=0.15 * half)


def test_clustering_widens_the_interval_of_clustered_samples():
    generator = torch.Generator().manual_seed(0)
    cluster = torch.arange(20).repeat_interleave(50)
    values = torch.randn(20, generator=generator)[cluster] + torch.randn(1000, generator=generator)
    by_cluster, one_by_one = (
        bootstrap_intervals([lambda w, _: weighted_mean(values, w)], cluster_by_occupation(index))
        for index in (cluster.unsqueeze(1), torch.full((1000, 1), -1))
    )
    assert by_cluster[0] is not None and one_by_one[0] is not None
    assert by_cluster[0][1] - by_cluster[0][0] > 3 * (one_by_one[0][1] - one_by_one[0][0])


def test_the_interval_usually_covers_the_truth():
    """Nominal 95 % of 60 samples of 25 clusters, at least 85 % to be held."""
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for seed in range(60):
        cluster = torch.arange(25).repeat_interleave(4)
        noise = torch.randn(100, generator=generator)
        values = 1.0 + torch.randn(25, generator=generator)[cluster] + noise
        (interval,) = bootstrap_intervals(
            [lambda w, _, v=values: weighted_mean(v, w)],
            cluster_by_occupation(cluster.unsqueeze(1)),
            seed=seed,
            replicates=300,
        )
        assert interval is not None
        covered += interval[0] <= 1.0 <= interval[1]
    assert covered >= 51


@pytest.mark.parametrize(
    "occupation",
    [
        torch.tensor([[0], [0], [0]]),
        torch.tensor([[-1]]),
        torch.tensor([[0, 1], [0, 1]]),
    ],
    ids=["one occupation", "one sample", "two crossed occupations"],
)
def test_too_few_clusters_give_no_interval(occupation):
    values = torch.arange(len(occupation)).double()
    clusters = cluster_by_occupation(occupation)
    assert bootstrap_intervals([lambda w, _: weighted_mean(values, w)], clusters) == [None]


def test_replicates_without_a_sample_are_dropped():
    """With two men's and two women's occupations an eighth of the replicates is empty."""
    occupation = torch.tensor([[0, 2], [0, 3], [1, 2], [1, 3]])
    values = torch.tensor([0.1, 0.2, 0.3, 0.4])
    clusters = cluster_by_occupation(occupation)
    (interval,) = bootstrap_intervals([lambda w, _: weighted_mean(values, w)], clusters)
    assert interval is not None
    assert 0.1 <= interval[0] < interval[1] <= 0.4 + 1e-6


@pytest.mark.parametrize(
    ("keywords", "message"), [({"level": 95}, "level is 95"), ({"replicates": 0}, "at least 1")]
)
def test_wrong_settings_are_refused(keywords, message):
    clusters = cluster_by_occupation(TABLE.occupation)
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals([], clusters, **keywords)


def test_wrong_occupations_are_refused():
    with pytest.raises(ValueError, match="N of at least 1"):
        cluster_by_occupation(torch.zeros(3, dtype=torch.long))
