"""Sparse adapters: max E[r] − λ (‖a‖₁ + ‖b‖₁) and steering a share of the norm neurons only.

The ℓ1 term of arXiv 2512.15926 is a proximal step after the optimiser's,
x ← sign(x) max(|x| − t, 0) with t = learning rate · λ, so that entries become exactly 0. The paper
finds that 60 % of the norm neurons keep nearly all of the effect: `sparsify` keeps those. A norm
neuron is one channel of one norm, with its scale aᵢ and its shift bᵢ. A low-rank part U Vᵀ belongs
to no single neuron: it is neither counted nor cut here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dso.steering.layer import AffineSteering


@torch.no_grad()
def soft_threshold_(parameters: Iterable[Tensor], threshold: float) -> None:
    """x ← sign(x) max(|x| − threshold, 0), in place. Raises ValueError for a negative threshold."""
    if not (math.isfinite(threshold) and threshold >= 0):
        raise ValueError(f"threshold must be finite and at least 0, got {threshold}")
    for parameter in parameters:
        # x minus its own clipped copy is exactly 0 wherever |x| is within the threshold.
        parameter.sub_(parameter.clamp(-threshold, threshold))


def adapter_parts(
    model: nn.Module, adapter_name: str = "default"
) -> list[tuple[Tensor | None, Tensor | None]]:
    """(scale, shift) of every norm that the adapter steers, each (d,) or None, in module order.

    Raises ValueError when the model has no such adapter.
    """
    layers = [module for module in model.modules() if isinstance(module, AffineSteering)]
    known: set[str] = set()
    parts: list[tuple[Tensor | None, Tensor | None]] = []
    for layer in layers:
        names = layer._get_available_adapters()
        known |= names
        if adapter_name in names:
            scale = layer.steering_scale.get(adapter_name)
            parts.append((scale, layer.steering_shift.get(adapter_name)))
    if not parts:
        raise ValueError(
            f"the model has no steering adapter named {adapter_name!r}; it has {sorted(known)}"
        )
    return parts


@torch.no_grad()
def sparsity(model: nn.Module, adapter_name: str = "default") -> float:
    """The share of the entries of the adapter's scales and shifts that are exactly 0."""
    entries = [p for pair in adapter_parts(model, adapter_name) for p in pair if p is not None]
    zeros = sum(int((entry == 0).sum()) for entry in entries)
    return zeros / sum(entry.numel() for entry in entries)


@torch.no_grad()
def neurons_kept(model: nn.Module, adapter_name: str = "default") -> float:
    """The share of the norm neurons whose scale or shift is not 0."""
    sizes = [_squared_size(scale, shift) for scale, shift in adapter_parts(model, adapter_name)]
    kept = sum(int((size > 0).sum()) for size in sizes)
    return kept / sum(size.numel() for size in sizes)


@torch.no_grad()
def sparsify(model: nn.Module, keep: float = 0.6, adapter_name: str = "default") -> int:
    """Keep the strongest norm neurons of an adapter and set the others to 0, in place.

    Neurons are ranked by sqrt(a² + b²) over all norms together; of equal ones the earlier stays.
    A low-rank part keeps its effect on all of them.

    Args:
        model: a steered model.
        keep: the share of neurons to keep, in [0, 1].
        adapter_name: which adapter.

    Returns: how many neurons are kept.

    Raises ValueError when `keep` is out of range or there is no such adapter.
    """
    if not 0 <= keep <= 1:
        raise ValueError(f"keep is the share of norm neurons to keep, between 0 and 1, got {keep}")
    parts = adapter_parts(model, adapter_name)
    sizes = [_squared_size(scale, shift) for scale, shift in parts]
    order = torch.cat([size.cpu() for size in sizes]).argsort(descending=True, stable=True)
    kept = round(keep * order.numel())
    mask = torch.zeros(order.numel(), dtype=torch.bool)
    mask[order[:kept]] = True
    for pair, chosen in zip(
        parts, torch.split(mask, [size.numel() for size in sizes]), strict=True
    ):
        for part in pair:
            if part is not None:
                part.masked_fill_(~chosen.to(part.device), 0.0)
    return kept


def _squared_size(scale: Tensor | None, shift: Tensor | None) -> Tensor:
    squares = [part.detach().double() ** 2 for part in (scale, shift) if part is not None]
    return torch.stack(squares).sum(dim=0)
