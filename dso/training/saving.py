"""Callbacks that keep the adapter: at the end of a run, and when a run fails."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

import lightning as L

from dso.steering import save_adapter
from dso.tasks.datamodule import ChoiceDataModule
from dso.training.module import SteeringModule

PACKAGES = ("dso", "torch", "transformers", "peft", "lightning")


class SaveAdapter(L.Callback):
    """Writes the adapter folder with its training recipe.

    When training stops on an error, the adapter as the last good step left it is written, so that
    nothing that was learnt is lost.

    Args:
        folder: where; by default `adapter` in the trainer's `default_root_dir`.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save at the end of the run."""
        self._save(trainer, pl_module)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Save what the last good step left, if training had begun."""
        if trainer.global_step > 0:
            self._save(trainer, pl_module)

    def _save(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not trainer.is_global_zero or not isinstance(module, SteeringModule):
            return
        folder = Path(self.folder or Path(trainer.default_root_dir) / "adapter")
        save_adapter(module.adapted, folder, recipe=recipe(trainer, module))


def recipe(trainer: L.Trainer, module: SteeringModule) -> dict[str, Any]:
    """Everything needed to train the adapter again: settings, task, steps, seed, versions."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, ChoiceDataModule)
    return {
        **module.recipe(),
        "task": data.task.settings(),
        "batch": {"pairs_per_step": data.pairs_per_step, "pool_per_step": data.pool_per_step},
        "steps": trainer.global_step,
        "seed": data.seed,
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
