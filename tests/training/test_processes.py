"""Two processes that train together are one process with batches of twice the size."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dso.encoding import EncodedChoice
from dso.metrics import ChoiceMetrics
from dso.policy import Policy
from dso.sampling import Sampling
from dso.tasks import ChoiceDataModule, Task, TaskData, tabulate
from dso.tasks.datamodule import train_units
from dso.training import GRPO, Objective, processes, rollouts
from tests.organism import module, small_task, trainer
from tests.together import double, together

# At the base the mass term stands at its kink, where rounding picks the slope.
OBJECTIVE = Objective(option_mass=0)
SAMPLED = {"objective": replace(OBJECTIVE, twin_prior=1.0), "sampling": Sampling(4, 4)}
# Settings of the module for every run that is compared.
RUNS: dict[str, dict[str, Any]] = {
    "exact": {"objective": OBJECTIVE},
    "reinforce": {"estimator": "reinforce"} | SAMPLED,
    "rloo": {"estimator": "rloo"} | SAMPLED,
    "dapo": {"estimator": "grpo", "grpo": GRPO(loss_type="dapo")} | SAMPLED,
    "cispo": {"estimator": "grpo", "grpo": GRPO(loss_type="cispo", scale="batch")} | SAMPLED,
    "ppo": {"estimator": "ppo"} | SAMPLED,
    # Processes with unequally many twins and choices.
    "exact_mixed": {"objective": replace(OBJECTIVE, twin_consistency=1.0, distillation=1.0)},
    "rloo_mixed": {"estimator": "rloo"} | SAMPLED,
}
# How many validation choices the first of two processes has seen.
SPLITS = (0, 7, 12)
VALIDATION = small_task().load().validation
LOG_PROBS = torch.randn(len(VALIDATION), 2, generator=torch.Generator().manual_seed(0)).log_softmax(
    -1
)


class Mixed(Task):
    """A task with every third of its twin pairs torn, of which one choice is left, by itself."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def load(self) -> TaskData:
        data = self.task.load()
        units = [
            (replace(unit[0], twin=None),) if number % 3 == 0 else unit
            for number, unit in enumerate(train_units(data.train))
        ]
        return replace(data, train=[choice for unit in units for choice in unit])


def data(name: str, share: int) -> ChoiceDataModule:
    """The same global batches for a process that has one `share`-th of them."""
    # Answers of one token and of two: losses that count tokens must count those of all.
    task: Task = small_task(forms=[" {}", " the {}"])
    if name.endswith("_mixed"):
        task = Mixed(task)
    return ChoiceDataModule(
        task, pairs_per_step=4 // share, pool_per_step=8 // share, evaluation_batch=7
    )


def fixed_answers(
    _policy: Policy, batch: list[EncodedChoice], sampling: Sampling, *_: Any, **__: Any
) -> list[list[tuple[int, ...]]]:
    """Answers that depend on the choice alone, so that they are the same in any process."""
    return [
        [
            choice.forms[zlib.crc32(f"{choice.id} {place}".encode()) % len(choice.forms)][1]
            for place in range(sampling.samples)
        ]
        for choice in batch
    ]


def fit(folder: Path, name: str, share: int) -> dict[str, Any]:
    """Train; the adapter, the running estimates and the figures of the last validation."""
    run = module(**RUNS[name])
    steps = 20 if name in ("exact", "dapo") else 6
    make = run.configure_model

    def make_double() -> None:
        make()
        run.adapted.double()

    run.configure_model = make_double
    parallel = {"devices": share, "strategy": "ddp"}
    loop = trainer(
        folder,
        steps,
        limit_val_batches=1.0,
        val_check_interval=steps,
        check_val_every_n_epoch=None,
        **(parallel if share > 1 else {}),
    )
    with double(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollouts, "sample_tokens", fixed_answers)
        loop.fit(run, data(name, share))
    named = run.adapted.named_parameters()
    figures = {n: float(v) for n, v in loop.callback_metrics.items() if n.startswith("val/")}
    return {
        "adapter": {n: p.detach() for n, p in named if p.requires_grad},
        "gap": run.learner.gap.state_dict(),
        "controller": run.learner.controller.state_dict(),
        "figures": figures,
    }


# -- in each process ----------------------------------------------------------------------------


