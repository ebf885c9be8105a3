"""Rewards: plain functions of (choice, answer), and the running estimate that parity needs.

Parity (arXiv 2512.15926, section 4). With S*(o) the side that the *current steered* model favours
for occupation o,

    r(y, x) = -1 if S(y) = S*(o),  +1 otherwise,        0 for an abstention

so that E[r | o] = -|Pr[pro | o] - Pr[anti | o]|. A sentence that concerns two occupations gets the
mean of the two. The paper rewards an abstention with +1, which is a reward of its own here.

That is the case k = 2 of k groups (an addition). With P(g | o) the distribution of the answers over
the k groups that the choices about o offer, and TV(o) its total variation from uniform,

    TV(o) = 1/2 sum_g |P(g | o) - 1/k|,      r(y, x) = -sign(P(g | o) - 1/k) for y of group g

    E[r | o] = - sum_g P(g | o) sign(P(g | o) - 1/k)
             = - sum_g |P(g | o) - 1/k|  -  1/k sum_g sign(P(g | o) - 1/k)
             = - 2 TV(o)  -  (groups above uniform - groups below it) / k

where every answer names a group. The last part is 0 for two groups, and constant for more as long
as no group crosses 1/k: the reward's gradient is that of -2 TV(o). For two sides TV(o) is
|Pr[pro | o] - Pr[anti | o]| / 2.

Every reward maps a table of N choices with at most K options to an (N, K) tensor: the reward of
each option. Options that do not exist have reward 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dso.tasks.table import SIDE_GROUPS, ChoiceTable

_AXES = ("occupations", "groups")


class RunningGap:
    """Running estimate, per occupation and group, of how far the current model's answers lean.

    `lead` is the mean over the choices about occupation o of P(g) minus the mean over the groups
    offered (`dso.tasks.table`); `gap` is what it says of the two sides, Pr[pro | o] - Pr[anti | o].
    Exponentially weighted sums of the leads and of the counts: an occupation that a batch does not
    contain keeps its estimate, and one that comes more often is not weighted twice.

    Args:
        occupations: O, how many occupations there are.
        decay: weight that an older batch keeps at each step on which the occupation appears.
        groups: G, how many groups the tables name; the two sides when not given.
    """

    def __init__(
        self, occupations: int, decay: float = 0.95, groups: int = len(SIDE_GROUPS)
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; wanted a number in [0, 1)")
        if groups < len(SIDE_GROUPS):
            raise ValueError(f"groups is {groups}; every table has the groups {SIDE_GROUPS}")
        self.decay = decay
        self.total = torch.zeros(occupations, groups)
        self.count = torch.zeros(occupations, groups)

    @property
    def lead(self) -> Tensor:
        """(O, G) in (-1, 1); 0 for an occupation not seen yet."""
        return self.total / self.count.clamp(min=torch.finfo(self.count.dtype).tiny)

    @property
    def gap(self) -> Tensor:
        """(O,) in [-1, 1]: pro minus anti; 0 for an occupation not seen with sides."""
        lead = self.lead
        return lead[:, 0] - lead[:, 1]

    @property
    def bias(self) -> Tensor:
        """Mean over the occupations seen of sum_g |lead|, which is 2 TV(o): a running
        Per-Occupation Bias. Of choices that offer different groups it is the mean."""
        seen = self.count[:, 0] > 0
        return self.lead[seen].abs().sum(1).mean() if seen.any() else self.total.new_zeros(())

    @torch.no_grad()
    def batch_sums(self, answers: Tensor, table: ChoiceTable) -> Tensor:
        """(2, O, G): sums of leads and counts of choices per occupation, for one batch.

        Only ambiguous choices count. Sums rather than means, so that several processes can add
        theirs before `update`. Counts are alike for all groups; a group that a choice does not
        offer leads by 0.

        Args:
            answers: (N, K) distribution over the options.
            table: of the N choices.

        Raises:
            ValueError: ambiguous choices that offer a group beyond the G.
        """
        occupations, groups = self.total.shape
        ambiguous = table.of_kind("ambiguous")[:, None]
        if bool((ambiguous & (table.group >= groups)).any()):
            raise ValueError(
                f"choices name groups among {table.group_names}, but the running estimates are of "
                f"{groups} groups: give RunningGap groups={len(table.group_names)}"
            )
        leads = table.leads(answers)[:, :groups]
        occupation = table.occupation.masked_fill(~ambiguous, -1)
        valid = occupation >= 0
        flat = occupation[valid].cpu()
        spread = leads[:, None].expand(-1, occupation.shape[1], -1)[valid].to(self.total)
        spread = torch.nn.functional.pad(spread, (0, groups - spread.shape[1]))
        sums = torch.zeros(2, occupations, groups)
        sums[0].index_add_(0, flat, spread)
        sums[1].index_add_(0, flat, torch.ones_like(spread))
        return sums

    def update(self, sums: Tensor) -> None:
        """Add one step's sums, as `batch_sums` returns them."""
        here = sums[1].cpu() > 0
        decay = torch.where(here, self.decay, 1.0)
        self.total = decay * self.total + sums[0].cpu()
        self.count = decay * self.count + sums[1].cpu()

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it is of other data.
        """
        if state["total"].shape != self.total.shape:
            found, wanted = (
                " and ".join(f"{size} {what}" for size, what in zip(shape, _AXES, strict=False))
                for shape in (state["total"].shape, self.total.shape)
            )
            raise ValueError(
                f"the checkpoint has running estimates of {found}, the data has {wanted}; resume "
                "with the data the run started with"
            )
        self.total, self.count = state["total"].clone(), state["count"].clone()


def parity(table: ChoiceTable, gap: Tensor) -> Tensor:
    """The sign reward: against the groups that the model favours for an occupation.

    Args:
        table: N choices; those that are not ambiguous get 0 throughout.
        gap: (O, G) running estimates of the current model, `RunningGap.lead`; or, where all choices
            have sides, (O,) of Pr[pro | o] - Pr[anti | o].

    Returns:
        (N, K); -1 to 1 for the options of a group, 0 for those that take no side.

    Raises:
        ValueError: estimates of other groups than the table's.
    """
    favoured = _leads(gap, table).to(table.side.device).sign()  # (O, G)
    present = table.occupation >= 0
    signs = favoured[table.occupation.clamp(min=0)] * present[..., None]  # (N, M, G)
    mean = signs.sum(1) / present.sum(1, keepdim=True).clamp(min=1)
    return -_of_options(mean, table)


def per_sample_parity(log_probs: Tensor, table: ChoiceTable) -> Tensor:
    """A reward against the groups that the model favours in this very choice, by how much it does.

    With p the model's answers normalised over the options and d = p(pro) - p(anti),

        r(y) = -side(y) d,        grad E_p[r] = - d grad d = grad (- d^2 / 2)

    since r is held constant. Of k groups it is

        r(y) = -2 lead_g(p) for y of group g,        grad E_p[r] = grad (- sum_g lead_g^2)

    as sum_g lead_g = 0 lets grad P(g) and grad lead_g be exchanged; lead_pro = d / 2 = -lead_anti
    makes the first the case k = 2. Nothing runs across choices: it asks that every single answer
    be balanced, the verb's preference included.

    Args:
        log_probs: (N, K) of the options, -inf where there is none; need not be normalised.
        table: of the N choices; those that are not ambiguous get 0 throughout.

    Returns:
        (N, K) without gradient; -1 to 1 for two groups, 0 for options of none.
    """
    return -2 * _of_options(table.leads(log_probs.detach().softmax(-1)), table)


def abstention(table: ChoiceTable) -> Tensor:
    """+1 for options of ambiguous choices that take no side and name no group, else 0: (N, K)."""
    none = table.mask & (table.group < 0)
    return (none & table.of_kind("ambiguous")[:, None]).to(torch.get_default_dtype())


def _leads(gap: Tensor, table: ChoiceTable) -> Tensor:
    """(O, G) estimates, from those of two sides as well."""
    groups = len(table.group_names)
    if gap.dim() == 1 and groups == len(SIDE_GROUPS):
        return torch.stack([gap, -gap], dim=1) / 2
    if gap.dim() != 2 or gap.shape[1] != groups:
        raise ValueError(
            f"running estimates of shape {tuple(gap.shape)} do not fit the groups "
            f"{table.group_names}; wanted (occupations, {groups}), as RunningGap.lead has them"
        )
    return gap


def _of_options(values: Tensor, table: ChoiceTable) -> Tensor:
    """(N, K) from (N, G): the value of each option's group; 0 without one, or not ambiguous."""
    counts = (table.group >= 0) & table.of_kind("ambiguous")[:, None]
    return values.gather(1, table.group.clamp(min=0)) * counts


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
