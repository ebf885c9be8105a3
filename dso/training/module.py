"""The training loop: one LightningModule for every estimator and every model.

A step scores one batch twice, with the adapter at strength 1 and, without gradients, at strength 0;
everything else is functions of these numbers. The base model is never copied and never trained.
Source: arXiv 2512.15926, section 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from dso.checkpointing import checkpointed
from dso.encoding import EncodedChoice
from dso.loading import LOADING, Loading, load_base, load_tokenizer
from dso.metrics import ChoiceMetrics, kl_divergence
from dso.policy import Policy
from dso.rewards import RunningGap
from dso.sampling import Rollouts, Sampling
from dso.steering import SteeringConfig, attach, soft_threshold_
from dso.tasks.choice import Choice
from dso.tasks.datamodule import ChoiceDataModule, EvaluationBatch, TrainBatch, TrainSteps
from dso.training.constraint import KLBudget, KLController
from dso.training.estimators import EstimatorName
from dso.training.objective import Objective, step_loss
from dso.training.rollouts import Sampler
from dso.training.settings import GRPO, Optimisation, Steering

# The defaults of SteeringModule; frozen, so that runs can share them.
STEERING, OBJECTIVE = Steering(), Objective()
KL_BUDGET, OPTIMISATION = KLBudget(), Optimisation()
SAMPLING, GRPO_SETTINGS = Sampling(), GRPO()

KEPT_VOCABULARY = 2**13
"""Up to this size of the vocabulary the base's distributions are kept instead of recomputed."""
KEPT_BATCH = 64
"""Choices a forward pass when they are computed."""


