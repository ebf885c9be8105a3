"""More than two groups, and free answers: the organism's second attribute, and whom it would hire.

    python scripts/groups_results.py [--seeds 0 1 2] [--jobs 2] [--again]

Trains with configs/organism-llm-groups.yaml and configs/organism-llm-hiring.yaml and measures both
tasks before and after; hiring by generated answers. Writes docs/results/groups.jsonl and the table
of docs/training.md. Runs are kept under runs/groups. About 30 minutes on two cores.
"""

from __future__ import annotations

import logging
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from running import between_markers, options, results_of, values_of, with_range

from dso.evaluation import evaluate
from dso.report import Result, title_of, write_results
from dso.sampling import Sampling
from dso.tasks import Choice, ChoiceDataModule, make_task
from dso.training import KLBudget, Objective, Optimisation, Steering, SteeringModule
from dso.training.setting_up import plain_trainer

CONFIGS = {name: Path(f"configs/organism-llm-{name}.yaml") for name in ("groups", "hiring")}
SETTINGS: dict[str, Callable[..., Any]] = {
    "steering": Steering,
    "objective": Objective,
    "kl": KLBudget,
    "optimisation": Optimisation,
    "sampling": Sampling,
}
SPLITS = ("train_occupations", "heldout_occupations")
KEPT = ("unambiguous_accuracy", "gender_needed_accuracy", "capability", "option_mass")
CONTROLS = tuple((metric, "probability", "") for metric in KEPT)
ROWS = {
    # (metric, estimate, part of the split)
    "groups": (
        ("total_variation", "probability", "_group"),
        ("total_variation", "probability", "_intersection"),
        *CONTROLS,
    ),
    "hiring": (
        ("per_occupation_bias", "generated", ""),
        ("per_occupation_bias", "probability", ""),
        ("unparsed", "generated", ""),
        ("position_bias", "generated", ""),
        *CONTROLS,
    ),
}


def train_and_measure(name: str, seed: int, folder: Path) -> list[Result]:
    """One adapter as the configuration says, and every figure before and after."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    config = yaml.safe_load(CONFIGS[name].read_text(encoding="utf-8"))
    asked = config["data"].pop("task")
    task = make_task(asked["class_path"], asked["init_args"] | {"seed": seed})
    module = SteeringModule(**{n: _setting(n, v) for n, v in config["model"].items()})
    trainer = plain_trainer(config["trainer"]["max_steps"], folder)
    trainer.fit(module, ChoiceDataModule(task, seed=seed, **config["data"]))
    return evaluate(
        module.policy,
        parts(task.load().evaluation),
        (0.0, 1.0),
        seed=seed,
        progress=False,
        sampling=None if module.sampler is None else module.sampling,
        task=name,
        estimator=module.estimator,
    )


def parts(choices: list[Choice]) -> dict[str, list[Choice]]:
    """The splits, with questions for a group and for an intersection of two apart."""
    named: dict[str, list[Choice]] = {}
    for choice in choices:
        part = "" if choice.kind != "ambiguous" or choice.takes_sides else "_group"
        if part and any(" " in (option.group or "") for option in choice.options):
            part = "_intersection"
        named.setdefault(choice.split + part, []).append(choice)
    return named


def _setting(name: str, value: Any) -> Any:
    """A field of `model` as the module takes it."""
    return SETTINGS[name](**value) if name in SETTINGS else value


def table(results: list[Result]) -> str:
    """Markdown: a row a figure, before and after on both splits."""
    lines = [
        "Organism, strength 0 and 1, mean over three seeds (smallest to largest). Total variation "
        "is the distance from equal shares of three groups, or of their six intersections with "
        "gender. Regenerate with `python scripts/groups_results.py`.",
        "",
        "| | training, before | after | held out, before | after |",
        "|---|---:|---:|---:|---:|",
    ]
    for task, rows in ROWS.items():
        for metric, estimate, part in rows:
            cells = []
            for split in SPLITS:
                before, after = (
                    values_of(results, metric, estimate, task=task, split=split + part, strength=w)
                    for w in (0.0, 1.0)
                )
                cells += [title_of(metric).show(statistics.mean(before)), with_range(metric, after)]
            title = title_of(metric)
            what = f"{title.text.lower()}{part.replace('_', ', ')}, {estimate} ({title.unit})"
            lines.append(f"| {task}: {what} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    arguments = options(__doc__, "groups").parse_args()
    runs: dict[str, Callable[[Path], list[Result]]] = {
        f"{name}-{seed}": partial(train_and_measure, name, seed)
        for name in CONFIGS
        for seed in arguments.seeds
    }
    results = results_of(runs, arguments.kept, arguments.jobs, arguments.again)
    write_results(arguments.output / "results" / "groups.jsonl", results)
    between_markers(arguments.output / "training.md", "groups", table(results))
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
