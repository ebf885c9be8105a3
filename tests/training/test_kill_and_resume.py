"""A run that is killed, again and again, and resumed ends as the uninterrupted one, bit for bit.

Half of the moments are times within a step (drawing, scoring, the gradient, validation), half are
operations on the run's files (between any two of which a process can die).
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from safetensors.torch import load_file

from dso.loading import load_base
from dso.steering import load_adapter
from dso.training.saving import Checkpoints, SaveBest, WholeFiles
from tests.organism import module, organism, small_data, trainer
from tests.together import IMPORTED

pq = pytest.importorskip("pyarrow.parquet")

# transformers cannot load models in two threads at once: one sees the other's weights as missing.
LOADING = threading.Lock()
STEPS = 12
CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
SAMPLING = {"samples": 2, "max_new_tokens": 4}
MODELS: dict[str, dict[str, Any]] = {
    "exact": {"estimator": "exact"},
    "rloo": {"estimator": "rloo", "sampling": SAMPLING},
    "grpo": {"estimator": "grpo", "sampling": SAMPLING | {"epochs": 2}},
    "ppo": {"estimator": "ppo", "sampling": SAMPLING},
}


@dataclass(frozen=True)
class AtTime:
    """So many seconds into the so-manieth step from the start of the process."""

    step: int
    seconds: float


@dataclass(frozen=True)
class AtChange:
    """Just before the so-manieth change of the run's files."""

    number: int


def moments(name: str, count: int) -> list[AtTime | AtChange]:
    draw = random.Random(name)
    return [
        AtTime(draw.randrange(6), draw.uniform(0, 0.15))
        if place % 2
        else AtChange(draw.randrange(1, 70))
        for place in range(count)
    ]


class Tell(L.Callback):
    """Says through a pipe that a step begins."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def on_train_batch_start(self, *given: Any) -> None:
        os.write(self.pipe, b".")


def settings(name: str, folder: Path) -> dict[str, Any]:
    sizes = {"pairs": 24, "pool": 24, "validation": 6, "evaluation": 6, "forms": [" {}"]}
    often = {
        "dso.training.saving.Checkpoints": {"every_n_train_steps": 2, "save_last": True},
        "dso.training.SaveAdapter": {"every_n_steps": 3},
        "dso.training.SaveCompletions": {"every_n_steps": 2},
    }
    return {
        "model": {"model": organism()} | MODELS[name],
        "data": {
            "task": {"class_path": "dso.tasks.Coreference", "init_args": sizes},
            "pairs_per_step": 4,
            "pool_per_step": 8,
        },
        "trainer": {
            "max_steps": STEPS,
            "val_check_interval": 4,
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "default_root_dir": str(folder),
            "callbacks": [{"class_path": k, "init_args": v} for k, v in often.items()],
        },
    }


def work(name: str, folder: Path, pipe: Any, moment: AtTime | AtChange | None) -> None:
    """What each process does: `dso fit ... --ckpt_path last`."""
    torch.set_num_threads(1)
    from dso.training import cli

    changes = 0

    def watch(event: str, given: tuple[Any, ...]) -> None:
        nonlocal changes
        if event in CHANGES and str(folder) in str(given[0]) and given[1] != "r":
            changes += 1
            if changes == moment.number:
                os.kill(os.getpid(), signal.SIGKILL)

    if isinstance(moment, AtChange):
        sys.addaudithook(watch)
    config = folder.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(settings(name, folder)), encoding="utf-8")
    add = cli._missing
    cli._missing = lambda *given: [*add(*given), Tell(pipe.fileno())]
    cli.fit(["--config", str(config), "--ckpt_path", "last"])


def run(name: str, folder: Path, moment: AtTime | AtChange | None = None) -> bool:
    """Start or resume a run; whether it came to its end."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(name, folder, theirs, moment))
    process.start()
    theirs.close()
    if isinstance(moment, AtTime):
        begun = 0
        while begun <= moment.step and (told := os.read(ours.fileno(), 1)):
            begun += len(told)
        if begun > moment.step:
            time.sleep(moment.seconds)
            process.kill()
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    ours.close()
    return process.exitcode == 0


def check_what_is_left(folder: Path) -> None:
    """Nothing that has its final name is half-written."""
    for file in folder.glob("checkpoints/*.ckpt"):
        assert "state_dict" in torch.load(file, weights_only=True)
    for file in folder.glob("completions/*.parquet"):
        assert pq.read_table(file).num_rows
    for kept in (folder / "adapter", folder / "best"):
        # Without its config a folder says that it is incomplete.
        if (kept / "adapter_config.json").exists():
            with LOADING:
                load_adapter(load_base(organism()), kept)


