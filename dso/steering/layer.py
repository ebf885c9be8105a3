"""The steering transform at one norm layer (arXiv 2512.15926):

    h' = h + ω (a ⊙ h + b)

h is the norm's output, (B, ..., d) or (tokens, d), any float dtype; a, the scale, and b, the shift,
are (d,) float32 and start at 0; ω, the strength, is () or (B,). `affine` is the transform itself,
`AffineSteering` a norm module with it behind, for any number of adapters.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from dso.steering.strength import Strength


def affine(hidden: Tensor, scale: Tensor | None, shift: Tensor | None, strength: Tensor) -> Tensor:
    """hidden + ω (scale ⊙ hidden + shift), in hidden's shape and dtype.

    It is computed as (1 + ω scale) ⊙ hidden + ω shift: one pass over hidden, in the adapter's dtype
    (or hidden's, where that is wider). At ω = 0 the factor is exactly 1 and the term exactly 0, so
    hidden comes back unchanged whatever its dtype.

    Args:
        hidden: (B, ..., d), or (tokens, d) where a model flattens its batch before a norm.
        scale: a, (d,), or None where no scale is trained.
        shift: b, (d,), or None where no shift is trained.
        strength: ω, () or (B,). For (tokens, d) the tokens of a row lie side by side, and each row
            has the same number of them.

    Raises:
        ValueError: ω has one entry per row, and not as many as hidden has rows.
    """
    part = scale if scale is not None else shift
    if part is None:
        return hidden
    dtype = torch.promote_types(hidden.dtype, part.dtype)
    omega = _per_row(strength.to(hidden.device, dtype), hidden)
    wide = hidden.to(dtype)
    if scale is None:
        steered = wide + omega * part
    elif shift is None:
        steered = wide * (1 + omega * scale)
    else:
        steered = torch.addcmul(omega * shift, wide, 1 + omega * scale)
    return steered.to(hidden.dtype)


def _per_row(strength: Tensor, hidden: Tensor) -> Tensor:
    """ω shaped to broadcast over hidden: () stays, (B,) becomes (B, 1, ..., 1)."""
    if strength.dim() == 0:
        return strength
    rows, batch = strength.shape[0], hidden.shape[0]
    if hidden.dim() == 2 and batch % rows == 0:
        strength = strength.repeat_interleave(batch // rows)
    elif rows != batch:
        raise ValueError(
            f"the strength has {rows} entries but the batch has {batch} rows; give one number for "
            f"the whole batch or one per row"
        )
    return strength.view(-1, *[1] * (hidden.dim() - 1))


class AffineSteering(nn.Module, BaseTunerLayer):
    """A norm module with the steering transform behind it.

    Every adapter has its own scale and shift, or one of the two. When several adapters are active
    their terms add up: h' = h + ω Σᵢ (aᵢ ⊙ h + bᵢ). All share the model's one ω. An adapter that
    does not steer this norm adds nothing here.

    Args:
        base_layer: the norm, with a one-dimensional weight; its output is what is steered.
        strength: the model's knob.
    """

    adapter_layer_names = ("steering_scale", "steering_shift")

    base_layer: nn.Module

    def __init__(self, base_layer: nn.Module, strength: Strength) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.strength = strength
        self.steering_scale = nn.ParameterDict()
        self.steering_shift = nn.ParameterDict()
        self.merged_adapters = []

    @property
    def width(self) -> int:
        """d, the size of the norm's output."""
        return int(self.weight.shape[0])

    def add_adapter(self, adapter_name: str, *, scale: bool, shift: bool) -> None:
        """Give the norm one more adapter, at 0, float32 whatever the base's dtype."""
        for wanted, parts in ((scale, self.steering_scale), (shift, self.steering_shift)):
            if wanted:
                zeros = torch.zeros(self.width, dtype=torch.float32, device=self.weight.device)
                parts[adapter_name] = nn.Parameter(zeros)

    def _active_sum(self, parts: nn.ParameterDict) -> Tensor | None:
        total: Tensor | None = None
        for name in self.active_adapters:
            if name in parts:
                total = parts[name] if total is None else total + parts[name]
        return total

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The norm's output, steered by the active adapters unless they are disabled."""
        normed: Tensor = self.base_layer(hidden, *args, **kwargs)
        if self.disable_adapters:
            return normed
        omega = self.strength.value
        if torch.is_grad_enabled():
            # The gradient of a keeps ω. A copy lets the knob be turned between forward and
            # backward, as a step does that also asks for the base model's logits.
            omega = omega.clone()
        scale = self._active_sum(self.steering_scale)
        shift = self._active_sum(self.steering_shift)
        return affine(normed, scale, shift, omega)

    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Always raises NotImplementedError: see the message."""
        raise NotImplementedError(
            "a steering adapter is not merged in place: most norms have no bias to take the shift, "
            "and the strength is chosen at inference. Call unload() to get the base model back"
        )

    def unmerge(self) -> None:
        """Always raises NotImplementedError: nothing is ever merged."""
        raise NotImplementedError("a steering adapter is never merged in place: nothing to undo")

    def __getattr__(self, name: str) -> Any:
        """What modelling code reads from a norm (`variance_epsilon`, `eps`, ...) is the norm's.

        Private names are not passed on: they mark the module that carries them (hooks, flags).
        """
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer" or name.startswith("_"):
                raise
            return getattr(self.base_layer, name)
