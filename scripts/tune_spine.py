"""Choose the default preset's hyper-parameters on the validation occupations.

    python scripts/tune_spine.py [--seeds 0 1 2] [--output docs/results/tuning.jsonl]

Every candidate is trained with every seed and measured at strength 1 on the validation split alone;
the test occupations are never looked at. The winner has the lowest mean bias among those whose
worst accuracy falls by at most one point. One line of results a figure; `experiment` names the
candidate.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

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


def run(candidate: dict[str, Any], seed: int) -> list[Result]:
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
    with tempfile.TemporaryDirectory() as folder:
        trainer = plain_trainer(STEPS, Path(folder))
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
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("docs/results/tuning.jsonl"))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    arguments = parser.parse_args()
    results: list[Result] = []
    with ProcessPoolExecutor(
        arguments.jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(max(1, (os.cpu_count() or 1) // arguments.jobs),),
    ) as pool:
        runs = [
            (candidate, [pool.submit(run, candidate, seed) for seed in arguments.seeds])
            for candidate in CANDIDATES
        ]
        for candidate, parts in runs:
            here = [result for part in parts for result in part.result()]
            results += here
            write_results(arguments.output, results)
            print(summary(label(candidate), here), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
