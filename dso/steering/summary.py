"""What `describe()` says of a steered model: the norms, the strength ω and how large a and b are.

A small frozen object; printing it gives a table. Source: arXiv 2512.15926.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dso.steering.layer import AffineSteering


@dataclass(frozen=True)
class NormSummary:
    """One steered norm: its name, its width d, and the means of |a| and |b| over its channels."""

    name: str
    width: int
    mean_abs_scale: float
    mean_abs_shift: float


@dataclass(frozen=True)
class SteeringSummary:
    """What steers a model now: the active adapters only, and their sum where there are several.

    Attributes:
        adapters: names of the active adapters.
        enabled: False inside `disable_adapter()`; the model is then the base model.
        strength: one number, or one per row of the batch.
        num_parameters: entries of all scales and shifts of the active adapters.
        norms: the norms steered, in module order.
    """

    adapters: tuple[str, ...]
    enabled: bool
    strength: float | tuple[float, ...]
    num_parameters: int
    norms: tuple[NormSummary, ...]

    @property
    def num_norms(self) -> int:
        """How many norms are steered."""
        return len(self.norms)

    @property
    def names(self) -> tuple[str, ...]:
        """Qualified names of the norms steered."""
        return tuple(norm.name for norm in self.norms)

    @property
    def widths(self) -> tuple[int, ...]:
        """Their widths."""
        return tuple(norm.width for norm in self.norms)

    def __str__(self) -> str:
        state = "" if self.enabled else " (disabled)"
        lines = [
            f"adapters {', '.join(self.adapters)}{state} at strength {self.strength}: "
            f"{self.num_norms} norms, {self.num_parameters} parameters",
            f"{'mean |a|':>10} {'mean |b|':>10} {'width':>6}  norm",
        ]
        lines += [
            f"{n.mean_abs_scale:>10.2e} {n.mean_abs_shift:>10.2e} {n.width:>6}  {n.name}"
            for n in self.norms
        ]
        return "\n".join(lines)


@torch.no_grad()
def summarise(model: nn.Module, adapters: Sequence[str], strength: Tensor) -> SteeringSummary:
    """Read a summary off a model's wrapped norms; strength is () or (rows,)."""
    norms: list[NormSummary] = []
    entries = 0
    enabled = True
    for name, module in model.named_modules():
        if not isinstance(module, AffineSteering):
            continue
        own = [
            [parts[a] for a in adapters if a in parts]
            for parts in (module.steering_scale, module.steering_shift)
        ]
        if any(own):
            entries += sum(part.numel() for parts in own for part in parts)
            enabled = enabled and not module.disable_adapters
            norms.append(NormSummary(name, module.width, *(_mean_abs(parts) for parts in own)))
    value = tuple(strength.tolist()) if strength.dim() else float(strength)
    return SteeringSummary(tuple(adapters), enabled, value, entries, tuple(norms))


def _mean_abs(parts: Sequence[Tensor]) -> float:
    return float(torch.stack(list(parts)).sum(dim=0).abs().mean()) if parts else 0.0
