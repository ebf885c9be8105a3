"""More than two groups: the same identities as for two sides, which are the case k = 2."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dso.metrics import total_variation
from dso.rewards import RunningGap, abstention, parity, per_sample_parity
from dso.tasks import Choice, ChoiceTable, Option, tabulate
from tests.metrics.made_up_choices import MEN, WOMEN, colleagues, sentences

THREE = ("Asian", "Black", "White")
SIX = tuple(f"{group} {noun}" for group in THREE for noun in ("man", "woman"))


def random_answers(table: ChoiceTable, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(table.mask.shape, generator=generator, dtype=torch.float64)
    return scores.masked_fill(~table.mask, -torch.inf).softmax(-1)


def estimated(table: ChoiceTable, answers: torch.Tensor) -> RunningGap:
    running = RunningGap(len(table.occupation_names), groups=len(table.group_names))
    running.update(running.batch_sums(answers, table))
    return running


def renamed(choices: list[Choice]) -> list[Choice]:
    """The sides as groups that the options name."""
    return [
        replace(
            choice,
            options=tuple(
                replace(o, side="neither", group=None if o.side == "neither" else o.side)
                for o in choice.options
            ),
        )
        for choice in choices
    ]


# -- two sides are two groups -------------------------------------------------------------------


@pytest.mark.parametrize("dont_know", [False, True])
def test_two_groups_named_like_the_sides_are_the_sides(dont_know):
    choices = sentences(dont_know)
    sided, grouped = tabulate(choices), tabulate(renamed(choices))
    assert grouped.side.eq(0).all()
    answers = random_answers(sided, 0)
    one, other = estimated(sided, answers), estimated(grouped, answers)
    assert torch.equal(one.gap, other.gap)
    assert torch.equal(one.bias, other.bias)
    assert torch.equal(parity(sided, one.lead), parity(grouped, other.lead))
    assert torch.equal(parity(sided, one.gap), parity(sided, one.lead))
    log_probs = answers.log()
    assert torch.equal(per_sample_parity(log_probs, sided), per_sample_parity(log_probs, grouped))
    assert torch.equal(abstention(sided), abstention(grouped))


def test_a_lead_of_two_sides_is_half_their_gap():
    table = tabulate(sentences())
    running = estimated(table, random_answers(table, 1))
    assert torch.equal(running.lead, torch.stack([running.gap, -running.gap], 1) / 2)
    assert torch.equal(running.bias, running.gap.abs().mean())


# -- more groups --------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [THREE, SIX], ids=["three", "six"])
@pytest.mark.parametrize("seed", range(3))
def test_the_expected_reward_is_minus_twice_the_total_variation_and_a_constant(groups, seed):
    table = tabulate(colleagues(groups))
    answers = random_answers(table, seed)
    running = estimated(table, answers)
    expected = (answers * parity(table, running.lead)).sum(-1)
    for occupation in range(len(table.occupation_names)):
        rows = table.occupation[:, 0] == occupation
        variation = total_variation(answers[rows], table.group[rows], table.occupation[rows])
        constant = -float(running.lead[occupation].sign().sum()) / len(groups)
        assert expected[rows].mean() == pytest.approx(-2 * float(variation) + constant)
    whole = total_variation(answers, table.group, table.occupation)
    assert float(running.bias) == pytest.approx(2 * float(whole), abs=1e-6)


def test_groups_above_the_mean_cost_and_those_below_it_pay():
    table = tabulate([c for c in colleagues(dont_know=True) if c.occupations == ("nurse",)])
    lead = torch.tensor([[0.0, 0.0, 0.3, 0.0, -0.3]])
    assert table.group_names == ("pro", "anti", *THREE)
    # Asian, Black, White and no group, as the options stand.
    assert parity(table, lead).tolist() == [[-1, 0, 1, 0], [0, 1, -1, 0], [1, -1, 0, 0]]
    assert abstention(table).tolist() == [[0, 0, 0, 1]] * 3


def test_several_occupations_get_the_mean_of_their_rewards():
    pair = replace(colleagues()[0], occupations=("driver", "nurse"))
    lead = torch.tensor([[0, 0, 0.2, 0.1, -0.3], [0, 0, 0.4, -0.2, -0.2]])
    assert parity(tabulate([pair]), lead).tolist() == [[-1, 0, 1]]


def test_a_uniform_model_has_no_lead_and_no_reward():
    table = tabulate(colleagues(SIX))
    uniform = table.mask / table.mask.sum(1, keepdim=True)
    assert estimated(table, uniform).bias < 1e-6
    assert per_sample_parity(uniform.log(), table).abs().max() < 1e-6


@pytest.mark.parametrize("groups", [("old", "young"), THREE, SIX])
def test_the_gradient_per_sample_is_that_of_the_squared_leads(groups):
    table = tabulate(colleagues(groups, dont_know=True))
    scores = torch.randn(table.mask.shape, dtype=torch.float64, requires_grad=True)
    reward = per_sample_parity(scores, table)
    answers = scores.softmax(-1)
    found = torch.autograd.grad((answers * reward).sum(), scores, retain_graph=True)[0]
    wanted = torch.autograd.grad(-table.leads(answers).square().sum(), scores)[0]
    torch.testing.assert_close(found, wanted)


def test_processes_add_their_sums():
    choices = colleagues() + colleagues(SIX)
    whole = tabulate(choices)
    answers = random_answers(whole, 2)
    running = RunningGap(len(MEN + WOMEN), groups=len(whole.group_names))
    parts = []
    for rows in torch.arange(len(whole)).split(29):
        part = tabulate([choices[r] for r in rows], whole.occupation_names, (), whole.group_names)
        parts.append(running.batch_sums(answers[rows, : part.mask.shape[1]], part))
    assert len(parts) > 2
    torch.testing.assert_close(sum(parts), running.batch_sums(answers, whole))


def test_of_choices_with_different_groups_the_bias_is_the_mean():
    three, six = tabulate(colleagues()), tabulate(colleagues(SIX))
    both = tabulate(colleagues() * 2 + colleagues(SIX), pairs=())  # as many of either
    answers = torch.zeros(both.mask.shape, dtype=torch.float64)
    answers[: 2 * len(three), :3] = random_answers(three, 3).repeat(2, 1)
    answers[2 * len(three) :] = random_answers(six, 4)
    one = estimated(three, answers[: len(three), :3]).bias
    other = estimated(six, answers[2 * len(three) :]).bias
    torch.testing.assert_close(estimated(both, answers).bias, (one + other) / 2)


# -- what does not fit --------------------------------------------------------------------------


def test_estimates_of_other_groups_are_refused():
    table = tabulate(colleagues())
    answers = random_answers(table, 0)
    with pytest.raises(ValueError, match="give RunningGap groups=5"):
        RunningGap(8).batch_sums(answers, table)
    for lead in (torch.zeros(8), torch.zeros(8, 2), torch.zeros(8, 6)):
        with pytest.raises(ValueError, match=r"wanted \(occupations, 5\), as RunningGap.lead"):
            parity(table, lead)
    with pytest.raises(ValueError, match="groups is 1; every table has"):
        RunningGap(8, groups=1)
    with pytest.raises(ValueError, match=r"8 occupations and 5 groups, the data has 8 .* and 2"):
        RunningGap(8).load_state_dict(RunningGap(8, groups=5).state_dict())


def test_groups_beyond_the_estimates_are_no_matter_where_no_ambiguous_choice_names_them():
    options = (Option("x", group="old"), Option("y", group="young"))
    known = Choice("k", "gender_needed", "Who?", options, truth=0, occupations=("nurse",))
    choices = [*sentences(), known]
    table, plain = tabulate(choices), tabulate(choices[:-1])
    answers = torch.cat([random_answers(plain, 0), torch.tensor([[0.9, 0.1]])])
    two = RunningGap(8)
    assert torch.equal(two.batch_sums(answers, table), two.batch_sums(answers[:-1], plain))
