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
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning as L

from dso.demo import ORGANISM_FORMS
from dso.evaluation import evaluate
from dso.organisms import shipped
from dso.report import Result, write_results
from dso.tasks import ChoiceDataModule, Coreference
from dso.training import KLBudget, Optimisation, SteeringModule, preset

KEPT = ("unambiguous_accuracy", "gender_needed_accuracy", "capability")
CANDIDATES: list[dict[str, Any]] = [
    {},
    {"budget": 0.01},
    {"budget": 0.05},
    {"learning_rate": 1.5e-2},
    {"learning_rate": 5e-2},
    {"twin_consistency": 3.0},
    {"pair_anchor": 20.0},
    {"twin_consistency": 3.0, "pair_anchor": 20.0},
    {"steps": 600},
]


def run(candidate: dict[str, Any], seed: int, name: str = "default") -> list[Result]:
    """Train one candidate with one seed and measure it on the validation split."""
    settings = dict(candidate)
    steps = settings.pop("steps", 300)
    kl = KLBudget(budget=settings.pop("budget", KLBudget().budget))
    optimisation = Optimisation(
        learning_rate=settings.pop("learning_rate", Optimisation().learning_rate)
    )
    arguments = preset(name)
    arguments["objective"] = replace(arguments["objective"], **settings)
    task = Coreference(forms=ORGANISM_FORMS, seed=seed)
    module = SteeringModule(
        str(shipped("organism-llm")), kl=kl, optimisation=optimisation, **arguments
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_steps=steps, logger=False, enable_checkpointing=False, limit_val_batches=0,
            enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder,
        )  # fmt: skip
        trainer.fit(module, ChoiceDataModule(task, seed=seed))
    data = {"validation": task.load().validation}
    label = ", ".join(f"{key} {value:g}" for key, value in candidate.items()) or "defaults"
    return evaluate(
        module.policy, data, [0.0, 1.0], seed=seed, replicates=1, progress=False,
        experiment=f"{name}: {label}",
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("docs/results/tuning.jsonl"))
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    results: list[Result] = []
    for candidate in CANDIDATES:
        here = [r for seed in arguments.seeds for r in run(candidate, seed)]
        results += here

        def mean(metric: str, strength: float, here: list[Result] = here) -> float:
            return statistics.mean(
                r.value
                for r in here
                if (r.metric, r.strength, r.estimate) == (metric, strength, "probability")
            )

        worst = max(mean(metric, 0.0) - mean(metric, 1.0) for metric in KEPT)
        print(
            f"{here[0].experiment:50} bias {mean('per_occupation_bias', 1.0):6.2%}, worst drop "
            f"{worst:6.2%}, position shift {mean('position_shift', 1.0):6.2%}, "
            f"kl {mean('kl', 1.0):.4f}",
            flush=True,
        )
        write_results(arguments.output, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
