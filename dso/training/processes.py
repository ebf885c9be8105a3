"""Numbers across the processes of a run: W of them, each with a batch of its own.

    total(x) = sum_r x_r        mean(x) = total(x) / W        maximum(x) = max_r x_r

The gradients of W processes are averaged (by DDP, or by `dso.training.sharding`). A loss that is a
mean over n_r things in process r then stands for the mean over all of them only where every process
has equally many; otherwise it has to be multiplied by

    share(n) = W n_r / sum_r n_r

Every function must be called by all processes, the same ones in the same order. In one process they
return what they are given and need no process group. None lets gradients through.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """W, the number of processes; 1 where none were started together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def total(values: Tensor) -> Tensor:
    """Sum over the processes, of any shape and dtype that is the same in all."""
    return _reduce(values, dist.ReduceOp.SUM)


def mean(values: Tensor) -> Tensor:
    """Mean over the processes, of any shape that is the same in all."""
    return total(values) / world_size()


def maximum(values: Tensor) -> Tensor:
    """Largest value over the processes, entry by entry, of any shape that is the same in all."""
    return _reduce(values, dist.ReduceOp.MAX)


def anyone(flag: bool) -> bool:
    """Whether the flag is set in any process.

    What one process alone decides (to stop, to compute once more) leaves the others waiting for it.
    """
    return flag if world_size() == 1 else bool(maximum(torch.tensor(float(flag))))


def share(count: int | Tensor) -> float:
    """W count / total(count): what a mean over `count` things is multiplied by, so that the mean
    over the processes is the mean over all things. 0 where no process has any."""
    here = float(count)
    everywhere = float(total(torch.tensor(here, dtype=torch.float64)))
    return here * world_size() / everywhere if everywhere else 0.0


def gather_objects(value: Any) -> list[Any]:
    """What every process gave, in the order of the ranks; it must pickle. For state, not numbers:
    each is sent to all."""
    values: list[Any] = [value] * world_size()
    if len(values) > 1:
        dist.all_gather_object(values, value)
    return values


def _reduce(values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
    if world_size() == 1:
        return values.detach()
    sent = values.detach().to(_device(values), copy=True).contiguous()
    dist.all_reduce(sent, operation)
    return sent.to(values.device)


def _device(values: Tensor) -> torch.device:
    """Where a tensor can be sent from: nccl sends nothing that lies on the CPU."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return values.device
