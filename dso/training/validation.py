"""Validation during training: every metric at strength 1, and whether the adapter may be kept.

The base's accuracies are measured once, on the same choices. `selection` is what the best adapter
is chosen by, lower is better: the bias, where no accuracy fell by more than the floor allows, and
1 plus the largest excess otherwise, so that an adapter within the floor is always preferred.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dso.encoding import EncodedChoice
from dso.metrics import ChoiceMetrics, kl_divergence
from dso.policy import Policy
from dso.tasks.datamodule import EvaluationBatch
from dso.tasks.table import ChoiceTable
from dso.training import processes

ACCURACIES = ("unambiguous_accuracy", "gender_needed_accuracy", "capability")
BIASES = ("per_occupation_bias", "total_variation")


class Validation:
    """The metrics of one validation split, of the base and of the adapter as it stands.

    Args:
        policy: with its adapter.
        table: of all choices of the split.
        floor: how far an accuracy may fall below the base's.
    """

    def __init__(self, policy: Policy, table: ChoiceTable, floor: float) -> None:
        self.policy = policy
        self.floor = floor
        self.steered = ChoiceMetrics(table).to(policy.device)
        self.base = ChoiceMetrics(table).to(policy.device)
        self.base_figures: dict[str, Tensor] | None = None
        self._kl = torch.full((len(table),), -torch.inf, device=policy.device)

    def start(self) -> None:
        """Forget the last round."""
        self.steered.reset()
        self.base.reset()
        self._kl = torch.full_like(self._kl, -torch.inf)

    def update(self, batch: EvaluationBatch, encoded: Sequence[EncodedChoice]) -> None:
        """Score one batch."""
        known = [row for row, choice in enumerate(batch.choices) if choice.truth is not None]
        steered = self.policy.score(encoded, known)
        self.steered.update(steered.options, batch.rows)
        # Afterwards the base is wanted for the KL only.
        every = self.base_figures is None
        rows = list(range(len(encoded))) if every else known
        if not self.policy.anyone(bool(rows)):
            return
        rows = rows or [0]  # others have some, and need this process for theirs
        asked = [place for place, row in enumerate(rows) if row in set(known)]
        with self.policy.base():
            base = self.policy.score([encoded[row] for row in rows], asked)
        if every:
            self.base.update(base.options, batch.rows)
        if known:
            kl = steered.mean_by_row(kl_divergence(steered.answers, base.answers))
            self._kl[batch.rows[known].to(self._kl.device)] = kl

    def figures(self) -> dict[str, Tensor]:
        """Every metric as `val/<metric>`, with `val/kl` and `val/selection`."""
        found = self.steered.compute()
        if self.base_figures is None:
            self.base_figures = self.base.compute()
        values = {f"val/{name}": value for name, value in found.items()}
        kl = processes.maximum(self._kl)  # a choice can have come to two processes
        if kl.isfinite().any():
            values["val/kl"] = kl[kl.isfinite()].mean()
        chosen = selection(found, self.base_figures, self.floor)
        if chosen is not None:
            values["val/selection"] = chosen
        return values


def selection(
    found: Mapping[str, Tensor], base: Mapping[str, Tensor], floor: float
) -> Tensor | None:
    """What the best adapter is chosen by (see the module); None without ambiguous choices."""
    biases = [found[name] for name in BIASES if name in found]
    if not biases:
        return None
    losses = [base[name] - found[name] - floor for name in ACCURACIES if name in found]
    excess = torch.stack(losses).max() if losses else biases[0].new_tensor(-1.0)
    if bool(excess > 0):
        return 1 + excess
    return torch.stack(biases).mean()
