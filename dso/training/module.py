"""The LightningModule: settings, set-up, and the loop's hooks around a `Learner`.

The base model is never copied and never trained; a checkpoint has the adapter and what the learner
knows, so that a resumed run goes on as an uninterrupted one would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from dso.loading import LOADING, Loading, load_processor, load_tokenizer
from dso.policy import Policy
from dso.sampling import Sampling
from dso.steering import soft_threshold_
from dso.tasks.datamodule import ChoiceDataModule, EvaluationBatch, TrainBatch, TrainSteps
from dso.training.constraint import KLBudget, KLController
from dso.training.custom import Customs
from dso.training.estimators import EstimatorName
from dso.training.learner import Learner, TrainingDiverged
from dso.training.objective import Objective
from dso.training.rollouts import Sampler
from dso.training.setting_up import affine_parameters, load_adapted, make_optimizer
from dso.training.settings import GRPO, PPO, Optimisation, Steering
from dso.training.validation import Validation
from dso.training.value import ValueBaseline

# The defaults of SteeringModule; frozen, so that runs can share them.
STEERING, OBJECTIVE = Steering(), Objective()
KL_BUDGET, OPTIMISATION = KLBudget(), Optimisation()
SAMPLING, GRPO_SETTINGS, PPO_SETTINGS = Sampling(), GRPO(), PPO()

PROGRESS = ("reward", "bias", "kl", "unparsed")
"""Figures that the progress bar shows."""


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
        self._validation: Validation | None = None

    # -- set-up -----------------------------------------------------------------------------

    def configure_model(self) -> None:
        """Load the base model and attach a fresh adapter, once."""
        if hasattr(self, "policy"):
            return
        tokenizer = load_tokenizer(self.model_name, self.loading.revision)
        self.adapted = load_adapted(self.model_name, self.loading, self.steering)
        processor = load_processor(self.model_name, self.loading.revision, tokenizer)
        self.policy = Policy(self.adapted, tokenizer, end_token=self.end_token, processor=processor)
        self.baseline = None
        if self.estimator == "ppo":
            width = self.adapted.get_output_embeddings().weight.shape[1]
            self.baseline = ValueBaseline(int(width))
        self.learner = Learner(
            self.policy,
            self.objective,
            self.customs,
            KLController(self.kl),
            self.sampler,
            self.baseline,
            self.virtual,
            self.gap_decay,
            self.gradient_checkpointing,
        )

    @property
    def adapter_parameters(self) -> list[torch.nn.Parameter]:
        """The trained vectors."""
        return [p for p in self.adapted.parameters() if p.requires_grad]

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
        """Of the adapter and, for ppo, its baseline; see `make_optimizer`."""
        return make_optimizer(
            self.adapted,
            self.optimisation,
            steps,
            self.steering.rank_rate,
            () if self.baseline is None else self.baseline.parameters(),
            self.ppo.value_rate,
        )

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
        """Let the learner see the whole run."""
        steps = self.trainer.train_dataloader
        assert isinstance(steps, TrainSteps)
        self.learner.prepare(steps)

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        """One step of the learner, and its log."""
        loss = self.learner.step(batch, batch_idx, self.trainer.accumulate_grad_batches)
        assert self.learner.record is not None
        figures = self.learner.record.figures
        figures = {"reward": figures["raw/parity"]} | figures
        self.log_dict({n: v for n, v in figures.items() if n in PROGRESS}, prog_bar=True)
        self.log_dict({n: v for n, v in figures.items() if n not in PROGRESS})
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
            soft_threshold_(affine_parameters(self.adapted), rate * self.objective.l1)

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
        self._validation.update(batch, self.learner.encode(batch.choices))

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
        """Add the learner's state."""
        checkpoint["learner"] = self.learner.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore it."""
        self.learner.load_state_dict(checkpoint["learner"])

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
