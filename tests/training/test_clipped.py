from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace
from typing import get_args

import pytest
import torch

from dso.training.clipped import (
    LossType,
    clip_share,
    group_advantages,
    grpo,
    ppo,
    value_loss,
)
from dso.training.estimators import reinforce

LOSS_TYPES = get_args(LossType)
CLIPS = {"clip_low": 0.2, "clip_high": 0.35}
LENGTHS = (7, 1, 4, 5, 0, 2)


def inputs(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(6, 7) log-probabilities, new and old, a ragged mask with an empty row, (6,) advantages."""
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(6, 7, generator=generator, dtype=torch.float64) * 3
    new = old + 0.4 * torch.randn(6, 7, generator=generator, dtype=torch.float64)
    mask = torch.arange(7) < torch.tensor(LENGTHS)[:, None]
    advantages = torch.randn(6, generator=generator, dtype=torch.float64)
    return new.requires_grad_(), old, mask, advantages


def gradient(loss: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss, inputs)[0]


def options(loss_type: str, tokens: float | None = None) -> dict:
    return {"loss_type": loss_type, "max_length": 11, "tokens": tokens, **CLIPS}


# A plain loop


def plain_gain(ratio: float, advantage: float, low: float, high: float) -> float:
    return min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


def plain_grpo(new, old, mask, advantages, loss_type, clip_low, clip_high, max_length, tokens):
    new, total = new.detach(), 0.0
    for s in range(len(new)):
        length, summed = 0, 0.0
        for t in range(new.shape[1]):
            if not mask[s, t]:
                continue
            length += 1
            ratio, advantage = math.exp(new[s, t] - old[s, t]), float(advantages[s])
            if loss_type == "cispo":
                summed += min(ratio, 1 + clip_high) * advantage * float(new[s, t])
            else:
                summed += plain_gain(ratio, advantage, clip_low, clip_high)
        if loss_type == "grpo":
            total += summed / max(length, 1) / len(new)
        elif loss_type == "dr_grpo":
            total += summed / max_length / len(new)
        elif loss_type == "bnpo" or tokens is None:
            total += summed / sum(LENGTHS)
        else:
            total += summed / tokens
    return -total


@pytest.mark.parametrize("tokens", [None, 31.0])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_each_loss_is_that_of_a_plain_loop(loss_type, seed, tokens):
    data = inputs(seed)
    expected = plain_grpo(*data, **options(loss_type, tokens))
    found = grpo(*data, **options(loss_type, tokens))
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_the_count_of_tokens_may_be_a_tensor_and_the_mask_numbers(loss_type):
    new, old, mask, advantages = inputs()
    expected = grpo(new, old, mask, advantages, **options(loss_type, 31.0))
    given = options(loss_type) | {"tokens": torch.tensor(31)}
    for other in (mask.long(), mask.double()):
        torch.testing.assert_close(grpo(new, old, other, advantages, **given), expected)


@pytest.mark.parametrize("loss_type", ["dapo", "cispo"])
def test_parts_that_share_a_count_of_tokens_add_up_to_the_whole(loss_type):
    new, old, mask, advantages = inputs()
    whole = grpo(new, old, mask, advantages, **options(loss_type))
    parts = [
        grpo(new[p], old[p], mask[p], advantages[p], **options(loss_type, float(sum(LENGTHS))))
        for p in (slice(0, 4), slice(4, 5), slice(5, 6))  # the second has no tokens at all
    ]
    torch.testing.assert_close(sum(parts), whole)


# trl


def trl_loss(new, old, mask, advantages, loss_type, clip_low, clip_high, max_length, tokens):
    """trl's own loss and metrics, run on an object that has only what it reads."""
    trainer = pytest.importorskip("trl.trainer.grpo_trainer").GRPOTrainer
    shim = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (new, torch.zeros_like(new), None),
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        accelerator=SimpleNamespace(
            num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x
        ),
        args=SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        aux_loss_enabled=False,
        beta=0.0,
        current_gradient_accumulation_steps=1,
        # Its bound for cispo is the ratio itself, ours is counted from 1 for all.
        epsilon_high=1 + clip_high if loss_type == "cispo" else clip_high,
        epsilon_low=clip_low,
        importance_sampling_level="token",
        loss_type=loss_type,
        max_completion_length=max_length,
        model=SimpleNamespace(training=True),
        off_policy_mask_threshold=None,
        top_entropy_quantile=1.0,
        use_vllm=False,
    )
    count = mask.sum() if tokens is None else torch.tensor(tokens)
    prompts = torch.ones(len(new), 1, dtype=torch.long)
    batch = {
        "prompt_ids": prompts,
        "prompt_mask": prompts,
        "completion_ids": torch.ones(new.shape, dtype=torch.long),
        "completion_mask": mask.long(),
        "advantages": advantages,
        "old_per_token_logps": old,
        "num_items_in_batch": count,
    }
    return trainer._compute_loss(shim, None, batch), shim._metrics["train"]


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_loss_and_gradient_are_those_of_trl(loss_type):
    for seed in range(3):
        for tokens in (None, 31.0):
            data = inputs(seed)
            expected, _ = trl_loss(*data, **options(loss_type, tokens))
            found = grpo(*data, **options(loss_type, tokens))
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
            pair = gradient(found, data[0]), gradient(expected, data[0])
            torch.testing.assert_close(*pair, rtol=0, atol=1e-9)
            assert pair[0].abs().max() > 1e-3


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_in_single_precision_too(loss_type):
    new, old, mask, advantages = inputs()
    data = (new.detach().float().requires_grad_(), old.float(), mask, advantages.float())
    expected, _ = trl_loss(*data, **options(loss_type))
    found = grpo(*data, **options(loss_type))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    pair = gradient(found, data[0]), gradient(expected, data[0])
    torch.testing.assert_close(*pair, rtol=0, atol=1e-6)


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_the_clipped_share_is_that_of_trl(loss_type):
    new, old, mask, advantages = inputs()
    if loss_type == "cispo":  # trl leaves bounded tokens with a negative advantage out of its log
        advantages = advantages.abs()
    _, metrics = trl_loss(new, old, mask, advantages, **options(loss_type))
    name = "cispo_clip_ratio" if loss_type == "cispo" else "clip_ratio/region_mean"
    found = clip_share(new, old, mask, advantages, loss_type=loss_type, **CLIPS)
    assert found.item() == pytest.approx(metrics[name][0], abs=1e-6) != 0


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_are_those_of_trl(scale):
    """The arithmetic of its `_generate_and_score_completions`, on its own standard deviation."""
    utils = pytest.importorskip("trl.trainer.utils")
    rewards = torch.rand(5, 4)
    expected = rewards - rewards.mean(1, keepdim=True)
    if scale != "none":
        spread = (
            utils.nanstd(rewards, dim=1)[:, None] if scale == "group" else utils.nanstd(rewards)
        )
        expected = expected / (spread + 1e-4)
    torch.testing.assert_close(group_advantages(rewards, scale), expected, rtol=1e-5, atol=1e-6)


