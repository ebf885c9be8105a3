"""The knob of a steered model: ω in h' = h + ω (a ⊙ h + b) (arXiv 2512.15926).

ω is one number for the whole batch, shape (), or one number per row, shape (rows,). It is float32,
finite and at least 0; 0 is the base model and 1 is the strength an adapter is trained at, which is
also where a new knob stands. All wrapped norms of a model hold the same `Strength`, so one write
turns them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def as_strength(value: float | Sequence[float] | Tensor) -> Tensor:
    """The strength as a new float32 tensor, shape () or (rows,), cut off from any gradient.

    Raises:
        TypeError: it is not a number, a sequence of numbers or a tensor of numbers.
        ValueError: it has two or more dimensions, no rows, or an entry that is not finite or is
            negative.
    """
    # Tensors made in inference mode can never take part in training afterwards, and the knob
    # outlives the call that turns it.
    with torch.inference_mode(False):
        if isinstance(value, Tensor):
            tensor = value.detach().to(torch.float32, copy=True)
        else:
            try:
                tensor = torch.tensor(value, dtype=torch.float32)
            except (TypeError, ValueError) as error:
                raise TypeError(
                    f"strength must be a number or one number per row of the batch, got {value!r}"
                ) from error
    if tensor.dim() > 1 or tensor.numel() == 0:
        raise ValueError(
            f"strength must be one number or a list with one number per row of the batch, got the "
            f"shape {tuple(tensor.shape)}"
        )
    refused = ~(torch.isfinite(tensor) & (tensor >= 0))
    if bool(refused.any()):
        raise ValueError(
            f"strength must be finite and at least 0 (0 is the base model, 1 is as trained), got "
            f"{tensor.tolist()}"
        )
    return tensor


class Strength(nn.Module):
    """One ω shared by all the wrapped norms of a model.

    It is a buffer, so that it follows the model from device to device and a compiled graph reads it
    as an input instead of baking it in; it is not part of the state dict, because it is a choice at
    inference and not a thing learned. A cast such as `.to(torch.bfloat16)` leaves it float32.

    Under gradient checkpointing the forward pass is run again inside `backward()`, and reads the
    knob as it stands then. Keep the strength of a training step set until `backward()` is over:
    a context that closes in between gives wrong gradients and no error.
    """

    value: Tensor

    def __init__(self, value: float | Sequence[float] | Tensor = 1.0) -> None:
        super().__init__()
        self.register_buffer("value", as_strength(value), persistent=False)
        self.kept: dict[nn.Module, Any] | None = None
        """What each layer last computed from ω and its adapters; None outside `steady`."""

    def set(self, value: float | Sequence[float] | Tensor) -> None:
        """Turn the knob, in place where the shape stays, so that compiled graphs are kept.

        Raises: as `as_strength`.
        """
        new = as_strength(value)
        with torch.inference_mode(False), torch.no_grad():
            if new.shape == self.value.shape:
                self.value.copy_(new)
            else:
                self.value = new.to(self.value.device)

    @contextmanager
    def at(self, value: float | Sequence[float] | Tensor) -> Iterator[None]:
        """Hold the knob at `value` inside the context, then put the previous one back."""
        held = self.value
        with torch.inference_mode(False):
            previous = held.clone()
        self.set(value)
        try:
            yield
        finally:
            # The very tensor that was there returns: a graph compiled on it stays valid.
            with torch.inference_mode(False), torch.no_grad():
                self.value = held
                self.value.copy_(previous)

    @contextmanager
    def steady(self) -> Iterator[None]:
        """Context of one generation: a layer may use again what it computed for the token before.

        Turning the knob, switching adapters and changing an adapter in place are noticed; only a
        write to a parameter's `.data`, which torch does not count as a change, is not. Nothing is
        kept where gradients are wanted or a graph is compiled, nor outside the context.
        """
        before, self.kept = self.kept, {}
        try:
            yield
        finally:
            self.kept = before

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Strength:
        """Follow a move to another device, never a change of dtype: bfloat16 has no 0.3."""
        self.value = self.value.to(fn(self.value).device)
        return self

    def extra_repr(self) -> str:
        """The strength, for printing a model."""
        return f"value={self.value.tolist()}"
