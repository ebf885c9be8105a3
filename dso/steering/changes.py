"""What folding changes in a base model: new weights by name, and what its configuration needs.

h' = h + ω (a ⊙ h + b + U Vᵀ h) is linear in the norm's output h. With w the norm's weight, c its
bias, and W and e weight and bias of each layer that reads h:

    scale              w ← w ⊙ (1 + ω a)      and for norms that multiply by 1 + w:
                       w ← (1 + w) ⊙ (1 + ω a) − 1
    shift              c ← (1 + ω a) ⊙ c + ω b              where the norm has a bias
                       e ← e + W (ω b)                      where it has none, W as it was
    low-rank part      W ← W (diag(1 + ω a) + ω U Vᵀ),      e ← e + W (ω b),      norm untouched

Sums are in float32, or in the base's dtype where that is wider, and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import PreTrainedModel

from dso.steering.backbone import norm_weight
from dso.steering.layer import AffineSteering
from dso.steering.readers import Reader, Readers


@dataclass
class Changes:
    """New values of weights, by qualified name, and what the configuration needs for them."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)
    """Fields of the configuration that give linear layers the biases in `weights`."""
    llama: bool = False
    """Whether these are a Llama's, and the model is to become one."""
    left_out: list[str] = field(default_factory=list)
    """Parts of the adapter that have no place: norm, part and reason."""
    unplaced: list[Tensor] = field(default_factory=list)
    """The adapter's own tensors for these; without them it is what the changes amount to."""


@torch.no_grad()
def changes_of(base: PreTrainedModel, omega: float) -> Changes:
    """Everything that changes when the adapters of a base model that are on are folded at ω.

    A part that is zero, or is so at this ω, needs no place.
    """
    changes, readers = Changes(), Readers(base)
    for name, norm in base.named_modules():
        if not isinstance(norm, AffineSteering) or norm.disable_adapters:
            continue
        scale, shift, pairs = norm.active_parts()
        pairs = [(omega * left, right) for left, right in pairs if bool((omega * left).any())]
        moved = None if shift is None or not bool((omega * shift).any()) else omega * shift
        fit = readers.fit(name, shift=moved is not None, ranked=bool(pairs))
        changes.left_out += fit.problems
        if moved is not None and not fit.shift:
            changes.unplaced += [p for n, p in norm.steering_shift.items() if _active(norm, n)]
            moved = None
        if pairs and not fit.ranked:
            changes.unplaced += [p for n, p in norm.steering_left.items() if _active(norm, n)]
            pairs = []
        factor = torch.ones(()) if scale is None else 1 + omega * scale
        if pairs:
            for reader in fit.readers:
                changes.weights[reader.name] = _mixed(reader, factor, pairs)
        else:
            changes.weights |= _scaled(name, norm, factor, moved)
        if moved is not None:
            for reader in fit.readers:
                _add_bias(changes, reader, moved)
    return changes


def _active(norm: AffineSteering, adapter: str) -> bool:
    return adapter in norm.active_adapters


def _scaled(
    name: str, norm: AffineSteering, factor: Tensor, moved: Tensor | None
) -> dict[str, Tensor]:
    """A norm's weight and, where it has one, bias with a scale and a shift in them."""
    weight = norm_weight(norm)
    wide = _wide(weight)
    # Not (1 + w) ⊙ factor − 1, which rounds where the factor is 1.
    gain = (factor - 1) * (wide + 1 if adds_one(norm.base_layer) else wide)
    new = {f"{name}.weight": (wide + gain).to(weight.dtype)}
    bias = getattr(norm.base_layer, "bias", None)
    if bias is not None:
        shifted = _wide(bias) * factor
        shifted = shifted if moved is None else shifted + moved
        new[f"{name}.bias"] = shifted.to(bias.dtype)
    return new


def _mixed(reader: Reader, factor: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The weight of a reader with a scale and low-rank parts (ω Uᵢ, Vᵢ) before it."""
    weight = _wide(reader.weight)
    weight = weight.mT if reader.transposed else weight  # (..., d)
    new = weight * _at(factor, weight)
    for left, right in pairs:
        new += (weight @ _at(left, weight)) @ _at(right, weight).mT
    new = new.mT if reader.transposed else new
    return new.to(reader.weight.dtype).contiguous()


def _add_bias(changes: Changes, reader: Reader, moved: Tensor) -> None:
    """Let the bias of a reader take a shift ω b: (d,)."""
    assert reader.bias is not None
    weight = _wide(reader.weight)
    weight = weight.mT if reader.transposed else weight
    bias = weight @ _at(moved, weight)
    bias = bias if reader.old_bias is None else bias + reader.old_bias
    changes.weights[reader.bias] = bias.to(reader.weight.dtype)
    if reader.flag is not None:
        changes.flags.add(reader.flag)
        changes.llama = changes.llama or reader.llama


def adds_one(norm: nn.Module) -> bool:
    """Whether a norm multiplies by 1 + w, found by asking it for its output at w = 0."""
    weight = norm_weight(norm)
    zeros = {name: torch.zeros_like(p) for name, p in norm.named_parameters()}
    probe = torch.arange(1.0, len(weight) + 1, device=weight.device).to(weight.dtype)
    return bool(functional_call(norm, zeros, (probe[None, None],)).any())


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _at(value: Tensor, weight: Tensor) -> Tensor:
    """A value in the dtype of a weight, on its device: readers can lie on another than the norm."""
    return value.to(weight)
