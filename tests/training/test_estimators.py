from __future__ import annotations

import pytest
import torch

from dso.training.estimators import exact, reinforce, rloo

SAMPLED = {"reinforce": reinforce, "rloo": rloo}


def inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(5, 4) scores, the last options of two rows missing, and rewards."""
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    rewards = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    log_probs[1, 3:] = log_probs[4, 2:] = -torch.inf
    return log_probs, rewards


def test_the_loss_is_the_negative_expected_reward():
    log_probs, rewards = inputs()
    expected = [
        sum(p * r for p, r in zip(row.softmax(-1), reward, strict=True))
        for row, reward in zip(log_probs, rewards, strict=True)
    ]
    torch.testing.assert_close(exact(log_probs, rewards), -torch.stack(expected).mean())


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_is_that_of_a_softmax_policy(seed):
    log_probs, rewards = inputs(seed)
    log_probs.requires_grad_()
    (gradient,) = torch.autograd.grad(exact(log_probs, rewards), log_probs)
    policy = log_probs.detach().softmax(-1)
    advantage = rewards - (policy * rewards).sum(-1, keepdim=True)
    torch.testing.assert_close(gradient, -policy * advantage / len(log_probs))


def test_the_gradient_is_the_mean_of_many_sampled_ones():
    log_probs, rewards = inputs()
    log_probs.requires_grad_()
    (expected,) = torch.autograd.grad(exact(log_probs, rewards), log_probs)
    drawn = torch.distributions.Categorical(logits=log_probs.detach())
    torch.manual_seed(0)
    samples = drawn.sample((20_000,)).T
    chosen = log_probs.log_softmax(-1).gather(1, samples)
    sampled = -(chosen * rewards.gather(1, samples)).mean()
    (found,) = torch.autograd.grad(sampled, log_probs)
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)


def test_a_constant_in_the_rewards_or_the_mass_changes_no_gradient():
    log_probs, rewards = inputs()
    log_probs.requires_grad_()
    (gradient,) = torch.autograd.grad(exact(log_probs, rewards), log_probs)
    for scores, values in ((log_probs, rewards + 3), (log_probs - 5, rewards)):
        (other,) = torch.autograd.grad(exact(scores, values), log_probs)
        torch.testing.assert_close(other, gradient)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"log_probs \(2, 3\) and rewards \(2, 1\) must have one"):
        exact(torch.zeros(2, 3), torch.zeros(2, 1))


@pytest.mark.parametrize("name", sorted(SAMPLED))
def test_the_exact_gradient_is_the_mean_of_many_sampled_ones(name):
    log_probs, rewards = inputs()
    log_probs.requires_grad_()
    (expected,) = torch.autograd.grad(exact(log_probs, rewards), log_probs)
    drawn = torch.distributions.Categorical(logits=log_probs.detach())
    torch.manual_seed(0)
    total, repeats = torch.zeros_like(expected), 4000
    for _ in range(repeats):
        samples = drawn.sample((3,)).T
        chosen = log_probs.log_softmax(-1).gather(1, samples)
        loss = SAMPLED[name](chosen, rewards.gather(1, samples))
        total += torch.autograd.grad(loss, log_probs)[0]
    torch.testing.assert_close(total / repeats, expected, rtol=0, atol=8e-3)


def test_the_baseline_of_rloo_is_the_mean_of_the_others():
    log_probs, rewards = torch.zeros(4, 5), torch.randn(4, 5)
    plain = 0.0
    for row in range(4):
        for g in range(5):
            others = [rewards[row, o] for o in range(5) if o != g]
            plain += (rewards[row, g] - sum(others) / 4) * (row + 0.1 * g)
    weights = torch.arange(4)[:, None] + 0.1 * torch.arange(5)
    torch.testing.assert_close(rloo(log_probs + weights, rewards), -plain / 20)


def test_the_baseline_of_reinforce_is_the_mean_of_the_other_prompts():
    rewards, weights = torch.randn(4, 2), torch.randn(4, 2)
    plain = 0.0
    for row in range(4):
        others = torch.cat([rewards[:row], rewards[row + 1 :]])
        plain += ((rewards[row] - others.mean()) * weights[row]).sum()
    torch.testing.assert_close(reinforce(weights, rewards), -plain / 8)


@pytest.mark.parametrize("name", sorted(SAMPLED))
def test_a_constant_in_the_rewards_changes_no_sampled_gradient(name):
    log_probs, rewards = torch.randn(3, 4, requires_grad=True), torch.randn(3, 4)
    gradients = [
        torch.autograd.grad(SAMPLED[name](log_probs, rewards + c), log_probs)[0] for c in (0.0, 5.0)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_rloo_has_less_variance_where_prompts_differ():
    rewards = torch.randn(50, 4) * 0.1 + 5 * torch.randn(50, 1)
    spread = {}
    for name, estimate in SAMPLED.items():
        log_probs = torch.zeros(50, 4, requires_grad=True)
        spread[name] = torch.autograd.grad(estimate(log_probs, rewards), log_probs)[0].std()
    assert spread["rloo"] < 0.1 * spread["reinforce"]


def test_rloo_needs_two_answers_and_reinforce_one():
    with pytest.raises(ValueError, match="at least 2 a prompt, got 1"):
        rloo(torch.zeros(3, 1), torch.zeros(3, 1))
    assert reinforce(torch.zeros(3, 1), torch.zeros(3, 1)) == 0
    assert reinforce(torch.ones(1, 1), torch.ones(1, 1)) == -1
    for estimate in SAMPLED.values():
        with pytest.raises(ValueError, match="must have one shape"):
            estimate(torch.zeros(3, 2), torch.zeros(3, 1))
