"""One training step without a trainer around it: a batch in, a loss and its figures out.

A step scores the batch with the adapter at strength 1 and, without gradients, the base at strength
0; everything else is functions of these numbers (`step.py`). `SteeringModule` is the Lightning
shell around this. Source: arXiv 2512.15926, section 4.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dso.checkpointing import checkpointed
from dso.encoding import EncodedChoice
from dso.metrics import kl_divergence
from dso.policy import Policy
from dso.rewards import RunningGap
from dso.sampling import Rollouts
from dso.scoring import Scores
from dso.tasks.choice import Choice
from dso.tasks.datamodule import TrainBatch, TrainSteps
from dso.training import processes
from dso.training.base import BaseScores
from dso.training.constraint import KLController
from dso.training.custom import Customs
from dso.training.estimators import exact
from dso.training.objective import Objective
from dso.training.rollouts import Sampler
from dso.training.signal import SignalWatch
from dso.training.step import PolicyLoss, Rewarded, Sampled, Scored, reward, step_loss
from dso.training.value import ValueBaseline
from dso.virtual import interchangeable, virtual_occupations

KEPT_VOCABULARY = 2**13
"""Up to this size of the vocabulary the base's distributions are kept instead of recomputed."""


class TrainingDiverged(RuntimeError):
    """A loss or a gradient is not finite. The adapter is as the last good step left it."""


@dataclass(frozen=True)
class StepRecord:
    """What a step saw and found."""

    choices: list[Choice]
    rollouts: Rollouts | None
    """Sampled answers, where the estimator samples."""
    rewarded: Rewarded
    figures: dict[str, Tensor | float]
    """What is logged, by name."""