def contents(folder: Path) -> dict[str, Any]:
    """What a run ended with."""
    config = json.loads((folder / "best" / "adapter_config.json").read_text(encoding="utf-8"))
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return {
        "adapter": load_file(folder / "adapter" / "adapter_model.safetensors"),
        "best": load_file(folder / "best" / "adapter_model.safetensors"),
        "state": checkpoint["state_dict"],
        "chosen": (config["recipe"]["steps"], config["measurements"]),
        "learner": checkpoint["learner"],
        "steps": checkpoint["global_step"],
    }


def killed_as_planned(name: str, folder: Path, planned: list[AtTime | AtChange]) -> None:
    """Kill a run at every moment of a plan; each time it ends it must equal the whole one."""
    assert run(name, folder / "whole")
    whole = contents(folder / "whole")
    assert whole["steps"] == STEPS
    remaining, runs = list(planned), 0
    while remaining:
        interrupted = folder / f"run{runs}"
        runs += 1
        assert runs <= len(planned)
        while remaining and not run(name, interrupted, remaining[0]):
            remaining.pop(0)
            check_what_is_left(interrupted)
        if remaining:  # it ended before the moment came
            check_same(contents(interrupted), whole)
    assert run(name, interrupted)
    check_same(contents(interrupted), whole)


def check_same(found: Any, wanted: Any) -> None:
    """Equal to the last bit, down to the tensors."""
    if isinstance(wanted, torch.Tensor):
        assert torch.equal(found, wanted)
    elif isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            check_same(found[key], value)
    elif isinstance(wanted, list | tuple):
        assert len(found) == len(wanted)
        for one, other in zip(found, wanted, strict=True):
            check_same(one, other)
    else:
        assert found == wanted


@pytest.mark.slow
def test_killed_at_twenty_moments_and_resumed_a_run_ends_as_if_it_never_was(tmp_path):
    torch.multiprocessing.set_forkserver_preload([*IMPORTED, "dso.training.cli"])
    plans = {"exact": 10, "rloo": 3, "grpo": 4, "ppo": 3}
    assert sum(plans.values()) == 20
    with ThreadPoolExecutor(2) as pool:
        ended = []
        for name, count in plans.items():
            folder = tmp_path / name
            folder.mkdir()
            ended.append(pool.submit(killed_as_planned, name, folder, moments(name, count)))
        for each in ended:
            each.result()


class Stop(L.Callback):
    """Ends the run before its sixth step."""

    def on_train_batch_start(self, trainer: L.Trainer, *given: Any) -> None:
        if trainer.global_step == 5:
            raise RuntimeError("stopped")


def test_a_resumed_run_knows_the_validation_of_the_step_it_goes_on_from(tmp_path):
    bias = {2: 0.3, 4: 0.1, 6: 0.2}
    validated = []

    def fit(*callbacks: L.Callback, resume: Path | None = None) -> float:
        best, model = SaveBest(), module()

        def figures() -> None:
            validated.append(model.trainer.global_step)
            model.log("val/selection", torch.tensor(bias[validated[-1]]))

        model.on_validation_epoch_end = figures
        keep = Checkpoints(dirpath=tmp_path, every_n_train_steps=2, save_last=True)
        often = {"val_check_interval": 2, "check_val_every_n_epoch": None, "limit_val_batches": 1.0}
        loop = trainer(tmp_path, 6, best, keep, *callbacks, enable_checkpointing=True, **often)
        loop.fit(model, small_data(validation=4), ckpt_path=resume)
        return best.best

    with pytest.raises(RuntimeError, match="stopped"):
        fit(Stop())
    assert fit(resume=tmp_path / "last.ckpt") == pytest.approx(0.1)
    assert validated == [2, 4, 6]
    config = json.loads((tmp_path / "best" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["recipe"]["steps"] == 4


def test_a_checkpoint_whose_writing_fails_leaves_the_last_one(tmp_path):
    files, place = WholeFiles(), tmp_path / "checkpoints" / "last.ckpt"
    files.save_checkpoint({"step": 1}, place)
    with pytest.raises(AttributeError, match="pickle"):
        files.save_checkpoint({"step": 2, "what": lambda: None}, place)
    assert files.load_checkpoint(place) == {"step": 1}
    files.save_checkpoint({"step": 3}, place)
    assert [file.name for file in place.parent.iterdir()] == ["last.ckpt"]
    assert files.load_checkpoint(place) == {"step": 3}
    place.write_bytes(place.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"last\.ckpt cannot be read as a checkpoint"):
        files.load_checkpoint(place)