# The clip


@pytest.mark.parametrize("loss_type", [t for t in LOSS_TYPES if t != "cispo"])
@pytest.mark.parametrize(
    ("log_ratio", "advantage", "silent"),
    [(0.5, 1.0, True), (-0.5, -1.0, True), (0.5, -1.0, False), (-0.5, 1.0, False), (0.1, 1, False)],
)
def test_a_clipped_token_has_no_gradient(loss_type, log_ratio, advantage, silent):
    old, mask = torch.full((1, 3), -1.0), torch.ones(1, 3)
    new = (old + torch.tensor([0.0, log_ratio, 0.0])).requires_grad_()
    data = new, old, mask, torch.tensor([float(advantage)])
    found = gradient(grpo(*data, **options(loss_type)), new)
    assert (found[0, 1] == 0) == silent
    assert (found[0, [0, 2]] != 0).all()
    assert clip_share(*data, **CLIPS) == pytest.approx(silent / 3)


def test_cispo_bounds_a_token_and_keeps_its_gradient():
    old = torch.full((2, 2), -1.0)
    new = (old + torch.tensor([0.0, 2.0])).requires_grad_()
    data = new, old, torch.ones(2, 2), torch.tensor([1.0, -3.0])
    found = gradient(grpo(*data, **options("cispo")), new)
    torch.testing.assert_close(found, -torch.tensor([[1, 1.35], [-3, -3 * 1.35]]) / 4)
    assert clip_share(*data, loss_type="cispo", **CLIPS) == 0.5