class Learner:
    """Takes training steps on a policy; what it has learnt of the data is its state.

    Args:
        policy: with the adapter that is trained.
        objective: weights of the rewards and terms.
        customs: the functions behind its custom ones.
        controller: of the KL budget.
        sampler: draws answers; None for the exact estimator.
        baseline: of ppo.
        virtual: share of the units that are about virtual occupations.
        gap_decay: how much of the running estimate of a group's lead a step keeps.
        gradient_checkpointing: keep only what enters each decoder block.
    """

    def __init__(
        self,
        policy: Policy,
        objective: Objective,
        customs: Customs,
        controller: KLController,
        sampler: Sampler | None = None,
        baseline: ValueBaseline | None = None,
        virtual: float = 0.0,
        gap_decay: float = 0.95,
        gradient_checkpointing: bool = False,
    ) -> None:
        self.policy = policy
        self.objective = objective
        self.customs = customs
        self.controller = controller
        self.sampler = sampler
        self.baseline = baseline
        self.virtual = virtual
        self.gap_decay = gap_decay
        self.gradient_checkpointing = gradient_checkpointing
        self.base = BaseScores(policy)
        self.gap: RunningGap | None = None
        self.steps: TrainSteps
        """Of the run; `prepare` is given them."""
        self.record: StepRecord | None = None
        """Of the last step."""
        self._signal = SignalWatch()
        self._encoded: dict[str, EncodedChoice] = {}
        self._classes: dict[str, Hashable] = {}
        self._loaded: dict[str, Tensor] | None = None

    def encode(self, choices: Sequence[Choice]) -> list[EncodedChoice]:
        """Choices as tokens, each tokenised once."""
        fresh = [choice for choice in choices if choice.id not in self._encoded]
        for choice, encoded in zip(fresh, self.policy.encode(fresh), strict=True):
            self._encoded[choice.id] = encoded
        return [self._encoded[choice.id] for choice in choices]

    def prepare(self, steps: TrainSteps) -> None:
        """Before the first step of a run, or of what is left of it.

        What the base says of choices that come more than once is computed and kept.

        Raises:
            ValueError: a state of other data was loaded.
        """
        self.steps = steps
        units = [choice for unit in steps.units for choice in unit]
        states = self.baseline is not None
        if steps.steps * steps.pairs_per_step > len(steps.units):
            self.base.keep(self.encode(units), answers=False, states=states)
        small = self.policy.vocabulary <= KEPT_VOCABULARY
        if small and steps.steps * steps.pool_per_step > len(steps.pool):
            self.base.keep(self.encode(steps.pool), answers=True, states=states)
        if self.virtual > 0:
            self._classes = interchangeable(units, self.policy.encode)
        table = steps.batch(0).table
        self.gap = RunningGap(len(table.occupation_names), self.gap_decay, len(table.group_names))
        if self._loaded is not None:
            self.gap.load_state_dict(self._loaded)

    def step(self, batch: TrainBatch, index: int, accumulated: int = 1) -> Tensor:
        """The loss of one batch, with gradient; `record` has what it found.

        Args:
            batch: the `index`-th.
            index: its running number.
            accumulated: how many batches an update adds up.

        Raises:
            TrainingDiverged: a loss that is not finite, in any process.
            RewardFailed: by a custom reward or term.
        """
        assert self.gap is not None
        encoded = self.encode(batch.choices)
        if self.virtual > 0:
            encoded = self._with_virtual(batch, encoded, index)
        rollouts = self._rollouts(batch, encoded, index, accumulated)
        with checkpointed(self.policy.model) if self.gradient_checkpointing else nullcontext():
            steered = self.policy.score(
                encoded if rollouts is None else rollouts.encoded,
                range(batch.ambiguous, len(encoded)),
                by_token=self.sampler is not None and self.sampler.by_token,
            )
        table = batch.table
        width = table.mask.shape[1]
        options = steered.options
        if rollouts is not None:  # behind a choice's own options stand the answers sampled to it
            options = options[:, :width].masked_fill(~table.mask, -torch.inf)
        base_options, base_answers = self.base.scores(encoded, batch.ambiguous)
        # One process that stops alone would leave the others waiting for it.
        if processes.anyone(bool(options.isnan().any() | steered.answers.isnan().any())):
            raise TrainingDiverged(
                f"the model's log-probabilities are not numbers at step {index}; lower the "
                "learning rate, or load the base in float32"
            )
        answers = options.detach().softmax(-1) if rollouts is None else rollouts.shares(width)
        self.gap.update(processes.total(self.gap.batch_sums(answers, table)))
        progress = index / max(1, len(self.steps))
        scored = Scored(batch.choices, table, options, base_options, self.gap.lead, progress)
        sampled = None if rollouts is None else Sampled(rollouts.option, rollouts.texts)
        rewarded = reward(scored, self.objective, self.customs, sampled)
        policy_loss = self._policy_loss(options, steered, rollouts, encoded)
        loss, found = step_loss(scored, rewarded, self.objective, policy_loss, self.customs)
        kl = steered.mean_by_row(kl_divergence(steered.answers, base_answers)).mean()
        if processes.anyone(not bool(torch.isfinite(loss + kl))):
            values = {n: float(v.detach()) for n, v in (found.raw | {"kl": kl}).items()}
            raise TrainingDiverged(
                f"the loss is not finite at step {index}: {values}; lower the learning rate, or "
                "load the base in float32"
            )
        self.controller.update(float(processes.mean(kl.detach())))
        loss = loss + self.controller.multiplier * kl
        self._signal.update(found.no_signal)
        figures = found.named() | self._figures(loss.detach(), kl.detach(), scored)
        if rollouts is not None:
            figures["unparsed"] = rollouts.unparsed
        if self.virtual > 0:
            blends = sum(choice.blend is not None for choice in encoded)
            figures["virtual"] = blends / max(1, batch.ambiguous)
        self.record = StepRecord(batch.choices, rollouts, rewarded, figures)
        return loss

    def _figures(self, loss: Tensor, kl: Tensor, scored: Scored) -> dict[str, Tensor | float]:
        """What is logged beside the rewards and terms."""
        assert self.gap is not None
        ambiguous = scored.table.of_kind("ambiguous")
        both = (scored.log_probs.detach(), scored.base_log_probs)
        moved = kl_divergence(*(values[ambiguous].log_softmax(-1) for values in both))
        own = {} if self.sampler is None else self.sampler.figures
        return {
            "loss": loss,
            "bias": self.gap.bias,
            "kl": kl,
            "kl_ambiguous": moved.mean(),  # of the answers; not budgeted
            "kl_average": float(self.controller.average or 0.0),
            "kl_multiplier": self.controller.multiplier,
            "weighted/kl": self.controller.multiplier * kl,
            **{f"estimator/{name}": value for name, value in own.items()},
        }

    def _with_virtual(
        self, batch: TrainBatch, encoded: list[EncodedChoice], index: int
    ) -> list[EncodedChoice]:
        """The batch with a share of its units between two occupations."""
        mixed = virtual_occupations(
            batch.units,
            encoded[: batch.ambiguous],
            self._classes,
            self.virtual,
            random.Random(f"virtual-{self._seed(index)}"),
            self.policy.encode,
        )
        return mixed.encoded + encoded[batch.ambiguous :]

    def _rollouts(
        self, batch: TrainBatch, encoded: Sequence[EncodedChoice], index: int, accumulated: int
    ) -> Rollouts | None:
        """Sampled answers, where the estimator needs them; other ones in every process."""
        if self.sampler is None:
            return None
        if accumulated > 1 and self.sampler.counts_tokens and index % accumulated == 0:
            ahead = range(index, min(index + accumulated, len(self.steps)))
            batches = {place: self.steps.batch(place) for place in ahead}
            self.sampler.draw_update(
                self.policy,
                [(n, self._seed(n), b, self.encode(b.choices)) for n, b in batches.items()],
            )
        return self.sampler.draw(self.policy, batch.choices, encoded, index, self._seed(index))

    def _seed(self, index: int) -> int:
        world, rank = processes.world_size(), processes.rank()
        return (self.steps.seed * 1_000_003 + index) * world + rank

    def _policy_loss(
        self,
        options: Tensor,
        steered: Scores,
        rollouts: Rollouts | None,
        encoded: Sequence[EncodedChoice],
    ) -> PolicyLoss:
        """The estimator, ready for rewards."""
        if self.sampler is None or rollouts is None:
            return _shared(lambda _, where, rewards: exact(options[where], rewards))
        states = None if self.baseline is None else self.base.states(encoded)
        loss = self.sampler.loss(steered, rollouts, self.baseline, states)
        return _shared(loss) if self.sampler.averages_choices else loss

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the controller, the running estimates, answers at hand."""
        # The answers at hand differ between the processes.
        held = None if self.sampler is None else self.sampler.state_dict()
        return {
            "estimator": "exact" if self.sampler is None else self.sampler.estimator,
            "kl_controller": self.controller.state_dict(),
            "running_gap": None if self.gap is None else self.gap.state_dict(),
            "sampler": processes.gather_objects(held),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; before `prepare`.

        Raises:
            ValueError: it is of another estimator, or of answers of more processes.
        """
        own = "exact" if self.sampler is None else self.sampler.estimator
        if state["estimator"] != own:
            raise ValueError(
                f"the checkpoint is of a run with the estimator {state['estimator']}, this one has "
                f"{own}; resume with the settings the run started with"
            )
        self.controller.load_state_dict(state["kl_controller"])
        self._loaded = state["running_gap"]
        held = state["sampler"]
        if self.sampler is None or not any(held):
            return
        if len(held) != processes.world_size():
            raise ValueError(
                f"the checkpoint has the answers of {len(held)} processes that further steps were "
                f"to use, and {processes.world_size()} are to go on; resume with as many"
            )
        self.sampler.load_state_dict(held[processes.rank()])


def _shared(mean: PolicyLoss) -> PolicyLoss:
    """A mean over a process' choices with its share of the mean over those of all processes."""
    return lambda name, where, rewards: processes.share(len(rewards)) * mean(name, where, rewards)
