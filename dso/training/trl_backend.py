"""The backend trl: the same adapter, rewards and batches, trained by trl's GRPO or RLOO trainer.

`trl_rewards.py` says what trl is given as a reward. Differentiable terms are none and must be off;
the KL to the base is added to trl's loss. trl is imported by `_trl.py`
alone, when a run starts.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch

from dso.encoding import EncodedChoice
from dso.policy import Policy
from dso.steering import save_adapter
from dso.tasks.choice import Choice
from dso.tasks.datamodule import ChoiceDataModule, TrainBatch, TrainSteps, train_units
from dso.tasks.pictures import open_picture
from dso.training.module import SteeringModule
from dso.training.objective import TERMS
from dso.training.saving import recipe
from dso.training.trl_rewards import Rewards
from dso.training.trl_watch import STATE, Watch, check_scores, plain_generation, read_state


@dataclass(frozen=True)
class TRL:
    """Settings of the backend trl; the others are shared with our own training."""

    beta: float = 0.0
    """trl's own KL penalty to the base, on every prompt and with this fixed weight. Above 0 it
    stands in for the KL budget, which is then measured and logged only."""
    kl: Literal["loss", "reward"] = "loss"
    """Where the KL of the budget stands: in the loss, exact as in our own training, or in the
    reward, estimated from the sampled answers: little is seen of it where all of them agree."""
    parts: int = 1
    """Into how many parts a step's answers are cut for the forward and backward pass: more need
    less memory and give the same step."""
    save_every: int = 50
    """Steps between two checkpoints."""
    report_to: str = "none"
    """A tracker that trl reports to as well, such as `tensorboard` or `wandb`."""
    cpu: bool = False
    """Stay on the CPU where there is an accelerator too."""

    def __post_init__(self) -> None:
        if not (self.beta >= 0 and math.isfinite(self.beta)):
            raise ValueError(f"trl.beta is {self.beta}; wanted a number >= 0")
        if self.kl not in ("loss", "reward"):
            raise ValueError(f"trl.kl is {self.kl!r}; wanted loss or reward")
        for name in ("parts", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"trl.{name} is {getattr(self, name)}; wanted at least 1")


SETTINGS = TRL()


def train_with_trl(
    module: SteeringModule,
    data: ChoiceDataModule,
    steps: int,
    folder: str | Path,
    seed: int = 0,
    settings: TRL = SETTINGS,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Train the module's adapter with trl and write it to `folder/adapter`.

    Checkpoints go to `folder/checkpoints`, the log to `folder/logs`, as in our own training. When
    the run fails, the adapter as the last good step left it is written.

    Args:
        module: model, objective, estimator and settings; its own training loop is not used.
        data: what to train on; its seed orders the batches.
        steps: optimiser steps.
        folder: of the run.
        seed: of the sampled answers.
        settings: of the backend.
        checkpoint: a folder `checkpoint-<step>` of an earlier run to go on from.
        progress: show a bar.

    Returns:
        The adapter's folder.

    Raises:
        ValueError: trl is not installed; an estimator it does not have; terms that are no rewards;
            sizes that do not fit; a model that trl scores wrongly; a checkpoint without its state.
        TrainingDiverged: something is not finite.
    """
    check(module, steps)
    trl = _trl()
    folder = Path(folder)
    batches = _batches(data, steps, module.sampling.epochs)
    module.configure_model()
    policy = module.policy
    if policy.tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer of {module.model_name!r} has no end token, and trl needs one; "
            "set it, or take the backend lightning"
        )
    material = _prepare(policy, batches)
    reward = Rewards(module, batches[0].table, "none" if settings.beta > 0 else settings.kl)
    watch = Watch(module, reward, folder, steps, progress)
    kept = [p.detach().clone() for p in module.adapter_parameters]
    with plain_generation(policy.model.get_base_model()):
        trainer = trl.trainer(
            module.estimator,
            module.adapted,
            policy.eyes.processor if material.shows and policy.eyes else policy.tokenizer,
            partial(_reward, reward, material, module.sampling.samples, steps),
            material.rows,
            folder / "checkpoints",
            _arguments(module, steps, len(batches[0].choices), seed, settings),
            module.optimizer(steps),
            watch,
            watch.amend,
            material.tokens,
        )
        # trl rounds a quantised model's adapter to bfloat16, in which most of it would never move.
        for parameter, value in zip(module.adapter_parameters, kept, strict=True):
            parameter.data = value.to(parameter.device)
        if trainer.args.world_size > 1:
            raise ValueError(
                f"the backend trl runs in one process, here are {trainer.args.world_size}; start "
                "one, or take the backend lightning"
            )
        check_scores(trainer, policy, material.codes(batches[0]))
        if checkpoint is not None:
            reward.load_state_dict(read_state(Path(checkpoint)))
        try:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        finally:
            module.adapted.eval()
            watch.close()
            done = trainer.state.global_step
            if done > 0:
                made = _recipe(module, data, done, seed, settings)
                save_adapter(module.adapted, folder / "adapter", recipe=made)
    return folder / "adapter"