def test_a_ratio_that_overflows_beyond_the_clip_gives_no_nan():
    new, old = torch.full((3, 4), -0.1, requires_grad=True), torch.full((3, 4), -1e4)
    advantages = torch.tensor([1.0, 0.5, 0.0])
    for loss_type in LOSS_TYPES:
        loss = grpo(new, old, torch.ones(3, 4), advantages, **options(loss_type))
        assert loss.isfinite()
        assert gradient(loss, new).isfinite().all()
    loss = ppo(new, old, torch.ones(3, 4), advantages)
    assert loss.item() == pytest.approx(-1.2 * 1.5 / 3)
    assert not gradient(loss, new).any()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_the_clipped_share_is_that_of_a_plain_loop(loss_type, seed):
    new, old, mask, advantages = inputs(seed)
    new = new.detach()
    advantages[0] = 0.0
    clipped = 0
    for s, length in enumerate(LENGTHS):
        for t in range(length):
            ratio, sign = math.exp(new[s, t] - old[s, t]), advantages[s].sign()
            above, below = ratio > 1.35, ratio < 0.8
            clipped += bool(above & (sign != 0)) if loss_type == "cispo" else 0
            clipped += bool(above * sign > 0 or below * sign < 0) if loss_type != "cispo" else 0
    found = clip_share(new, old, mask, advantages, loss_type=loss_type, **CLIPS)
    assert not found.requires_grad
    assert found.item() == pytest.approx(clipped / sum(LENGTHS))


# Where the policy is the one that answered


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_at_ratio_1_the_gradient_is_that_of_the_weighted_mean_log_probability(loss_type):
    new, _, mask, advantages = inputs()
    found = gradient(grpo(new, new.detach(), mask, advantages, **options(loss_type)), new)
    lengths = torch.tensor(LENGTHS)[:, None].clamp(min=1)
    scale = {"grpo": 6 * lengths, "dr_grpo": torch.tensor(6 * 11)}
    expected = -advantages[:, None] * mask / scale.get(loss_type, torch.tensor(sum(LENGTHS)))
    torch.testing.assert_close(found, expected)
    assert clip_share(new, new, mask, advantages) == 0


@pytest.mark.parametrize("by_token", [False, True])
@pytest.mark.parametrize("clip", [0.2, math.inf])
def test_ppo_has_the_gradient_of_reinforce_where_nothing_has_moved(clip, by_token):
    new, _, mask, _ = inputs()
    rewards = torch.randn(3, 2, dtype=torch.float64)
    answers = (new * mask).sum(-1).view(3, 2)
    expected = gradient(reinforce(answers, rewards), new)
    others = rewards.sum() - rewards.sum(1, keepdim=True)
    advantages = (rewards - others / 4).flatten()
    if by_token:
        advantages = advantages[:, None].expand(6, 7)
    found = gradient(ppo(new, new.detach(), mask, advantages, clip), new)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("clip", [0.2, 1.5, math.inf])
def test_ppo_is_that_of_a_plain_loop(clip):
    new, old, mask, advantages = inputs()
    new = new.detach()
    by_token = torch.randn(6, 7, dtype=torch.float64)
    whole, tokens = 0.0, 0.0
    for s, length in enumerate(LENGTHS):
        log_ratios = [float(new[s, t] - old[s, t]) for t in range(length)]
        whole += plain_gain(math.exp(sum(log_ratios)), float(advantages[s]), clip, clip)
        for t, log_ratio in enumerate(log_ratios):
            tokens += plain_gain(math.exp(log_ratio), float(by_token[s, t]), clip, clip)
    assert ppo(new, old, mask, advantages, clip).item() == pytest.approx(-whole / 6)
    assert ppo(new, old, mask, by_token, clip).item() == pytest.approx(-tokens / 6)


def test_without_a_clip_ppo_weighs_by_the_ratio_of_whole_answers():
    new, old, mask, advantages = inputs()
    found = gradient(ppo(new, old, mask, advantages, math.inf), new)
    ratios = ((new - old) * mask).sum(-1).exp().detach()
    torch.testing.assert_close(found, -(ratios * advantages)[:, None] * mask / 6)


# Masked tokens


