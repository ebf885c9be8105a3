"""Differentiable terms beside the reward. Each is a mean that is 0 when there is nothing to mend.

Twin consistency (per pair of a sentence with he and the same with she, p and q their answers):

    1/2 (KL(p || q) + KL(q || p))

makes the answer blind to the gender where it should be. Alone it leaves a loophole: "always the
second" is blind as well. Pair anchor closes it, with P(first) the probability of the option that is
mentioned first:

    ( mean of the twins' P(first) - the base model's )^2

Distillation, q the base model's answers averaged over the twins, draws the model towards a base
that is blind to the gender and needs no stereotype labels:

    1/2 (KL(q || p_he) + KL(q || p_she))

Option mass: the fall, in nats, of the log-probability of all options together below the base's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dso.tasks.table import ChoiceTable


def twin_consistency(log_probs: Tensor, table: ChoiceTable) -> Tensor:
    """Mean symmetric KL, in nats, between the normalised answers of twins.

    Args:
        log_probs: (N, K).
        table: of the same N choices; `pairs` says which are twins.

    Returns:
        A scalar; 0 when there are no twins.
    """
    if not len(table.pairs):
        return log_probs.new_zeros(())
    normal = _normalised(log_probs, table)
    p, q = normal[table.pairs[:, 0]], normal[table.pairs[:, 1]]
    return 0.5 * ((p.exp() - q.exp()) * (p - q)).sum(-1).mean()


def pair_anchor(log_probs: Tensor, base_log_probs: Tensor, table: ChoiceTable) -> Tensor:
    """Mean squared move of the twins' mean P(first) away from the base model's.

    Args:
        log_probs: (N, K) of the steered model.
        base_log_probs: (N, K) of the base.
        table: of the same N choices.

    Returns:
        A scalar; 0 when no pair of twins has a first option.
    """
    pairs = anchored_pairs(table)
    if not len(pairs):
        return log_probs.new_zeros(())
    first = table.first.clamp(min=0)[:, None]

    def mean_first(values: Tensor) -> Tensor:
        return values.softmax(-1).gather(-1, first)[pairs][..., 0].mean(-1)

    return (mean_first(log_probs) - mean_first(base_log_probs)).square().mean()


def anchored_pairs(table: ChoiceTable) -> Tensor:
    """(P, 2) long: the twins that both have a first option."""
    return table.pairs[(table.first[table.pairs] >= 0).all(-1)]


def distillation(log_probs: Tensor, base_log_probs: Tensor, table: ChoiceTable) -> Tensor:
    """Mean KL(q || p), in nats, q the base's normalised answers averaged over the twins.

    Args:
        log_probs: (N, K) of the steered model.
        base_log_probs: (N, K) of the base.
        table: of the same N choices; `pairs` says which are twins.

    Returns:
        A scalar; 0 when there are no twins.
    """
    if not len(table.pairs):
        return log_probs.new_zeros(())
    base = base_log_probs.detach().softmax(-1)[table.pairs].mean(1, keepdim=True)  # (P, 1, K)
    normal = _normalised(log_probs, table)[table.pairs]  # (P, 2, K)
    divergence: Tensor = (torch.special.xlogy(base, base) - base * normal).sum(-1).mean()
    return divergence


def option_mass_drop(log_probs: Tensor, base_log_probs: Tensor) -> Tensor:
    """Mean over choices of max(0, log base mass - log mass), in nats."""
    return (base_log_probs.logsumexp(-1) - log_probs.logsumexp(-1)).clamp(min=0).mean()


def _normalised(log_probs: Tensor, table: ChoiceTable) -> Tensor:
    """Log of the answer distribution; options that do not exist get 0, so that p - q is 0 there."""
    normal = log_probs.log_softmax(-1)
    return torch.where(table.mask, normal, torch.zeros_like(normal))
