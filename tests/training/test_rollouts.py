"""Sampled answers in training: their gradient, and what is shared by a whole update."""

from __future__ import annotations

import pytest
import torch

from dso.policy import Policy
from dso.sampling import Sampling
from dso.tasks import tabulate
from dso.tasks.datamodule import TrainBatch
from dso.training import GRPO, PPO
from dso.training.clipped import group_advantages, value_loss
from dso.training.estimators import reinforce
from dso.training.rollouts import Sampler, _spread, update_tokens
from dso.training.value import ValueBaseline, prompt_states
from tests.organism import adapter, organism, small_task


@pytest.fixture(scope="module")
def steered():
    return Policy.from_pretrained(organism(), adapter(), strength=0.4, trainable=True)


@pytest.fixture(scope="module")
def asked():
    return small_task().load().train[:8]


def gradient(policy, loss):
    parameters = [p for p in policy.model.parameters() if p.requires_grad]
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])


def drawn_loss(policy, asked, estimator, samples, tokens=4, **settings):
    """The sampler, the answers it drew, and its loss as a function of rewards."""
    sampler = Sampler(
        estimator,
        Sampling(samples, tokens),
        settings.get("grpo", GRPO()),
        settings.get("ppo", PPO()),
    )
    encoded = policy.encode(asked)
    rollouts = sampler.draw(policy, asked, encoded, 0, seed=0)
    scores = policy.score(rollouts.encoded, by_token=sampler.by_token)
    baseline = states = None
    if estimator == "ppo":
        states = prompt_states(policy, encoded)
        baseline = settings.get("baseline") or ValueBaseline(states.shape[1])
    return sampler, rollouts, sampler.loss(scores, rollouts, baseline, states)


def rewards_of_options(rollouts, width):
    """+1, -1, +2, ... by the option that an answer means, 0 for none."""
    table = torch.tensor([1.0, -1.0, 2.0, 0.5])[:width]
    return torch.cat([table, torch.zeros(1)])[rollouts.option]


@pytest.mark.parametrize("estimator", ["reinforce", "rloo"])
def test_the_mean_of_sampled_gradients_is_the_exact_gradient(steered, asked, estimator):
    asked = asked[:4]
    every = torch.ones(len(asked), dtype=torch.bool)
    # Two tokens: the word and the end. A name of two words then means nothing, as no option does.
    _, rollouts, loss = drawn_loss(steered, asked, estimator, 4096, tokens=2)
    sampled = gradient(steered, loss("ambiguous", every, rewards_of_options(rollouts, 2)))
    options = steered.option_log_probs(steered.encode(asked))
    exact = gradient(steered, -(options.exp() * torch.tensor([1.0, -1.0])).sum(-1).mean())
    error = (sampled - exact).norm() / exact.norm()
    assert float(error) < 0.05


def test_ppo_without_a_clip_is_reinforce_with_its_baseline(steered, asked):
    every = torch.ones(len(asked), dtype=torch.bool)
    baseline = ValueBaseline(112)
    torch.nn.init.normal_(baseline.head.weight, generator=torch.Generator().manual_seed(0))
    settings = {"ppo": PPO(clip=float("inf")), "baseline": baseline}
    _, rollouts, loss = drawn_loss(steered, asked, "ppo", 16, **settings)
    given = rewards_of_options(rollouts, 2)
    found = gradient(steered, loss("ambiguous", every, given))
    scores = steered.score(rollouts.encoded)
    values = baseline(prompt_states(steered, steered.encode(asked))).detach()[:, None]
    plain = reinforce(scores.options.gather(1, rollouts.column), given, values)
    torch.testing.assert_close(found, gradient(steered, plain), rtol=1e-4, atol=1e-6)