@pytest.mark.parametrize("value", [5.0, -math.inf, math.nan])
@pytest.mark.parametrize("name", [*LOSS_TYPES, "ppo", "ppo by token"])
def test_what_stands_outside_the_mask_never_matters(name, value):
    new, old, mask, advantages = inputs()
    by_token = torch.randn(6, 7, dtype=torch.float64)

    def loss(new, old, by_token):
        if name in LOSS_TYPES:
            return grpo(new, old, mask, advantages, **options(name))
        return ppo(new, old, mask, advantages if name == "ppo" else by_token)

    expected = loss(new, old, by_token)
    expected_gradient = gradient(expected, new)
    assert not expected_gradient[~mask].any()
    fill = (~mask, value)
    filled = new.detach().masked_fill(*fill).requires_grad_()
    for other in (old, old.masked_fill(*fill)):
        found = loss(filled, other, by_token.masked_fill(*fill))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        torch.testing.assert_close(gradient(found, filled), expected_gradient, rtol=0, atol=0)
        share = clip_share(filled, other, mask, advantages, loss_type="cispo")
        assert share == clip_share(new, old, mask, advantages, loss_type="cispo")


def test_only_the_new_log_probabilities_get_a_gradient():
    new, old, mask, advantages = inputs()
    old.requires_grad_(), advantages.requires_grad_()
    for loss_type in LOSS_TYPES:
        loss = grpo(new, old, mask, advantages, **options(loss_type))
        assert torch.autograd.grad(loss, [old, advantages], allow_unused=True) == (None, None)
    loss = ppo(new, old, mask, advantages)
    assert torch.autograd.grad(loss, [old, advantages], allow_unused=True) == (None, None)


# Advantages


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_are_those_of_a_plain_loop(scale):
    rewards = torch.randn(3, 4, dtype=torch.float64)
    everything = rewards.flatten().tolist()

    def deviation(values):
        mean = sum(values) / len(values)
        return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))

    expected = []
    for row in rewards.tolist():
        mean = sum(row) / 4
        spread = {"group": deviation(row) + 0.5, "batch": deviation(everything) + 0.5, "none": 1.0}
        expected.append([(value - mean) / spread[scale] for value in row])
    found = group_advantages(rewards, scale, epsilon=0.5)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_the_advantages_of_a_constant_group_are_0(scale):
    # The mean of equal numbers is not always that number: of 100 groups some would round.
    constant = torch.linspace(0.01, 0.99, 100)[:, None].expand(100, 7)
    assert (constant.mean(1) != constant[:, 0]).any()
    found = group_advantages(torch.cat([constant, torch.arange(7.0)[None]]), scale)
    assert not found[:100].any()
    assert found[100].abs().max() > 0.1
    assert not group_advantages(constant[:1], scale).any()


def test_advantages_that_are_scaled_have_unit_spread_and_others_keep_theirs():
    rewards = torch.randn(4, 6, dtype=torch.float64) * 7 + 3
    torch.testing.assert_close(
        group_advantages(rewards, epsilon=0).std(1), torch.ones(4, dtype=torch.float64)
    )
    torch.testing.assert_close(group_advantages(rewards, "none").std(1), rewards.std(1))
    torch.testing.assert_close(group_advantages(rewards + 9), group_advantages(rewards))


# The value


def test_the_value_loss_is_the_squared_error():
    values, returns = torch.randn(9, requires_grad=True), torch.randn(9, requires_grad=True)
    loss = value_loss(values, returns)
    assert loss.item() == pytest.approx(torch.nn.functional.mse_loss(values, returns).item())
    torch.testing.assert_close(gradient(loss, values), 2 * (values - returns).detach() / 9)
    torch.testing.assert_close(value_loss(values, returns, values, clip=0.1), loss)
    torch.testing.assert_close(value_loss(values, returns, values + 50, clip=math.inf), loss)


def test_a_value_beyond_its_clip_gains_nothing_by_going_on():
    values = torch.tensor([0.5, 0.5, -0.5, 0.1], requires_grad=True)
    returns, old = torch.tensor([1.0, 0.2, 1.0, 1.0]), torch.zeros(4)
    loss = value_loss(values, returns, old, clip=0.2)
    errors = [0.8**2, 0.3**2, 1.5**2, 0.9**2]  # clipped, overshot, moved away, within
    assert loss.item() == pytest.approx(sum(errors) / 4)
    expected = torch.tensor([0.0, 0.6, -3.0, -1.8]) / 4
    assert not value_loss(values.detach(), returns.requires_grad_(), old, 0.2).requires_grad
    torch.testing.assert_close(gradient(loss, values), expected)


