"""Training runs that take turns, whichever trainer takes their steps.

A run stands in a thread of its own and goes on only while it is waited for, so that there is never
more than one at work. A step is all that happens from one step of the optimiser to the next: the
batch, the answers, their rewards, the loss and its gradient, and the trainer's own log. What
happens while a run waits is not counted.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from dso.training import SteeringModule
from dso.training.cost import Passes, counted


class Finished(Exception):
    """Ends a run from inside, which its trainer would go on with."""


@dataclass(frozen=True)
class Spent:
    """What something took."""

    seconds: float = 0.0
    """By the clock."""
    processor: float = 0.0
    """Seconds of the CPU that this process had; what others do at the same time is not in them."""
    passes: int = 0
    """Forward passes of the model."""
    tokens: int = 0
    """Positions that went through it."""

    def since(self, before: Spent) -> Spent:
        """From then until now, of two readings of a clock."""
        return Spent(
            self.seconds - before.seconds,
            self.processor - before.processor,
            self.passes - before.passes,
            self.tokens - before.tokens,
        )


class Watched(SteeringModule):
    """A module that says when its run has prepared itself, and when it has taken a step."""

    turns: Turns

    def on_train_start(self) -> None:
        """What our own training computes before its first step."""
        with self.turns.preparing():
            super().on_train_start()

    def optimizer(
        self, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        """The one that either trainer is given."""
        optimizer, schedule = super().optimizer(steps)

        def stepped(*_: Any) -> None:
            self.turns.after_step()

        optimizer.register_step_post_hook(stepped)
        return optimizer, schedule


class Turns:
    """One run, which takes as many steps as it is told to and then waits.

    Args:
        module: what is trained; it belongs to this run from now on.
        train: trains it, for more steps than it will be told to take.
    """

    def __init__(self, module: Watched, train: Callable[[], object]) -> None:
        module.configure_model()
        module.turns = self
        self.module = module
        self.prepared = Spent()
        """What came before the first step, where the trainer is ours."""
        self.steps: list[Spent] = []
        """Every step but the first, which has the trainer's own preparation in it."""
        self._train = train
        self._go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._left, self._closed = 0, False
        self._before: Spent | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._passes = Passes()

    def advance(self, steps: int) -> None:
        """Take steps, and the first one before them; returns when they are taken.

        Raises:
            RuntimeError: the run ended before.
            Exception: what ended it.
        """
        if self._thread.ident is None:
            self._left = steps + 1
            self._thread.start()
        else:
            self._left = steps
            self._go.release()
        self._waits.acquire()
        if self._error is not None:
            raise self._error
        if self._left > 0:
            raise RuntimeError(
                f"the run ended {self._left} steps before its turn; give it more steps in all"
            )

    def close(self) -> None:
        """End the run."""
        if self._thread.is_alive():
            self._closed = True
            self._go.release()
            self._thread.join()

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Context: what happens is preparation."""
        before = self._now()
        yield
        self.prepared = self._now().since(before)

    def after_step(self) -> None:
        """Note what the step took, and wait where it was the last of a turn."""
        now = self._now()
        if self._before is not None:
            self.steps.append(now.since(self._before))
        self._left -= 1
        if self._left == 0:
            self._waits.release()
            self._go.acquire()
            if self._closed:
                raise Finished
        self._before = self._now()

    def _run(self) -> None:
        try:
            with counted(self.module.adapted) as self._passes:
                self._train()
        except Finished:
            pass
        except BaseException as error:
            self._error = error
        finally:
            self._waits.release()

    def _now(self) -> Spent:
        if self.module.policy.device.type == "cuda":
            torch.cuda.synchronize()
        passes = self._passes
        return Spent(time.perf_counter(), time.process_time(), passes.calls, passes.tokens)
