"""Feeds a task to training: batches of twin pairs and single choices with prompts of the KL pool.

What is drawn is a *unit*: two twins, or one ambiguous choice that has no twin by its nature (a
question with more than two groups, an open answer). A batch is a pure function of (seed, step):
each pass over the units, and over the pool, is a fresh permutation, and a resumed run goes on with
exactly the batches it would have had.

W processes at n units a step see what one process at W n units would: process r has the r-th n of
them, and with them whole units only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from math import ceil
from typing import Any

import lightning as L
import torch

from dso.tasks.choice import Choice, twin_pairs
from dso.tasks.table import ChoiceTable, tabulate
from dso.tasks.task import Task, TaskData

Unit = tuple[Choice, ...]
"""What training draws as one: two twins, or a single ambiguous choice."""


@dataclass(frozen=True)
class TrainBatch:
    """One step's choices in one process: first those of its units, twins next to each other, then
    the pool's."""

    choices: list[Choice]
    """2 · pairs + singles + pool of them."""
    table: ChoiceTable
    """Of these choices; occupations in the order of the whole training set."""
    ambiguous: int
    """How many of them, from the start, are those of the units."""

    @property
    def units(self) -> list[Unit]:
        """The units, in order."""
        seconds = set(self.table.pairs[:, 1].tolist())
        firsts = set(self.table.pairs[:, 0].tolist())
        return [
            tuple(self.choices[row : row + (2 if row in firsts else 1)])
            for row in range(self.ambiguous)
            if row not in seconds
        ]


@dataclass(frozen=True)
class EvaluationBatch:
    """Some choices of a data set and their positions in it."""

    choices: list[Choice]
    rows: torch.Tensor
    """(B,) long."""


def train_units(choices: Sequence[Choice]) -> list[Unit]:
    """The units among choices, in the order in which the first choice of each appears.

    A choice whose `twin` is absent is left out, and so is one without a `twin` that is not
    ambiguous.

    Raises:
        ValueError: as `twin_pairs`.
    """
    units: dict[int, Unit] = {a: (choices[a], choices[b]) for a, b in twin_pairs(choices)}
    for place, choice in enumerate(choices):
        if choice.twin is None and choice.kind == "ambiguous":
            units[place] = (choice,)
    return [units[place] for place in sorted(units)]