def check(module: SteeringModule, steps: int) -> None:
    """Refuse what trl cannot train, before anything is loaded.

    Raises:
        ValueError: says what.
    """
    if module.estimator not in ("grpo", "rloo"):
        raise ValueError(
            f"the backend trl trains grpo or rloo, and the estimator is {module.estimator!r}; set "
            "one of them, or take the backend lightning"
        )
    own = [term.name for term in module.objective.custom_terms]
    weight = module.objective.weight
    on = [name for name in (*TERMS, *own) if max(weight(name, 0.0), weight(name, 1.0)) > 0]
    if on:
        raise ValueError(
            f"the terms {', '.join(on)} are on: the backend trl knows rewards only and these "
            "are none; set them to 0 (the reward twin_prior does what the first two do), or take "
            "the backend lightning"
        )
    if module.virtual > 0:
        raise ValueError(
            f"virtual is {module.virtual}: the backend trl has no virtual occupations; set it to "
            "0, or take the backend lightning"
        )
    if steps < 1:
        raise ValueError(f"steps is {steps}; wanted at least 1")


def last_trl_checkpoint(folder: str | Path) -> Path | None:
    """The newest checkpoint of a run in `folder`; None where there is none yet."""
    found = Path(folder, "checkpoints").glob("checkpoint-*")
    kept = [path for path in found if (path / STATE).is_file()]
    return max(kept, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


# -- what trl is given ----------------------------------------------------------------------------


def _trl() -> ModuleType:
    try:
        from dso.training import _trl as trl
    except ModuleNotFoundError as error:
        raise ValueError(
            f"the backend trl needs packages that are not installed ({error.name}): pip install "
            '"dso[trl]", or take the backend lightning'
        ) from error
    return trl


def _batches(data: ChoiceDataModule, steps: int, uses: int) -> list[TrainBatch]:
    """The run's batches in the order of our own training, each once; `uses` steps share one."""
    units = train_units(data.data.train)
    order = TrainSteps(
        units, data.data.pool, data.pairs_per_step, data.pool_per_step, steps, data.seed
    )
    return [order.batch(step) for step in range(math.ceil(steps / uses))]


@dataclass(frozen=True)
class _Material:
    """The run's choices as trl needs them."""

    batches: list[TrainBatch]
    """One for every time answers are drawn."""
    encoded: dict[str, EncodedChoice]
    """By the choice's name."""
    texts: dict[str, str]
    """The prompt's text, by the choice's name."""

    @property
    def shows(self) -> bool:
        """Whether any choice shows a picture."""
        return any(choice.shown is not None for choice in self.encoded.values())

    @property
    def rows(self) -> dict[str, list[Any]]:
        """The columns of trl's data: every choice of every batch, in their order."""
        choices = [choice for batch in self.batches for choice in batch.choices]
        numbers = list(range(len(choices)))
        if not self.shows:
            return {"prompt": [self.texts[choice.id] for choice in choices], "row": numbers}
        return {
            "prompt": [_conversation(choice) for choice in choices],
            "images": [[open_picture(p) for p in choice.pictures] for choice in choices],
            "row": numbers,
        }

    @property
    def tokens(self) -> dict[str, tuple[int, ...]]:
        """Token ids of each text; by the choices' names where pictures are shown."""
        if self.shows:
            return {name: choice.prompt for name, choice in self.encoded.items()}
        return {self.texts[name]: choice.prompt for name, choice in self.encoded.items()}

    def codes(self, batch: TrainBatch) -> list[EncodedChoice]:
        """A batch as tokens."""
        return [self.encoded[choice.id] for choice in batch.choices]


def _conversation(choice: Choice) -> list[dict[str, str]]:
    """A prompt as trl takes it beside pictures."""
    before = [{"role": message.role, "content": message.content} for message in choice.messages]
    return [*before, {"role": "user", "content": choice.prompt}]


def _prepare(policy: Policy, batches: list[TrainBatch]) -> _Material:
    distinct = {choice.id: choice for batch in batches for choice in batch.choices}
    encoded = policy.encode(list(distinct.values()))
    texts = {name: policy.render(choice) for name, choice in distinct.items()}
    return _Material(batches, dict(zip(distinct, encoded, strict=True)), texts)


def _reward(
    reward: Rewards,
    material: _Material,
    samples: int,
    steps: int,
    *,
    row: Sequence[int],
    completion_ids: Sequence[Sequence[int]],
    trainer_state: Any,
    **_: Any,
) -> list[float]:
    """trl's reward function: regroup the answers by choice, and hand back one number an answer."""
    place, within = divmod(row[0], len(material.batches[0].choices))
    batch = material.batches[place]
    wanted = [row[0] + n for n in range(len(batch.choices)) for _ in range(samples)]
    if within or list(row) != wanted:
        raise ValueError(
            f"trl gave {len(row)} answers to the rows {row[0]} to {row[-1]}; wanted {samples} to "
            f"each of the {len(batch.choices)} of one step, in their order"
        )
    answers = [tuple(tokens) for tokens in completion_ids]
    drawn = [answers[n : n + samples] for n in range(0, len(answers), samples)]
    progress = trainer_state.global_step / steps
    values: list[float] = reward(batch, material.codes(batch), drawn, progress).flatten().tolist()
    return values


def _arguments(
    module: SteeringModule, steps: int, rows: int, seed: int, settings: TRL
) -> dict[str, Any]:
    """Fields of trl's settings class; nothing that would change what is sampled or learnt is left
    to its defaults."""
    sampling, grpo = module.sampling, module.grpo
    answers = rows * sampling.samples
    if answers % settings.parts:
        raise ValueError(
            f"trl.parts is {settings.parts}, which does not divide the {answers} answers of a step"
        )
    save_every = math.ceil(settings.save_every / sampling.epochs) * sampling.epochs
    common = {
        "max_steps": steps,
        "per_device_train_batch_size": answers // settings.parts,
        "gradient_accumulation_steps": settings.parts,
        "steps_per_generation": settings.parts,
        "num_generations": sampling.samples,
        "num_iterations": sampling.epochs,
        "shuffle_dataset": False,
        "max_completion_length": sampling.max_new_tokens,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": None,
        "repetition_penalty": 1.0,
        "mask_truncated_completions": False,
        "disable_dropout": True,
        "beta": settings.beta,
        "epsilon": grpo.clip_low,
        "epsilon_high": grpo.clip_high,
        "max_grad_norm": 0.0,
        "bf16": False,
        "fp16": False,
        "gradient_checkpointing": module.gradient_checkpointing,
        "use_cpu": settings.cpu or not torch.accelerator.is_available(),
        "use_vllm": False,
        "seed": seed,
        "report_to": settings.report_to,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        # Not between two uses of the same answers: trl would draw others when it resumes.
        "save_steps": save_every,
        "save_total_limit": 1,
    }
    if module.estimator == "rloo":
        return common | {"normalize_advantages": False}
    # For cispo trl's bound is the ratio itself, ours is counted from 1.
    high = grpo.clip_high + (1.0 if grpo.loss_type == "cispo" else 0.0)
    # Rewards arrive scaled; see `Rewards`.
    return common | {"epsilon_high": high, "loss_type": grpo.loss_type, "scale_rewards": "none"}


def _recipe(
    module: SteeringModule, data: ChoiceDataModule, steps: int, seed: int, settings: TRL
) -> dict[str, Any]:
    """Everything needed to train the adapter again."""
    own = recipe(module, data, steps)
    versions = own["versions"] | {"trl": importlib.metadata.version("trl")}
    more = {"backend": "trl", "trl": asdict(settings), "sampling_seed": seed, "versions": versions}
    return own | more
