from __future__ import annotations

import pytest
import torch

from dso.metrics import (
    answer_distribution,
    measure,
    per_occupation_bias,
    point_values,
    total_variation,
)
from dso.tasks.table import tabulate
from tests.metrics.made_up_choices import (
    colleagues,
    gender_blind_model,
    mixture,
    questions,
    random_model,
    sentences,
)

THREE = tabulate(colleagues())
SIX = tabulate(colleagues(("a", "b", "c", "d", "e", "f"), dont_know=True))


def variation(answers, table, *weights):
    return total_variation(answers, table.group, table.occupation, *weights)


def by_loop(answers, table) -> float:
    """Mean over occupations of half the distance of P(g | o) from uniform."""
    found = []
    for occupation in range(len(table.occupation_names)):
        total = dict.fromkeys(table.group.unique().tolist(), 0.0)
        for row in (table.occupation == occupation).any(1).nonzero().flatten().tolist():
            for group, share in zip(table.group[row].tolist(), answers[row].tolist(), strict=True):
                total[group] += share
        total.pop(-1, None)
        mass = sum(total.values())
        found.append(sum(abs(p / mass - 1 / len(total)) for p in total.values()) / 2)
    return sum(found) / len(found)


@pytest.mark.parametrize("table", [THREE, SIX], ids=["three", "six and none"])
@pytest.mark.parametrize("seed", range(3))
def test_it_is_a_plain_loop(table, seed):
    answers = answer_distribution(random_model(table, seed), table.mask)
    assert float(variation(answers, table)) == pytest.approx(by_loop(answers, table))


@pytest.mark.parametrize("seed", range(3))
def test_of_two_sides_it_is_half_the_bias(seed):
    table = tabulate(sentences())
    answers = answer_distribution(random_model(table, seed), table.mask)
    bias = per_occupation_bias(answers, table.side, table.occupation)
    torch.testing.assert_close(variation(answers, table), bias / 2)
    blind = answer_distribution(gender_blind_model(table, seed), table.mask)
    assert variation(blind, table) < 1e-15


def test_it_runs_from_uniform_to_one_group_alone():
    for table, k in ((THREE, 3), (SIX, 6)):
        named = (table.group >= 0).double()
        assert variation(named / (2 * k), table) < 1e-15  # half of the answers name no group
        alone = (table.group == table.group.max()).double()
        assert float(variation(alone, table)) == pytest.approx(1 - 1 / k)


def test_a_model_that_goes_by_the_place_of_an_option_scores_nothing():
    first = torch.zeros(THREE.mask.shape).index_fill(1, torch.tensor([0]), 1.0)
    assert variation(first, THREE) < 1e-15
    placed = torch.tensor([0.7, 0.2, 0.1]).expand(len(THREE), -1)
    assert variation(placed, THREE) < 1e-7


def test_the_weight_of_an_answer_is_how_often_it_came():
    answers = answer_distribution(random_model(THREE), THREE.mask)
    counts = torch.randint(1, 4, (2, len(THREE)), generator=torch.Generator().manual_seed(0))
    weighted = variation(answers, THREE, counts)
    assert weighted.shape == (2,)
    rows = torch.arange(len(THREE)).repeat_interleave(counts[1])
    picked = total_variation(answers[rows], THREE.group[rows], THREE.occupation[rows])
    torch.testing.assert_close(weighted[1], picked)


def test_occupations_weigh_alike_unless_told():
    answers = answer_distribution(random_model(THREE), THREE.mask)
    apart = [
        float(variation(answers, THREE, (THREE.occupation[:, 0] == o).double())) for o in range(8)
    ]
    assert float(variation(answers, THREE)) == pytest.approx(sum(apart) / 8)
    some = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 3.0])
    expected = (apart[0] + 3 * apart[7]) / 4
    assert float(variation(answers, THREE, None, some)) == pytest.approx(expected)


def test_an_occupation_whose_answers_name_no_group_is_left_out():
    answers = answer_distribution(random_model(SIX), SIX.mask)
    silent = SIX.occupation[:, 0] == 0
    some = answers.masked_fill(silent[:, None], 0.0)
    expected = variation(answers, SIX, (~silent).double())
    torch.testing.assert_close(variation(some, SIX), expected)
    assert variation(torch.zeros_like(answers), SIX).isnan()


def test_it_is_measured_of_groups_without_sides_and_the_other_biases_are_not():
    alone = tabulate([*colleagues(), *questions("capability", 3)])
    found = {(m.metric, m.estimate): m for m in measure(random_model(alone), alone, replicates=50)}
    metrics = {metric for metric, _ in found}
    assert metrics == {"total_variation", "capability", "option_mass"}
    expected = found["total_variation", "probability"]
    assert (expected.n, next(iter(found))) == (24, ("total_variation", "probability"))
    assert expected.low is not None and expected.high is not None
    assert 0 < expected.low < expected.high < 1
    assert ("total_variation", "greedy") in found
    assert "total_variation" not in point_values(random_model(mixture()), mixture())


def test_groups_and_sides_are_measured_beside_each_other():
    sides, groups = sentences(), colleagues()
    table = tabulate([*sides, *groups])
    log_probs = random_model(table)
    both = point_values(log_probs, table)
    one = point_values(log_probs[: len(sides), :2], tabulate(sides))
    other = point_values(log_probs[len(sides) :], tabulate(groups))
    for metric, value in (one | other).items():
        if metric != "option_mass":
            assert both[metric] == pytest.approx(value, abs=1e-12), metric
    assert both.keys() == one.keys() | other.keys()


HALVES = torch.full((2, 2), 0.5)


@pytest.mark.parametrize(
    ("group", "occupation", "message"),
    [
        ([[0, 1]], [[0], [0]], r"group has shape \(1, 2\) and answers \(2, 2\)"),
        ([[0, 1], [1, 1]], [[0], [0]], r"choice 1 has options of fewer than two groups: \[1, 1\]"),
        ([[0, -1], [0, 1]], [[0], [0]], "choice 0 has options of fewer than two groups"),
        ([[-1, -1], [0, 1]], [[0], [0]], "choice 0 has options of fewer than two groups"),
        ([[0, 1], [0, 1]], [[0], [-1]], "choice 1 concerns no occupation"),
    ],
)
def test_wrong_input_is_refused_in_words(group, occupation, message):
    with pytest.raises(ValueError, match=message):
        total_variation(HALVES, torch.tensor(group), torch.tensor(occupation))