class TrainingDiverged(RuntimeError):
    """A loss or a gradient is not finite. The adapter is as the last good step left it."""


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
            `reinforce`, `rloo` and `grpo` sample answers, read them, and need no closed list of
            options.
        sampling: how many answers the sampled estimators draw, and how long.
        grpo: the settings of that estimator.
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
    ) -> None:
        super().__init__()
        self.sampler = None if estimator == "exact" else Sampler(estimator, sampling, grpo)
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
        self.controller = KLController(self.kl)
        self.gap: RunningGap | None = None
        self._pending_gap: dict[str, Tensor] | None = None
        self._encoded: dict[str, EncodedChoice] = {}
        self._base_options: dict[str, Tensor] = {}
        self._base_answers: dict[str, Tensor] = {}
        self._validation_kl: list[Tensor] = []

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
        """Adam on the adapter, with the schedule of `Optimisation`.

        Scales and shifts are the first group of parameters; a low-rank part is one of its own.
        """
        settings = self.optimisation
        groups: list[dict[str, Any]] = [{"params": self.affine_parameters}]
        if low_rank := self.low_rank_parameters:
            rate = settings.learning_rate * self.steering.rank_rate
            groups.append({"params": low_rank, "lr": rate})
        optimizer = torch.optim.Adam(groups, lr=settings.learning_rate, betas=settings.betas)
        # Not estimated_stepping_batches: it would set the batches up before a checkpoint has said
        # where to go on.
        steps = self.trainer.max_steps
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: settings.factor(step, steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

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
        steps = self.trainer.train_dataloader
        assert isinstance(steps, TrainSteps)
        ambiguous = [choice for pair in steps.pairs for choice in pair]
        small = self.policy.vocabulary <= KEPT_VOCABULARY
        self._keep_base(
            ambiguous if steps.steps * 2 * steps.pairs_per_step > len(ambiguous) else [],
            steps.pool if small and steps.steps * steps.pool_per_step > len(steps.pool) else [],
        )

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """One step: score, reward, constrain."""
        encoded = self._encode(batch.choices)
        pool = range(batch.ambiguous, len(encoded))
        table = batch.table
        rollouts = self._rollouts(batch.choices, encoded, batch_idx)
        with checkpointed(self.adapted) if self.gradient_checkpointing else nullcontext():
            steered = self.policy.score(
                encoded if rollouts is None else rollouts.encoded,
                pool,
                by_token=self.sampler is not None and self.sampler.by_token,
            )
        samples = None
        if rollouts is not None and self.sampler is not None:
            samples = self.sampler.samples(steered, rollouts)
            width = table.mask.shape[1]
            own = steered.options[:, :width].masked_fill(~table.mask, -torch.inf)
            steered = replace(steered, options=own)
            self.log("unparsed", rollouts.unparsed, prog_bar=True)
        base_options, base_answers = self._base(encoded, batch.ambiguous)
        if bool(steered.options.isnan().any() | steered.answers.isnan().any()):
            raise TrainingDiverged(
                f"the model's log-probabilities are not numbers at step {self.global_step}; lower "
                "the learning rate, or load the base in float32"
            )
        gap = self._running_gap(len(table.occupation_names))
        answers = (
            steered.options.detach().softmax(-1)
            if rollouts is None
            else rollouts.shares(table.mask.shape[1])
        )
        gap.update(self._across_processes(gap.batch_sums(answers, table)))
        loss, raw = step_loss(
            steered.options, base_options, table, gap.gap, self.objective, samples
        )

        kl = steered.mean_by_row(kl_divergence(steered.answers, base_answers)).mean()
        if not bool(torch.isfinite(loss + kl)):
            values = {name: float(value.detach()) for name, value in (raw | {"kl": kl}).items()}
            raise TrainingDiverged(
                f"the loss is not finite at step {self.global_step}: {values}; lower the learning "
                "rate, or load the base in float32"
            )
        self.controller.update(float(self._across_processes(kl.detach(), mean=True)))
        loss = loss + self.controller.multiplier * kl
        self._log_step(loss, raw, kl, gap)
        ambiguous = table.of_kind("ambiguous")
        moved = kl_divergence(
            steered.options[ambiguous].log_softmax(-1), base_options[ambiguous].log_softmax(-1)
        )
        self.log("kl_ambiguous", moved.mean())  # of the answers; not budgeted
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuse a gradient that is not finite before it reaches the adapter."""
        for parameter in self.adapter_parameters:
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
        self._validation = ChoiceMetrics(data.validation_table).to(self.device)
        self._validation_kl = []

    def validation_step(self, batch: EvaluationBatch, batch_idx: int) -> None:
        """Score one batch of validation choices at strength 1."""
        encoded = self._encode(batch.choices)
        known = [row for row, choice in enumerate(batch.choices) if choice.truth is not None]
        steered = self.policy.score(encoded, known)
        self._validation.update(steered.options, batch.rows)
        if known:
            with self.policy.base():
                base = self.policy.score([encoded[row] for row in known], range(len(known)))
            divergence = kl_divergence(steered.answers, base.answers)
            self._validation_kl.append(steered.mean_by_row(divergence))

    def on_validation_epoch_end(self) -> None:
        """Log every metric of the validation split as `val/<metric>`."""
        if self.trainer.sanity_checking:  # it sees a few batches only
            return
        values = {f"val/{name}": value for name, value in self._validation.compute().items()}
        if self._validation_kl:
            values["val/kl"] = torch.cat(self._validation_kl).mean()
        self.log_dict(values, sync_dist=False)

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
        checkpoint["sampler"] = self.sampler.state_dict() if self.sampler is not None else None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore them."""
        self.controller.load_state_dict(checkpoint["kl_controller"])
        self._pending_gap = checkpoint["running_gap"]
        if self.sampler is not None:
            self.sampler.load_state_dict(checkpoint["sampler"])

    # -- helpers ----------------------------------------------------------------------------

    def recipe(self) -> dict[str, Any]:
        """The settings of this run, for the adapter's folder."""
        return {
            "estimator": self.estimator,
            "sampling": asdict(self.sampling),
            "grpo": asdict(self.grpo),
            "steering": asdict(self.steering),
            "objective": asdict(self.objective),
            "kl": asdict(self.kl),
            "optimisation": asdict(self.optimisation),
            "loading": asdict(self.loading),
            "gradient_checkpointing": self.gradient_checkpointing,
            "end_token": self.end_token,
        }

    def _encode(self, choices: Sequence[Choice]) -> list[EncodedChoice]:
        fresh = [choice for choice in choices if choice.id not in self._encoded]
        for choice, encoded in zip(fresh, self.policy.encode(fresh), strict=True):
            self._encoded[choice.id] = encoded
        return [self._encoded[choice.id] for choice in choices]

    @torch.no_grad()
    def _base(self, encoded: Sequence[EncodedChoice], ambiguous: int) -> tuple[Tensor, Tensor]:
        """The base's option log-probabilities (N, K), and its distributions for the pool's rows.

        What is not kept is computed, in one pass. What is kept was computed before the first step
        (`_keep_base`), so that a resumed run sees the same numbers to the last bit.
        """
        pool = range(ambiguous, len(encoded))
        fresh = [
            row
            for row, choice in enumerate(encoded)
            if choice.id not in (self._base_answers if row >= ambiguous else self._base_options)
        ]
        options = {row: self._base_options.get(choice.id) for row, choice in enumerate(encoded)}
        answers = {row: self._base_answers.get(encoded[row].id) for row in pool}
        if fresh:
            wanted = [place for place, row in enumerate(fresh) if row >= ambiguous]
            with self.policy.base():
                scores = self.policy.score([encoded[row] for row in fresh], wanted)
            for place, row in enumerate(fresh):
                options[row] = scores.options[place, : encoded[row].options]
            for place in wanted:
                answers[fresh[place]] = scores.answers[scores.answer_rows == place]
        width = max(choice.options for choice in encoded)
        grid = torch.full((len(encoded), width), -torch.inf, device=self.device)
        for row, values in options.items():
            assert values is not None
            grid[row, : len(values)] = values
        rows = [values for values in answers.values() if values is not None]
        # In the order of `Scores.answers`: every row's first position, then the further ones.
        return grid, torch.cat([*(row[:1] for row in rows), *(row[1:] for row in rows)])

    @torch.no_grad()
    def _keep_base(self, ambiguous: Sequence[Choice], pool: Sequence[Choice]) -> None:
        """Compute and keep what the base says of these choices, batch by batch."""
        for choices, full in ((ambiguous, False), (pool, True)):
            for start in range(0, len(choices), KEPT_BATCH):
                encoded = self._encode(choices[start : start + KEPT_BATCH])
                with self.policy.base():
                    scores = self.policy.score(encoded, range(len(encoded)) if full else ())
                for row, choice in enumerate(encoded):
                    self._base_options[choice.id] = scores.options[row, : choice.options].clone()
                    if full:
                        self._base_answers[choice.id] = scores.answers[scores.answer_rows == row]

    def _rollouts(
        self, choices: Sequence[Choice], encoded: Sequence[EncodedChoice], batch_idx: int
    ) -> Rollouts | None:
        """Sampled answers, where the estimator needs them; other ones in every process."""
        if self.sampler is None:
            return None
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ChoiceDataModule)
        seed = (data.seed * 1_000_003 + batch_idx) * self.trainer.world_size + self.global_rank
        return self.sampler.draw(self.policy, choices, encoded, batch_idx, seed)

    def _running_gap(self, occupations: int) -> RunningGap:
        if self.gap is None:
            self.gap = RunningGap(occupations, self.gap_decay)
            if self._pending_gap is not None:
                self.gap.load_state_dict(self._pending_gap)
        return self.gap

    def _across_processes(self, value: Tensor, mean: bool = False) -> Tensor:
        if self.trainer.world_size == 1:
            return value
        gathered = self.all_gather(value)
        assert isinstance(gathered, Tensor)
        return gathered.mean(0) if mean else gathered.sum(0)

    def _log_step(self, loss: Tensor, raw: dict[str, Tensor], kl: Tensor, gap: RunningGap) -> None:
        bar = {"reward": raw["parity"], "bias": gap.bias, "kl": kl}
        self.log_dict(bar, prog_bar=True)
        weighted = {
            f"weighted/{name}": getattr(self.objective, name) * value for name, value in raw.items()
        }
        weighted["weighted/kl"] = self.controller.multiplier * kl
        self.log_dict({"loss": loss} | {f"raw/{k}": v for k, v in raw.items()} | weighted)
        average = self.controller.average
        self.log_dict(
            {"kl_average": float(average or 0.0), "kl_multiplier": self.controller.multiplier}
        )
