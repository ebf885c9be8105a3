"""The training loop: one LightningModule for every estimator and every model.

A step scores one batch twice, with the adapter at strength 1 and, without gradients, at strength 0;
everything else is functions of these numbers. The base model is never copied and never trained.
Source: arXiv 2512.15926, section 4.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from dso.checkpointing import checkpointed
from dso.encoding import EncodedChoice
from dso.loading import LOADING, Loading, load_base, load_tokenizer
from dso.metrics import kl_divergence
from dso.policy import Policy, Scores
from dso.rewards import RunningGap
from dso.sampling import Rollouts, Sampling
from dso.steering import SteeringConfig, attach, soft_threshold_
from dso.tasks.choice import Choice
from dso.tasks.datamodule import ChoiceDataModule, EvaluationBatch, TrainBatch, TrainSteps
from dso.tasks.table import ChoiceTable
from dso.training import processes
from dso.training.base import BaseScores
from dso.training.constraint import KLBudget, KLController
from dso.training.custom import Customs
from dso.training.estimators import EstimatorName, exact
from dso.training.objective import Objective
from dso.training.rollouts import Sampler, update_tokens
from dso.training.settings import GRPO, PPO, Optimisation, Steering
from dso.training.step import (
    PolicyLoss,
    Rewarded,
    Sampled,
    Scored,
    StepFigures,
    populations,
    reward,
    step_loss,
)
from dso.training.validation import Validation
from dso.training.value import ValueBaseline
from dso.virtual import interchangeable, virtual_occupations

log = logging.getLogger(__name__)

# The defaults of SteeringModule; frozen, so that runs can share them.
STEERING, OBJECTIVE = Steering(), Objective()
KL_BUDGET, OPTIMISATION = KLBudget(), Optimisation()
SAMPLING, GRPO_SETTINGS, PPO_SETTINGS = Sampling(), GRPO(), PPO()

KEPT_VOCABULARY = 2**13
"""Up to this size of the vocabulary the base's distributions are kept instead of recomputed."""
SIGNAL_STEPS = 20
"""Steps over which the share of prompts without a signal is averaged before it is warned of."""
NO_SIGNAL_SHARE = 0.75
"""The share that is warned of. Half is usual where two people's rewards cancel out near parity."""


class TrainingDiverged(RuntimeError):
    """A loss or a gradient is not finite. The adapter is as the last good step left it."""


@dataclass(frozen=True)
class StepRecord:
    """What the last training step saw, for callbacks."""

    choices: list[Choice]
    rollouts: Rollouts | None
    """Sampled answers, where the estimator samples."""
    rewarded: Rewarded


