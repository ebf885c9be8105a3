"""The shipped organism, small tasks on it, and short training runs, for tests."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import lightning as L

from dso.organisms import shipped
from dso.policy import Policy
from dso.tasks import ChoiceDataModule, Coreference
from dso.training import SteeringModule
from dso.training.learner import StepRecord

FORMS = (" {}",)


@functools.cache
def organism() -> str:
    return str(shipped("organism-llm"))


@functools.cache
def adapter() -> str:
    return str(shipped("organism-llm-dso"))


def small_task(**settings: Any) -> Coreference:
    sizes = {"pairs": 24, "pool": 24, "validation": 6, "evaluation": 6, "forms": FORMS}
    return Coreference(**(sizes | settings))


def small_data(**settings: Any) -> ChoiceDataModule:
    return ChoiceDataModule(small_task(**settings), pairs_per_step=4, pool_per_step=8)


def trainer(folder: Path, steps: int, *callbacks: L.Callback, **settings: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=1,
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **({"enable_checkpointing": False, "limit_val_batches": 0} | settings),
    )


class Records(L.Callback):
    """What every step found."""

    def __init__(self) -> None:
        self.steps: list[StepRecord] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *given: Any
    ) -> None:
        assert isinstance(pl_module, SteeringModule) and pl_module.learner.record is not None
        self.steps.append(pl_module.learner.record)

    def figure(self, name: str) -> list[float]:
        """One figure of every step."""
        return [float(record.figures[name]) for record in self.steps]


def module(**settings: Any) -> SteeringModule:
    return SteeringModule(organism(), **settings)


def base_policy() -> Policy:
    policy = Policy.from_pretrained(organism())
    # As under an adapter: torch picks other kernels, other in the last bit, for trainable weights.
    policy.model.requires_grad_(False)
    return policy
