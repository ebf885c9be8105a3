"""The steering transform at one norm layer (arXiv 2512.15926):

    h' = h + ω (a ⊙ h + b)

h is the norm's output, (B, ..., d) or (tokens, d), any float dtype; a, the scale, and b, the shift,
are (d,) float32 and start at 0; ω, the strength, is () or (B,). `affine` is the transform itself,
`AffineSteering` a norm module with it behind, for any number of adapters.

An extension of the paper's form, off by default, adds a low-rank part on chosen norms:

    h' = h + ω (a ⊙ h + b + U Vᵀ h)

U, left, and V, right, are (d, r) float32. U starts at 0, so that a fresh adapter is the base, and V
random with variance 1/d, so that a gradient reaches U.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import reduce
from typing import Any, NamedTuple

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from dso.steering.strength import Strength


def low_rank(hidden: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """U Vᵀ h for every vector h of hidden, in hidden's shape and dtype, also under autocast.

    Args:
        hidden: (..., d).
        left: U, (d, r).
        right: V, (d, r).
    """
    device = hidden.device.type
    autocast = torch.amp.is_autocast_available(device)
    with torch.autocast(device, enabled=False) if autocast else nullcontext():
        return hidden @ right.to(hidden.dtype) @ left.to(hidden.dtype).mT


def affine(
    hidden: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    strength: Tensor,
    pairs: Sequence[tuple[Tensor, Tensor]] = (),
) -> Tensor:
    """hidden + ω (scale ⊙ hidden + shift + Σᵢ Uᵢ Vᵢᵀ hidden), in hidden's shape and dtype.

    It is computed as (1 + ω scale) ⊙ hidden + ω shift: one pass over hidden, in the adapter's dtype
    (or hidden's, where that is wider), and one more for each low-rank pair. At ω = 0 the factor is
    exactly 1 and the terms exactly 0, so hidden comes back unchanged whatever its dtype.

    Args:
        hidden: (B, ..., d), or (tokens, d) where a model flattens its batch before a norm.
        scale: a, (d,), or None where no scale is trained.
        shift: b, (d,), or None where no shift is trained.
        strength: ω, () or (B,). For (tokens, d) the tokens of a row lie side by side, and each row
            has the same number of them.
        pairs: the low-rank parts, (Uᵢ, Vᵢ) each, (d, rᵢ) both.

    Raises:
        ValueError: ω has one entry per row, and not as many as hidden has rows.
    """
    factors = _factors(hidden, scale, shift, strength, pairs)
    return hidden if factors is None else _steer(hidden, factors, pairs)


class _Factors(NamedTuple):
    """1 + ω a and ω b, None without a or b, and ω, all shaped to broadcast over h."""

    scale: Tensor | None
    shift: Tensor | None
    omega: Tensor


def _factors(
    hidden: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    strength: Tensor,
    pairs: Sequence[tuple[Tensor, Tensor]],
) -> _Factors | None:
    """What `affine` multiplies and adds; None where nothing steers."""
    parts = [part for part in (scale, shift) if part is not None] or [left for left, _ in pairs]
    if not parts:
        return None
    dtype = torch.promote_types(hidden.dtype, parts[0].dtype)
    omega = _per_row(strength.to(hidden.device, dtype), hidden)
    return _Factors(
        None if scale is None else 1 + omega * scale,
        None if shift is None else omega * shift,
        omega,
    )


def _steer(hidden: Tensor, factors: _Factors, pairs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """hidden, multiplied and added to. It is not cast first: the kernels do that as they read."""
    scale, shift, omega = factors
    if scale is not None and shift is not None:
        steered = torch.addcmul(shift, hidden, scale)
    elif scale is not None:
        steered = hidden * scale
    elif shift is not None:
        steered = hidden + shift
    else:
        steered = hidden.to(omega.dtype)
    for left, right in pairs:
        part = low_rank(hidden.to(omega.dtype), left, right)
        steered = torch.addcmul(steered, omega, part)
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


def _sum(parts: Sequence[Tensor]) -> Tensor | None:
    return reduce(torch.add, parts) if parts else None


class _Given(NamedTuple):
    """A place where a layer or its knob holds a tensor, and what was there."""

    table: Mapping[str, Tensor | None]
    name: str
    tensor: Tensor | None
    version: int
    """How often it was changed in place, as torch counts."""

    def holds(self) -> bool:
        """Whether it is there still, unchanged."""
        tensor = self.table.get(self.name)
        return tensor is self.tensor and (tensor is None or tensor._version == self.version)


class _Kept(NamedTuple):
    """The factors of a layer's last call, and all that they were computed from."""

    adapters: list[str]
    """The active ones."""
    like: tuple[torch.dtype, torch.device, int, int]
    """dtype, device, dimensions and rows of h."""
    given: list[_Given]
    factors: _Factors | None
    pairs: list[tuple[Tensor, Tensor]]


class AffineSteering(nn.Module, BaseTunerLayer):
    """A norm module with the steering transform behind it.

    Every adapter has its own scale and shift, or one of the two, and may have a low-rank part. When
    several adapters are active their terms add up: h' = h + ω Σᵢ (aᵢ ⊙ h + bᵢ + Uᵢ Vᵢᵀ h). All
    share the model's one ω. An adapter that does not steer this norm adds nothing here.

    Args:
        base_layer: the norm, with a one-dimensional weight; its output is what is steered.
        strength: the model's knob.
        by_row: whether its output has the rows of the batch; that of an image tower has pictures.
    """

    adapter_layer_names = ("steering_scale", "steering_shift", "steering_left", "steering_right")

    base_layer: nn.Module

    def __init__(self, base_layer: nn.Module, strength: Strength, by_row: bool = True) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.by_row = by_row
        self.strength = strength
        self.steering_scale = nn.ParameterDict()
        self.steering_shift = nn.ParameterDict()
        self.steering_left = nn.ParameterDict()
        self.steering_right = nn.ParameterDict()
        self.merged_adapters = []

    @property
    def width(self) -> int:
        """d, the size of the norm's output."""
        return int(self.weight.shape[0])

    def add_adapter(
        self, adapter_name: str, *, scale: bool, shift: bool, rank: int = 0, seed: int = 0
    ) -> None:
        """Give the norm one more adapter, that of the base, float32 whatever the base's dtype.

        Args:
            adapter_name: its name.
            scale: whether it has a scale a, which starts at 0.
            shift: whether it has a shift b, which starts at 0.
            rank: r of its low-rank part; 0 is without.
            seed: of V. Torch's own random numbers are neither used nor moved on.
        """
        for wanted, parts in ((scale, self.steering_scale), (shift, self.steering_shift)):
            if wanted:
                zeros = torch.zeros(self.width, dtype=torch.float32, device=self.weight.device)
                parts[adapter_name] = nn.Parameter(zeros)
        if rank > 0:
            device, shape = self.weight.device, (self.width, rank)
            left = torch.zeros(shape, dtype=torch.float32, device=device)
            # Drawn on the CPU, so that it is the same on every device.
            draws = torch.Generator().manual_seed(seed)
            right = torch.randn(shape, generator=draws, dtype=torch.float32, device="cpu")
            self.steering_left[adapter_name] = nn.Parameter(left)
            self.steering_right[adapter_name] = nn.Parameter(right.to(device) / self.width**0.5)

    def _active(self, parts: nn.ParameterDict) -> list[Tensor]:
        return [parts[name] for name in self.active_adapters if name in parts]

    def _active_pairs(self) -> list[tuple[Tensor, Tensor]]:
        if not self.steering_left:
            return []
        left, right = self._active(self.steering_left), self._active(self.steering_right)
        return list(zip(left, right, strict=True))

    def active_parts(self) -> tuple[Tensor | None, Tensor | None, list[tuple[Tensor, Tensor]]]:
        """Of the active adapters together: Σ aᵢ and Σ bᵢ, (d,) each or None, and every (Uᵢ, Vᵢ)."""
        scale, shift = (_sum(self._active(p)) for p in (self.steering_scale, self.steering_shift))
        return scale, shift, self._active_pairs()

    def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The norm's output, steered by the active adapters unless they are disabled."""
        normed: Tensor = self.base_layer(hidden, *args, **kwargs)
        if self.disable_adapters:
            return normed
        knob = self.strength
        omega = knob.value
        if omega.dim() and not self.by_row:
            raise ValueError(
                "a strength per row was set, and a norm outside the language model is steered, "
                "which sees pictures and not rows; set one strength for the batch"
            )
        if torch.is_grad_enabled():
            # The gradient of a keeps ω. A copy lets the knob be turned between forward and
            # backward, as a step does that also asks for the base model's logits.
            omega = omega.clone()
        elif not torch.compiler.is_compiling() and knob.kept is not None:
            return self._steered_again(normed, knob.kept)
        scale, shift, pairs = self.active_parts()
        return affine(normed, scale, shift, omega, pairs)

    def _steered_again(self, normed: Tensor, kept: dict[nn.Module, _Kept]) -> Tensor:
        """As `affine`, with the factors of the last call where they would be the same."""
        adapters = self.active_adapters
        like = normed.dtype, normed.device, normed.dim(), normed.shape[0]
        last = kept.get(self)
        if (
            last is None
            or last.adapters != adapters
            or last.like != like
            or not all(given.holds() for given in last.given)
        ):
            scale, shift, pairs = self.active_parts()
            factors = _factors(normed, scale, shift, self.strength.value, pairs)
            given = self._given(adapters)
            last = _Kept(list(adapters), like, given or [], factors, pairs)
            if given is not None:
                kept[self] = last
        return normed if last.factors is None else _steer(normed, last.factors, last.pairs)

    def _given(self, adapters: Sequence[str]) -> list[_Given] | None:
        """All that factors are computed from; None where changes of it could go unseen."""
        tables = [(self.strength._buffers, "value")]
        for parts in (getattr(self, name) for name in self.adapter_layer_names):
            for adapter in adapters:
                # A wrapper that shards a model may hold a parameter elsewhere.
                if adapter in parts and adapter not in parts._parameters:
                    return None
                tables.append((parts._parameters, adapter))
        found = [(table, name, table.get(name)) for table, name in tables]
        # Tensors of inference mode do not count their changes.
        if any(tensor is not None and tensor.is_inference() for _, _, tensor in found):
            return None
        return [_Given(t, n, x, 0 if x is None else x._version) for t, n, x in found]

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
        modules = self.__dict__.get("_modules", {})
        if name in modules:  # a shorter way than torch's, which a decoding step would feel
            return modules[name]
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_layer" or name.startswith("_"):
                raise
            return getattr(self.base_layer, name)
