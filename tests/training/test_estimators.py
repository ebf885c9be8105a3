from __future__ import annotations

import pytest
import torch

from dso.training.estimators import exact


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
