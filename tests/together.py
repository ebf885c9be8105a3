"""Several processes on one machine that compute together, for tests."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

# They are forked from a process that has imported this much and done nothing else.
IMPORTED = ["dso.training.cli", "dso.training.sharding", "tests.organism", "tests.tiny_models"]
LIMIT = 240
"""Seconds after which processes that wait for one another are ended."""


def together(folder: Path, work: Callable[..., Any], *arguments: Any, count: int = 2) -> list[Any]:
    """What `work(*arguments)` returns in each of `count` processes of one gloo group.

    Args:
        folder: an existing one for the results.
        work: a function of a module; what it returns must go through `torch.save`.
    """
    torch.multiprocessing.set_forkserver_preload(IMPORTED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = torch.multiprocessing.start_processes(
        _one,
        (count, port, folder, work, arguments),
        nprocs=count,
        join=False,
        start_method="forkserver",
    )
    end = time.monotonic() + LIMIT
    while not running.join(timeout=1):
        if time.monotonic() > end:
            for process in running.processes:
                process.kill()
            raise TimeoutError(f"{work.__name__} has not ended after {LIMIT} s")
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _one(
    rank: int, count: int, port: int, folder: Path, work: Callable[..., Any], arguments: Any
) -> None:
    torch.set_num_threads(1)
    # As a launcher such as torchrun would have set them; Lightning then starts none of its own.
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0",
        "LOCAL_RANK": str(rank), "RANK": str(rank), "WORLD_SIZE": str(count),
    }  # fmt: skip
    dist.init_process_group("gloo", rank=rank, world_size=count)
    try:
        torch.save(work(*arguments), folder / f"{rank}.pt")
        dist.barrier()  # none leaves while another still sends to it
    finally:
        dist.destroy_process_group()


@contextmanager
def double() -> Iterator[None]:
    """Everything in float64: in float32 the rounding of sums in another order grows to 1e-5."""
    before = torch.get_default_dtype()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        try:
            yield
        finally:
            torch.set_default_dtype(before)
