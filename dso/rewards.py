"""Rewards: plain functions of (choice, answer), and the running estimate that parity needs.

Parity (arXiv 2512.15926, section 4). With S*(o) the side that the *current steered* model favours
for occupation o,

    r(y, x) = -1 if S(y) = S*(o),  +1 otherwise,        0 for an abstention

so that E[r | o] = -|Pr[pro | o] - Pr[anti | o]|. A sentence that concerns two occupations gets the
mean of the two. The paper rewards an abstention with +1; `abstention=1.0` restores that.

Every reward maps a table of N choices with at most K options to an (N, K) tensor: the reward of
each option. Options that do not exist have reward 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dso.tasks.table import ChoiceTable


class RunningGap:
    """Running estimate of Pr[pro | o] - Pr[anti | o] per occupation, of the current model.

    Exponentially weighted sums of the gaps and of the counts: an occupation that a batch does not
    contain keeps its estimate, and one that comes more often is not weighted twice.

    Args:
        occupations: O, how many occupations there are.
        decay: weight that an older batch keeps at each step on which the occupation appears.
    """

    def __init__(self, occupations: int, decay: float = 0.95) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; wanted a number in [0, 1)")
        self.decay = decay
        self.total = torch.zeros(occupations)
        self.count = torch.zeros(occupations)

    @property
    def gap(self) -> Tensor:
        """(O,) in [-1, 1]; 0 for an occupation not seen yet."""
        return self.total / self.count.clamp(min=torch.finfo(self.count.dtype).tiny)

    @property
    def bias(self) -> Tensor:
        """Mean |gap| over the occupations seen: a running Per-Occupation Bias."""
        seen = self.count > 0
        return self.gap[seen].abs().mean() if seen.any() else self.total.new_zeros(())

    @torch.no_grad()
    def batch_sums(self, answers: Tensor, table: ChoiceTable) -> Tensor:
        """(2, O): sums of p(pro) - p(anti) and counts per occupation, for one batch.

        Only ambiguous choices count. Sums rather than means, so that several processes can add
        theirs before `update`.

        Args:
            answers: (N, K) distribution over the options.
            table: of the N choices.
        """
        difference = (answers * table.side).sum(-1)
        hidden = ~table.of_kind("ambiguous")[:, None]
        occupation = table.occupation.masked_fill(hidden, -1)
        valid = occupation >= 0
        flat = occupation[valid]
        spread = difference[:, None].expand_as(occupation)[valid].to(self.total)
        sums = torch.zeros(2, len(self.total))
        sums[0].index_add_(0, flat.cpu(), spread.cpu())
        sums[1].index_add_(0, flat.cpu(), torch.ones_like(spread).cpu())
        return sums

    def update(self, sums: Tensor) -> None:
        """Add one step's sums, as `batch_sums` returns them."""
        here = sums[1] > 0
        decay = torch.where(here, self.decay, 1.0)
        self.total = decay * self.total + sums[0].cpu()
        self.count = decay * self.count + sums[1].cpu()

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned."""
        if state["total"].shape != self.total.shape:
            raise ValueError(
                f"the checkpoint has running estimates of {len(state['total'])} occupations, the "
                f"data has {len(self.total)}; resume with the data the run started with"
            )
        self.total, self.count = state["total"].clone(), state["count"].clone()


def parity(table: ChoiceTable, gap: Tensor, abstention: float = 0.0) -> Tensor:
    """The sign reward.

    Args:
        table: N choices; those that are not ambiguous get 0 throughout.
        gap: (O,) running estimate of Pr[pro | o] - Pr[anti | o] of the current model.
        abstention: reward of an option that takes neither side.

    Returns:
        (N, K); -1 to 1 for the options that take a side.
    """
    gap = gap.to(table.side.device)
    present = table.occupation >= 0
    favoured = gap.sign()[table.occupation.clamp(min=0)] * present  # (N, M)
    mean = favoured.sum(-1) / present.sum(-1).clamp(min=1)
    reward = -table.side * mean[:, None]
    neither = table.mask & (table.side == 0)
    reward = torch.where(neither, torch.full_like(reward, abstention), reward)
    return reward * (table.mask & table.of_kind("ambiguous")[:, None])


def capability(table: ChoiceTable) -> Tensor:
    """+1 for the right answer, 0 otherwise: (N, K). Choices without a truth get 0 throughout."""
    reward = torch.zeros(table.mask.shape, device=table.mask.device)
    has = table.truth >= 0
    reward[has, table.truth[has]] = 1.0
    return reward


def twin_prior(log_probs: Tensor, base_log_probs: Tensor, table: ChoiceTable) -> Tensor:
    """log q(y) - log p(y), q the base's answers averaged over the twins, p the model's own.

    Its expectation under p is -KL(p || q): it draws the answers to the sentence with he and to the
    same with she towards one distribution, that of a base blind to the gender. Unlike the
    sign alone it does not let the model trade the stereotype for a place in the sentence.

    Args:
        log_probs: (N, K) of the outcomes, every row a distribution; -inf where there is none.
        base_log_probs: (N, K) of the base.
        table: of the N choices.

    Returns:
        (N, K) without gradients; 0 for choices without a twin.
    """
    reward = torch.zeros_like(log_probs)
    if len(table.pairs):
        prior = base_log_probs.exp()[table.pairs].mean(1, keepdim=True)  # (P, 1, K)
        own = log_probs.detach()[table.pairs]  # (P, 2, K)
        floor = torch.finfo(prior.dtype).tiny
        difference = prior.clamp(min=floor).log() - own.clamp(min=math.log(floor))
        exists = base_log_probs[table.pairs].isfinite()
        reward[table.pairs.flatten()] = torch.where(exists, difference, 0.0).flatten(0, 1)
    return reward
