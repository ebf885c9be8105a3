"""What a run needs: the frozen base with a fresh adapter, the optimiser of its vectors, and for a
plain run a trainer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import RichProgressBar
from torch import nn

from dso.loading import Loading, load_base
from dso.steering import SteeringConfig, attach
from dso.training.settings import Optimisation, Steering

LOW_RANK = ("steering_left", "steering_right")
"""Names of U and V of a low-rank part."""


def load_adapted(model: str, loading: Loading, steering: Steering) -> Any:
    """The base model in eval mode with a fresh adapter, a PeftModel.

    Args:
        model: folder or hub id.
        loading: how the base is loaded.
        steering: which norms are steered and how.

    Raises:
        ValueError: the base is spread over several devices.
    """
    base = load_base(model, loading).eval()
    devices = sorted({str(p.device) for p in base.parameters()})
    if len(devices) > 1:
        raise ValueError(
            f"device_map {loading.device_map!r} puts the base on {', '.join(devices)}, but a "
            "process trains on one device; leave device_map out, and where one is too small take "
            "dtype bfloat16, or quantisation 8bit or 4bit"
        )
    form = asdict(steering)
    del form["rank_rate"]  # the optimiser's
    # In eval mode: dropout would make the base and the steered model differ.
    return attach(base, SteeringConfig(**form)).eval()


def affine_parameters(adapted: nn.Module) -> list[nn.Parameter]:
    """The trained scales and shifts."""
    named = adapted.named_parameters()
    return [p for n, p in named if p.requires_grad and not any(kind in n for kind in LOW_RANK)]


def low_rank_parameters(adapted: nn.Module) -> list[nn.Parameter]:
    """The trained U and V."""
    named = adapted.named_parameters()
    return [p for n, p in named if p.requires_grad and any(kind in n for kind in LOW_RANK)]


def make_optimizer(
    adapted: nn.Module,
    settings: Optimisation,
    steps: int,
    rank_rate: float,
    baseline: Iterable[nn.Parameter] = (),
    baseline_rate: float = 0.0,
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """Adam with the schedule of `Optimisation` over a number of steps.

    Scales and shifts are the first group of parameters; a low-rank part and the baseline of ppo are
    groups of their own.

    Args:
        adapted: the model with its adapter.
        settings: rate, betas, warm-up.
        steps: of the run.
        rank_rate: learning rate of a low-rank part, as a share of the others'.
        baseline: parameters of a learned baseline.
        baseline_rate: their learning rate.
    """
    groups: list[dict[str, Any]] = [{"params": affine_parameters(adapted)}]
    if low_rank := low_rank_parameters(adapted):
        groups.append({"params": low_rank, "lr": settings.learning_rate * rank_rate})
    if further := list(baseline):
        groups.append({"params": further, "lr": baseline_rate})
    optimizer = torch.optim.Adam(groups, lr=settings.learning_rate, betas=settings.betas)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: settings.factor(step, steps)
    )
    return optimizer, schedule


def plain_trainer(
    steps: int,
    folder: Path,
    *callbacks: L.Callback,
    accelerator: str = "auto",
    progress: bool = False,
) -> L.Trainer:
    """A trainer that trains and nothing else: one device, no validation, no logger, no checkpoints.

    Args:
        steps: of the run.
        folder: `default_root_dir`, for callbacks that write.
        callbacks: its callbacks.
        accelerator: as Lightning names it.
        progress: show a progress bar.
    """
    bar = [RichProgressBar(leave=True)] if progress else []
    return L.Trainer(
        accelerator=accelerator,
        devices=1,
        max_steps=steps,
        max_epochs=1,
        default_root_dir=folder,
        callbacks=[*bar, *callbacks],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )
