"""`dso fit`: a LightningCLI over `SteeringModule` and `ChoiceDataModule`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import set_parsing_settings
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningCLI
from lightning.pytorch.loggers import CSVLogger

from dso.tasks import ChoiceDataModule
from dso.training.module import SteeringModule
from dso.training.presets import STEPS
from dso.training.saving import SaveAdapter

FIT_HELP = """\
Train a steering adapter. Everything is configured by one YAML file (see configs/), and any field
can be overridden:  dso fit --config configs/organism-llm.yaml --model.kl.budget 0.05
The adapter is written to <trainer.default_root_dir>/adapter; --ckpt_path FILE resumes an
interrupted run from <trainer.default_root_dir>/checkpoints."""

log = logging.getLogger(__name__)


class FitCLI(LightningCLI):
    """Adds what every run has unless its configuration says otherwise: progress, CSV log, adapter
    folder, and a checkpoint every fifty steps to resume from."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Log to CSV in the run's own folder unless the configuration names a logger."""
        settings = self._get(self.config_init, "trainer", default={})
        if settings.get("logger") is None:
            kwargs["logger"] = CSVLogger(settings["default_root_dir"], name="logs")
        return super().instantiate_trainer(**kwargs)

    def before_fit(self) -> None:
        """Put the checkpoints beside the adapter, and say where."""
        root = Path(self.trainer.default_root_dir)
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(root / "checkpoints")
        log.info("writing to %s", root)

    def after_fit(self) -> None:
        """Say where the adapter is."""
        log.info("adapter: %s", Path(self.trainer.default_root_dir) / "adapter")


def fit(arguments: Sequence[str]) -> None:
    """Run `dso fit` with the command line's arguments."""
    args: ArgsType = ["fit", *arguments]
    # The sentences under the fields of our dataclasses become their help.
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    FitCLI(
        SteeringModule,
        ChoiceDataModule,
        args=args,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={
            "default_root_dir": "runs/fit",
            "max_steps": STEPS,
            "max_epochs": 1,
            # Counted in steps of the run: without this a run shorter than an interval is refused.
            "val_check_interval": 50,
            "check_val_every_n_epoch": None,
            "log_every_n_steps": 1,
            "num_sanity_val_steps": 0,
            "callbacks": [
                RichProgressBar(leave=True),
                ModelCheckpoint(every_n_train_steps=50, save_last=True, save_top_k=1),
                SaveAdapter(),
            ],
            "enable_model_summary": False,
        },
        parser_kwargs={"prog": "dso", "fit": {"description": FIT_HELP}},
        auto_configure_optimizers=False,
    )
