"""Choose the default preset's hyper-parameters on the validation occupations.

    python scripts/tune_spine.py [--seeds 0 1 2] [--jobs 2] [--again]

Every candidate is trained with every seed and measured at strength 1 on the validation split alone;
the test occupations are never looked at. The winner has the lowest mean bias among those whose
worst accuracy falls by at most one point. Writes docs/results/tuning.jsonl, one line a figure;
`experiment` names the candidate. Runs are kept under runs/tuning.
"""

from __future__ import annotations

import logging
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from running import options, results_of

from dso.demo import ORGANISM_FORMS
from dso.evaluation import evaluate
from dso.organisms import shipped
from dso.report import Result, write_results
from dso.tasks import ChoiceDataModule, Coreference
from dso.training import KLBudget, Objective, Optimisation, SteeringModule
from dso.training.presets import STEPS
from dso.training.setting_up import plain_trainer

KEPT = ("unambiguous_accuracy", "gender_needed_accuracy", "capability")
CANDIDATES: list[dict[str, Any]] = [
    {},
    {"budget": 0.01},
    {"learning_rate": 1e-2},
    {"twin_consistency": 1.0, "pair_anchor": 5.0},
    {"pool_per_step": 32},
]
"""What each changes of the default preset."""


def run(candidate: dict[str, Any], seed: int, folder: Path) -> list[Result]:
    """Train one candidate with one seed and measure it on the validation split."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    settings = dict(candidate)
    kl = KLBudget(budget=settings.pop("budget", KLBudget().budget))
    rate = settings.pop("learning_rate", Optimisation().learning_rate)
    pool_per_step = settings.pop("pool_per_step", 64)
    task = Coreference(forms=ORGANISM_FORMS, seed=seed)
    module = SteeringModule(
        str(shipped("organism-llm")),
        kl=kl,
        optimisation=Optimisation(learning_rate=rate),
        objective=replace(Objective(), **settings),
    )
    trainer = plain_trainer(STEPS, folder)
    trainer.fit(module, ChoiceDataModule(task, pool_per_step=pool_per_step, seed=seed))
    data = {"validation": task.load().validation}
    return evaluate(
        module.policy,
        data,
        [0.0, 1.0],
        seed=seed,
        replicates=1,
        progress=False,
        experiment=label(candidate),
    )


def label(candidate: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in candidate.items()) or "default"


def summary(name: str, results: list[Result]) -> str:
    """One line on a candidate, means over seeds."""

    def mean(metric: str, strength: float) -> float:
        wanted = (metric, strength, "probability")
        return statistics.mean(
            r.value for r in results if (r.metric, r.strength, r.estimate) == wanted
        )

    worst = max(mean(metric, 0.0) - mean(metric, 1.0) for metric in KEPT)
    return (
        f"{name:42} bias {mean('per_occupation_bias', 1.0):6.2%}, worst drop {worst:6.2%}, "
        f"position shift {mean('position_shift', 1.0):6.2%}, kl {mean('kl', 1.0):.4f}"
    )


def main() -> int:
    arguments = options(__doc__, "tuning").parse_args()
    runs: dict[str, Callable[[Path], list[Result]]] = {
        f"{label(candidate)}-{seed}".replace(" ", "_"): partial(run, candidate, seed)
        for candidate in CANDIDATES
        for seed in arguments.seeds
    }
    results = results_of(runs, arguments.kept, arguments.jobs, arguments.again)
    write_results(arguments.output / "results" / "tuning.jsonl", results)
    for candidate in CANDIDATES:
        name = label(candidate)
        print(summary(name, [r for r in results if r.experiment == name]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
