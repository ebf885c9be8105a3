"""What a step costs: seconds, forward passes of the model, and tokens that went through it.

A pass of a batch counts as one, as does every token that `generate` adds to it. Tokens are the
positions of all rows, padding included; those that a key-value cache spares are not counted. A
backward pass costs as much again as its forward pass when only norms are trained (no gradients of
weights), so 4 N FLOPs a token for a model of N parameters.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch

from dso.training.module import SteeringModule


@dataclass
class Passes:
    """Running counts of a model's forward passes."""

    calls: int = 0
    """Forward passes."""
    tokens: int = 0
    """Positions that went through the model."""
    trained: int = 0
    """Those of them that a gradient was kept for."""


@contextmanager
def counted(model: torch.nn.Module) -> Iterator[Passes]:
    """Count the forward passes of a model inside the context.

    Args:
        model: a transformers causal LM, plain or with an adapter.
    """
    passes = Passes()
    inner: Any = model
    if getattr(model, "peft_config", None) is not None:
        inner = inner.get_base_model()

    def count(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = kwargs.get("input_ids")
        if given is None:
            given = kwargs.get("inputs_embeds", args[0] if args else None)
        assert given is not None
        tokens = given.shape[0] * given.shape[1]
        passes.calls += 1
        passes.tokens += tokens
        passes.trained += tokens if torch.is_grad_enabled() else 0

    hook = inner.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield passes
    finally:
        hook.remove()


class Cost(L.Callback):
    """Logs `cost/seconds`, `cost/passes` and `cost/tokens` of every training step.

    `seconds`, `passes` and `tokens` keep one entry a step, the optimiser's part included.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.passes: list[int] = []
        self.tokens: list[int] = []

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin to count."""
        assert isinstance(pl_module, SteeringModule)
        self._context = counted(pl_module.adapted)
        self._counts = self._context.__enter__()

    def on_train_batch_start(self, *given: Any) -> None:
        """Note where the step begins."""
        self._before = (time.perf_counter(), self._counts.calls, self._counts.tokens)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *given: Any
    ) -> None:
        """Note and log what it took."""
        started, calls, tokens = self._before
        self.seconds.append(time.perf_counter() - started)
        self.passes.append(self._counts.calls - calls)
        self.tokens.append(self._counts.tokens - tokens)
        pl_module.log_dict(
            {
                "cost/seconds": self.seconds[-1],
                "cost/passes": float(self.passes[-1]),
                "cost/tokens": float(self.tokens[-1]),
            }
        )

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop counting."""
        self._context.__exit__(None, None, None)
