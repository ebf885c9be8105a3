"""From log-probabilities to rewards and a loss: over the options, or from sampled answers."""

from __future__ import annotations

import pytest
import torch

from dso import rewards
from dso.training import Custom, Objective, Schedule
from dso.training.custom import Customs
from dso.training.estimators import exact, reinforce, rloo
from dso.training.step import Sampled, reward, step_loss, with_no_option
from tests.training.made_up_step import log_probs, scored

SAMPLED = {"reinforce": reinforce, "rloo": rloo}
REWARDS = Objective(
    per_sample_parity=0.5, twin_prior=0.7, abstention=0.3,
    twin_consistency=0, pair_anchor=0, option_mass=0,
)  # fmt: skip


def exact_loss(values):
    return lambda _, where, rewards: exact(values[where], rewards)


def gradient(step, rewarded, objective, policy_loss):
    loss, figures = step_loss(step, rewarded, objective, policy_loss)
    return torch.autograd.grad(loss, step.log_probs)[0], figures


def by_hand(step, gains):
    """Expectation of (5, 4) gains over all outcomes, "no option" among them, by population."""
    p = with_no_option(step.log_probs).exp()
    return (p * gains)[:4].sum(-1).mean() + (p * gains)[4].sum()


@pytest.mark.parametrize("estimator", sorted(SAMPLED))
def test_sampled_rewards_and_gradients_are_the_expected_ones_over_all_outcomes(estimator):
    step = scored(log_probs(0).requires_grad_())
    table = step.table
    outcomes = with_no_option(step.log_probs.detach())
    pad = torch.nn.functional.pad
    parts = {
        "parity": pad(rewards.parity(table, step.lead), (0, 1)),
        "per_sample_parity": pad(rewards.per_sample_parity(step.log_probs.detach(), table), (0, 1)),
        "twin_prior": rewards.twin_prior(outcomes, with_no_option(step.base_log_probs), table),
        "abstention": pad(rewards.abstention(table), (0, 1)),
        "capability": pad(rewards.capability(table), (0, 1)),
    }
    parts["abstention"][:4, 3] = 1.0  # saying no option takes no side
    gains = sum(REWARDS.weight(name) * values for name, values in parts.items())
    (expected,) = torch.autograd.grad(-by_hand(step, gains), step.log_probs)

    torch.manual_seed(0)
    total, means, repeats = torch.zeros_like(expected), {}, 600
    for _ in range(repeats):
        drawn = torch.distributions.Categorical(logits=outcomes).sample((32,)).T
        sampled = Sampled(torch.where(drawn == 3, -1, drawn), [["?"] * 32] * 5)
        rewarded = reward(step, REWARDS, sampled=sampled)
        chosen = with_no_option(step.log_probs).gather(1, drawn)
        found, figures = gradient(
            step,
            rewarded,
            REWARDS,
            lambda _, where, given, chosen=chosen: SAMPLED[estimator](chosen[where], given),
        )
        total += found.nan_to_num()
        for name, value in figures.raw.items():
            means[name] = means.get(name, 0.0) + float(value) / repeats
    torch.testing.assert_close(total / repeats, expected.nan_to_num(), rtol=0, atol=0.03)
    weights = outcomes.exp()
    for name, values in parts.items():
        rows = slice(4, 5) if name == "capability" else slice(0, 4)
        wanted = float((weights * values)[rows].sum(-1).mean())
        assert means[name] == pytest.approx(wanted, abs=0.02), name


def test_the_exact_loss_is_the_expected_reward_over_the_options():
    step = scored(log_probs(0).requires_grad_())
    rewarded = reward(step, REWARDS)
    found, figures = gradient(step, rewarded, REWARDS, exact_loss(step.log_probs))
    p = step.log_probs.softmax(-1)
    gains = sum(REWARDS.weight(n) * v for n, v in rewarded.values.items())
    wanted = -(p * gains)[:4].sum(-1).mean() - (p * gains)[4].sum()
    (expected,) = torch.autograd.grad(wanted, step.log_probs)
    torch.testing.assert_close(found.nan_to_num(), expected.nan_to_num())
    torch.testing.assert_close(
        figures.raw["parity"], (p * rewarded.values["parity"])[:4].sum(-1).mean().detach()
    )


