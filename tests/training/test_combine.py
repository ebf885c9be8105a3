"""Spread within a prompt's answers, and rewards added up."""

from __future__ import annotations

import pytest
import torch

from dso.training.clipped import group_advantages
from dso.training.combine import EPSILON, combined, spread


def test_the_spread_of_sampled_rewards_is_that_of_the_group_advantages():
    rewards = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    mean, deviation = spread(rewards)
    torch.testing.assert_close((rewards - mean) / (deviation + EPSILON), group_advantages(rewards))


def test_the_spread_under_the_policy_is_what_many_samples_give():
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(3, 4, generator=generator)
    p = torch.rand(3, 4, generator=generator)
    p = p / p.sum(-1, keepdim=True)
    drawn = rewards.gather(1, p.multinomial(40_000, replacement=True, generator=generator))
    for exact, sampled in zip(spread(rewards, p), spread(drawn), strict=True):
        torch.testing.assert_close(exact, sampled, rtol=0.03, atol=0.02)


def test_equal_rewards_have_no_spread_at_all():
    assert spread(torch.full((2, 7), 0.1))[1].tolist() == [[0.0], [0.0]]
    assert spread(torch.tensor([[0.3], [0.1]]))[1].tolist() == [[0.0], [0.0]]


def test_normalised_rewards_have_mean_0_and_spread_1_each():
    rewards = {"a": torch.tensor([[1.0, 2.0, 3.0]]), "b": torch.tensor([[100.0, 0.0, 50.0]])}
    alone = combined(rewards, {"a": 1.0, "b": 0.0}, "normalised")
    assert float(alone.mean()) == pytest.approx(0, abs=1e-6)
    assert float(alone.std()) == pytest.approx(1, abs=1e-3)
    both = combined(rewards, {"a": 2.0, "b": 1.0}, "normalised")
    other = combined(rewards, {"a": 0.0, "b": 1.0}, "normalised")
    torch.testing.assert_close(both, 2 * alone + other)


def test_a_sum_is_a_sum():
    rewards = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([[10.0, 0.0]])}
    assert combined(rewards, {"a": 2.0, "b": 0.5}).tolist() == [[7.0, 4.0]]
    assert combined(rewards, {"a": 0.0, "b": 0.0}).tolist() == [[0.0, 0.0]]
