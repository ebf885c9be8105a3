"""The objective of one step, from log-probabilities to a loss, as a plain function.

    loss = - w_parity E[r_parity] - w_twin_prior E[r_twin_prior] - w_capability E[r_capability]
           + w_twin twin consistency + w_anchor pair anchor + w_mass option-mass drop + mu KL

Parity, twin prior, twins and anchor act on the ambiguous choices, the capability reward on those
with a right answer, the mass on all. The expectations are computed over the options, or estimated
from sampled answers; then "no option" is one more outcome. Source: arXiv 2512.15926 for the reward
and the constraint; the twin terms and the mass term are additions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dso import rewards
from dso.tasks.table import ChoiceTable
from dso.training import terms
from dso.training.estimators import exact


@dataclass(frozen=True)
class Objective:
    """Weights of the rewards and terms; 0 switches one off."""

    parity: float = 1.0
    """The sign reward: -1 for the side the model favours, +1 for the other."""
    twin_prior: float = 0.0
    """The reward log q - log p, q the base's answers averaged over the twins: what twin consistency
    and pair anchor do, as a reward that sampled answers can carry."""
    twin_consistency: float = 3.0
    """Symmetric KL between the answers of gender-swapped twins."""
    pair_anchor: float = 20.0
    """Squared move of the twins' mean P(first mentioned) away from the base model's."""
    capability: float = 1.0
    """+1 for the right answer on prompts that have one."""
    option_mass: float = 1.0
    """Fall of the options' total log-probability below the base model's."""
    abstention: float = 0.0
    """Reward of an answer that takes neither side; the paper's rule is +1."""
    l1: float = 0.0
    """Lambda of the proximal step: after each optimiser step every entry of a and b moves towards 0
    by learning rate times lambda, and becomes exactly 0 where it would cross."""

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not math.isfinite(value) or (value < 0 and entry.name != "abstention"):
                raise ValueError(f"objective.{entry.name} is {value}; wanted a number >= 0")


@dataclass(frozen=True)
class Samples:
    """Sampled answers to the N choices of a step, and how their gradient is estimated."""

    option: Tensor
    """(N, G) long: the option each answer means, -1 for none."""
    loss: Callable[[Tensor, Tensor], Tensor]
    """From which choices, (N,) bool with n of them, and their answers' rewards (n, G) to a loss."""


def step_loss(
    log_probs: Tensor,
    base_log_probs: Tensor,
    table: ChoiceTable,
    gap: Tensor,
    objective: Objective,
    samples: Samples | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss without its KL part, and every reward and term raw.

    Args:
        log_probs: (N, K) of the steered model.
        base_log_probs: (N, K) of the base.
        table: of the N choices.
        gap: (O,) running estimate of Pr[pro | o] - Pr[anti | o].
        objective: the weights.
        samples: sampled answers; without them the rewards' expectations are computed.

    Returns:
        A scalar loss, and the raw values: rewards as expectations (higher is better), terms as
        penalties (lower is better).
    """
    outcomes, base_outcomes = (
        values.log_softmax(-1) if samples is None else with_no_option(values)
        for values in (log_probs, base_log_probs)
    )
    parity = rewards.parity(table, gap, objective.abstention)
    right = rewards.capability(table)
    if samples is not None:
        abstained = objective.abstention * table.of_kind("ambiguous")[:, None]
        parity = torch.cat([parity, abstained.to(parity)], dim=1)
        right = torch.nn.functional.pad(right, (0, 1))
    ambiguous, known = table.of_kind("ambiguous"), table.truth >= 0
    prior = rewards.twin_prior(outcomes, base_outcomes, table)
    named = {"parity": parity, "twin_prior": prior, "capability": right}
    where = {"parity": ambiguous, "twin_prior": ambiguous, "capability": known}
    weights = {name: getattr(objective, name) for name in named}
    loss = log_probs.new_zeros(())
    raw = {}
    if samples is None:
        for name, reward in named.items():
            raw[name] = _expected(log_probs, reward, where[name])
            loss = loss - weights[name] * raw[name]
    else:
        # Option -1 counts from the end: the last outcome, no option.
        places = samples.option % outcomes.shape[1]
        got = {name: reward.gather(1, places) for name, reward in named.items()}
        for rows, names in ((ambiguous, ("parity", "twin_prior")), (known, ("capability",))):
            if bool(rows.any()):
                # Rewards are added up first: an estimator may standardise what it is given.
                loss = loss + samples.loss(rows, sum(weights[n] * got[n][rows] for n in names))
        for name in named:
            rows = where[name]
            raw[name] = got[name][rows].mean() if bool(rows.any()) else loss.new_zeros(())
    penalties = {
        "twin_consistency": terms.twin_consistency(log_probs, table),
        "pair_anchor": terms.pair_anchor(log_probs, base_log_probs, table),
        "option_mass": terms.option_mass_drop(log_probs, base_log_probs),
    }
    for name, value in penalties.items():
        loss = loss + getattr(objective, name) * value
    return loss, raw | penalties


def with_no_option(log_probs: Tensor) -> Tensor:
    """(N, K + 1): the options' log-probabilities and that of saying none of them.

    The last is at least log 1e-4, so that rounding cannot make it -inf.
    """
    mass = log_probs.exp().sum(-1, keepdim=True)
    return torch.cat([log_probs, (1 - mass).clamp(min=1e-4).log()], dim=-1)


def _expected(log_probs: Tensor, reward: Tensor, where: Tensor) -> Tensor:
    """Expected reward of the choices in `where`; 0 where there are none."""
    if not bool(where.any()):
        return log_probs.new_zeros(())
    return -exact(log_probs[where], reward[where])