def test_a_weight_of_zero_leaves_no_trace_and_every_part_is_logged():
    step = scored(log_probs(0).requires_grad_())
    alone = Objective(
        parity=0, capability=0, twin_consistency=0, pair_anchor=0, option_mass=2.0
    )  # fmt: skip
    found, figures = gradient(step, reward(step, alone), alone, exact_loss(step.log_probs))
    drop = (step.base_log_probs.logsumexp(-1) - step.log_probs.logsumexp(-1)).clamp(min=0).mean()
    (expected,) = torch.autograd.grad(2.0 * drop, step.log_probs)
    torch.testing.assert_close(found.nan_to_num(), expected.nan_to_num())
    assert set(figures.raw) == set(figures.weighted) > {"parity", "distillation", "option_mass"}
    assert float(figures.weighted["option_mass"]) == pytest.approx(2 * float(drop.detach()))
    assert float(figures.weighted["parity"]) == 0 != float(figures.raw["parity"])


def test_a_schedule_moves_a_weight_with_the_run():
    objective = Objective(twin_consistency=3.0, schedules={"twin_consistency": Schedule(0.0, 1.0)})
    losses = []
    for progress in (0.0, 0.5, 1.0):
        step = scored(progress=progress)
        loss, figures = step_loss(
            step, reward(step, objective), objective, exact_loss(step.log_probs)
        )
        losses.append(float(loss))
        raw, weighted = (float(f["twin_consistency"]) for f in (figures.raw, figures.weighted))
        assert weighted == pytest.approx(3 * progress * raw)
    assert losses[1] - losses[0] == pytest.approx(losses[2] - losses[1])
    assert losses[0] < losses[1]


def test_normalised_rewards_do_not_depend_on_their_size():
    gradients = []
    for scale in (1.0, 1000.0):
        step = scored(log_probs(0).requires_grad_())
        objective = Objective(
            combine="normalised", twin_consistency=0, pair_anchor=0, option_mass=0,
            custom_rewards=(Custom(f"{__name__}.by_place", settings={"scale": scale}),),
        )  # fmt: skip
        customs = Customs.load(objective.custom_rewards, ())
        rewarded = reward(step, objective, customs)
        gradients.append(gradient(step, rewarded, objective, exact_loss(step.log_probs))[0])
    torch.testing.assert_close(
        gradients[0].nan_to_num(), gradients[1].nan_to_num(), rtol=1e-3, atol=1e-3
    )
    plain = Objective(twin_consistency=0, pair_anchor=0, option_mass=0)
    step = scored(log_probs(0).requires_grad_())
    other, _ = gradient(step, reward(step, plain), plain, exact_loss(step.log_probs))
    assert not torch.allclose(other.nan_to_num(), gradients[0].nan_to_num(), atol=1e-3)


def by_place(choices, answers, scale):
    """A custom reward: more for later options."""
    return [scale * answer.option for answer in answers]


def test_prompts_whose_answers_earn_the_same_carry_no_signal():
    step = scored()
    same = Sampled(torch.zeros(5, 4, dtype=torch.long), [["A"] * 4] * 5)
    _, figures = step_loss(
        step, reward(step, REWARDS, sampled=same), REWARDS, lambda *_: torch.zeros(())
    )
    assert {name: float(v) for name, v in figures.no_signal.items()} == {
        "ambiguous": 1.0, "known": 1.0,
    }  # fmt: skip
    assert all(float(value) == 0 for value in figures.spread.values())
    mixed = Sampled(torch.tensor([[0, 1, 0, 1]] * 4 + [[0, 0, 0, 0]]), [["A"] * 4] * 5)
    _, figures = step_loss(
        step, reward(step, REWARDS, sampled=mixed), REWARDS, lambda *_: torch.zeros(())
    )
    assert float(figures.no_signal["ambiguous"]) == 0.0
    assert float(figures.no_signal["known"]) == 1.0
    assert float(figures.spread["parity"]) > 0 == float(figures.spread["capability"])


def test_an_ambiguous_choice_with_a_truth_is_not_counted_twice():
    from dataclasses import replace

    from dso.training.step import populations

    table = replace(scored().table, truth=torch.tensor([0, -1, -1, -1, 0]))
    groups = populations(table)
    assert groups["ambiguous"].tolist() == [True] * 4 + [False]
    assert groups["known"].tolist() == [False] * 4 + [True]


def test_no_option_takes_what_the_options_leave():
    outcomes = with_no_option(log_probs(0))
    torch.testing.assert_close(outcomes.exp().sum(-1), torch.ones(5, dtype=torch.float64))
    full = with_no_option(torch.tensor([[0.5, 0.5]]).log())
    assert float(full[0, 2]) == pytest.approx(float(torch.tensor(1e-4).log()))