def test_the_baseline_of_ppo_learns_the_mean_reward_of_a_prompt(steered, asked):
    every = torch.ones(len(asked), dtype=torch.bool)
    baseline = ValueBaseline(112)
    _, rollouts, loss = drawn_loss(steered, asked, "ppo", 16, baseline=baseline)
    given = rewards_of_options(rollouts, 2)
    states = prompt_states(steered, steered.encode(asked))
    optimizer = torch.optim.Adam(baseline.parameters(), lr=3e-2)
    for _ in range(300):
        optimizer.zero_grad()
        value_loss(baseline(states)[:, None].expand_as(given).flatten(), given.flatten()).backward()
        optimizer.step()
    torch.testing.assert_close(baseline(states), given.mean(1), rtol=0, atol=0.05)
    # The error that the loss carries is what is left: the spread of a prompt's own answers.
    _, _, loss = drawn_loss(steered, asked, "ppo", 16, baseline=baseline)
    loss("ambiguous", every, given).backward()
    assert float(baseline.head.bias.grad.abs()) < 0.05


def test_prompt_states_are_the_input_of_the_output_layer_whatever_the_strength(steered, asked):
    encoded = steered.encode(asked)
    states = prompt_states(steered, encoded)
    head = steered.model.get_output_embeddings()
    ids, mask = steered.left_pad([choice.prompt for choice in encoded])
    with torch.no_grad(), steered.base():
        logits = steered.forward(ids, mask, keep=1).logits[:, -1]
        other = prompt_states(steered, encoded)
    torch.testing.assert_close(head(states), logits, rtol=1e-5, atol=1e-5)
    assert torch.equal(states, other)
    alone = prompt_states(steered, encoded[:1])
    torch.testing.assert_close(alone, states[:1], rtol=1e-4, atol=1e-4)


def test_answers_drawn_ahead_are_those_drawn_in_turn(steered, asked):
    encoded = steered.encode(asked)
    sampler = Sampler("grpo", Sampling(3, 4), GRPO(), PPO())
    batches = [
        (n, 5 + n, TrainBatch(part, tabulate(part), len(part)), encoded[4 * n : 4 * n + 4])
        for n, part in enumerate((asked[:4], asked[4:]))
    ]
    sampler.draw_update(steered, batches)
    lengths = 0
    for n, seed, batch, codes in batches:
        ahead = sampler.draw(steered, batch.choices, codes, n, seed)
        fresh = Sampler("grpo", Sampling(3, 4), GRPO(), PPO())
        assert ahead.texts == fresh.draw(steered, batch.choices, codes, n, seed).texts
        lengths += int(ahead.length.sum())
    assert float(sampler.tokens["ambiguous"]) == lengths / 2
    assert float(sampler.tokens["known"]) == 0


@pytest.mark.parametrize("loss_type", ["dapo", "cispo"])
def test_two_batches_of_an_update_give_the_gradient_of_one(steered, asked, loss_type):
    settings = {"grpo": GRPO(loss_type=loss_type, scale="none")}
    sampler, rollouts, loss = drawn_loss(steered, asked, "grpo", 6, **settings)
    given = rewards_of_options(rollouts, 2)
    whole = gradient(steered, loss("ambiguous", torch.ones(8, dtype=torch.bool), given))
    halves = []
    for rows in (slice(0, 2), slice(2, 8)):
        part = torch.zeros(8, dtype=torch.bool)
        part[rows] = True
        sampler, rollouts, loss = drawn_loss(steered, asked, "grpo", 6, **settings)
        sampler.tokens = {"ambiguous": rollouts.length.sum() / 2.0}
        halves.append(gradient(steered, loss("ambiguous", part, given[part])))
    torch.testing.assert_close((halves[0] + halves[1]) / 2, whole, rtol=1e-4, atol=1e-6)


def test_the_spread_of_a_batch_is_that_of_its_rewards():
    rewards = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(_spread(rewards), rewards.std())
    centred = group_advantages(rewards, "none") / (_spread(rewards) + 1e-4)
    torch.testing.assert_close(centred, group_advantages(rewards, "batch"))


def test_tokens_of_an_update_are_shared_by_its_batches():
    assert float(update_tokens(torch.tensor([True, True, False]))) == 2.0
    assert float(update_tokens(torch.tensor([7, 5]), batches=2)) == 6.0
