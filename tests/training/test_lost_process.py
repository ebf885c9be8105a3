"""Two processes train together and something happens to one: the other ends too, and says why."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml

from dso.loading import load_base
from dso.steering import load_adapter
from dso.training import cli, learner, processes
from tests.organism import organism
from tests.together import IMPORTED

PATIENCE = 20
"""Seconds that a process waits for another (`DDPStrategy(timeout=...)` of a run)."""
AT = 6
"""The step at which it happens; the adapter was written after 4, and the first process writes it
once more when it stops."""
STEPS = 8
CALLS: list[int] = []


def due(rank: int) -> bool:
    """Whether this is that step, in that process."""
    CALLS.append(1)
    return len(CALLS) == AT and processes.rank() == rank


def fails_in_one(choices: Any, answers: Any) -> list[float]:
    if due(1):
        raise RuntimeError("timeout of the judge")
    return [0.0] * len(answers)


def killed(rank: int) -> None:
    plain = learner.step_loss

    def step_loss(*given: Any) -> Any:
        if due(rank):
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*given)

    learner.step_loss = step_loss


def not_a_number(rank: int) -> None:
    plain = learner.step_loss

    def step_loss(*given: Any) -> Any:
        loss, figures = plain(*given)
        return loss * (math.nan if due(rank) else 1.0), figures

    learner.step_loss = step_loss


def work(
    rank: int, port: int, folder: Path, happens: Callable[[int], None] | None, where: int
) -> None:
    """What each process does; leaves the error it ended with in a file."""
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0",
        "LOCAL_RANK": str(rank), "RANK": str(rank), "WORLD_SIZE": "2",
    }  # fmt: skip
    dist.init_process_group("gloo", timeout=timedelta(seconds=PATIENCE))
    if happens is not None:
        happens(where)
    try:
        cli.fit(["--config", str(folder / "run.yaml")])
        ended = "as planned"
    except Exception as error:
        ended = f"{type(error).__name__}: {error}"
    (folder / f"{rank}.txt").write_text(ended, encoding="utf-8")
    os._exit(0)  # as a process does that has failed, without taking leave of the group


def ends(
    folder: Path, happens: Callable[[int], None] | None = None, where: int = 1, **model: Any
) -> tuple[str, str]:
    """What each of two processes ended with; empty for one that was killed."""
    sizes = {"pairs": 24, "pool": 24, "validation": 6, "evaluation": 6, "forms": [" {}"]}
    often = {"class_path": "dso.training.SaveAdapter", "init_args": {"every_n_steps": 2}}
    settings = {
        "model": {"model": organism()} | model,
        "data": {
            "task": {"class_path": "dso.tasks.Coreference", "init_args": sizes},
            "pairs_per_step": 4,
            "pool_per_step": 8,
        },
        "trainer": {
            "max_steps": STEPS, "accelerator": "cpu", "devices": 2, "strategy": "ddp",
            "enable_progress_bar": False, "callbacks": [often],
            "default_root_dir": str(folder / "run"),
        },
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    torch.multiprocessing.set_forkserver_preload([*IMPORTED, "dso.training.cli"])
    context = multiprocessing.get_context("forkserver")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = [
        context.Process(target=work, args=(rank, port, folder, happens, where)) for rank in (0, 1)
    ]
    for process in running:
        process.start()
    limit = time.monotonic() + 4 * PATIENCE
    for process in running:
        process.join(max(0.0, limit - time.monotonic()))
    hanging = [process for process in running if process.is_alive()]
    for process in hanging:
        process.kill()
    assert not hanging
    files = [folder / f"{rank}.txt" for rank in (0, 1)]
    one, other = (f.read_text(encoding="utf-8") if f.exists() else "" for f in files)
    return one, other


def steps_of_the_adapter(folder: Path) -> int:
    """After how many steps the adapter was written; it loads."""
    load_adapter(load_base(organism()), folder / "run" / "adapter")
    config = folder / "run" / "adapter" / "adapter_config.json"
    return int(json.loads(config.read_text(encoding="utf-8"))["recipe"]["steps"])


@pytest.mark.slow
@pytest.mark.parametrize(("where", "steps"), [(1, AT - 1), (0, 4)])
def test_when_a_process_is_killed_the_other_says_so_and_where_the_adapter_is(
    tmp_path, where, steps
):
    found = ends(tmp_path, killed, where)
    assert found[where] == ""
    message = found[1 - where]
    assert message.startswith("ProcessLost: another process of this run has died")
    assert f"The adapter as of step {steps} is in {tmp_path / 'run' / 'adapter'}" in message
    assert "--ckpt_path last" in message
    assert steps_of_the_adapter(tmp_path) == steps


@pytest.mark.slow
def test_a_nan_in_one_process_stops_both_with_the_same_error(tmp_path):
    found = ends(tmp_path, not_a_number)
    for message in found:
        assert message.startswith(f"TrainingDiverged: the loss is not finite at step {AT - 1}")
    assert steps_of_the_adapter(tmp_path) == AT - 1


@pytest.mark.slow
def test_when_a_reward_fails_in_one_process_the_other_does_not_wait_for_ever(tmp_path):
    reward = {"function": f"{__name__}.fails_in_one"}
    found = ends(tmp_path, objective={"custom_rewards": [reward]})
    assert found[1].startswith("RewardFailed") and "timeout of the judge" in found[1]
    assert found[0].startswith("ProcessLost: another process of this run has died")
    assert "Look at the end of the other processes' output" in found[0]
    assert steps_of_the_adapter(tmp_path) == AT - 1