# Refusals


@pytest.mark.parametrize("loss", [grpo, ppo, clip_share])
def test_inputs_that_do_not_fit_are_refused(loss):
    new, old, mask, advantages = inputs()
    with pytest.raises(ValueError, match=r"log_probs \(6, 7\) and old_log_probs \(6, 6\) must"):
        loss(new, old[:, 1:], mask, advantages)
    with pytest.raises(ValueError, match=r"log_probs \(6, 7\) and mask \(1, 7\) must have one"):
        loss(new, old, mask[:1], advantages)
    with pytest.raises(ValueError, match=r"log_probs \(6,\) must be \(answers, tokens\)"):
        loss(new[:, 0], old[:, 0], mask[:, 0], advantages)
    with pytest.raises(ValueError, match=r"advantages \(1,\) must be \(6,\).* for every answer"):
        loss(new, old, mask, advantages[:1])
    with pytest.raises(ValueError, match="has no tokens"):
        loss(new, old, torch.zeros_like(mask), advantages)
    with pytest.raises(ValueError, match="has no tokens"):
        loss(new[:0], old[:0], mask[:0], advantages[:0])


def test_an_advantage_for_every_token_is_for_ppo_only():
    new, old, mask, _ = inputs()
    assert ppo(new, old, mask, torch.ones(6, 7)).isfinite()
    for loss in (grpo, clip_share):
        with pytest.raises(ValueError, match=r"advantages \(6, 7\) must be \(6,\): one for every"):
            loss(new, old, mask, torch.ones(6, 7))


@pytest.mark.parametrize("loss", [grpo, clip_share])
def test_settings_of_grpo_that_mean_nothing_are_refused(loss):
    data = inputs()
    with pytest.raises(ValueError, match="loss type 'sapo' must be one of grpo, dr_grpo, dapo"):
        loss(*data, loss_type="sapo")
    for clip in (-0.1, math.nan):
        with pytest.raises(ValueError, match=r"not below 0: got 0\.2 and"):
            loss(*data, clip_high=clip)
        with pytest.raises(ValueError, match="and not below 0"):
            ppo(*data, clip)


def test_nothing_to_divide_by_is_refused():
    data = inputs()
    for length in (None, 0):
        with pytest.raises(ValueError, match=f"dr_grpo divides by max_length.*: {length}"):
            grpo(*data, loss_type="dr_grpo", max_length=length)
    for loss_type in ("dapo", "cispo"):
        with pytest.raises(ValueError, match=f"{loss_type} divides by tokens.*positive: 0"):
            grpo(*data, loss_type=loss_type, tokens=0)


def test_rewards_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="at least 2 a prompt, got 1"):
        group_advantages(torch.zeros(3, 1))
    for shape in ((3,), (0, 4), (3, 0)):
        with pytest.raises(ValueError, match="must be \\(prompts, answers a prompt\\)"):
            group_advantages(torch.zeros(shape))
    with pytest.raises(ValueError, match="scale 'std' must be one of group, batch, none"):
        group_advantages(torch.zeros(3, 2), "std")
    with pytest.raises(ValueError, match="must be finite"):
        group_advantages(torch.tensor([[0.0, math.nan]]))


def test_values_that_do_not_fit_are_refused():
    values = torch.zeros(3)
    with pytest.raises(ValueError, match=r"values \(3,\) and returns \(1,\) must have one"):
        value_loss(values, torch.zeros(1))
    with pytest.raises(ValueError, match=r"values \(3,\) and old_values \(1,\) must have one"):
        value_loss(values, values, torch.zeros(1), clip=0.2)
    with pytest.raises(ValueError, match="needs old_values"):
        value_loss(values, values, clip=0.2)
    with pytest.raises(ValueError, match="at least one"):
        value_loss(torch.zeros(0), torch.zeros(0))
    with pytest.raises(ValueError, match="not below 0"):
        value_loss(values, values, values, clip=-1.0)