def reductions() -> dict[str, Any]:
    here = processes.rank()
    values = torch.tensor([1.0 + here, 10.0 * here], requires_grad=True)
    return {
        "world": (here, processes.world_size()),
        "total": processes.total(values),
        "mean": processes.mean(values),
        "maximum": processes.maximum(-values),
        "given": values.detach(),
        "counts": processes.total(torch.tensor(3 + here)),
        "anyone": [processes.anyone(flag) for flag in (False, here == 1, True)],
        "share": [processes.share(count) for count in (5, 1 + 2 * here, 0)],
        "objects": processes.gather_objects({"rank": here}),
    }


def shards(split: int) -> dict[str, float]:
    """Figures of choices of which the first process has seen `split`, and the other the rest."""
    rows = torch.arange(len(LOG_PROBS))
    mine = rows[:split] if processes.rank() == 0 else rows[split:]
    metrics = ChoiceMetrics(tabulate(VALIDATION))
    for part in mine.split(5):
        if len(part):
            metrics.update(LOG_PROBS[part], part)
    return {name: float(value) for name, value in metrics.compute().items()}


def everything(folder: Path) -> dict[str, Any]:
    return {
        "reductions": reductions(),
        "shards": [shards(split) for split in SPLITS],
        "runs": {name: fit(folder, name, 2) for name in RUNS},
    }


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What `everything` returned in both."""
    folder = tmp_path_factory.mktemp("two")
    return together(folder, everything, folder)


# -- and outside of them ------------------------------------------------------------------------


def test_reductions_are_over_both_processes(two):
    for rank, here in enumerate(each["reductions"] for each in two):
        assert here["world"] == (rank, 2)
        assert here["total"].tolist() == [3.0, 10.0]
        assert here["mean"].tolist() == [1.5, 5.0]
        assert here["maximum"].tolist() == [-1.0, 0.0]
        assert here["given"].tolist() == [1.0 + rank, 10.0 * rank]  # as it was
        assert not here["total"].requires_grad
        assert here["counts"] == 7
        assert here["anyone"] == [False, True, True]
        assert here["share"] == [1.0, 0.5 + rank, 0.0]
        assert here["objects"] == [{"rank": 0}, {"rank": 1}]


def test_in_one_process_reductions_return_what_they_are_given():
    values = torch.tensor([1.0, -2.0], requires_grad=True)
    for reduce in (processes.total, processes.mean, processes.maximum):
        assert torch.equal(reduce(values), values)
        assert not reduce(values).requires_grad
    assert (processes.rank(), processes.world_size()) == (0, 1)
    assert [processes.anyone(flag) for flag in (False, True)] == [False, True]
    assert [processes.share(count) for count in (3, 0)] == [1.0, 0.0]
    assert processes.gather_objects("state") == ["state"]


def test_figures_do_not_depend_on_which_process_saw_a_choice(two):
    metrics = ChoiceMetrics(tabulate(VALIDATION))
    metrics.update(LOG_PROBS, torch.arange(len(LOG_PROBS)))
    alone = {name: float(value) for name, value in metrics.compute().items()}
    assert len(alone) > 5
    for each in two:
        assert each["shards"] == [alone] * len(SPLITS)


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_train_as_one_with_twice_the_batch(two, name, tmp_path):
    one = fit(tmp_path, name, 1)
    moved = max(float(p.abs().max()) for p in one["adapter"].values())
    assert moved > 1e-3
    for both in (each["runs"][name] for each in two):
        assert set(both["adapter"]) == set(one["adapter"])
        for vector, value in one["adapter"].items():
            torch.testing.assert_close(both["adapter"][vector], value, atol=1e-10, rtol=0)
        for key, value in one["gap"].items():
            torch.testing.assert_close(both["gap"][key], value, atol=1e-10, rtol=0)
        assert both["controller"] == pytest.approx(one["controller"], rel=1e-9)
        assert both["figures"] == pytest.approx(one["figures"], abs=1e-9)


@pytest.mark.parametrize("name", RUNS)
def test_both_processes_end_with_the_same_adapter_bit_for_bit(two, name):
    one, other = (each["runs"][name] for each in two)
    assert all(torch.equal(v, other["adapter"][n]) for n, v in one["adapter"].items())
    assert one["controller"] == other["controller"]
