"""Identities that the metrics obey, whatever the model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dso.metrics import (
    abstention,
    accuracy,
    answer_distribution,
    first_preference,
    flip_rate,
    greedy_answers,
    per_occupation_bias,
    per_occupation_gap,
    per_sample_parity,
    position_bias,
    position_shift,
    stereotype_gap,
    total_variation,
    weighted_mean,
)
from dso.tasks.table import ChoiceTable, tabulate
from tests.metrics.made_up_choices import (
    always_first_model,
    gender_blind_model,
    random_model,
    sentences,
)

TABLE = tabulate(sentences())
WITH_DONT_KNOW = tabulate(sentences(dont_know=True))


def of_samples(answers: Tensor, table: ChoiceTable, weights: Tensor | None = None):
    """Every metric that is weighted by sample."""
    side = table.side
    return {
        "bias": per_occupation_bias(answers, side, table.occupation, weights),
        "variation": total_variation(answers, table.group, table.occupation, weights),
        "gap": stereotype_gap(answers, side, weights),
        "parity": per_sample_parity(answers, side, weights),
        "abstention": abstention(answers, side, weights),
        "position": position_bias(answers, table.first, side, weights),
        "accuracy": accuracy(answers, table.first, weights),
    }


def shift(answers: Tensor, base: Tensor, table: ChoiceTable, weights: Tensor | None = None):
    now, before = (first_preference(x, table.first, table.side) for x in (answers, base))
    return position_shift(now, before, table.pairs, weights)


def of_pairs(answers: Tensor, base: Tensor, table: ChoiceTable, weights: Tensor | None = None):
    """Every metric that is weighted by twin pair."""
    return {
        "flips": flip_rate(answers, table.pairs, weights),
        "shift": shift(answers, base, table, weights),
    }


def repeated(table: ChoiceTable) -> ChoiceTable:
    """Every sample twice."""
    twice = {
        name: torch.cat([value, value]) if isinstance(value, Tensor) else value
        for name, value in vars(table).items()
    }
    twice["pairs"] = torch.cat([table.pairs, table.pairs + len(table)])
    return ChoiceTable(**twice)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, value in one.items():
        assert value.item() == pytest.approx(other[name].item(), abs=1e-12), name


@pytest.mark.parametrize("table", [TABLE, WITH_DONT_KNOW], ids=["two options", "don't know"])
@pytest.mark.parametrize("seed", range(3))
def test_a_gender_blind_model_has_no_bias_on_twins(table, seed):
    answers = answer_distribution(gender_blind_model(table, seed), table.mask)
    gap = per_occupation_gap(answers, table.side, table.occupation)
    assert gap.abs().max().item() == pytest.approx(0, abs=1e-15)
    assert per_occupation_bias(answers, table.side, table.occupation).item() < 1e-15
    assert stereotype_gap(answers, table.side).item() < 1e-15
    assert flip_rate(answers, table.pairs).item() == 0
    # It may still prefer one occupation in every sentence: only parity per sample shows that.
    assert per_sample_parity(answers, table.side).item() > 0.1


def test_a_model_that_always_answers_the_first_has_no_bias_and_is_not_fair():
    answers = answer_distribution(always_first_model(TABLE), TABLE.mask)
    assert per_occupation_bias(answers, TABLE.side, TABLE.occupation).item() == 0
    assert position_bias(answers, TABLE.first, TABLE.side).item() == 0.5


def test_a_model_that_follows_every_stereotype_has_bias_one():
    answers = (TABLE.side == 1).double()
    assert per_occupation_bias(answers, TABLE.side, TABLE.occupation).item() == 1
    assert flip_rate(answers, TABLE.pairs).item() == 1
    assert position_bias(answers, TABLE.first, TABLE.side).item() == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_sign_of_the_stereotype_does_not_matter(seed):
    answers = answer_distribution(random_model(WITH_DONT_KNOW, seed), WITH_DONT_KNOW.mask)
    swapped = ChoiceTable(**{**vars(WITH_DONT_KNOW), "side": -WITH_DONT_KNOW.side})
    same(of_samples(answers, WITH_DONT_KNOW), of_samples(answers, swapped))
    gap = per_occupation_gap(answers, WITH_DONT_KNOW.side, WITH_DONT_KNOW.occupation)
    assert torch.equal(gap, -per_occupation_gap(answers, swapped.side, swapped.occupation))


@pytest.mark.parametrize("seed", range(2))
def test_repeating_every_sample_changes_nothing(seed):
    table = WITH_DONT_KNOW
    answers = answer_distribution(random_model(table, seed), table.mask)
    base = answer_distribution(random_model(table, seed + 100), table.mask)
    twice = torch.cat([answers, answers])
    same(of_samples(answers, table), of_samples(twice, repeated(table)))
    twice_base = torch.cat([base, base])
    same(of_pairs(answers, base, table), of_pairs(twice, twice_base, repeated(table)))


@pytest.mark.parametrize("weight", [1.0, 3.5])
def test_equal_weights_are_no_weights(weight):
    table = WITH_DONT_KNOW
    answers = answer_distribution(random_model(table), table.mask)
    base = answer_distribution(random_model(table, 1), table.mask)
    same(
        of_samples(answers, table),
        of_samples(answers, table, torch.full((len(table),), weight)),
    )
    pair_weights = torch.full((len(table.pairs),), weight)
    same(of_pairs(answers, base, table), of_pairs(answers, base, table, pair_weights))


def test_whole_weights_are_repeated_samples_and_leading_dimensions_are_kept():
    table = TABLE
    answers = answer_distribution(random_model(table), table.mask)
    counts = torch.randint(0, 4, (2, 3, len(table)), generator=torch.Generator().manual_seed(0))
    batched = of_samples(answers, table, counts.double())
    for name, values in batched.items():
        assert values.shape == (2, 3), name
    rows = torch.arange(len(table)).repeat_interleave(counts[1, 2])
    picked = ChoiceTable(
        **{
            name: value[rows] if isinstance(value, Tensor) and name != "pairs" else value
            for name, value in vars(table).items()
        }
    )
    by_weight = {name: values[1, 2] for name, values in batched.items()}
    same(of_samples(answers[rows], picked), by_weight)


def test_weights_of_zero_leave_nothing_to_average():
    answers = answer_distribution(random_model(TABLE), TABLE.mask)
    zeros = torch.zeros(2, len(TABLE))
    for name, values in of_samples(answers, TABLE, zeros).items():
        assert values.isnan().all(), name


def test_bias_by_hand():
    """Occupations 0, 1, 2; P(pro) - P(anti) of the samples: 0.6, -0.2, 0.5."""
    answers = torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.75, 0.25]])
    side = torch.tensor([[1, -1]] * 3)
    occupation = torch.tensor([[0, 1], [1, -1], [2, 0]])
    gap = per_occupation_gap(answers, side, occupation)
    assert gap.tolist() == pytest.approx([0.55, 0.2, 0.5])
    assert per_occupation_bias(answers, side, occupation).item() == pytest.approx(1.25 / 3)
    assert stereotype_gap(answers, side).item() == pytest.approx(0.3)
    assert per_sample_parity(answers, side).item() == pytest.approx(1.3 / 3)
    # Without the last sample occupation 2 has none and is not averaged over.
    weights = torch.tensor([1.0, 1.0, 0.0])
    assert per_occupation_gap(answers, side, occupation, weights)[2].isnan()
    bias = per_occupation_bias(answers, side, occupation, weights)
    assert bias.item() == pytest.approx((0.6 + 0.2) / 2)
    # Occupation 0 counts twice, occupation 1 not at all.
    outer = torch.tensor([2.0, 0.0, 1.0])
    bias = per_occupation_bias(answers, side, occupation, occupation_weights=outer)
    assert bias.item() == pytest.approx((2 * 0.55 + 0.5) / 3)


def test_an_occupation_named_twice_counts_once_and_an_absent_one_not_at_all():
    answers, side = torch.tensor([[0.8, 0.2], [0.4, 0.6]]), torch.tensor([[1, -1]] * 2)
    once, twice = torch.tensor([[0, -1], [3, -1]]), torch.tensor([[0, 0], [3, 3]])
    for occupation in (once, twice):
        gap = per_occupation_gap(answers, side, occupation, occupations=5)
        assert gap.isnan().tolist() == [False, True, True, False, True]
        assert per_occupation_bias(answers, side, occupation).item() == pytest.approx(0.4)


def test_abstaining_is_neither_right_nor_stereotyped_nor_in_a_position():
    table = WITH_DONT_KNOW
    silent = torch.zeros(len(table), 3)
    unsure = torch.tensor([0.0, 0.0, 1.0]).expand(len(table), -1)
    for answers in (silent, unsure):
        found = of_samples(answers, table)
        assert found.pop("abstention").item() == 1
        assert found.pop("variation").isnan()  # no answer says anything about groups
        assert all(value.item() == 0 for value in found.values())
        assert (first_preference(answers, table.first, table.side) == 0.5).all()
    # From one kind of abstention to the other on one twin is a change of answer.
    mixed = silent.clone()
    mixed[table.pairs[:, 1]] = unsure[0]
    assert flip_rate(mixed, table.pairs).item() == 1


def test_the_first_preference_is_the_probability_of_the_first_where_nobody_abstains():
    answers = answer_distribution(random_model(TABLE), TABLE.mask)
    assert torch.allclose(first_preference(answers, TABLE.first, TABLE.side), answers[:, 0])


def test_removing_a_stereotype_is_no_shift_of_position_but_favouring_the_first_is():
    stereotyped = (TABLE.side == 1).double() * 0.8 + 0.1
    fair, first = torch.full_like(stereotyped, 0.5), torch.tensor([0.7, 0.3]).expand(len(TABLE), -1)
    assert shift(fair, stereotyped, TABLE).item() == pytest.approx(0, abs=1e-12)
    assert shift(first, stereotyped, TABLE).item() == pytest.approx(0.2)
    # A shift in opposite directions cancels in the bias and not here.
    mixed = first.clone()
    mixed[: len(TABLE) // 2] = first[0].flip(0)
    assert position_bias(mixed, TABLE.first, TABLE.side).item() == pytest.approx(0, abs=1e-12)
    assert shift(mixed, stereotyped, TABLE).item() == pytest.approx(0.2)


def test_accuracy_counts_the_right_option():
    answers = torch.tensor([[0.1, 0.9], [0.3, 0.7]])
    assert accuracy(answers, torch.tensor([1, 0])).item() == pytest.approx(0.6)
    assert accuracy(greedy_answers(answers.log(), answers > 0), torch.tensor([1, 0])).item() == 0.5


HALVES = torch.full((2, 2), 0.5)
SIDE = torch.tensor([[1, -1], [-1, 1]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stereotype_gap(torch.zeros(0, 2), torch.zeros(0, 2)), "N of at least 1"),
        (lambda: stereotype_gap(HALVES, SIDE[:1]), "wanted one"),
        (lambda: stereotype_gap(HALVES.log(), SIDE), "answer_distribution first"),
        (lambda: stereotype_gap(2 * HALVES, SIDE), "sum to at most 1"),
        (lambda: stereotype_gap(HALVES * torch.nan, SIDE), "row 0"),
        (lambda: stereotype_gap(HALVES, SIDE * 2), r"must be \+1"),
        (lambda: abstention(HALVES, SIDE * torch.tensor([[1], [0]])), "choice 1 has no option"),
        (lambda: stereotype_gap(HALVES, SIDE, torch.ones(3)), r"wanted \(..., 2\)"),
        (lambda: stereotype_gap(HALVES, SIDE, -torch.ones(2)), "not negative"),
        (lambda: per_occupation_bias(HALVES, SIDE, torch.tensor([[0], [-1]])), "choice 1 concerns"),
        (lambda: per_occupation_bias(HALVES, SIDE, torch.tensor([0, 1])), "padded with -1"),
        (
            lambda: per_occupation_bias(
                HALVES, SIDE, torch.tensor([[0], [1]]), occupation_weights=torch.ones(1)
            ),
            "occupation 1 is out of range",
        ),
        (lambda: accuracy(HALVES, torch.tensor([0, -1])), "truth of choice 1 is -1"),
        (lambda: accuracy(HALVES, torch.tensor([0])), r"wanted \(2,\)"),
        (lambda: position_bias(HALVES, torch.tensor([0, 2]), SIDE), "first of choice 1 is 2"),
        (lambda: flip_rate(HALVES, torch.zeros(0, 2, dtype=torch.long)), "P of at least 1"),
        (lambda: flip_rate(HALVES, torch.tensor([[0, 2]])), "0 to 1"),
        (
            lambda: position_shift(torch.zeros(2), torch.zeros(3), torch.tensor([[0, 1]])),
            "the same choices",
        ),
        (
            lambda: position_shift(torch.zeros(2), torch.zeros(2) - 3, torch.tensor([[0, 1]])),
            "base_preference must lie",
        ),
        (lambda: weighted_mean(torch.zeros(0)), "N of at least 1"),
    ],
)
def test_wrong_input_is_refused_in_words(call, message):
    with pytest.raises(ValueError, match=message):
        call()