class SteeringModule(L.LightningModule):
    """Trains a steering adapter on a frozen model.

    Args:
        model: folder or hub id of the base model.
        steering: which norms are steered and how.
        objective: weights of the rewards and terms.
        kl: the KL budget.
        optimisation: the optimiser.
        loading: how the base is loaded: dtype, quantisation, devices.
        gradient_checkpointing: keep only what enters each decoder block and run it again for the
            gradient: less memory, for about a third more time.
        gap_decay: how much of the running estimate of a side's lead a step keeps.
        end_token: append the end token to every answer, for options that are prefixes of others.
        estimator: how the gradient of the rewards is found: `exact` computes it over the options;
            `reinforce`, `rloo`, `grpo` and `ppo` sample answers, read them, and need no closed list
            of options.
        sampling: how many answers the sampled estimators draw, and how long.
        grpo: the settings of that estimator.
        ppo: the settings of that estimator.
        virtual: share of the twin pairs that are made to be about virtual occupations, between two
            of the training ones (see `dso.virtual`); `exact` only.
        floor: by how much, at most, an accuracy on the validation choices may fall below the
            base's for an adapter to count as the best so far.
    """

    def __init__(
        self,
        model: str,
        steering: Steering = STEERING,
        objective: Objective = OBJECTIVE,
        kl: KLBudget = KL_BUDGET,
        optimisation: Optimisation = OPTIMISATION,
        loading: Loading = LOADING,
        gradient_checkpointing: bool = False,
        gap_decay: float = 0.95,
        end_token: bool = False,
        estimator: EstimatorName = "exact",
        sampling: Sampling = SAMPLING,
        grpo: GRPO = GRPO_SETTINGS,
        ppo: PPO = PPO_SETTINGS,
        virtual: float = 0.0,
        floor: float = 0.02,
    ) -> None:
        super().__init__()
        if not 0 <= virtual <= 1:
            raise ValueError(f"virtual is {virtual}; wanted a share of the pairs, from 0 to 1")
        if virtual > 0 and estimator != "exact":
            raise ValueError(
                f"virtual is {virtual} and the estimator {estimator}: an answer between two words "
                "has a probability but cannot be sampled; wanted 0, or the estimator exact"
            )
        if not 0 <= floor <= 1:
            raise ValueError(f"floor is {floor}; wanted a share of accuracy, from 0 to 1")
        self.sampler = None if estimator == "exact" else Sampler(estimator, sampling, grpo, ppo)
        self.customs = Customs.load(objective.custom_rewards, objective.custom_terms)
        self.model_name = model
        self.steering = steering
        self.objective = objective
        self.kl = kl
        self.optimisation = optimisation
        self.loading = loading
        self.gradient_checkpointing = gradient_checkpointing
        self.gap_decay = gap_decay
        self.end_token = end_token
        self.estimator = estimator
        self.sampling = sampling
        self.grpo = grpo
        self.ppo = ppo
        self.virtual = virtual
        self.floor = floor
        self.controller = KLController(self.kl)
        self.gap: RunningGap | None = None
        self.baseline: ValueBaseline | None = None
        self.last_step: StepRecord | None = None
        self._pending_gap: dict[str, Tensor] | None = None
        self._encoded: dict[str, EncodedChoice] = {}
        self._interchangeable: dict[str, Hashable] = {}
        self._no_signal = 0.0
        self._warned = False
        self._validation: Validation | None = None

    # -- set-up -----------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Load the base model and attach a fresh adapter, once."""
        if hasattr(self, "policy"):
            return
        tokenizer = load_tokenizer(self.model_name, self.loading.revision)
        base = load_base(self.model_name, self.loading).eval()
        devices = sorted({str(p.device) for p in base.parameters()})
        if len(devices) > 1:
            raise ValueError(
                f"device_map {self.loading.device_map!r} puts the base on {', '.join(devices)}, "
                "but a process trains on one device; leave device_map out, and where one is too "
                "small take dtype bfloat16, or quantisation 8bit or 4bit"
            )
        form = asdict(self.steering)
        del form["rank_rate"]  # the optimiser's
        self.adapted = attach(base, SteeringConfig(**form))
        self.adapted.eval()  # dropout would make the base and the steered model differ
        self.policy = Policy(self.adapted, tokenizer, end_token=self.end_token)
        self.base = BaseScores(self.policy)
        if self.estimator == "ppo":
            width = self.adapted.get_output_embeddings().weight.shape[1]
            self.baseline = ValueBaseline(int(width))

    @property
    def adapter_parameters(self) -> list[torch.nn.Parameter]:
        """The trained vectors."""
        return [p for p in self.adapted.parameters() if p.requires_grad]

    @property
    def low_rank_parameters(self) -> list[torch.nn.Parameter]:
        """Those of them that are U and V of a low-rank part."""
        kinds = ("steering_left", "steering_right")
        named = self.adapted.named_parameters()
        return [p for n, p in named if p.requires_grad and any(kind in n for kind in kinds)]

    @property
    def affine_parameters(self) -> list[torch.nn.Parameter]:
        """The others: scales and shifts."""
        apart = {id(p) for p in self.low_rank_parameters}
        return [p for p in self.adapter_parameters if id(p) not in apart]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """`optimizer` for the trainer's number of steps."""
        # Not estimated_stepping_batches: it would set the batches up before a checkpoint has said
        # where to go on.
        optimizer, schedule = self.optimizer(self.trainer.max_steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def optimizer(
        self, steps: int
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        """Adam on the adapter, with the schedule of `Optimisation` over a number of steps.

        Scales and shifts are the first group of parameters; a low-rank part and the baseline of ppo
        are groups of their own.
        """
        settings = self.optimisation
        groups: list[dict[str, Any]] = [{"params": self.affine_parameters}]
        if low_rank := self.low_rank_parameters:
            rate = settings.learning_rate * self.steering.rank_rate
            groups.append({"params": low_rank, "lr": rate})
        if self.baseline is not None:
            groups.append({"params": list(self.baseline.parameters()), "lr": self.ppo.value_rate})
        optimizer = torch.optim.Adam(groups, lr=settings.learning_rate, betas=settings.betas)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: settings.factor(step, steps)
        )
        return optimizer, schedule

    def setup(self, stage: str) -> None:
        """Have each batch given as often as its answers are used."""
        data = getattr(self.trainer, "datamodule", None)
        if self.sampler is None or not isinstance(data, ChoiceDataModule):
            return
        data.repeats = self.sampling.epochs
        if data.repeats > 1 and self.trainer.accumulate_grad_batches > 1:
            raise ValueError(
                f"sampling.epochs is {data.repeats} and accumulate_grad_batches "
                f"{self.trainer.accumulate_grad_batches}: the uses of the same answers would fall "
                "into one update; wanted 1 of either"
            )

    # -- training ---------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Keep what the base says of choices that come more than once: it never changes."""
        steps = self._steps()
        units = [choice for unit in steps.units for choice in unit]
        small = self.policy.vocabulary <= KEPT_VOCABULARY
        states = self.baseline is not None
        if steps.steps * steps.pairs_per_step > len(steps.units):
            self.base.keep(self._encode(units), answers=False, states=states)
        if small and steps.steps * steps.pool_per_step > len(steps.pool):
            self.base.keep(self._encode(steps.pool), answers=True, states=states)
        if self.virtual > 0:
            self._interchangeable = interchangeable(units, self.policy.encode)

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """One step: score, reward, constrain."""
        encoded = self._with_virtual(batch, self._encode(batch.choices), batch_idx)
        rollouts = self._rollouts(batch, encoded, batch_idx)
        with checkpointed(self.adapted) if self.gradient_checkpointing else nullcontext():
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
                f"the model's log-probabilities are not numbers at step {self.global_step}; lower "
                "the learning rate, or load the base in float32"
            )
        gap = self._running_gap(table)
        answers = options.detach().softmax(-1) if rollouts is None else rollouts.shares(width)
        gap.update(processes.total(gap.batch_sums(answers, table)))
        scored = Scored(
            batch.choices, table, options, base_options, gap.lead, self._progress(batch_idx)
        )
        sampled = None if rollouts is None else Sampled(rollouts.option, rollouts.texts)
        rewarded = reward(scored, self.objective, self.customs, sampled)
        policy_loss = self._policy_loss(options, steered, rollouts, encoded)
        loss, figures = step_loss(scored, rewarded, self.objective, policy_loss, self.customs)
        kl = steered.mean_by_row(kl_divergence(steered.answers, base_answers)).mean()
        if processes.anyone(not bool(torch.isfinite(loss + kl))):
            values = {name: float(value) for name, value in (figures.raw | {"kl": kl}).items()}
            raise TrainingDiverged(
                f"the loss is not finite at step {self.global_step}: {values}; lower the learning "
                "rate, or load the base in float32"
            )
        self.controller.update(float(processes.mean(kl.detach())))
        loss = loss + self.controller.multiplier * kl
        self.last_step = StepRecord(batch.choices, rollouts, rewarded)
        self._warn_without_signal(figures)
        self._log_step(loss, figures, kl, gap)
        ambiguous = table.of_kind("ambiguous")
        moved = kl_divergence(
            options[ambiguous].log_softmax(-1), base_options[ambiguous].log_softmax(-1)
        )
        self.log("kl_ambiguous", moved.mean())  # of the answers; not budgeted
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuse a gradient that is not finite before it reaches the adapter."""
        for parameter in self.parameters():
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                raise TrainingDiverged(
                    f"a gradient is not finite at step {self.global_step} though the loss is; "
                    "load the base in float32 or lower the learning rate"
                )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """The optimiser's step, then the proximal step of the l1 penalty on scales and shifts."""
        optimizer = self.optimizers(use_pl_optimizer=False)
        rate = optimizer.param_groups[0]["lr"]  # type: ignore[union-attr]
        super().optimizer_step(*args, **kwargs)
        if self.objective.l1 > 0:
            soft_threshold_(self.affine_parameters, rate * self.objective.l1)

    # -- validation -------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Fresh metrics over the validation choices."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ChoiceDataModule)
        if self._validation is None:
            self._validation = Validation(self.policy, data.validation_table, self.floor)
        self._validation.start()

    def validation_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Score one batch of validation choices at strength 1 and, the first time, at 0."""
        assert self._validation is not None
        self._validation.update(batch, self._encode(batch.choices))

    def on_validation_epoch_end(self) -> None:
        """Log every metric of the validation split as `val/<metric>`."""
        if self.trainer.sanity_checking:  # it sees a few batches only
            return
        assert self._validation is not None
        self.log_dict(self._validation.figures(), sync_dist=False)

    # -- checkpoints ------------------------------------------------------------------------

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The adapter only: the base model's weights stay where they came from."""
        names = {name for name, p in self.named_parameters() if p.requires_grad}
        full = super().state_dict(*args, **kwargs)
        return {name: value for name, value in full.items() if name in names}

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Restore the adapter.

        Raises:
            ValueError: the checkpoint lacks vectors of this adapter or has others.
        """
        wanted = {name for name, p in self.named_parameters() if p.requires_grad}
        missing, unexpected = sorted(wanted - set(state_dict)), sorted(set(state_dict) - wanted)
        if missing or unexpected:
            raise ValueError(
                f"the checkpoint does not fit this adapter: {len(missing)} vectors missing "
                f"{missing[:3]}, {len(unexpected)} unexpected {unexpected[:3]}; resume with the "
                "model and the steering settings the run started with"
            )
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the controller's and the running estimates' state."""
        checkpoint["kl_controller"] = self.controller.state_dict()
        checkpoint["running_gap"] = self.gap.state_dict() if self.gap is not None else None
        if self.sampler is not None:  # the answers at hand differ between the processes
            checkpoint["sampler"] = processes.gather_objects(self.sampler.state_dict())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore them."""
        self.controller.load_state_dict(checkpoint["kl_controller"])
        self._pending_gap = checkpoint["running_gap"]
        if self.sampler is not None:
            states = checkpoint["sampler"]
            if len(states) != processes.world_size() and any(states):
                raise ValueError(
                    f"the checkpoint has the answers of {len(states)} processes that further steps "
                    f"were to use, and {processes.world_size()} are to go on; resume with as many"
                )
            self.sampler.load_state_dict(states[processes.rank()] if any(states) else {})

    # -- helpers ----------------------------------------------------------------------------

    def recipe(self) -> dict[str, Any]:
        """The settings of this run, for the adapter's folder."""
        return {
            "estimator": self.estimator,
            "sampling": asdict(self.sampling),
            "grpo": asdict(self.grpo),
            "ppo": asdict(self.ppo),
            "steering": asdict(self.steering),
            "objective": asdict(self.objective),
            "kl": asdict(self.kl),
            "optimisation": asdict(self.optimisation),
            "loading": asdict(self.loading),
            "gradient_checkpointing": self.gradient_checkpointing,
            "end_token": self.end_token,
            "virtual": self.virtual,
        }

    def _encode(self, choices: Sequence[Choice]) -> list[EncodedChoice]:
        fresh = [choice for choice in choices if choice.id not in self._encoded]
        for choice, encoded in zip(fresh, self.policy.encode(fresh), strict=True):
            self._encoded[choice.id] = encoded
        return [self._encoded[choice.id] for choice in choices]

    def _steps(self) -> TrainSteps:
        steps = self.trainer.train_dataloader
        assert isinstance(steps, TrainSteps)
        return steps

    def _progress(self, batch_idx: int) -> float:
        return batch_idx / max(1, len(self._steps()))

    def _with_virtual(
        self, batch: TrainBatch, encoded: list[EncodedChoice], batch_idx: int
    ) -> list[EncodedChoice]:
        """The batch with a share of its pairs between two occupations."""
        if self.virtual == 0:
            return encoded
        twins = dict(batch.table.pairs.tolist())
        second = set(twins.values())
        units = [
            [batch.choices[row], *([batch.choices[twins[row]]] if row in twins else [])]
            for row in range(batch.ambiguous)
            if row not in second
        ]
        mixed = virtual_occupations(
            units,
            encoded[: batch.ambiguous],
            self._interchangeable,
            self.virtual,
            random.Random(f"virtual-{self._seed(batch_idx)}"),
            self.policy.encode,
        )
        self.log("virtual", len(mixed.rows) / max(1, batch.ambiguous))
        return mixed.encoded + encoded[batch.ambiguous :]

    def _rollouts(
        self, batch: TrainBatch, encoded: Sequence[EncodedChoice], batch_idx: int
    ) -> Rollouts | None:
        """Sampled answers, where the estimator needs them; other ones in every process."""
        if self.sampler is None:
            return None
        window = self.trainer.accumulate_grad_batches
        if window > 1 and self.sampler.counts_tokens and batch_idx % window == 0:
            self._draw_ahead(self.sampler, range(batch_idx, batch_idx + window))
        seed = self._seed(batch_idx)
        return self.sampler.draw(self.policy, batch.choices, encoded, batch_idx, seed)

    def _draw_ahead(self, sampler: Sampler, batches: range) -> None:
        """Draw the answers of every batch of an update, to know how many tokens it has in all."""
        steps = self._steps()
        taken = [(place, steps.batch(place)) for place in batches if place < len(steps)]
        drawn = sampler.draw_ahead(
            self.policy,
            [(place, self._seed(place), self._encode(batch.choices)) for place, batch in taken],
        )
        counts: dict[str, list[Tensor]] = {}
        for (_, batch), answers in zip(taken, drawn, strict=True):
            lengths = torch.tensor([sum(map(len, given)) for given in answers])
            for name, where in populations(batch.table).items():
                counts.setdefault(name, []).append(lengths[where.cpu()].sum())
        sampler.tokens = {
            name: update_tokens(torch.stack(values).to(self.device), len(taken))
            for name, values in counts.items()
        }

    def _seed(self, batch_idx: int) -> int:
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ChoiceDataModule)
        world, rank = processes.world_size(), processes.rank()
        return (data.seed * 1_000_003 + batch_idx) * world + rank

    def _policy_loss(
        self,
        options: Tensor,
        steered: Scores,
        rollouts: Rollouts | None,
        encoded: Sequence[EncodedChoice],
    ) -> PolicyLoss:
        """The estimator, ready for rewards."""
        if self.sampler is None or rollouts is None:
            return lambda _, where, rewards: exact(options[where], rewards)
        states = None if self.baseline is None else self.base.states(encoded)
        return self.sampler.loss(steered, rollouts, self.baseline, states)

    def _running_gap(self, table: ChoiceTable) -> RunningGap:
        if self.gap is None:
            self.gap = RunningGap(
                len(table.occupation_names), self.gap_decay, len(table.group_names)
            )
            if self._pending_gap is not None:
                self.gap.load_state_dict(self._pending_gap)
        return self.gap

    def _warn_without_signal(self, figures: StepFigures) -> None:
        """Warn, once, when the answers to most ambiguous prompts earn the same."""
        share = figures.no_signal.get("ambiguous")
        if share is None or self._warned:
            return
        keep = 1 - 1 / SIGNAL_STEPS
        self._no_signal = self._no_signal * keep + float(share) * (1 - keep)
        if self._no_signal > NO_SIGNAL_SHARE:
            self._warned = True
            log.warning(
                "the answers to most ambiguous prompts of the last %d steps earn the same reward, "
                "so there is nothing to learn from them: sample more answers a prompt, or look at "
                "the rewards (raw/ and spread/ in the log)",
                SIGNAL_STEPS,
            )

    def _log_step(self, loss: Tensor, figures: StepFigures, kl: Tensor, gap: RunningGap) -> None:
        self.log_dict({"reward": figures.raw["parity"], "bias": gap.bias, "kl": kl}, prog_bar=True)
        record = self.last_step
        if record is not None and record.rollouts is not None:
            self.log("unparsed", record.rollouts.unparsed, prog_bar=True)
        multiplier = self.controller.multiplier
        logged = {"loss": loss, "weighted/kl": multiplier * kl}
        for group, values in (
            ("raw", figures.raw),
            ("weighted", figures.weighted),
            ("spread", figures.spread),
            ("no_signal", figures.no_signal),
            ("estimator", {} if self.sampler is None else self.sampler.figures),
        ):
            logged |= {f"{group}/{name}": value for name, value in values.items()}
        self.log_dict(logged)
        average = float(self.controller.average or 0.0)
        self.log_dict({"kl_average": average, "kl_multiplier": multiplier})