class TrainSteps:
    """An iterable of `steps` batches that can be stopped and resumed at any step.

    Args:
        units: what there is to train on.
        pool: prompts on which the KL is held.
        pairs_per_step: units of a batch in one process.
        pool_per_step: prompts of a batch in one process.
        steps: how many batches.
        seed: of their order.
        repeats: how often each is given in a row.
        rank: which process this is.
        world_size: of how many.

    Raises:
        ValueError: no units, or no pool.
    """

    def __init__(
        self,
        units: Sequence[Unit],
        pool: Sequence[Choice],
        pairs_per_step: int,
        pool_per_step: int,
        steps: int,
        seed: int,
        repeats: int = 1,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not units or not pool:
            raise ValueError(
                f"the task has {len(units)} twin pairs and single ambiguous choices to train on "
                f"and {len(pool)} prompts in its pool; training needs some of both"
            )
        self.units = units
        self.pool = pool
        self.pairs_per_step = pairs_per_step
        self.pool_per_step = pool_per_step
        self.steps = steps
        self.seed = seed
        self.repeats = repeats
        self.rank = rank
        self.world_size = world_size
        self._next = 0
        everyone = [choice for unit in units for choice in unit] + list(pool)
        self.occupation_names = sorted({name for c in everyone for name in c.occupations})
        self.group_names = sorted({o.group for c in everyone for o in c.options if o.group})

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[TrainBatch]:
        start, self._next = self._next, 0
        for step in range(start, self.steps):
            self._next = step + 1
            yield self.batch(step // self.repeats)
        self._next = 0

    def batch(self, step: int) -> TrainBatch:
        """One batch; each is given `repeats` times in a row."""
        units = [self.units[i] for i in self._draw(step, len(self.units), self.pairs_per_step, 0)]
        ambiguous = [choice for unit in units for choice in unit]
        pool = [self.pool[i] for i in self._draw(step, len(self.pool), self.pool_per_step, 1)]
        # Pairs by position: a small set can put one choice into a batch twice.
        ends = accumulate(len(unit) for unit in units)
        places = [(end - 2, end - 1) for unit, end in zip(units, ends, strict=True) if unit[1:]]
        choices = ambiguous + pool
        table = tabulate(choices, self.occupation_names, places, self.group_names)
        return TrainBatch(choices, table, len(ambiguous))

    def _draw(self, step: int, size: int, count: int, stream: int) -> list[int]:
        start = (step * self.world_size + self.rank) * count
        return [
            _permutation(size, self.seed, stream, position // size)[position % size]
            for position in range(start, start + count)
        ]

    def state_dict(self) -> dict[str, int]:
        """Where the run stands; Lightning keeps it in its checkpoints."""
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self._next = state["next"]


@lru_cache(maxsize=8)
def _permutation(size: int, seed: int, stream: int, epoch: int) -> list[int]:
    generator = torch.Generator().manual_seed((seed * 2 + stream) * 1_000_003 + epoch)
    return torch.randperm(size, generator=generator).tolist()


class EvaluationSteps:
    """An iterable of the batches of one process over choices.

    Process r of W has the choices r, r + W, and so on. Where W does not divide their number the
    last processes begin again from the first choice: all have equally many batches, so that
    processes which compute together stay in step. A choice that comes twice must count once.

    Args:
        choices: of all processes.
        size: of a batch.
        rank: which process this is.
        world_size: of how many.
    """

    def __init__(
        self, choices: Sequence[Choice], size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.choices = choices
        self.size = size
        share = ceil(len(choices) / world_size)
        self.rows = [(rank + n * world_size) % len(choices) for n in range(share)]

    def __len__(self) -> int:
        return ceil(len(self.rows) / self.size)

    def __iter__(self) -> Iterator[EvaluationBatch]:
        for start in range(0, len(self.rows), self.size):
            rows = self.rows[start : start + self.size]
            yield EvaluationBatch([self.choices[row] for row in rows], torch.tensor(rows))


class ChoiceDataModule(L.LightningDataModule):
    """A task as a LightningDataModule.

    Args:
        task: what to train on.
        pairs_per_step: twin pairs in a training batch of one process. An ambiguous choice that has
            no twin by its nature counts as one.
        pool_per_step: prompts of the KL pool in a training batch of one process.
        evaluation_batch: choices in a validation batch of one process.
        seed: of the order of the batches.
    """

    def __init__(
        self,
        task: Task,
        pairs_per_step: int = 16,
        pool_per_step: int = 64,
        evaluation_batch: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__()
        sizes = {
            "pairs_per_step": pairs_per_step,
            "pool_per_step": pool_per_step,
            "evaluation_batch": evaluation_batch,
        }
        for name, value in sizes.items():
            if value < 1:
                raise ValueError(f"{name} is {value}; wanted at least 1")
        self.task = task
        self.pairs_per_step = pairs_per_step
        self.pool_per_step = pool_per_step
        self.evaluation_batch = evaluation_batch
        self.seed = seed
        self.repeats = 1
        """Steps in a row that use a batch; the module sets it before the batches are made."""
        self._data: TaskData | None = None

    @property
    def data(self) -> TaskData:
        """The task's choices, loaded once."""
        if self._data is None:
            self._data = self.task.load()
        return self._data

    def setup(self, stage: str | None = None) -> None:
        """Load the data, so that bad data are reported before a model is."""
        self.validation_table = tabulate(self.data.validation)

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Move a batch's tensors; choices are plain data."""
        if isinstance(batch, TrainBatch):
            return replace(batch, table=batch.table.to(device))
        return replace(batch, rows=batch.rows.to(device))

    def train_dataloader(self) -> TrainSteps:
        """As many batches as the trainer has steps; one epoch is the whole run."""
        if self.trainer is None or self.trainer.max_steps < 1:
            raise ValueError("set trainer.max_steps: a run is counted in steps, not in epochs")
        trainer = self.trainer
        steps = trainer.max_steps * trainer.accumulate_grad_batches
        return TrainSteps(
            train_units(self.data.train),
            self.data.pool,
            self.pairs_per_step,
            self.pool_per_step,
            steps,
            self.seed,
            self.repeats,
            trainer.global_rank,
            trainer.world_size,
        )

    def val_dataloader(self) -> EvaluationSteps:
        """The validation choices in order, or those of this process."""
        choices, size = self.data.validation, self.evaluation_batch
        if self.trainer is None:
            return EvaluationSteps(choices, size)
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return EvaluationSteps(choices, size, rank, world_size)
