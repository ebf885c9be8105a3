"""What `describe()` says of a steered model: the norms, the strength ω and how large a and b are.

A small frozen object; printing it gives a table, and says so where nothing is steered at all.
Whether the output differs, which rounding and blocks that a text passes by can prevent all the
same, is for `SteeringModel.check_effect` to find. Source: arXiv 2512.15926.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dso.steering.layer import AffineSteering


@dataclass(frozen=True)
class NormSummary:
    """One steered norm: its name, its width d, the means of |a| and |b| over its channels, and of
    its low-rank part the rank r and the Frobenius norm of U Vᵀ, both 0 where it has none."""

    name: str
    width: int
    mean_abs_scale: float
    mean_abs_shift: float
    rank: int = 0
    low_rank_norm: float = 0.0


@dataclass(frozen=True)
class SteeringSummary:
    """What steers a model now: the active adapters only, and their sum where there are several.

    Attributes:
        adapters: names of the active adapters.
        enabled: False inside `disable_adapter()`; the model is then the base model.
        strength: one number, or one per row of the batch.
        num_parameters: entries of all scales, shifts and low-rank parts of the active adapters.
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

    @property
    def idle(self) -> str | None:
        """Why this is the base model; None where the steering can have an effect."""
        strengths = self.strength if isinstance(self.strength, tuple) else (self.strength,)
        if not self.norms:
            return "the active adapters steer no norm"
        if not self.enabled:
            return "the adapters are disabled"
        if not any(strengths):
            return "the strength is 0"
        if not any(n.mean_abs_scale or n.mean_abs_shift or n.low_rank_norm for n in self.norms):
            return "all that the active adapters add is 0, as before training"
        return None

    def __str__(self) -> str:
        state = "" if self.enabled else " (disabled)"
        ranked = any(norm.rank for norm in self.norms)
        more = f"{'‖U Vᵀ‖':>10} {'rank':>4} " if ranked else ""
        lines = [
            f"adapters {', '.join(self.adapters)}{state} at strength {self.strength}: "
            f"{self.num_norms} norms, {self.num_parameters} parameters",
            *([] if self.idle is None else [f"NO EFFECT, this is the base model: {self.idle}"]),
            f"{'mean |a|':>10} {'mean |b|':>10} {more}{'width':>6}  norm",
        ]
        lines += [
            f"{n.mean_abs_scale:>10.2e} {n.mean_abs_shift:>10.2e} "
            f"{f'{n.low_rank_norm:>10.2e} {n.rank:>4} ' if ranked else ''}{n.width:>6}  {n.name}"
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
            left, right = (
                [parts[a] for a in adapters if a in parts]
                for parts in (module.steering_left, module.steering_right)
            )
            entries += sum(part.numel() for parts in (*own, left, right) for part in parts)
            enabled = enabled and not module.disable_adapters
            scale, shift = (_mean_abs(parts) for parts in own)
            rank, size = sum(part.shape[1] for part in left), _product_norm(left, right)
            norms.append(NormSummary(name, module.width, scale, shift, rank, size))
    value = tuple(strength.tolist()) if strength.dim() else float(strength)
    return SteeringSummary(tuple(adapters), enabled, value, entries, tuple(norms))


def _mean_abs(parts: Sequence[Tensor]) -> float:
    return float(torch.stack(list(parts)).sum(dim=0).abs().mean()) if parts else 0.0


def _product_norm(left: Sequence[Tensor], right: Sequence[Tensor]) -> float:
    """‖Σᵢ Uᵢ Vᵢᵀ‖ from (r, r) products, without the (d, d) matrix: ‖U Vᵀ‖² = tr(UᵀU VᵀV)."""
    if not left:
        return 0.0
    u, v = torch.cat(list(left), dim=1).double(), torch.cat(list(right), dim=1).double()
    return float(((u.mT @ u) * (v.mT @ v)).sum().clamp(min=0).sqrt())
