"""What a run keeps: the adapter (now and then, the best one, on failure) and where to resume from.

A run may be killed at any moment. Each file is therefore written beside its place and moved there
when it is whole.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint

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

    def place(self, trainer: L.Trainer) -> Path:
        """The folder it writes."""
        return Path(self.folder or Path(trainer.default_root_dir) / "adapter")

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
        _save(trainer, module, self.place(trainer))


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


class Checkpoints(ModelCheckpoint):
    """Lightning's, but where a step is followed by a validation, written behind it.

    Lightning writes before the validation and leaves it out when a run is resumed from there: the
    best adapter would be another than that of the uninterrupted run. Takes what `ModelCheckpoint`
    takes.
    """

    _behind_validation = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any,
        batch_idx: int,
    ) -> None:  # fmt: skip
        """Write, or wait for the validation."""
        loop = trainer.fit_loop
        assert loop._data_fetcher is not None
        self._behind_validation = loop.epoch_loop._should_check_val_fx(loop._data_fetcher)
        if not self._behind_validation:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what has waited."""
        if self._behind_validation:
            self._behind_validation = False
            # It looks at the number of steps alone.
            super().on_train_batch_end(trainer, pl_module, None, None, 0)
        super().on_validation_end(trainer, pl_module)


class WholeFiles(TorchCheckpointIO):
    """Checkpoints that are whole or not there, and never half of the new over the last good one.

    Lightning's own are written to the system's temporary folder and moved. On a cluster that is
    another file system than the run's, and to move is then to copy: a process killed meanwhile
    leaves half a file. Remote addresses (`s3://...`) are left to Lightning.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write beside the place, wait for the disk, move in."""
        if storage_options is not None or "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        with part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read one.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it cannot be read.
        """
        location = map_location or (lambda storage, _: storage)
        try:
            return super().load_checkpoint(path, location, weights_only)
        except (RuntimeError, EOFError) as error:
            raise ValueError(
                f"{path} cannot be read as a checkpoint ({error}); it was cut short or altered. "
                "Resume from another one, or leave ckpt_path out to start afresh"
            ) from error


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
