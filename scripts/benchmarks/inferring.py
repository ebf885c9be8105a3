"""A model at inference, a step at a time: a prefill, or the next token, as it is or compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters
from transformers import DynamicCache, StaticCache

from scripts.benchmarks.paired import now

STRENGTH = 0.5
BACKEND = "inductor"
CONTEXT = 8
"""Tokens of the prompt that decoding starts from."""

Strength = float | list[float]


@dataclass(frozen=True)
class Plan:
    """What a step is, and how many."""

    rows: int = 4
    """Prompts in the batch."""
    prompt: int = 64
    """Tokens each, in a prefill."""
    tokens: int = 32
    """Decoded before decoding starts again from a short context."""
    prefills: int = 40
    """Rounds of prefills."""
    steps: int = 320
    """Rounds of decoding steps."""
    warmup: int = 4
    """Rounds that do not count."""
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.rows < 2 or self.prompt < CONTEXT or self.tokens < 2:
            raise ValueError(
                f"{self.rows} rows of {self.prompt} tokens and {self.tokens} more; wanted at least "
                f"2 rows, {CONTEXT} tokens and 2 more"
            )

    @property
    def strengths(self) -> list[float]:
        """Of the rows, from 0 to 1, `STRENGTH` in the mean."""
        return torch.linspace(0, 1, self.rows).tolist()


class Stepper:
    """A model at one strength, or one for each row, which does one step after the other.

    Args:
        model: with a steering adapter, or without one.
        strength: ω; None for a model without an adapter.
        ids: (B, T) prompts.
        plan: sizes, and the device.
        steady: keeps the knob steady, as `generate` does, until it is closed.
        compiled: compile the model; it then runs on a static cache, which its graph knows.
    """

    def __init__(
        self,
        model: Any,
        strength: Strength | None,
        ids: Tensor,
        plan: Plan,
        steady: ExitStack,
        *,
        compiled: bool = False,
    ) -> None:
        # The model within, which `generate` of a peft model runs too.
        self.model = model if strength is None else model.get_base_model()
        self.run = compile_model(self.model, plan) if compiled else self.model
        self.compiled = compiled
        self.ids = ids
        self.plan = plan
        self.end = CONTEXT + plan.tokens
        self.place = self.end
        self.cache: Any = None
        if strength is not None:
            model.set_strength(strength)
            steady.enter_context(model.knob.steady())

    @torch.inference_mode()
    def prefill(self) -> float:
        """Seconds of one pass over the prompts; with a new cache to fill where none is compiled."""
        torch.compiler.cudagraph_mark_step_begin()
        start = now(self.plan.device)
        self.run(input_ids=self.ids, use_cache=not self.compiled, logits_to_keep=1)
        return now(self.plan.device) - start

    @torch.inference_mode()
    def decode(self) -> float:
        """Seconds of one token more in every row."""
        if self.place == self.end:
            self._begin()
        token = self.ids[:, self.place % self.plan.prompt, None].clone()
        inputs = {"input_ids": token, "past_key_values": self.cache, "logits_to_keep": 1}
        if self.compiled:
            inputs["position_ids"] = torch.full_like(token, self.place)
        torch.compiler.cudagraph_mark_step_begin()
        start = now(self.plan.device)
        self.run(**inputs)
        seconds = now(self.plan.device) - start
        self.place += 1
        return seconds

    def _begin(self) -> None:
        """A short context in the cache."""
        if not self.compiled:
            self.cache = DynamicCache(config=self.model.config)
        elif self.cache is None:
            self.cache = StaticCache(config=self.model.config, max_cache_len=self.end)
        else:
            self.cache.reset()
        self.model(input_ids=self.ids[:, :CONTEXT], past_key_values=self.cache, logits_to_keep=1)
        self.place = CONTEXT


def compile_model(model: Any, plan: Plan) -> Any:
    """A model compiled; its graphs are made when it is first called."""
    mode = "default" if plan.device == "cpu" else "reduce-overhead"
    return torch.compile(model, backend=BACKEND, mode=mode, dynamic=False)


@contextmanager
def fresh_graphs() -> Iterator[None]:
    """Nothing compiled before, and nothing left behind."""
    torch._dynamo.reset()
    counters.clear()
    try:
        yield
    finally:
        torch._dynamo.reset()


def graphs() -> int:
    """How many were compiled so far."""
    return int(counters["stats"]["unique_graphs"])


@torch.inference_mode()
def count_graphs(model: Any, ids: Tensor) -> dict[str, int]:
    """What `torch.compile` makes of a steered model while its strengths change.

    ids: (B, T). Graphs are captured and not made quick, which takes seconds, not minutes.
    """
    rows = torch.linspace(0, 1, len(ids))
    with fresh_graphs():
        quick = torch.compile(model, backend="eager", dynamic=False)

        def more(strengths: list[Any]) -> int:
            before = graphs()
            for strength in strengths:
                model.set_strength(strength)
                quick(input_ids=ids, use_cache=False)
            return graphs() - before

        return {
            "graphs": more([STRENGTH]),
            "graphs_more_as_the_strength_turns": more([0.0, 0.3, 1.0, 2.0]),
            "graphs_with_a_strength_a_row": more([rows]),
            "graphs_more_as_they_turn": more([rows.flip(0), 0 * rows, 2 * rows]),
            "graph_breaks": sum(counters["graph_break"].values()),
        }
