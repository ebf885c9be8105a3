"""Sampled answers in training: when they are drawn, how long they are kept, and their loss.

Losses that divide by a number of tokens (dapo, cispo), and baselines and spreads over all prompts,
are those of the whole update: of all processes, and of all batches whose gradients it adds up. So
several processes, or accumulated batches, give the gradient that one large batch would.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dso.encoding import EncodedChoice
from dso.policy import Policy
from dso.sampling import Rollouts, Sampling, read_answers, sample_tokens
from dso.scoring import Scores
from dso.tasks.choice import Choice
from dso.tasks.datamodule import TrainBatch
from dso.training import processes
from dso.training.clipped import clip_share, group_advantages, grpo, ppo, value_loss
from dso.training.combine import EPSILON
from dso.training.estimators import CLIPPED, EstimatorName, mean_of_others, reinforce, rloo
from dso.training.settings import GRPO, PPO
from dso.training.step import PolicyLoss, populations
from dso.training.value import ValueBaseline

Drawn = list[list[tuple[int, ...]]]
"""Tokens of G answers to each of N choices."""


@dataclass(frozen=True)
class Held:
    """Sampled answers that several steps use."""

    drawn: Drawn
    log_probs: Tensor | None = None
    """(N, G, L) of each token when the answers were drawn."""
    values: Tensor | None = None
    """(N,) what the learned baseline said then."""


class Sampler:
    """Draws the answers of a step, or takes those of the step before, and makes their loss.

    Args:
        estimator: one that samples.
        sampling: how many answers, how long, and for how many steps.
        grpo_settings: of grpo.
        ppo_settings: of ppo.

    Raises:
        ValueError: settings that the estimator cannot use.
    """

    def __init__(
        self,
        estimator: EstimatorName,
        sampling: Sampling,
        grpo_settings: GRPO,
        ppo_settings: PPO,
    ) -> None:
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
        self.grpo = grpo_settings
        self.ppo = ppo_settings
        self.held: Held | None = None
        self.tokens: Mapping[str, Tensor] | None = None
        """Tokens of an update by population, where its batches were drawn ahead."""
        self.figures: dict[str, Tensor] = {}
        """What the last step's loss has to log."""
        self._ahead: dict[int, Drawn] = {}

    @property
    def by_token(self) -> bool:
        """Whether the loss needs the log-probability of every token."""
        return self.estimator in CLIPPED

    @property
    def counts_tokens(self) -> bool:
        """Whether the loss is divided by the tokens of a whole update."""
        return self.estimator == "grpo" and self.grpo.loss_type in ("dapo", "cispo")

    # -- answers ----------------------------------------------------------------------------

    @property
    def averages_choices(self) -> bool:
        """Whether the loss is a mean over a process' choices, and not over tokens."""
        return self.estimator != "grpo" or self.grpo.loss_type in ("grpo", "dr_grpo")

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
            ahead = self._ahead.pop(step, None)
            self.held = Held(self._new(policy, encoded, seed) if ahead is None else ahead)
        return read_answers(policy, choices, encoded, self.held.drawn)

    def draw_update(
        self,
        policy: Policy,
        batches: Sequence[tuple[int, int, TrainBatch, Sequence[EncodedChoice]]],
    ) -> None:
        """Draw the answers of all batches of an update before the first, and count their tokens.

        Args:
            policy: as it stays during the update.
            batches: (step, seed, batch, its choices as tokens) of each.
        """
        self._ahead = {step: self._new(policy, codes, seed) for step, seed, _, codes in batches}
        counts: dict[str, list[Tensor]] = {}
        for (_, _, batch, _), drawn in zip(batches, self._ahead.values(), strict=True):
            lengths = torch.tensor([sum(map(len, answers)) for answers in drawn])
            for name, where in populations(batch.table).items():
                counts.setdefault(name, []).append(lengths[where.cpu()].sum())
        self.tokens = {
            name: update_tokens(torch.stack(values).to(policy.device), len(batches))
            for name, values in counts.items()
        }

    def _new(self, policy: Policy, encoded: Sequence[EncodedChoice], seed: int) -> Drawn:
        generator = torch.Generator(policy.device).manual_seed(seed)
        return sample_tokens(policy, encoded, self.sampling, generator, synced=policy.synced)

    # -- loss -------------------------------------------------------------------------------

    def loss(
        self,
        steered: Scores,
        rollouts: Rollouts,
        baseline: ValueBaseline | None = None,
        states: Tensor | None = None,
    ) -> PolicyLoss:
        """The loss of the answers as a function of their rewards.

        Args:
            steered: scores of `rollouts.encoded`, by token where the estimator needs it.
            rollouts: as `draw` returned them.
            baseline: of ppo.
            states: (N, d) hidden states of the prompts, for the baseline.
        """
        self.figures = {}
        if self.estimator == "reinforce":
            log_probs = steered.options.gather(1, rollouts.column)

            def of_reinforce(_: str, where: Tensor, rewards: Tensor) -> Tensor:
                total = processes.total(rewards.sum())
                prompts = processes.total(rewards.new_tensor(len(rewards)))
                others = mean_of_others(rewards, total, prompts)
                return reinforce(log_probs[where], rewards, others)

            return of_reinforce
        if self.estimator == "rloo":
            log_probs = steered.options.gather(1, rollouts.column)
            return lambda _, where, rewards: rloo(log_probs[where], rewards)
        answers = self._answers(steered, rollouts)
        if self.estimator == "grpo":
            return lambda name, where, rewards: self._grpo(answers, name, where, rewards)
        assert baseline is not None and states is not None and self.held is not None
        values = baseline(states)
        if self.held.values is None:
            self.held = replace(self.held, values=values.detach())
        old_values = self.held.values
        assert old_values is not None
        old = old_values
        return lambda name, where, rewards: self._ppo(answers, values, old, name, where, rewards)

    def _answers(self, steered: Scores, rollouts: Rollouts) -> _Answers:
        assert steered.tokens is not None and self.held is not None
        rows = torch.arange(len(rollouts.column), device=rollouts.column.device)[:, None]
        tokens = steered.tokens[rows, rollouts.column]
        if self.held.log_probs is None:
            self.held = replace(self.held, log_probs=tokens.detach())
        assert self.held.log_probs is not None
        places = torch.arange(tokens.shape[-1], device=tokens.device)
        return _Answers(tokens, self.held.log_probs, places < rollouts.length[..., None])

    def _grpo(self, answers: _Answers, name: str, where: Tensor, rewards: Tensor) -> Tensor:
        settings = self.grpo
        if settings.scale == "batch":
            advantages = group_advantages(rewards, "none") / (_spread(rewards) + EPSILON)
        else:
            advantages = group_advantages(rewards, settings.scale, EPSILON)
        given = (*answers.of(where), advantages.flatten())
        tokens = None
        if self.counts_tokens:
            tokens = self.tokens[name] if self.tokens is not None else update_tokens(given[2])
        self.figures[f"clip_share/{name}"] = clip_share(
            *given,
            loss_type=settings.loss_type,
            clip_low=settings.clip_low,
            clip_high=settings.clip_high,
        )
        return grpo(
            *given,
            loss_type=settings.loss_type,
            clip_low=settings.clip_low,
            clip_high=settings.clip_high,
            max_length=self.sampling.max_new_tokens,
            tokens=tokens,
        )

    def _ppo(
        self,
        answers: _Answers,
        values: Tensor,
        old_values: Tensor,
        name: str,
        where: Tensor,
        rewards: Tensor,
    ) -> Tensor:
        log_probs, old, inside = answers.of(where)
        # The advantage of an answer is that of each of its tokens.
        advantages = (rewards - old_values[where][:, None]).flatten()[:, None].expand_as(log_probs)
        settings = self.ppo
        said, before = (v[where][:, None].expand_as(rewards) for v in (values, old_values))
        error = value_loss(said.flatten(), rewards.flatten(), before.flatten(), settings.value_clip)
        self.figures[f"value_error/{name}"] = error.detach()
        self.figures[f"clip_share/{name}"] = clip_share(
            log_probs,
            old,
            inside,
            advantages[:, 0],
            clip_low=settings.clip,
            clip_high=settings.clip,
        )
        return ppo(log_probs, old, inside, advantages, settings.clip) + error

    # -- resuming ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the answers, where a later step uses them again."""
        held = self.held if self.sampling.epochs > 1 else None
        if held is None:
            return {}
        return {"drawn": held.drawn, "log_probs": held.log_probs, "values": held.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.held = Held(**state) if state else None


@dataclass(frozen=True)
class _Answers:
    """(N, G, L) log-probabilities of the tokens now and when drawn, and where an answer has any."""

    log_probs: Tensor
    old: Tensor
    inside: Tensor

    def of(self, where: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Those of some choices, answers in one row of (n G, L)."""
        log_probs, old, inside = (
            values[where].flatten(0, 1) for values in (self.log_probs, self.old, self.inside)
        )
        return log_probs, old, inside


def _spread(rewards: Tensor) -> Tensor:
    """() standard deviation, with Bessel's correction, of the rewards of all processes."""
    count = processes.total(rewards.new_tensor(rewards.numel()))
    mean = processes.total(rewards.sum()) / count
    return (processes.total((rewards - mean).square().sum()) / (count - 1).clamp(min=1)).sqrt()


def update_tokens(inside: Tensor, batches: int = 1) -> Tensor:
    """What the tokens of an update are divided by, so that averaging over its parts adds them up.

    Args:
        inside: true at every token of this process' answers, of all batches of the update.
        batches: how many batches' gradients the update averages.

    Returns:
        () tokens of all processes, divided by how many processes and batches there are.
    """
    return processes.mean(inside.sum().float()) / batches
