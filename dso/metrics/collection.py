"""The figures of a validation loop, as a torchmetrics metric.

Batches arrive in any order, on any rank, and a distributed sampler may repeat a choice to fill the
last batch. The state is the options' log-probabilities and the choice's position in the table, both
gathered by concatenation; a choice that arrives twice counts once, so that two processes compute
what one would.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from dso.metrics.measure import point_values
from dso.tasks.table import ChoiceTable

_MAX_ROWS = 2**24
"""Positions travel as float32, which holds whole numbers exactly up to here."""


class ChoiceMetrics(Metric):
    """Point values of every metric that applies to the choices of a table.

    Call `update` on every batch and `compute` at the end of the epoch. `forward` would compute on
    the batch alone, which lacks most choices, and raises. Lightning's sanity check sees a few
    batches only: set `num_sanity_val_steps=0`, or do not compute while it runs.

    Args:
        table: all choices of the validation set.

    Example:
        >>> import torch
        >>> from dso.tasks.choice import Choice, Option
        >>> from dso.tasks.table import tabulate
        >>> nurse = Choice("1", "capability", "2 + 2?", (Option("4"), Option("5")), truth=0)
        >>> metrics = ChoiceMetrics(tabulate([nurse]))
        >>> metrics.update(torch.tensor([[0.75, 0.25]]).log(), torch.tensor([0]))
        >>> round(float(metrics.compute()["capability"]), 3)
        0.75
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    log_probs: list[Tensor]
    rows: list[Tensor]

    def __init__(self, table: ChoiceTable, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < len(table) <= _MAX_ROWS:
            raise ValueError(f"the table holds {len(table)} choices; wanted 1 to {_MAX_ROWS}")
        self.table = table.to("cpu")
        # Both states are flat and of one dtype because torchmetrics stands in an empty flat tensor
        # for a rank that has seen no batch, which must be gathered with those of the other ranks.
        self.add_state("log_probs", default=[], dist_reduce_fx="cat")
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, log_probs: Tensor, rows: Tensor) -> None:
        """Add a batch.

        Args:
            log_probs: (B, k), true log-probabilities, with k of at most the table's K options.
            rows: (B,) long, positions in the table.

        Raises:
            ValueError: wrong shapes, or positions that the table lacks.
        """
        width = self.table.mask.shape[1]
        if log_probs.ndim != 2 or log_probs.shape[1] > width:
            raise ValueError(
                f"log_probs have shape {tuple(log_probs.shape)}; wanted (B, k) with k of at most "
                f"{width}, the table's largest number of options"
            )
        if rows.shape != log_probs.shape[:1]:
            raise ValueError(
                f"rows have shape {tuple(rows.shape)}; wanted ({log_probs.shape[0]},), one per row "
                "of log_probs"
            )
        if not bool(((rows >= 0) & (rows < len(self.table))).all()):
            raise ValueError(
                f"rows run from {int(rows.min())} to {int(rows.max())}; the table has positions 0 "
                f"to {len(self.table) - 1}"
            )
        padded = torch.nn.functional.pad(
            log_probs.detach().float(), (0, width - log_probs.shape[1]), value=-torch.inf
        )
        self.log_probs.append(padded.flatten())
        self.rows.append(rows.detach().to(padded))

    def compute(self) -> dict[str, Tensor]:
        """Values by metric, expected answers throughout; the flip rate is greedy.

        Raises:
            ValueError: choices of the table have not been seen.
        """
        count, width = self.table.mask.shape
        # A list, or one tensor once gathered; empty before any batch.
        rows = dim_zero_cat(self.rows).cpu().long() if len(self.rows) else torch.empty(0).long()
        # Position of each choice's first arrival; `count` of arrivals means never.
        arrivals = torch.arange(rows.numel())
        first = torch.full((count,), rows.numel()).scatter_reduce(0, rows, arrivals, "amin")
        missing = int((first == rows.numel()).sum())
        if missing:
            raise ValueError(
                f"{missing} of {count} choices have not been seen; update with every choice of the "
                "table before compute"
            )
        log_probs = dim_zero_cat(self.log_probs).cpu().reshape(-1, width)[first]
        return {
            metric: torch.tensor(value, device=self.device)
            for metric, value in point_values(log_probs, self.table).items()
        }
