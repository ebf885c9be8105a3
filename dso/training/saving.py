"""Callbacks that keep the adapter: at the end of a run, now and then, the best one, on failure."""

from __future__ import annotations

import importlib.metadata
import math
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
    nothing that was learnt is lost. A process that is killed has no time for that: therefore the
    folder is also written every so many steps.

    Args:
        folder: where; by default `adapter` in the trainer's `default_root_dir`.
        every_n_steps: how often during training.
    """

    def __init__(self, folder: str | None = None, every_n_steps: int = 50) -> None:
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps is {every_n_steps}; wanted at least 1")
        self.folder = folder
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
        batch_idx: int,
    ) -> None:  # fmt: skip
        """Save every so many batches."""
        if (batch_idx + 1) % self.every_n_steps == 0:
            self._save(trainer, pl_module)

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
        _save(trainer, module, Path(self.folder or Path(trainer.default_root_dir) / "adapter"))


class SaveBest(L.Callback):
    """Writes the adapter folder whenever validation finds the least bias so far.

    An adapter counts only while no accuracy on the validation choices is further below the base's
    than the module's `floor` allows; while none has been within it, the nearest is kept.

    Args:
        folder: where; by default `best` in the trainer's `default_root_dir`.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self.best = math.inf

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save where the figure that adapters are chosen by is the lowest so far."""
        found = trainer.callback_metrics.get("val/selection")
        if trainer.sanity_checking or found is None or not isinstance(pl_module, SteeringModule):
            return
        if float(found) >= self.best:
            return
        self.best = float(found)
        figures: dict[str, float | str] = {"strength": 1.0, "split": "validation"}
        for name, value in trainer.callback_metrics.items():
            if name.startswith("val/"):
                figures[name.removeprefix("val/")] = round(float(value), 4)
        folder = Path(self.folder or Path(trainer.default_root_dir) / "best")
        _save(trainer, pl_module, folder, [figures])

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint keeps."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Restore what `state_dict` returned."""
        self.best = state_dict["best"]


def recipe(
    module: SteeringModule, data: ChoiceDataModule, steps: int, processes: int = 1
) -> dict[str, Any]:
    """Everything needed to train the adapter again: settings, task, steps, seed, versions.

    Args:
        module: that was trained.
        data: what on.
        steps: the optimiser's steps so far.
        processes: that trained together.
    """
    return {
        **module.recipe(),
        "task": data.task.settings(),
        "batch": {"pairs_per_step": data.pairs_per_step, "pool_per_step": data.pool_per_step},
        "steps": steps,
        "processes": processes,
        "seed": data.seed,
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _save(
    trainer: L.Trainer,
    module: L.LightningModule,
    folder: Path,
    measurements: list[dict[str, float | str]] | None = None,
) -> None:
    """Write the adapter of a run as it stands."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    if trainer.is_global_zero and isinstance(module, SteeringModule):
        assert isinstance(data, ChoiceDataModule)
        made = recipe(module, data, trainer.global_step, trainer.world_size)
        save_adapter(module.adapted, folder, recipe=made, measurements=measurements)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
