"""The objective of one step, from log-probabilities to a loss, as a plain function.

    loss = - w_parity E[r_parity] - w_capability E[r_capability]
           + w_twin twin consistency + w_anchor pair anchor + w_mass option-mass drop + mu KL

Parity, twins and anchor act on the ambiguous choices, the capability reward on those with a right
answer, the mass on all. Source: arXiv 2512.15926 for the reward and the constraint; the pair terms
and the mass term are additions.
"""

from __future__ import annotations

import math
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


def step_loss(
    log_probs: Tensor,
    base_log_probs: Tensor,
    table: ChoiceTable,
    gap: Tensor,
    objective: Objective,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss without its KL part, and every reward and term raw.

    Args:
        log_probs: (N, K) of the steered model.
        base_log_probs: (N, K) of the base.
        table: of the N choices.
        gap: (O,) running estimate of Pr[pro | o] - Pr[anti | o].
        objective: the weights.

    Returns:
        A scalar loss, and the raw values: rewards as expectations (higher is better), terms as
        penalties (lower is better).
    """
    ambiguous = table.of_kind("ambiguous")
    known = table.truth >= 0
    parity = rewards.parity(table, gap, objective.abstention)
    right = rewards.capability(table)
    zero = log_probs.new_zeros(())

    def expected(where: Tensor, reward: Tensor) -> Tensor:
        return -exact(log_probs[where], reward[where]) if bool(where.any()) else zero

    raw = {
        "parity": expected(ambiguous, parity),
        "capability": expected(known, right),
        "twin_consistency": terms.twin_consistency(log_probs, table),
        "pair_anchor": terms.pair_anchor(log_probs, base_log_probs, table),
        "option_mass": terms.option_mass_drop(log_probs, base_log_probs),
    }
    signs = {"parity": -1.0, "capability": -1.0}
    parts = [signs.get(name, 1.0) * getattr(objective, name) * value for name, value in raw.items()]
    return torch.stack(parts).sum(), raw
