"""Sampled answers in training: when they are drawn, how long they are kept, and their loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dso.encoding import EncodedChoice
from dso.policy import Policy, Scores
from dso.sampling import Rollouts, Sampling, read_answers, sample_tokens
from dso.tasks.choice import Choice
from dso.training.clipped import group_advantages, grpo
from dso.training.estimators import CLIPPED, SAMPLED, EstimatorName
from dso.training.objective import Samples
from dso.training.settings import GRPO


@dataclass(frozen=True)
class Held:
    """Sampled answers that several steps use."""

    drawn: list[list[tuple[int, ...]]]
    """Tokens of G answers to each choice."""
    log_probs: Tensor | None = None
    """(N, G, L) of each token when the answers were drawn."""


class Sampler:
    """Draws the answers of a step, or takes those of the step before, and makes their loss.

    Args:
        estimator: one that samples.
        sampling: how many answers, how long, and for how many steps.
        settings: of grpo.

    Raises:
        ValueError: settings that the estimator cannot use.
    """

    def __init__(self, estimator: EstimatorName, sampling: Sampling, settings: GRPO) -> None:
        if estimator in ("rloo", "grpo") and sampling.samples < 2:
            raise ValueError(
                f"{estimator} compares a prompt's answers: sampling.samples is 1, wanted at least 2"
            )
        if sampling.epochs > 1 and estimator not in CLIPPED:
            raise ValueError(
                f"sampling.epochs is {sampling.epochs}, but {estimator} has no clipped ratio and "
                f"needs fresh answers for every step; wanted 1, or an estimator of {CLIPPED}"
            )
        self.estimator = estimator
        self.sampling = sampling
        self.settings = settings
        self.held: Held | None = None

    @property
    def by_token(self) -> bool:
        """Whether the loss needs the log-probability of every token."""
        return self.estimator in CLIPPED

    def draw(
        self,
        policy: Policy,
        choices: Sequence[Choice],
        encoded: Sequence[EncodedChoice],
        step: int,
        seed: int,
    ) -> Rollouts:
        """The answers of a step: new ones at every `sampling.epochs`-th, else those held.

        Args:
            policy: at the strength that is trained.
            choices: N of them.
            encoded: the same as tokens.
            step: running number; the choices stay the same while answers are held.
            seed: of new answers. It is all they depend on, so that a resumed run draws what an
                uninterrupted one would.
        """
        if self.held is None or step % self.sampling.epochs == 0:
            generator = torch.Generator(policy.device).manual_seed(seed)
            self.held = Held(sample_tokens(policy, encoded, self.sampling, generator))
        return read_answers(policy, choices, encoded, self.held.drawn)

    def samples(self, steered: Scores, rollouts: Rollouts) -> Samples:
        """The answers with the loss of their rewards.

        Args:
            steered: scores of `rollouts.encoded`, by token where the estimator needs it.
            rollouts: as `draw` returned them.
        """
        if not self.by_token:
            log_probs = steered.options.gather(1, rollouts.column)
            estimate = SAMPLED[self.estimator]
            return Samples(
                rollouts.option, lambda where, rewards: estimate(log_probs[where], rewards)
            )
        assert steered.tokens is not None and self.held is not None
        rows = torch.arange(len(rollouts.column), device=rollouts.column.device)[:, None]
        tokens = steered.tokens[rows, rollouts.column]
        places = torch.arange(tokens.shape[-1], device=tokens.device)
        inside = places < rollouts.length[..., None]
        if self.held.log_probs is None:
            self.held = Held(self.held.drawn, tokens.detach())
        old = self.held.log_probs

        def loss(where: Tensor, rewards: Tensor) -> Tensor:
            assert old is not None
            return grpo(
                tokens[where].flatten(0, 1),
                old[where].flatten(0, 1),
                inside[where].flatten(0, 1),
                group_advantages(rewards, self.settings.scale).flatten(),
                loss_type=self.settings.loss_type,
                clip_low=self.settings.clip_low,
                clip_high=self.settings.clip_high,
                max_length=self.sampling.max_new_tokens,
            )

        return Samples(rollouts.option, loss)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the answers, where a later step uses them again."""
        held = self.held if self.sampling.epochs > 1 else None
        return {} if held is None else {"drawn": held.drawn, "log_probs": held.log_probs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.held = Held(state["drawn"], state["log_probs"]) if state else None
