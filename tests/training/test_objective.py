"""The objective of a step: computed over the options, or estimated from sampled answers."""

from __future__ import annotations

import pytest
import torch

from dso import rewards
from dso.tasks import Choice, Option, tabulate
from dso.training.estimators import SAMPLED
from dso.training.objective import Objective, Samples, step_loss, with_no_option

SIDES = {"he": ("pro", "anti", "neither"), "she": ("anti", "pro", "neither")}
REWARDS = Objective(
    twin_prior=0.7, twin_consistency=0, pair_anchor=0, option_mass=0, abstention=0.3
)


def batch() -> list[Choice]:
    """Two twin pairs with three options, and a question with two."""
    ambiguous = [
        Choice(
            f"{pair}-{word}",
            "ambiguous",
            "Who?",
            tuple(Option(t, side=s) for t, s in zip("ABC", sides, strict=True)),
            occupations=("guard", "nurse")[: 1 + pair],
            twin=f"{pair}",
        )
        for pair in range(2)
        for word, sides in SIDES.items()
    ]
    right = Choice("q", "capability", "2 + 2?", (Option("4"), Option("5")), truth=0)
    return [*ambiguous, right]


def scores(seed: int) -> torch.Tensor:
    """(5, 3) log-probabilities of options, some mass left to other answers."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(5, 4, generator=generator, dtype=torch.float64).log_softmax(-1)[:, :3]
    values[4, 2] = -torch.inf
    return values


def gradient(log_probs, base, table, gap, samples=None):
    loss, raw = step_loss(log_probs, base, table, gap, REWARDS, samples)
    return torch.autograd.grad(loss, log_probs)[0], raw


@pytest.mark.parametrize("estimator", sorted(SAMPLED))
def test_sampled_rewards_and_gradients_are_the_expected_ones_over_all_outcomes(estimator):
    table, gap = tabulate(batch()), torch.tensor([0.4, -0.2], dtype=torch.float64)
    base = scores(1)
    log_probs = scores(0).requires_grad_()
    outcomes = with_no_option(log_probs.detach())
    # By hand: sum over the outcomes, "no option" among them, of probability times reward.
    parity = torch.nn.functional.pad(rewards.parity(table, gap, 0.3), (0, 1))
    parity[:4, 3] = 0.3
    prior = rewards.twin_prior(outcomes, with_no_option(base), table)
    right = torch.nn.functional.pad(rewards.capability(table), (0, 1))
    p = with_no_option(log_probs).exp()
    wanted = -(p * (parity + 0.7 * prior))[:4].sum(-1).mean() - (p * right)[4].sum()
    (expected,) = torch.autograd.grad(wanted, log_probs)

    torch.manual_seed(0)
    total, means, repeats = torch.zeros_like(expected), {}, 600
    for _ in range(repeats):
        drawn = torch.distributions.Categorical(logits=outcomes).sample((32,)).T
        chosen = with_no_option(log_probs).gather(1, drawn)
        samples = Samples(
            torch.where(drawn == 3, -1, drawn),
            lambda where, rewards, chosen=chosen: SAMPLED[estimator](chosen[where], rewards),
        )
        found, raw = gradient(log_probs, base, table, gap, samples)
        total += found.nan_to_num()
        for name, value in raw.items():
            means[name] = means.get(name, 0.0) + float(value) / repeats
    torch.testing.assert_close(total / repeats, expected.nan_to_num(), rtol=0, atol=0.03)
    weights = outcomes.exp()
    assert means["parity"] == pytest.approx(float((weights * parity)[:4].sum(-1).mean()), abs=0.02)
    assert means["twin_prior"] == pytest.approx(
        float((weights * prior)[:4].sum(-1).mean()), abs=0.02
    )
    assert means["capability"] == pytest.approx(float((weights * right)[4].sum()), abs=0.02)


def test_the_prior_s_expectation_is_the_divergence_from_the_blinded_base():
    table, base = tabulate(batch()), scores(1).log_softmax(-1)
    own = scores(0).log_softmax(-1)
    reward = rewards.twin_prior(own, base, table)
    for a, b in table.pairs.tolist():
        blind = (base[a].exp() + base[b].exp()) / 2
        for row in (a, b):
            divergence = (own[row].exp() * (own[row] - blind.log())).sum()
            torch.testing.assert_close((own[row].exp() * reward[row]).sum(), -divergence)
    assert bool((reward[4] == 0).all())


def test_the_prior_is_zero_where_the_model_is_the_blinded_base():
    table, base = tabulate(batch()), scores(1)
    blind = base.clone()
    for a, b in table.pairs.tolist():
        blind[[a, b]] = ((base[a].exp() + base[b].exp()) / 2).log()
    assert rewards.twin_prior(blind, base, table).abs().max() < 1e-12


def test_no_option_takes_what_the_options_leave():
    outcomes = with_no_option(scores(0))
    torch.testing.assert_close(outcomes.exp().sum(-1), torch.ones(5, dtype=torch.float64))
    full = with_no_option(torch.tensor([[0.5, 0.5]]).log())
    assert float(full[0, 2]) == pytest.approx(float(torch.tensor(1e-4).log()))
