"""`dso fit`: a LightningCLI over `SteeringModule` and `ChoiceDataModule`, with two backends."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch.distributed as dist
from jsonargparse import set_parsing_settings
from lightning.fabric.plugins import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ProgressBar, RichProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger

from dso.tasks import ChoiceDataModule
from dso.training.completions import SaveCompletions
from dso.training.module import SteeringModule
from dso.training.presets import STEPS
from dso.training.saving import Checkpoints, SaveAdapter, SaveBest, WholeFiles
from dso.training.trl_backend import TRL, last_trl_checkpoint, train_with_trl

FIT_HELP = """\
Train a steering adapter. Everything is configured by one YAML file (see configs/), and any field
can be overridden:  dso fit --config configs/organism-llm.yaml --model.kl.budget 0.05
The adapter is written to <trainer.default_root_dir>/adapter, the one with the least bias on the
validation choices to best, the log to logs, sampled answers to completions. An interrupted run goes
on with --ckpt_path last, from <trainer.default_root_dir>/checkpoints.

With --backend trl the same adapter is trained by trl's GRPOTrainer or RLOOTrainer."""
Backend = Literal["lightning", "trl"]

# What gloo, nccl and their sockets say when another process is gone or no longer answers.
LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed? ?out", re.I)

log = logging.getLogger(__name__)


class ProcessLost(RuntimeError):
    """Another process of the run has died, or no longer answers."""


class FitParser(LightningArgumentParser):
    """Says what is wrong without the hundred lines of usage that would hide it."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message and leave with status 2."""
        print(f"dso fit: {message}\n(dso fit --help lists every field)", file=sys.stderr)
        raise SystemExit(2)


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
        """Add what the configuration leaves open: CSV log, whole checkpoints, callbacks."""
        settings = self._get(self.config_init, "trainer", default={})
        if settings.get("logger") is None:
            # Often: what is not written yet is lost when the process is killed.
            kwargs["logger"] = CSVLogger(
                settings["default_root_dir"], name="logs", flush_logs_every_n_steps=10
            )
        plugins = settings.get("plugins") or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, WholeFiles()]
        self.trainer_defaults["callbacks"] = _missing(settings, self.trainer_defaults["callbacks"])
        return super().instantiate_trainer(**kwargs)

    def fit(self, model: SteeringModule, datamodule: ChoiceDataModule, **given: Any) -> None:
        """Train, with the backend asked for."""
        if self._get(self.config_init, "backend") == "lightning":
            self._fit_with_lightning(model, datamodule, **given)
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

    def _fit_with_lightning(
        self, model: SteeringModule, datamodule: ChoiceDataModule, **given: Any
    ) -> None:
        """Train with Lightning; say where it goes on, and what to do when a process is lost."""
        if given.get("ckpt_path") == "last":
            found = [
                path
                for callback in self.trainer.checkpoint_callbacks
                if isinstance(callback, ModelCheckpoint) and callback.dirpath is not None
                for path in Path(callback.dirpath).glob("last*.ckpt")
            ]
            newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
            given["ckpt_path"] = newest and str(newest)
            if newest is None:
                log.info("no checkpoint to resume from yet: starting afresh")
            else:
                log.info("resuming from %s", newest)
        try:
            self.trainer.fit(model, datamodule=datamodule, **given)
        except RuntimeError as error:
            # Our own errors are of classes of their own, and both say more and are no such thing.
            lost = isinstance(error, dist.DistError) or (
                type(error) is RuntimeError and LOST.search(str(error)) is not None
            )
            if self.trainer.world_size == 1 or not lost:
                raise
            raise ProcessLost(_lost(self.trainer, error)) from error
        if "loss" not in self.trainer.callback_metrics:
            log.info(
                "no step was left to do: the run had come to its end. A finished run cannot be "
                "made longer; start another in a folder of its own"
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


def _missing(settings: Any, defaults: Sequence[Callback]) -> list[Callback]:
    """Those of the default callbacks that the trainer's settings neither replace nor forbid."""
    given = settings.get("callbacks") or []
    given = given if isinstance(given, list) else [given]
    replaced: list[type] = [type(callback) for callback in given]
    bar = any(isinstance(callback, ProgressBar) for callback in given)
    if settings.get("enable_progress_bar") is False or bar:
        replaced.append(ProgressBar)
    resumable = any(isinstance(c, ModelCheckpoint) and c.save_last for c in given)
    if settings.get("enable_checkpointing") is False or resumable:
        replaced.append(Checkpoint)
    return [callback for callback in defaults if not isinstance(callback, tuple(replaced))]


def _lost(trainer: Trainer, error: RuntimeError) -> str:
    """What a user needs to know when another process of the run is gone."""
    reason = str(error).splitlines()[0]
    message = f"another process of this run has died or no longer answers ({reason})."
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SaveAdapter):
            folder = callback.place(trainer)
            steps = _steps(folder)
            if steps is not None:
                message += f" The adapter as of step {steps} is in {folder}."
    return (
        f"{message} Look at the end of the other processes' output for the cause, then go on "
        "with --ckpt_path last"
    )


def _steps(folder: Path) -> int | None:
    """After how many steps an adapter folder was written, if it is there and whole."""
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return int(config["recipe"]["steps"])


def fit(arguments: Sequence[str]) -> None:
    """Run `dso fit` with the command line's arguments.

    Raises:
        ValueError: settings of the trainer that do not go together.
        ProcessLost: another process of the run has died.
    """
    args: ArgsType = ["fit", *arguments]
    callbacks: list[Callback] = [
        RichProgressBar(leave=True),
        Checkpoints(every_n_train_steps=50, save_last=True, save_top_k=1),
        SaveAdapter(),
        SaveBest(),
    ]
    if find_spec("pyarrow") is not None:
        callbacks.append(SaveCompletions())
    # The sentences under the fields of our dataclasses become their help.
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    defaults = {
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
    }
    try:
        FitCLI(
            SteeringModule,
            ChoiceDataModule,
            args=args,
            parser_class=FitParser,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            trainer_defaults=defaults,
            parser_kwargs={"prog": "dso", "fit": {"description": FIT_HELP}},
            auto_configure_optimizers=False,
        )
    except MisconfigurationException as error:
        raise ValueError(str(error)) from error
