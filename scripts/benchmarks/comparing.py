"""Methods of training that take turns on the same material, and what each cost."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dso.sampling import Sampling
from dso.tasks import Choice, ChoiceDataModule, Coreference
from dso.training import GRPO
from dso.training.presets import SHAPED, STEPS
from dso.training.setting_up import plain_trainer
from dso.training.trl_backend import TRL, train_with_trl
from dso.training.trl_rewards import evaluating
from scripts.benchmarks.turns import Spent, Turns, Watched
from scripts.running import bias_of

METHODS = ("exact", "grpo", "trl_grpo", "trl_grpo_beta")
BETA = 0.04


@dataclass(frozen=True)
class Material:
    """What is trained on what."""

    name: str
    model: str
    """Folder."""
    task: Coreference
    pairs: int
    """Twin pairs a step."""
    pool: int
    """Prompts of the KL pool a step."""
    judged: bool
    """Whether it has a bias to halve."""


@dataclass(frozen=True)
class Plan:
    """How long everything goes on."""

    rounds: int = 3
    """Turns of every method, which the time of a step is of."""
    most: int = 12
    """Turns after which a method that has not reached half of the bias gives up."""
    block: int = 5
    """Steps a turn."""
    samples: int = 8
    """Answers a prompt."""
    steps: int = STEPS
    """Of the run that these are the first steps of: its learning rate, and what it prepares."""

    def __post_init__(self) -> None:
        if self.rounds < 3:
            raise ValueError(f"rounds is {self.rounds}; wanted at least 3, to see how they differ")
        if self.most < self.rounds or self.block < 1:
            raise ValueError(
                f"most is {self.most} and block {self.block}; wanted at least {self.rounds} turns "
                "of at least one step"
            )
        if self.steps < self.most * self.block + 2:
            raise ValueError(
                f"steps is {self.steps}; wanted more than the {self.most * self.block + 1} taken"
            )


@dataclass(frozen=True)
class Measured:
    """What one method cost on one material."""

    rounds: list[list[Spent]]
    """The steps of the turns that all methods had."""
    prepared: Spent
    biases: list[float]
    """After each step but the first; empty where it is not judged."""
    taken: int
    """Steps in all."""
    halved: int | None
    """Steps after which the bias was at most half of the base's for the first time."""

    @property
    def steps(self) -> list[Spent]:
        return [step for steps in self.rounds for step in steps]

    @property
    def seconds(self) -> list[float]:
        return [step.seconds for step in self.steps]

    def beside(self, other: Measured, clock: str = "seconds") -> list[float]:
        """Of every round: its median step as a multiple of the other's, by either clock."""
        medians = [
            [statistics.median(getattr(step, clock) for step in steps) for steps in measured.rounds]
            for measured in (self, other)
        ]
        return [own / others for own, others in zip(*medians, strict=True)]


def compare(
    material: Material, plan: Plan, device: str, seed: int
) -> tuple[dict[str, Measured], float | None]:
    """Train with every method in turns; what each cost, and the base's bias."""
    judged = ambiguous_of(material.task) if material.judged else []
    base = None
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: start(name, material, plan, device, seed, Path(folder, name)) for name in METHODS
        }
        biases: dict[str, list[float]] = {name: [] for name in METHODS}
        halved: dict[str, int] = {}
        try:
            for number in range(plan.most if judged else plan.rounds):
                for name in METHODS if number % 2 == 0 else reversed(METHODS):
                    if number >= plan.rounds and name in halved:
                        continue
                    run = runs[name]
                    for _ in range(plan.block):
                        run.advance(1)
                        if not judged:
                            continue
                        if base is None:
                            base = _bias(run, judged, 0.0)
                        biases[name].append(_bias(run, judged, 1.0))
                        if biases[name][-1] <= base / 2:
                            halved.setdefault(name, taken(run))
                    said = f"bias {biases[name][-1]:.1%}, " if judged else ""
                    print(f"{material.name}, {name}: {said}{taken(run)} steps", flush=True)
        finally:
            for run in runs.values():
                run.close()
    measured = {}
    for name, run in runs.items():
        starts = range(0, plan.rounds * plan.block, plan.block)
        rounds = [run.steps[start : start + plan.block] for start in starts]
        measured[name] = Measured(rounds, run.prepared, biases[name], taken(run), halved.get(name))
    return measured, base


def _bias(run: Turns, judged: list[Choice], strength: float) -> float:
    """Without dropout and the like, which trl trains with."""
    with evaluating(run.module.policy.model):
        return bias_of(run.module.policy, judged, strength)


def taken(run: Turns) -> int:
    """Steps of a run, the first included."""
    return len(run.steps) + 1


def start(name: str, material: Material, plan: Plan, device: str, seed: int, folder: Path) -> Turns:
    """A method's run, ready for its first turn."""
    module = Watched(
        material.model,
        objective=SHAPED,
        estimator="exact" if name == "exact" else "grpo",
        sampling=Sampling(samples=plan.samples),
        grpo=GRPO(scale="none"),
    )
    data = ChoiceDataModule(material.task, material.pairs, material.pool, seed=seed)
    cpu = device == "cpu"
    train: Callable[[], object]
    if name in ("exact", "grpo"):
        trainer = plain_trainer(plan.steps, folder, accelerator="cpu" if cpu else "gpu")
        train = partial(trainer.fit, module, data)
    else:
        settings = TRL(beta=BETA if name == "trl_grpo_beta" else 0.0, cpu=cpu, save_every=STEPS)
        train = partial(
            train_with_trl,
            module, data, plan.steps, folder, seed=seed, settings=settings, progress=False,
        )  # fmt: skip
    return Turns(module, train)


def ambiguous_of(task: Coreference) -> list[Choice]:
    """The training occupations in wording never trained on."""
    return [
        choice
        for choice in task.load().evaluation
        if choice.split == "train_occupations" and choice.kind == "ambiguous"
    ]
