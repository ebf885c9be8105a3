"""Feeds a task to training: batches of twin pairs with prompts of the KL pool.

A batch is a pure function of (seed, step): each pass over the pairs, and over the pool, is a fresh
permutation, and a resumed run goes on with exactly the batches it would have had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from dso.tasks.choice import Choice, twin_pairs
from dso.tasks.table import ChoiceTable, tabulate
from dso.tasks.task import Task, TaskData


@dataclass(frozen=True)
class TrainBatch:
    """One step's choices: the ambiguous ones first, twins next to each other, then the pool's."""

    choices: list[Choice]
    """2 · pairs + pool of them."""
    table: ChoiceTable
    """Of these choices; occupations in the order of the whole training set."""
    ambiguous: int
    """How many of them, from the start, are ambiguous."""


@dataclass(frozen=True)
class EvaluationBatch:
    """Some choices of a data set and their positions in it."""

    choices: list[Choice]
    rows: torch.Tensor
    """(B,) long."""


class TrainSteps:
    """An iterable of `steps` batches that can be stopped and resumed at any step.

    Raises:
        ValueError: no pairs, or no pool.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[Choice, Choice]],
        pool: Sequence[Choice],
        pairs_per_step: int,
        pool_per_step: int,
        steps: int,
        seed: int,
        repeats: int = 1,
    ) -> None:
        if not pairs or not pool:
            raise ValueError(
                f"the task has {len(pairs)} twin pairs to train on and {len(pool)} prompts in its "
                "pool; training needs some of both"
            )
        self.pairs = pairs
        self.pool = pool
        self.pairs_per_step = pairs_per_step
        self.pool_per_step = pool_per_step
        self.steps = steps
        self.seed = seed
        self.repeats = repeats
        self._next = 0
        everyone = [choice for pair in pairs for choice in pair] + list(pool)
        self.occupation_names = sorted({name for c in everyone for name in c.occupations})

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
        pairs = [self.pairs[i] for i in self._draw(step, len(self.pairs), self.pairs_per_step, 0)]
        ambiguous = [choice for pair in pairs for choice in pair]
        pool = [self.pool[i] for i in self._draw(step, len(self.pool), self.pool_per_step, 1)]
        # Pairs by position: a small set can put one choice into a batch twice.
        places = [(2 * i, 2 * i + 1) for i in range(len(pairs))]
        choices = ambiguous + pool
        return TrainBatch(choices, tabulate(choices, self.occupation_names, places), len(ambiguous))

    def _draw(self, step: int, size: int, count: int, stream: int) -> list[int]:
        positions = range(step * count, (step + 1) * count)
        return [
            _permutation(size, self.seed, stream, position // size)[position % size]
            for position in positions
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


class ChoiceDataModule(L.LightningDataModule):
    """A task as a LightningDataModule.

    Args:
        task: what to train on.
        pairs_per_step: twin pairs in a training batch.
        pool_per_step: prompts of the KL pool in a training batch.
        evaluation_batch: choices in a validation batch.
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
        steps = self.trainer.max_steps * self.trainer.accumulate_grad_batches
        train = self.data.train
        pairs = [(train[a], train[b]) for a, b in twin_pairs(train)]
        return TrainSteps(
            pairs,
            self.data.pool,
            self.pairs_per_step,
            self.pool_per_step,
            steps,
            self.seed,
            self.repeats,
        )

    def val_dataloader(self) -> DataLoader[EvaluationBatch]:
        """The validation choices in order."""
        choices = self.data.validation

        def collate(rows: list[int]) -> EvaluationBatch:
            return EvaluationBatch([choices[r] for r in rows], torch.tensor(rows))

        return DataLoader(
            range(len(choices)),  # type: ignore[arg-type]
            batch_size=self.evaluation_batch,
            collate_fn=collate,
        )
