"""`dso fit`: a LightningCLI over `SteeringModule` and `ChoiceDataModule`, with two backends."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from jsonargparse import set_parsing_settings
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

from dso.tasks import ChoiceDataModule
from dso.training.completions import SaveCompletions
from dso.training.module import SteeringModule
from dso.training.presets import STEPS
from dso.training.saving import SaveAdapter, SaveBest
from dso.training.trl_backend import TRL, last_trl_checkpoint, train_with_trl

FIT_HELP = """\
Train a steering adapter. Everything is configured by one YAML file (see configs/), and any field
can be overridden:  dso fit --config configs/organism-llm.yaml --model.kl.budget 0.05
The adapter is written to <trainer.default_root_dir>/adapter, the one with the least bias on the
validation choices to best, the log to logs, sampled answers to completions. An interrupted run goes
on with --ckpt_path last, from <trainer.default_root_dir>/checkpoints.

With --backend trl the same adapter is trained by trl's GRPOTrainer or RLOOTrainer."""
Backend = Literal["lightning", "trl"]

log = logging.getLogger(__name__)


class FitCLI(LightningCLI):
    """Adds what every run has unless its configuration says otherwise: progress, CSV log, adapter
    folders, sampled answers, and a checkpoint every fifty steps to resume from."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The backend and the settings of trl's."""
        parser.add_argument(
            "--backend", type=Backend, default="lightning", help="whose training loop is used"
        )
        parser.add_class_arguments(TRL, "trl")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Log to CSV in the run's own folder unless the configuration names a logger."""
        settings = self._get(self.config_init, "trainer", default={})
        if settings.get("logger") is None:
            kwargs["logger"] = CSVLogger(settings["default_root_dir"], name="logs")
        return super().instantiate_trainer(**kwargs)

    def fit(self, model: SteeringModule, datamodule: ChoiceDataModule, **given: Any) -> None:
        """Train, with the backend asked for."""
        if self._get(self.config_init, "backend") == "lightning":
            self.trainer.fit(model, datamodule=datamodule, **given)
            return
        log.info(
            "backend trl: of `trainer` only max_steps and default_root_dir are read; there is no "
            "validation during the run"
        )
        root = Path(self.trainer.default_root_dir)
        root.mkdir(parents=True, exist_ok=True)
        own = self.config.get(str(self.subcommand), self.config)
        self._parser(self.subcommand).save(own, root / "config.yaml", overwrite=True)
        if given.get("ckpt_path") == "last":
            given["ckpt_path"] = last_trl_checkpoint(root)
        train_with_trl(
            model,
            datamodule,
            self.trainer.max_steps,
            root,
            seed=datamodule.seed,
            settings=self._get(self.config_init, "trl"),
            checkpoint=given.get("ckpt_path"),
        )

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
    callbacks = [
        RichProgressBar(leave=True),
        ModelCheckpoint(every_n_train_steps=50, save_last=True, save_top_k=1),
        SaveAdapter(),
        SaveBest(),
    ]
    if find_spec("pyarrow") is not None:
        callbacks.append(SaveCompletions())
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
            # Its sampler would shuffle; ours keeps twins together and gives each process its own.
            "use_distributed_sampler": False,
            "callbacks": callbacks,
            "enable_model_summary": False,
        },
        parser_kwargs={"prog": "dso", "fit": {"description": FIT_HELP}},
        auto_configure_optimizers=False,
    )
