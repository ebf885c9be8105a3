"""Choose the hyper-parameters of the presets `default` and `vlm` on the validation occupations.

    python scripts/tune.py [--vlm] [--seeds 0 1 2] [--jobs 2] [--again]

Every candidate is trained with every seed and measured at strength 1 on the validation split alone;
the test occupations are never looked at. The winner has the lowest mean bias among those whose
worst accuracy falls by at most one point. Writes docs/results/tuning.jsonl (tuning_vlm.jsonl), one
line a figure; `experiment` names the candidate. Runs are kept under runs/tuning.
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

from dso.demo import ORGANISM_FORMS, VLM_FORMS
from dso.evaluation import evaluate
from dso.organisms.shipped import LLM, VLM, shipped
from dso.report import Result, write_results
from dso.tasks import ChoiceDataModule, Coreference, Scenes, Task
from dso.training import KLBudget, Optimisation, SteeringModule, preset
from dso.training.presets import Preset, data_of, steps_of
from dso.training.setting_up import plain_trainer

KEPT = ("unambiguous_accuracy", "gender_needed_accuracy", "capability")
CANDIDATES: dict[Preset, list[dict[str, Any]]] = {
    "default": [
        {},
        {"budget": 0.01},
        {"learning_rate": 1e-2},
        {"twin_consistency": 1.0, "pair_anchor": 5.0},
        {"pool_per_step": 32},
    ],
    "vlm": [{}, {"budget": 0.003}, {"budget": 0.02}, {"learning_rate": 1e-2}, {"steps": 200}],
}
"""By preset, what each changes of it."""


def run(name: Preset, candidate: dict[str, Any], seed: int, folder: Path) -> list[Result]:
    """Train one candidate with one seed and measure it on the validation split."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    settings, given = dict(candidate), preset(name)
    kl = given.get("kl", KLBudget())
    given["kl"] = replace(kl, budget=settings.pop("budget", kl.budget))
    optimisation = given.get("optimisation", Optimisation())
    rate = settings.pop("learning_rate", optimisation.learning_rate)
    given["optimisation"] = replace(optimisation, learning_rate=rate)
    steps = settings.pop("steps", steps_of(name))
    batch = data_of(name)
    if "pool_per_step" in settings:
        batch["pool_per_step"] = settings.pop("pool_per_step")
    given["objective"] = replace(given["objective"], **settings)
    task: Task = (
        Scenes(forms=VLM_FORMS, seed=seed)
        if name == "vlm"
        else Coreference(forms=ORGANISM_FORMS, seed=seed)
    )
    module = SteeringModule(str(shipped(VLM if name == "vlm" else LLM)), **given)
    plain_trainer(steps, folder).fit(module, ChoiceDataModule(task, seed=seed, **batch))
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
    return ", ".join(f"{key} {value:g}" for key, value in candidate.items()) or "preset"


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
    parser = options(__doc__, "tuning")
    parser.add_argument("--vlm", action="store_true", help="the preset vlm, on pictures")
    arguments = parser.parse_args()
    name: Preset = "vlm" if arguments.vlm else "default"
    runs: dict[str, Callable[[Path], list[Result]]] = {
        f"{name}-{label(candidate)}-{seed}".replace(" ", "_"): partial(run, name, candidate, seed)
        for candidate in CANDIDATES[name]
        for seed in arguments.seeds
    }
    results = results_of(runs, arguments.kept, arguments.jobs, arguments.again)
    file = "tuning_vlm.jsonl" if arguments.vlm else "tuning.jsonl"
    write_results(arguments.output / "results" / file, results)
    for called in map(label, CANDIDATES[name]):
        print(summary(called, [r for r in results if r.experiment == called]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
