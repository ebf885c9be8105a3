"""How few neurons carry the steering: an l1 penalty during training, and cutting afterwards.

    python scripts/sparsity_results.py [--seeds 0 1 2] [--jobs 2] [--again]

Trains with several weights of the l1 penalty, and cuts the adapters trained without one to several
shares of their norm neurons. Writes docs/results/sparsity.jsonl, the table of docs/training.md and
docs/images/sparsity.png. Runs are kept under runs/sparsity. About 25 minutes on two cores.
"""

from __future__ import annotations

import logging
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from running import between_markers, options, results_of, values_of

from dso.demo import ORGANISM_FORMS
from dso.evaluation import evaluate
from dso.organisms import shipped
from dso.report import Result, write_results
from dso.report.plots import BLUE, VERMILLION
from dso.steering import neurons_kept, sparsify
from dso.tasks import ChoiceDataModule, Coreference
from dso.training import Objective, SteeringModule
from dso.training.presets import STEPS
from dso.training.setting_up import plain_trainer

WEIGHTS = (0.0, 0.1, 0.3, 0.5, 0.7)
SHARES = (0.8, 0.6, 0.4, 0.2, 0.1)
PLACES = {"train_occupations": "training occupations", "heldout_occupations": "held out"}
SPLITS = tuple(PLACES)
KEPT = ("unambiguous_accuracy", "gender_needed_accuracy", "capability")
BIAS = "per_occupation_bias"


def train_and_measure(weight: float, seed: int, folder: Path) -> list[Result]:
    """One adapter; without a penalty also what is left of it when it is cut."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    task = Coreference(forms=ORGANISM_FORMS, seed=seed)
    module = SteeringModule(str(shipped("organism-llm")), objective=Objective(l1=weight))
    trainer = plain_trainer(STEPS, folder)
    trainer.fit(module, ChoiceDataModule(task, seed=seed))
    results = measured(module, task, seed, f"l1 {weight:g}")
    for share in SHARES if weight == 0 else ():
        # Each cut keeps the strongest of the last one's, which are the strongest of all.
        sparsify(module.adapted, share)
        results += measured(module, task, seed, f"keep {share:g}")
    return results


def measured(module: SteeringModule, task: Coreference, seed: int, experiment: str) -> list[Result]:
    """All figures at strengths 0 and 1, and the share of neurons that are not 0."""
    labels: dict[str, Any] = {
        "experiment": experiment, "estimator": "exact", "task": "coreference",
    }  # fmt: skip
    results = evaluate(module.policy, task.load(), (0.0, 1.0), seed=seed, progress=False, **labels)
    kept = Result(
        metric="neurons_kept", value=neurons_kept(module.adapted), low=None, high=None, n=1,
        split="train", strength=1.0, seed=seed, estimate="measured", **labels,
    )  # fmt: skip
    return [*results, kept]


def mean(results: list[Result], experiment: str, metric: str, split: str, strength: float) -> float:
    found = values_of(results, metric, experiment=experiment, split=split, strength=strength)
    return statistics.mean(found)


def kept_share(results: list[Result], experiment: str) -> float:
    return statistics.mean(values_of(results, "neurons_kept", "measured", experiment=experiment))


def worst_loss(results: list[Result], experiment: str) -> float:
    """Largest fall of an accuracy on either split."""
    return max(
        mean(results, experiment, m, split, 0.0) - mean(results, experiment, m, split, 1.0)
        for m in KEPT
        for split in SPLITS
    )


def experiments() -> list[str]:
    return [f"l1 {weight:g}" for weight in WEIGHTS] + [f"keep {share:g}" for share in SHARES]


def table(results: list[Result]) -> str:
    """Markdown: a row an experiment."""
    lines = [
        "Organism, estimator exact, strength 1, mean of three seeds. `l1` is the weight of the "
        "penalty during training, `keep` the share of neurons that an adapter trained without one "
        "was cut to. Regenerate with `python scripts/sparsity_results.py`.",
        "",
        "| | neurons kept (%) | bias, training (%) | bias, held out (%) | worst loss of accuracy "
        "(points) | KL on the pool (nats) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name in experiments():
        numbers = (
            100 * kept_share(results, name),
            *(100 * mean(results, name, BIAS, split, 1.0) for split in SPLITS),
            100 * worst_loss(results, name),
        )
        cells = " | ".join(f"{number:.1f}" for number in numbers)
        lines.append(f"| {name} | {cells} | {mean(results, name, 'kl', 'kl_pool', 1.0):.4f} |")
    return "\n".join(lines)


def plot(results: list[Result], path: Path) -> None:
    """Bias, and its cost, against the share of neurons kept."""
    figure = Figure(figsize=(9, 3.6), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    ways = (
        ("l1 during training", [f"l1 {w:g}" for w in WEIGHTS], BLUE, "o"),
        ("cut afterwards", ["l1 0", *(f"keep {s:g}" for s in SHARES)], VERMILLION, "s"),
    )
    for label, names, colour, marker in ways:
        shares = [100 * kept_share(results, name) for name in names]
        for split, style in zip(SPLITS, ("-", "--"), strict=True):
            bias = [100 * mean(results, name, BIAS, split, 1.0) for name in names]
            text = f"{label}, {PLACES[split]}"
            left.plot(shares, bias, style, color=colour, marker=marker, markersize=4, label=text)
        lost = [100 * worst_loss(results, name) for name in names]
        right.plot(shares, lost, color=colour, marker=marker, markersize=4, label=label)
    left.set_ylabel("bias per occupation (%)")
    right.set_ylabel("worst loss of accuracy (points)")
    for axes in (left, right):
        axes.set_xlabel("norm neurons kept (%)")
        axes.set_xlim(0, 103)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(path))


def main() -> int:
    arguments = options(__doc__, "sparsity").parse_args()
    runs: dict[str, Callable[[Path], list[Result]]] = {
        f"l1-{weight:g}-{seed}": partial(train_and_measure, weight, seed)
        for weight in WEIGHTS
        for seed in arguments.seeds
    }
    results = results_of(runs, arguments.kept, arguments.jobs, arguments.again)
    write_results(arguments.output / "results" / "sparsity.jsonl", results)
    between_markers(arguments.output / "training.md", "sparsity", table(results))
    plot(results, arguments.output / "images" / "sparsity.png")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
