"""Rewards for the backend trl, which knows nothing else: the KL budget may become one as well.

For answer g to choice n of the N choices of a step, summed over the populations that n belongs to
(the ambiguous, those with a known right answer, and the pool of the KL budget; n_p of them),

    R_ng = sum_p N / n_p R^p_ng,     R^pool_ng = - mu [log pi(y_ng) - log pi_base(y_ng)]

where the others' R^p is the combined reward of our own objective. trl's one mean over all answers
is then the sum of the populations' means, as in our own loss. Where a loss averages over tokens, N
and n_p are counted in tokens. mu is our controller's, fed with the KL of whole distributions as in
our own training; the bracket's expectation is the KL of whole answers, summed over their tokens.

A sampled KL says little where a model is sure of its answer: all the answers to a prompt are then
the same, and nothing is left when they are compared. So by default the KL is added to trl's loss
instead, as in our own training (`TRL.kl`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor

from dso.encoding import EncodedChoice
from dso.metrics import kl_divergence
from dso.policy import Policy
from dso.rewards import RunningGap
from dso.sampling import read_answers
from dso.tasks.datamodule import TrainBatch
from dso.tasks.table import ChoiceTable
from dso.training.clipped import group_advantages
from dso.training.constraint import KLController
from dso.training.learner import TrainingDiverged
from dso.training.module import SteeringModule
from dso.training.step import Rewarded, Sampled, Scored, populations, reward

KLPart = Literal["loss", "reward", "none"]
"""Where the KL to the base stands: in the loss, in the reward, or nowhere (it is measured)."""
BY_TOKEN = ("dapo", "cispo", "bnpo")
"""Losses that average over the tokens of all answers."""


class Rewards:
    """The reward of a step's sampled answers, with the running estimates that it needs.

    Args:
        module: its policy, objective and settings.
        table: of any step: its occupations and groups are those of the data.
        kl: what the KL to the base is part of.
    """

    def __init__(self, module: SteeringModule, table: ChoiceTable, kl: KLPart) -> None:
        self.policy: Policy = module.policy
        self.objective = module.objective
        self.customs = module.customs
        self.grpo = module.grpo if module.estimator == "grpo" else None
        self.gap = RunningGap(len(table.occupation_names), module.gap_decay, len(table.group_names))
        self.controller = KLController(module.kl)
        self.kl = kl
        self.pool: Sequence[EncodedChoice] = ()
        """The choices of the last step that the budget is for."""
        self.figures: dict[str, float] = {}
        """What the last step has to log."""

    @torch.no_grad()
    def __call__(
        self,
        batch: TrainBatch,
        encoded: Sequence[EncodedChoice],
        drawn: Sequence[Sequence[tuple[int, ...]]],
        progress: float = 1.0,
    ) -> Tensor:
        """(N, G) what trl is given.

        Args:
            batch: a step's N choices.
            encoded: the same as tokens.
            drawn: tokens of G answers to each.
            progress: share of the run that is done, for schedules.

        Raises:
            TrainingDiverged: the model's log-probabilities are not numbers.
        """
        policy, table = self.policy, batch.table.to(self.policy.device)
        rollouts = read_answers(policy, batch.choices, encoded, drawn)
        places = range(batch.ambiguous, len(encoded))
        self.pool = [encoded[place] for place in places]
        with evaluating(policy.model):
            steered = policy.score(rollouts.encoded, places)
            with policy.base():
                base = policy.score(rollouts.encoded, places)
        kl = float(steered.mean_by_row(kl_divergence(steered.answers, base.answers)).mean())
        if bool(steered.options.isnan().any()) or not math.isfinite(kl):
            raise diverged("the model's log-probabilities are not numbers")
        width = table.mask.shape[1]
        own, base_own = (
            scores.options[:, :width].masked_fill(~table.mask, -torch.inf)
            for scores in (steered, base)
        )
        self.gap.update(self.gap.batch_sums(rollouts.shares(width), table))
        self.controller.update(kl)
        scored = Scored(batch.choices, table, own, base_own, self.gap.lead, progress)
        sampled = Sampled(rollouts.option, rollouts.texts)
        rewarded = reward(scored, self.objective, self.customs, sampled)
        self._note(rewarded, kl, float(rollouts.unparsed))

        by_token = self.grpo is not None and self.grpo.loss_type in BY_TOKEN
        size = rollouts.length.sum(1) if by_token else torch.ones_like(rollouts.length[:, 0])
        total = torch.zeros_like(rewarded.total)
        for rows in populations(table).values():
            if bool(rows.any()):
                values = rewarded.total[rows]
                if self.grpo is not None and self.grpo.scale != "none":
                    # trl would divide by the spread after the weights, and undo them.
                    values = group_advantages(values, self.grpo.scale)
                total[rows] += values * size.sum() / size[rows].sum()
        if self.kl == "reward":
            moved = (steered.options - base.options).gather(1, rollouts.column)
            share = size.sum() / size[batch.ambiguous :].sum()
            total[batch.ambiguous :] -= (
                self.controller.multiplier * share * moved[batch.ambiguous :]
            )
        return total

    def penalty(self) -> Tensor:
        """() mu KL of the last step's pool, with gradient, for the loss."""
        places = range(len(self.pool))
        with evaluating(self.policy.model):
            with torch.no_grad(), self.policy.base():
                base = self.policy.score(self.pool, places)
            steered = self.policy.score(self.pool, places)
        kl = steered.mean_by_row(kl_divergence(steered.answers, base.answers)).mean()
        return self.controller.multiplier * kl

    def _note(self, rewarded: Rewarded, kl: float, unparsed: float) -> None:
        raw = {
            name: float(values[rewarded.rows[name]].mean())
            for name, values in rewarded.values.items()
            if bool(rewarded.rows[name].any())
        }
        self.figures = {
            "reward": raw["parity"],
            "bias": float(self.gap.bias),
            "kl": kl,
            "kl_average": float(self.controller.average or 0.0),
            "kl_multiplier": self.controller.multiplier,
            "unparsed": unparsed,
            **{f"raw/{name}": value for name, value in raw.items()},
        }

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, as plain numbers."""
        gap = {name: value.tolist() for name, value in self.gap.state_dict().items()}
        return {"kl_controller": self.controller.state_dict(), "running_gap": gap}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.controller.load_state_dict(state["kl_controller"])
        self.gap.load_state_dict({n: torch.tensor(v) for n, v in state["running_gap"].items()})


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """The model in eval mode inside the context."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def diverged(what: str) -> TrainingDiverged:
    """The error for numbers that are not finite."""
    return TrainingDiverged(f"{what}; lower the learning rate, or load the base in float32")
