"""Clipped surrogates: losses for answers drawn from an earlier state of the policy.

S answers of at most L tokens, drawn while the policy was pi_old, are used for several updates of
pi. With the ratio of a token, r_st = pi(y_st | ...) / pi_old(y_st | ...), and T_s the number of
tokens of answer s, the surrogate of a token is

    f(r, A) = min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)

which rewards no step that takes r further than the clip in the direction A asks for (PPO, Schulman
et al. 2017, arXiv 1707.06347). Beyond the clip f is constant: no gradient.

`group_advantages`: A_ng = (r_ng - mean_g r_n) / (std + epsilon), where std is that of the group, of
the batch, or left out with its epsilon; both have Bessel's correction, divided by the number less
one.

`grpo`: one advantage for all tokens of an answer, and a loss by how tokens are averaged:

    grpo      - mean_s  1/T_s  sum_t f         DeepSeekMath, arXiv 2402.03300
    dr_grpo   - mean_s  1/max_length  sum_t f  Dr. GRPO, arXiv 2503.20783
    dapo      - 1/tokens  sum_s  sum_t f       DAPO, arXiv 2503.14476, with clip_high > clip_low
    bnpo      - 1/(sum_s T_s)  sum_s  sum_t f  the same over the answers at hand only
    cispo     - 1/tokens  sum_s  sum_t  min(r, 1 + clip_high) A log pi     arXiv 2506.13585

where the weight min(r, 1 + clip_high) of cispo is a constant to the gradient: it bounds what a
token can count and silences none. As in that paper's experiments it has no lower bound, and
clip_low is not read. Its paper's clip_high is counted from 1, as here; trl's `epsilon_high` is for
this loss the bound itself, 1 + clip_high.

`ppo`: one surrogate for each thing that has an advantage. With an advantage for every answer,
the ratio is that of whole answers; with one for every token, those of the tokens, summed:

    - mean_s  f(prod_t r_st, A_s)        - mean_s  sum_t  f(r_st, A_st)

Where pi = pi_old, both have the gradient of - mean_s A_s log pi(y_s), which is `reinforce` of
`dso.training.estimators` with its baseline.

`value_loss`: the squared error of a learned baseline, mean_s (v_s - R_s)^2 (PPO, its L^VF, with no
factor 1/2), and with a clip around the earlier value, as implementations of PPO have it (Engstrom
et al. 2020, arXiv 2005.12729):

    mean_s  max((v_s - R_s)^2, (clip(v_s, old_s - clip, old_s + clip) - R_s)^2)

Shapes: log_probs, old_log_probs and mask are (S, L); advantages (S,). The mask is true (or not 0)
at the tokens of an answer. What stands elsewhere is never read, be it NaN. Only log_probs and
values get a gradient. No term holds the policy near a reference: that is a loss of its own.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

LossType = Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo"]
Scale = Literal["group", "batch", "none"]


def group_advantages(rewards: Tensor, scale: Scale = "group", epsilon: float = 1e-4) -> Tensor:
    """Rewards compared within each prompt's group of answers.

    Args:
        rewards: (N, G), G at least 2.
        scale: divide by the standard deviation of each group, by that of all rewards, or not.
            Dividing by the group's gives prompts whose answers hardly differ the same weight as
            others.
        epsilon: added to the standard deviation.

    Returns:
        (N, G), without gradient; 0 throughout a group of equal rewards.

    Raises:
        ValueError: another shape or scale, one answer a prompt, or a reward that is not finite.
    """
    if scale not in get_args(Scale):
        raise ValueError(f"scale {scale!r} must be one of {', '.join(get_args(Scale))}")
    if rewards.dim() != 2 or not rewards.numel():
        raise ValueError(f"rewards {tuple(rewards.shape)} must be (prompts, answers a prompt)")
    if rewards.shape[1] < 2:
        raise ValueError("groups compare a prompt's answers: sample at least 2 a prompt, got 1")
    rewards = rewards.detach()
    if not rewards.isfinite().all():
        raise ValueError("rewards must be finite: one that is not would spoil its whole group")
    # Counted from each group's first, so that equal rewards give 0 and no rounding error.
    centred = rewards - rewards[:, :1]
    centred = centred - centred.mean(-1, keepdim=True)
    if scale == "none":
        return centred
    spread = centred.std(-1, keepdim=True) if scale == "group" else rewards.std()
    return centred / (spread + epsilon)


def grpo(
    log_probs: Tensor,
    old_log_probs: Tensor,
    mask: Tensor,
    advantages: Tensor,
    *,
    loss_type: LossType = "grpo",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    max_length: int | None = None,
    tokens: Tensor | float | None = None,
) -> Tensor:
    """Clipped surrogate token by token, with one advantage an answer.

    Args:
        log_probs: (S, L) log-probability of every token.
        old_log_probs: (S, L) the same when the answers were drawn.
        mask: (S, L) where the tokens of an answer are. An answer without any counts as one of the
            S, and adds 0.
        advantages: (S,).
        loss_type: how tokens are averaged, and for cispo what is clipped.
        clip_low: the ratio counts down to 1 - clip_low. Not read by cispo.
        clip_high: the ratio counts up to 1 + clip_high.
        max_length: what dr_grpo divides an answer's sum by: the longest answer that sampling
            allows. Not read by the others.
        tokens: what dapo and cispo divide by: the tokens of all processes and of all batches that
            one update adds up; where gradients are averaged over processes or batches and not
            added, that divided by how many there are. The tokens of the mask when not given. Not
            read by the others.

    Returns:
        A scalar; its gradient counts, not its value.

    Raises:
        ValueError: shapes that differ, a loss type that is not there, a clip below 0, nothing to
            divide by.
    """
    _check_loss_type(loss_type)
    mask = _check(log_probs, old_log_probs, mask, advantages)
    _check_clip(clip_low, clip_high)
    global_count = loss_type in ("dapo", "cispo") and tokens is not None
    if not global_count and not mask.any():
        raise ValueError("the mask has no tokens: there is nothing to average over")

    advantage = advantages.detach()[:, None]
    log_ratio = _log_ratio(log_probs, old_log_probs, mask)
    if loss_type == "cispo":
        weight = log_ratio.detach().clamp(max=math.log1p(clip_high)).exp()
        gains = weight * advantage * log_probs.masked_fill(~mask, 0.0)
    else:
        gains = _surrogate(log_ratio, advantage, clip_low, clip_high)
    sums = gains.masked_fill(~mask, 0.0).sum(-1)

    if loss_type == "grpo":
        return -(sums / mask.sum(-1).clamp(min=1)).mean()
    if loss_type == "dr_grpo":
        if max_length is None or max_length < 1:
            raise ValueError(f"dr_grpo divides by max_length, which must be positive: {max_length}")
        return -sums.mean() / max_length
    if loss_type == "bnpo" or tokens is None:
        return -sums.sum() / mask.sum()
    if tokens <= 0:
        raise ValueError(f"{loss_type} divides by tokens, which must be positive: {tokens}")
    return -sums.sum() / tokens


def ppo(
    log_probs: Tensor,
    old_log_probs: Tensor,
    mask: Tensor,
    advantages: Tensor,
    clip: float = 0.2,
) -> Tensor:
    """Clipped surrogate of whole answers, or of tokens where each has its own advantage.

    Args:
        log_probs: (S, L) log-probability of every token.
        old_log_probs: (S, L) the same when the answers were drawn.
        mask: (S, L) where the tokens of an answer are.
        advantages: (S,) for the ratio of whole answers, which for long ones leaves the clip far
            sooner than a token's, or (S, L) for the sum over tokens.
        clip: the ratio counts from 1 - clip to 1 + clip; infinite for no clip.

    Returns:
        A scalar; its gradient counts, not its value.

    Raises:
        ValueError: shapes that differ, a clip below 0, no tokens.
    """
    mask = _check(log_probs, old_log_probs, mask, advantages, by_token=True)
    _check_clip(clip, clip)
    if not mask.any():
        raise ValueError("the mask has no tokens: there is nothing to average over")
    advantages = advantages.detach()
    log_ratio = _log_ratio(log_probs, old_log_probs, mask)
    if advantages.dim() == 1:
        return -_surrogate(log_ratio.sum(-1), advantages, clip, clip).mean()
    advantages = advantages.masked_fill(~mask, 0.0)
    return -_surrogate(log_ratio, advantages, clip, clip).sum(-1).mean()


def value_loss(
    values: Tensor, returns: Tensor, old_values: Tensor | None = None, clip: float | None = None
) -> Tensor:
    """Squared error of a learned baseline, with a clip around its earlier values.

    Args:
        values: (S,) what the baseline says.
        returns: (S,) what it should have said: the rewards.
        old_values: (S,) what it said when the answers were drawn; needed by the clip.
        clip: moving a value further than this from its old one lowers the loss no more; None for
            no clip.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes that differ, no values, a clip below 0, a clip without old values.
    """
    for name, other in (("returns", returns), ("old_values", old_values)):
        if other is not None and other.shape != values.shape:
            raise ValueError(
                f"values {tuple(values.shape)} and {name} {tuple(other.shape)} must have one "
                "shape: one of each for every answer"
            )
    if values.dim() != 1 or not values.numel():
        raise ValueError(f"values {tuple(values.shape)} must be (answers,), at least one")
    errors = (values - returns.detach()).square()
    if clip is None:
        return errors.mean()
    if old_values is None:
        raise ValueError("a clip of the values needs old_values: it is a distance from them")
    _check_clip(clip, clip)
    old_values = old_values.detach()
    bounded = old_values + (values - old_values).clamp(-clip, clip)
    return torch.maximum(errors, (bounded - returns.detach()).square()).mean()


def clip_share(
    log_probs: Tensor,
    old_log_probs: Tensor,
    mask: Tensor,
    advantages: Tensor,
    *,
    loss_type: LossType = "grpo",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
) -> Tensor:
    """Share of the tokens that the clip of `grpo` changes, for logging.

    For cispo these are the tokens whose weight is at its bound, which still have a gradient; for
    the others those that have none: above the clip with a positive advantage or below it with a
    negative one.

    Args:
        log_probs: (S, L) log-probability of every token.
        old_log_probs: (S, L) the same when the answers were drawn.
        mask: (S, L) where the tokens of an answer are.
        advantages: (S,); a token whose advantage is 0 is not counted as clipped.
        loss_type: as `grpo` was given.
        clip_low: as `grpo` was given.
        clip_high: as `grpo` was given.

    Returns:
        A scalar between 0 and 1, without gradient.

    Raises:
        ValueError: shapes that differ, a loss type that is not there, a clip below 0, no tokens.
    """
    _check_loss_type(loss_type)
    mask = _check(log_probs, old_log_probs, mask, advantages)
    _check_clip(clip_low, clip_high)
    if not mask.any():
        raise ValueError("the mask has no tokens: there is nothing to average over")
    advantage = advantages.detach()[:, None]
    log_ratio = _log_ratio(log_probs, old_log_probs, mask).detach()
    above, below = log_ratio > math.log1p(clip_high), log_ratio < _log_lower(clip_low)
    if loss_type == "cispo":
        clipped = above & (advantage != 0)
    else:
        clipped = (above & (advantage > 0)) | (below & (advantage < 0))
    return (clipped & mask).sum() / mask.sum()


def _log_ratio(log_probs: Tensor, old_log_probs: Tensor, mask: Tensor) -> Tensor:
    """log pi - log pi_old, and 0 without gradient outside the mask."""
    return (log_probs - old_log_probs.detach()).masked_fill(~mask, 0.0)


def _surrogate(log_ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """min(r A, clip(r) A): where A > 0 the clip acts from above only, where A < 0 from below only.

    It is done before the exponential, so that a ratio that overflows beyond the clip gives neither
    infinity nor, as 0 times infinity, a NaN in the gradient. Where A is 0, either clip may act.
    """
    none = torch.full_like(log_ratio, torch.inf)
    upper = none.masked_fill(advantages >= 0, math.log1p(high))
    lower = (-none).masked_fill(advantages <= 0, _log_lower(low))
    return log_ratio.clamp(lower, upper).exp() * advantages


def _log_lower(clip: float) -> float:
    """log(1 - clip), and no bound at all from 1 on."""
    return math.log1p(-clip) if clip < 1 else -math.inf


def _check(
    log_probs: Tensor,
    old_log_probs: Tensor,
    mask: Tensor,
    advantages: Tensor,
    by_token: bool = False,
) -> Tensor:
    """The mask as booleans, when all shapes are right."""
    for name, other in (("old_log_probs", old_log_probs), ("mask", mask)):
        if other.shape != log_probs.shape:
            raise ValueError(
                f"log_probs {tuple(log_probs.shape)} and {name} {tuple(other.shape)} must have one "
                "shape: one of each for every token"
            )
    if log_probs.dim() != 2:
        raise ValueError(f"log_probs {tuple(log_probs.shape)} must be (answers, tokens)")
    shapes = [log_probs.shape[:1]] + [log_probs.shape] * by_token
    if advantages.shape not in shapes:
        raise ValueError(
            f"advantages {tuple(advantages.shape)} must be "
            f"{' or '.join(str(tuple(s)) for s in shapes)}: one for every answer"
            f"{' or every token' * by_token}"
        )
    return mask != 0


def _check_clip(low: float, high: float) -> None:
    if not (low >= 0 and high >= 0):
        raise ValueError(f"a clip is a distance from 1 and not below 0: got {low} and {high}")


def _check_loss_type(loss_type: str) -> None:
    if loss_type not in get_args(LossType):
        raise ValueError(f"loss type {loss_type!r} must be one of {', '.join(get_args(LossType))}")
