"""Gradient checkpointing for models in eval mode.

Of L decoder blocks a step then keeps what enters each one, and runs each block a second time in
`backward()` to get the rest: the memory of L hidden states and one block, for one more forward
pass.

Transformers' own checkpointing works in train mode only, which also switches dropout on: then the
base and the steered model would differ by chance. Here no module changes its mode. Inside
`checkpointed(model)` the forward of every block goes through `torch.utils.checkpoint`; the second
run is of the same function at the strength the knob had in the first, so context and knob may have
moved on before `backward()`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from dso.steering.backbone import language_backbone
from dso.steering.strength import Strength


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """Context: forward passes that record gradients keep only what enters each decoder block.

    Args:
        model: a transformers model, plain or steered. Call it with `use_cache=False`; passes
            without gradients are not affected.

    Raises:
        ValueError: the model has no decoder blocks that transformers could checkpoint.
    """
    blocks = _blocks(model)
    if not blocks:
        raise ValueError(
            f"{type(language_backbone(model)).__name__} has no decoder blocks that can be run "
            "twice; train it without gradient checkpointing"
        )
    knobs = [module for module in model.modules() if isinstance(module, Strength)]
    # A forward of the block's own is there where accelerate has put a hook on it.
    own = [(block, block.__dict__.get("forward")) for block in blocks if not _is_ours(block)]
    for block, _ in own:
        block.forward = _RunTwice(block.forward, knobs)
    try:
        yield
    finally:
        for block, forward in own:
            if forward is None:
                del block.forward
            else:
                block.forward = forward


def recomputes(model: nn.Module) -> bool:
    """Whether a forward pass now would be run again in `backward()`, so that it can keep no cache.

    By `checkpointed`, where gradients are recorded, or by transformers' own checkpointing.
    """
    return any(
        (_is_ours(block) and torch.is_grad_enabled())
        or (block.gradient_checkpointing and block.training)
        for block in model.modules()
        if isinstance(block, GradientCheckpointingLayer)
    )


class _RunTwice:
    """A block's forward that keeps its inputs and runs again in `backward()`."""

    def __init__(self, forward: Callable[..., Any], knobs: list[Strength]) -> None:
        self.forward = forward
        self.knobs = knobs

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self.forward(*args, **kwargs)
        if any(isinstance(value, Cache) for value in (*args, *kwargs.values())):
            raise ValueError(
                "a decoder block that is run again in backward() would fill the key-value cache "
                "twice; call the model with use_cache=False inside `checkpointed`"
            )
        strengths = [knob.value.clone() for knob in self.knobs]  # the knob is turned in place

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), self._turned(strengths)

        run = partial(self.forward, **kwargs)
        return checkpoint(run, *args, use_reentrant=False, context_fn=contexts)

    @contextmanager
    def _turned(self, strengths: list[Tensor]) -> Iterator[None]:
        """The knobs as they stood; put in by exchange, which needs no look at the numbers."""
        now = [knob.value for knob in self.knobs]
        for knob, value in zip(self.knobs, strengths, strict=True):
            knob.value = value
        try:
            yield
        finally:
            for knob, value in zip(self.knobs, now, strict=True):
                knob.value = value


def _is_ours(block: nn.Module) -> bool:
    return isinstance(block.__dict__.get("forward"), _RunTwice)


def _blocks(model: nn.Module) -> list[nn.Module]:
    """The decoder blocks of the language backbone; of nested ones the outer."""
    blocks: list[nn.Module] = []
    inside: tuple[str, ...] = ()
    for name, module in language_backbone(model).named_modules():
        if isinstance(module, GradientCheckpointingLayer) and not name.startswith(inside):
            blocks.append(module)
            inside += (f"{name}.",)
    return blocks
