"""Which figures are measured, on which choices, and in Lightning's validation across ranks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dso.metrics import (
    ESTIMATES,
    ChoiceMetrics,
    Measurement,
    answer_distribution,
    measure,
    point_values,
)
from dso.tasks.table import ChoiceTable, tabulate
from tests.metrics.made_up_choices import (
    always_first_model,
    gender_blind_model,
    mixture,
    questions,
    random_model,
    sentences,
)

TABLE = mixture()
MODEL = random_model(TABLE)
BASE = random_model(TABLE, seed=1)
UNGENERATED = [estimate for estimate in ESTIMATES if estimate != "generated"]
THREE = (
    "per_occupation_bias",
    "stereotype_gap",
    "abstention",
    "position_bias",
    "unambiguous_accuracy",
    "gender_needed_accuracy",
    "capability",
)
ONE = {
    "per_sample_parity": "probability",
    "option_mass": "probability",
    "position_shift": "probability",
    "kl": "probability",
    "flip_rate": "greedy",
}


def by_key(measurements: list[Measurement]) -> dict[tuple[str, str], Measurement]:
    found = {(m.metric, m.estimate): m for m in measurements}
    assert len(found) == len(measurements)
    return found


def quick(log_probs: Tensor, table: ChoiceTable, *base: Tensor, **keywords) -> list[Measurement]:
    return measure(log_probs, table, *base, replicates=40, **keywords)


def test_every_metric_is_there_once_per_estimate():
    found = by_key(quick(MODEL, TABLE, BASE, kl=torch.rand(7)))
    expected = {(metric, estimate) for metric in THREE for estimate in UNGENERATED}
    assert set(found) == expected | set(ONE.items())
    assert next(iter(found)) == ("per_occupation_bias", "probability")
    counts = {metric: m.n for (metric, _), m in found.items()}
    assert counts["per_occupation_bias"] == counts["position_bias"] == 32
    assert counts["flip_rate"] == counts["position_shift"] == 16
    assert counts["unambiguous_accuracy"] == 6 and counts["kl"] == 7
    assert counts["option_mass"] == len(TABLE)


def test_generated_answers_are_one_more_estimate_and_the_unparsed_are_counted():
    probability = answer_distribution(MODEL.double(), TABLE.mask)
    found = by_key(quick(MODEL, TABLE, generated=probability * 0.75))
    for metric in THREE:
        generated = found[metric, "generated"].value
        plain = found[metric, "probability"].value
        if metric == "abstention":
            assert generated == pytest.approx(0.25 + 0.75 * plain)
        else:
            assert generated == pytest.approx(0.75 * plain)
    assert found["unparsed", "generated"].value == pytest.approx(0.25)
    assert found["unparsed", "generated"].n == len(TABLE)


@pytest.mark.parametrize(
    ("shares", "message"),
    [(torch.zeros(1, 2), "generated has shape"), (TABLE.mask * 0.9, "rows of at most 1")],
)
def test_shares_that_are_none_are_refused(shares, message):
    with pytest.raises(ValueError, match=message):
        quick(MODEL, TABLE, generated=shares)


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_surrounds_the_value_of_metrics_that_are_plain_means(seed):
    found = measure(random_model(TABLE, seed), TABLE, BASE, seed=seed, replicates=200)
    for m in found:
        assert m.low is not None and m.high is not None and 0 <= m.low <= m.high
        # The mean of absolute values lies higher in resamples than in the sample.
        if m.metric not in ("per_occupation_bias", "stereotype_gap", "position_bias"):
            assert m.low - 1e-9 <= m.value <= m.high + 1e-9, m


@pytest.mark.parametrize(
    ("choices", "absent"),
    [
        (questions("capability", 3), {"per_occupation_bias", "flip_rate", "position_bias"}),
        (sentences(), {"capability", "unambiguous_accuracy", "gender_needed_accuracy", "kl"}),
        (sentences()[::2], {"flip_rate", "position_shift"}),
    ],
    ids=["capability only", "ambiguous only", "no twins"],
)
def test_what_does_not_apply_is_left_out(choices, absent):
    table = tabulate(choices)
    metrics = {m.metric for m in quick(random_model(table), table, random_model(table, 1))}
    assert not metrics & absent
    assert "option_mass" in metrics


def test_position_shift_needs_the_base_model_and_is_zero_against_itself():
    assert ("position_shift", "probability") not in by_key(quick(MODEL, TABLE))
    shift = by_key(quick(MODEL, TABLE, MODEL))["position_shift", "probability"]
    assert (shift.value, shift.low, shift.high) == (0, 0, 0)


def test_choices_without_a_first_option_have_no_position():
    first = torch.full_like(TABLE.first, -1)
    unplaced = ChoiceTable(**{**vars(TABLE), "first": first})
    metrics = {m.metric for m in quick(MODEL, unplaced, BASE)}
    assert not metrics & {"position_bias", "position_shift"}


def test_a_gender_blind_model_has_no_bias_and_an_interval_of_zero():
    table = tabulate(sentences())
    bias = by_key(quick(gender_blind_model(table), table))
    for estimate in ("probability", "greedy"):
        m = bias["per_occupation_bias", estimate]
        assert (m.value, m.low, m.high) == pytest.approx((0, 0, 0), abs=1e-12)


def test_a_model_that_always_answers_the_first_is_caught():
    table = tabulate(sentences())
    found = by_key(quick(always_first_model(table), table))
    for estimate in UNGENERATED:
        assert found["per_occupation_bias", estimate].value == 0
        assert found["position_bias", estimate].value == 0.5


def test_a_model_without_mass_on_the_options_abstains_when_sampled():
    table = tabulate(sentences())
    log_probs = random_model(table, mass=1e-9)
    found = by_key(quick(log_probs, table))
    assert found["option_mass", "probability"].value == pytest.approx(1e-9)
    assert found["abstention", "sampled"].value == 1
    assert found["abstention", "probability"].value == pytest.approx(0, abs=1e-12)


def test_other_kinds_do_not_touch_the_bias():
    alone = tabulate(sentences(dont_know=True))
    rows = slice(len(alone))
    mixed, apart = point_values(MODEL, TABLE), point_values(MODEL[rows, :3], alone)
    for metric in apart.keys() - {"option_mass"}:
        assert apart[metric] == pytest.approx(mixed[metric], abs=1e-12)


def test_point_values_are_those_of_measure():
    values = point_values(MODEL, TABLE, BASE)
    found = by_key(quick(MODEL, TABLE, BASE))
    for metric, value in values.items():
        assert value == found[metric, ONE.get(metric, "probability")].value


def test_the_seed_decides_everything():
    assert quick(MODEL, TABLE, seed=4) == quick(MODEL, TABLE, seed=4)
    assert quick(MODEL, TABLE, seed=4) != quick(MODEL, TABLE, seed=5)


def test_kl_is_the_mean_over_prompts():
    kl = torch.tensor([0.1, 0.2, 0.6], dtype=torch.float64)
    found = by_key(quick(MODEL, TABLE, kl=kl))["kl", "probability"]
    assert found.value == pytest.approx(0.3)
    assert found.low is not None and found.high is not None
    assert 0.1 <= found.low < 0.3 < found.high <= 0.6 + 1e-12
    alone = by_key(quick(MODEL, TABLE, kl=kl[:1]))["kl", "probability"]
    assert (alone.low, alone.high, alone.n) == (None, None, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measure(MODEL[:-1], TABLE), f"log_probs has shape .* holds {len(TABLE)} choices"),
        (lambda: measure(MODEL, TABLE, BASE[:, :-1]), "base_log_probs has shape"),
        (lambda: quick(MODEL, TABLE, kl=torch.zeros(0)), "one value per prompt"),
        (lambda: quick(MODEL, TABLE, kl=torch.tensor([0.1, math.inf])), "finite"),
        (lambda: quick(MODEL, TABLE, kl=torch.tensor([-0.1])), "not negative"),
        (lambda: measure(MODEL + 5, TABLE), "total probability"),
    ],
)
def test_wrong_input_is_refused_in_words(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def collect(rows: Tensor, batch: int = 5, table: ChoiceTable = TABLE) -> ChoiceMetrics:
    metrics = ChoiceMetrics(table)
    for part in rows.split(batch):
        width = int(table.mask[part].any(0).sum())
        metrics.update(MODEL[part, :width], part)
    return metrics


def close(one: dict[str, Tensor], other: dict[str, float]) -> None:
    assert one.keys() == other.keys()
    for metric, value in other.items():
        assert one[metric].item() == pytest.approx(value, abs=1e-6), metric


def test_batches_in_any_order_are_the_whole():
    order = torch.randperm(len(TABLE), generator=torch.Generator().manual_seed(0))
    close(collect(order).compute(), point_values(MODEL, TABLE))


def test_two_ranks_are_one():
    rows = torch.arange(len(TABLE))
    first, second = collect(rows[::2]), collect(rows[1::2], batch=3)
    first.merge_state(second)
    close(first.compute(), point_values(MODEL, TABLE))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("seen_here", [0, 10, len(TABLE)])
def test_gathered_states_are_one_even_when_a_rank_has_seen_nothing(seen_here):
    """torchmetrics' own gathering, with the other rank's states put in its place."""
    rows = torch.arange(len(TABLE))
    there = collect(rows[seen_here:])
    waiting = [torch.cat([torch.tensor([]), *state]) for state in (there.log_probs, there.rows)]

    def gather(tensor: Tensor, group: object = None) -> list[Tensor]:
        other = waiting.pop(0)
        assert tensor.ndim == other.ndim and tensor.dtype == other.dtype
        return [tensor, other]

    here = ChoiceMetrics(TABLE, dist_sync_fn=gather, distributed_available_fn=lambda: True)
    if seen_here:
        here.update(MODEL[:seen_here], rows[:seen_here])
    close(here.compute(), point_values(MODEL, TABLE))


def test_choices_that_a_sampler_repeats_count_once():
    rows = torch.arange(len(TABLE))
    metrics = collect(torch.cat([rows, rows[:7], rows[:3]]))
    close(metrics.compute(), point_values(MODEL, TABLE))


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
@pytest.mark.parametrize("seen", [0, 10])
def test_missing_choices_are_counted_in_the_error(seen):
    with pytest.raises(ValueError, match=f"{len(TABLE) - seen} of {len(TABLE)} choices"):
        collect(torch.arange(seen)).compute()


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_reset_forgets():
    metrics = collect(torch.arange(len(TABLE)))
    metrics.compute()
    metrics.reset()
    with pytest.raises(ValueError, match="have not been seen"):
        metrics.compute()


@pytest.mark.parametrize(
    ("log_probs", "rows", "message"),
    [
        (torch.zeros(2, 9), torch.tensor([0, 1]), "k of at most 4"),
        (torch.zeros(2, 4), torch.tensor([0]), "one per row"),
        (torch.zeros(1, 4), torch.tensor([-1]), "positions 0 to"),
        (torch.zeros(1, 4), torch.tensor([len(TABLE)]), "positions 0 to"),
    ],
)
def test_wrong_batches_are_refused(log_probs, rows, message):
    with pytest.raises(ValueError, match=message):
        ChoiceMetrics(TABLE).update(log_probs, rows)
