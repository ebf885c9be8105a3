"""What the backend trl does around trl's own loop: check before, watch during."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import GenerationConfig, TrainerCallback

from dso.encoding import EncodedChoice
from dso.policy import Policy
from dso.steering import soft_threshold_
from dso.training.module import SteeringModule
from dso.training.setting_up import affine_parameters
from dso.training.trl_rewards import Rewards, diverged, evaluating

STATE = "dso_state.json"
"""What a checkpoint keeps beside trl's own: the controller and the running estimates."""
AGREEMENT = 1e-3, 0.3
"""Nats by which trl's log-probability of an answer may differ from ours: float32, and narrower."""


class Watch(TrainerCallback):
    """What happens at every step beside trl's own: KL, checks, l1 step, log, checkpoints, bar."""

    def __init__(
        self, module: SteeringModule, reward: Rewards, folder: Path, steps: int, progress: bool
    ) -> None:
        self.module = module
        self.reward = reward
        self.logger = CSVLogger(folder, name="logs")
        self.bar = Progress(
            *Progress.get_default_columns()[:2],
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            disable=not progress,
        )
        self.task = self.bar.add_task("trl", total=steps, figures="")
        self.first = True
        """Whether the next loss is that of a step's first part."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show the bar."""
        self.bar.start()

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step's first part is next."""
        self.first = True

    def amend(self, loss: torch.Tensor, divisor: int) -> torch.Tensor:
        """Add the KL to the loss of a step's first part; refuse one that is not finite.

        Raises:
            TrainingDiverged: it is not.
        """
        if self.first and self.reward.kl == "loss":
            loss = loss + self.reward.penalty() * divisor
        self.first = False
        if not bool(torch.isfinite(loss)):
            raise diverged(f"the loss is {float(loss.detach())}")
        return loss

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Refuse a gradient that is not finite before it reaches the adapter."""
        for parameter in self.module.adapter_parameters:
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                raise diverged("a gradient is not finite though the loss is")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """The proximal step of the l1 penalty on scales and shifts."""
        l1 = self.module.objective.l1
        if l1 > 0:
            rate = given["optimizer"].param_groups[0]["lr"]
            soft_threshold_(affine_parameters(self.module.adapted), rate * l1)

    def on_log(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        """Our figures under the names of our own training, trl's behind `trl/`."""
        logs: dict[str, float | None] = given["logs"]
        if "loss" not in logs:  # the summary at the end
            return
        figures: dict[str, torch.Tensor | float] = {"loss": logs["loss"] or 0.0}
        figures |= self.reward.figures
        figures |= {f"trl/{name}": value for name, value in logs.items() if value is not None}
        self.logger.log_metrics(figures, state.global_step - 1)
        shown = " ".join(f"{n} {self.reward.figures[n]:.3f}" for n in ("reward", "bias", "kl"))
        self.bar.update(self.task, completed=state.global_step, figures=shown)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Put our state into the checkpoint."""
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        (folder / STATE).write_text(json.dumps(self.reward.state_dict()), encoding="utf-8")
        self.logger.save()

    def close(self) -> None:
        """End the bar and write the log."""
        self.bar.stop()
        self.logger.save()


@contextmanager
def plain_generation(base: Any) -> Iterator[None]:
    """The model without its own defaults of sampling, which would fill in for what trl leaves."""
    before = base.generation_config
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    base.generation_config = GenerationConfig(**{name: getattr(before, name) for name in names})
    try:
        yield
    finally:
        base.generation_config = before


@torch.no_grad()
def check_scores(trainer: Any, policy: Policy, encoded: Sequence[EncodedChoice]) -> None:
    """Hold trl's log-probabilities against ours, on padded prompts.

    trl counts positions from the padding on, and leaves dropout inside attention on.

    Raises:
        ValueError: they differ.
    """
    by_length = sorted(encoded, key=lambda choice: len(choice.prompt))
    some = [by_length[0], by_length[-1]]
    prompts = policy.prompts(some)
    ids = prompts.ids
    keep = max(len(choice.answer) for choice in some)
    more = torch.zeros(len(some), keep, dtype=torch.long)
    inside = torch.zeros_like(more)
    for row, choice in enumerate(some):
        more[row, : len(choice.answer)] = torch.tensor(choice.answer)
        inside[row, : len(choice.answer)] = 1
    more, inside = more.to(ids.device), inside.to(ids.device)
    whole = prompts.extended(more, inside)
    given: dict[str, Any] = dict(whole.inputs)
    if given:
        given["num_images"] = [len(c.shown.pictures) if c.shown else 0 for c in some]
    theirs = trainer.log_probs(whole.ids, whole.mask, keep, **given)
    with evaluating(policy.model):
        only = [replace(c, forms=((0, c.answer),), options=1) for c in some]
        ours = policy.score(only).options[:, 0]
    off = float(((theirs * inside).sum(1) - ours).abs().max())
    widths = {p.dtype for p in policy.model.get_base_model().parameters() if p.is_floating_point()}
    allowed = AGREEMENT[0 if widths == {torch.float32} else 1]
    if not off <= allowed:
        raise ValueError(
            f"trl's log-probability of an answer differs from ours by {off:.3g} nats, wanted at "
            f"most {allowed}: it leaves positions in a padded batch to the model, and dropout "
            "inside attention on; take the backend lightning for this model"
        )


def read_state(checkpoint: Path) -> dict[str, Any]:
    """What `Watch` put into a checkpoint.

    Raises:
        ValueError: nothing there.
    """
    file = checkpoint / STATE
    if not file.is_file():
        raise ValueError(
            f"{checkpoint} has no {STATE}; wanted a folder checkpoint-<step> of a run with the "
            "backend trl, kept whole"
        )
    state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return state
