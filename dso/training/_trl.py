"""trl's trainers as the backend needs them. No other file imports trl.

`GRPOTrainer` and `RLOOTrainer` of trl 1.16, with three things changed:

* prompts are fed as the tokens that we score them by: trl tokenises a text with special tokens, and
  a chat template has its own already;
* the loss is amended before its gradient is taken;
* nothing about a run is reported to a server, and no model card is made of its checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PrinterCallback, TrainerCallback
from trl import (  # type: ignore[attr-defined]
    GRPOConfig,
    GRPOTrainer,
    RLOOConfig,
    RLOOTrainer,
)

Reward = Callable[..., list[float]]
"""trl's reward function; called with keywords: `completion_ids`, every column of the data, more."""
Amend = Callable[[Tensor, int], Tensor]
"""From a part's loss, and by what trl will divide it, to the loss that is differentiated."""

REPLACED = ("_tokenize_prompts", "_send_telemetry", "_get_per_token_logps_and_entropies")
"""Methods of trl's trainers that are not public, and that this file replaces or calls."""


class _Steering:
    """What both trainers have instead of trl's own."""

    tokens: Mapping[str, tuple[int, ...]]
    """Token ids of every prompt, by the choice's name or, without pictures, by its text."""
    amend: Amend

    def _tokenize_prompts(self, prompts: list[Any]) -> tuple[list[list[int]], Any, dict[str, Any]]:
        if isinstance(prompts[0], str):
            return [list(self.tokens[prompt]) for prompt in prompts], None, {}
        # Conversations with pictures, of which the family's processor makes what the model takes.
        ids, images, more = super()._tokenize_prompts(prompts)  # type: ignore[misc]
        known = set(self.tokens.values())
        other = [
            prompt for prompt, own in zip(prompts, ids, strict=True) if tuple(own) not in known
        ]
        if other:
            raise ValueError(
                f"trl makes other tokens of {len(other)} of {len(prompts)} conversations than we "
                f"score, the first of them {other[0]!r}; take the backend lightning"
            )
        return ids, images, more

    def _send_telemetry(self) -> None:
        return None

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """The adapter folder has a card of its own."""

    def compute_loss(self, *args: Any, **kwargs: Any) -> Tensor:
        """trl's loss, amended."""
        loss: Tensor = super().compute_loss(*args, **kwargs)  # type: ignore[misc]
        # What RLOO returns is divided by the parts of a step afterwards, GRPO has done so.
        scaled = self.loss_is_scaled_for_ga  # type: ignore[attr-defined]
        parts = self.current_gradient_accumulation_steps  # type: ignore[attr-defined]
        return self.amend(loss, 1 if scaled else parts)

    @torch.no_grad()
    def log_probs(self, ids: Tensor, mask: Tensor, keep: int, **more: Any) -> Tensor:
        """(B, keep) of the last `keep` tokens of (B, T), as trl computes them while it trains;
        `more` is what the model takes besides, where pictures are shown."""
        model = self.model.train()  # type: ignore[attr-defined]
        found: Tensor = self._get_per_token_logps_and_entropies(  # type: ignore[attr-defined]
            model, ids, mask, keep, **more
        )[0]
        return found


class SteeringGRPO(_Steering, GRPOTrainer):
    """trl's GRPO."""


class SteeringRLOO(_Steering, RLOOTrainer):
    """trl's RLOO."""


TRAINERS = {"grpo": (SteeringGRPO, GRPOConfig), "rloo": (SteeringRLOO, RLOOConfig)}
"""By estimator: the trainer and its settings' class."""


def trainer(
    estimator: str,
    model: Any,
    tokenizer: Any,
    reward: Reward,
    rows: Mapping[str, list[Any]],
    folder: Path,
    settings: Mapping[str, Any],
    optimizers: tuple[Any, Any],
    callback: TrainerCallback,
    amend: Amend,
    tokens: Mapping[str, tuple[int, ...]],
) -> Any:
    """trl's trainer for an estimator, ready to train.

    Args:
        estimator: grpo or rloo.
        model: a peft model with a fresh adapter named `default`.
        tokenizer: its tokenizer; where pictures are shown its processor.
        reward: the one reward function.
        rows: the columns of the data: `prompt`, a text or, with a column `images`, a conversation,
            and others.
        folder: for the checkpoints.
        settings: of trl's settings class.
        optimizers: the optimiser and its schedule.
        callback: told of every step.
        amend: what a part's loss becomes.
        tokens: token ids of every prompt's text.

    Raises:
        ValueError: this trl lacks a method that is replaced here.
    """
    kind, config = TRAINERS[estimator]
    theirs = kind.__mro__[2]
    lacking = [name for name in REPLACED if not callable(getattr(theirs, name, None))]
    if lacking:
        raise ValueError(
            f"this trl's {theirs.__name__} has no {', '.join(lacking)}; wanted a version that "
            'works with dso: pip install "dso[trl]"'
        )
    made = kind(
        model=model,
        reward_funcs=reward,
        args=config(output_dir=str(folder), **settings),
        train_dataset=Dataset.from_dict(dict(rows)),
        processing_class=tokenizer,
        optimizers=optimizers,
        callbacks=[callback],
    )
    made.tokens, made.amend = tokens, amend
    # trl copies the adapter of a peft model to compare with. Without the copy its reference is the
    # model with the adapter switched off, which is the base.
    if "ref" in model.peft_config:
        model.delete_adapter("ref")
    made.remove_callback(PrinterCallback)
    return made
