"""The figures of the README: both presets, three seeds, on the organism's splits and on WinoBias.

    python scripts/spine_results.py [--seeds 0 1 2] [--jobs 2] [--again]

Writes docs/results/spine.jsonl (every figure) and spine.md (means with the range over seeds), and
says which bars hold. WinoBias is measured where its files are found (see
`dso.tasks.published.winobias.find_folder`). Runs are kept under runs/spine. About twelve minutes on
two cores.
"""

from __future__ import annotations

import logging
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from running import options, results_of, with_range
from scipy.stats import spearmanr

from dso.demo import ORGANISM_FORMS, STRENGTHS, train
from dso.evaluation import by_split, evaluate
from dso.organisms import shipped
from dso.report import Result, title_of, write_results
from dso.tasks import Choice, Coreference, WinoBias
from dso.training import KLBudget

SPLITS = ("train_occupations", "heldout_occupations")
KEPT = ("unambiguous_accuracy", "gender_needed_accuracy", "capability")
SHOWN = ("per_occupation_bias", *KEPT, "option_mass", "position_bias", "position_shift")
BUDGET_SLACK = 1.1


def measure(
    preset: str, seed: int, sentences: dict[str, list[Choice]], folder: Path
) -> list[Result]:
    """Train one adapter and measure it on everything."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    model = str(shipped("organism-llm"))
    task = Coreference(forms=ORGANISM_FORMS, seed=seed)
    module, _ = train(model, task, folder, preset, seed)
    labels = {"model": model, "method": method(preset), "estimator": "exact"}
    results = evaluate(
        module.policy,
        task.load(),
        STRENGTHS,
        seed=seed,
        task="coreference",
        progress=False,
        **labels,
    )
    if sentences:
        results += evaluate(
            module.policy,
            sentences,
            STRENGTHS,
            seed=seed,
            task="winobias",
            progress=False,
            **labels,
        )
    return results


def method(preset: str) -> str:
    return "dso" if preset == "default" else f"dso_{preset}"


class Figures:
    """Look-up of values by probability."""

    def __init__(self, results: list[Result]) -> None:
        self.values = {
            (r.method, r.seed, r.split, r.metric, r.strength): r.value
            for r in results
            if r.estimate == "probability"
        }

    def over_seeds(self, name: str, split: str, metric: str, strength: float) -> list[float]:
        wanted = (name, split, metric, strength)
        return [v for (m, _, *rest), v in self.values.items() if (m, *rest) == wanted]


def table(figures: Figures, names: list[str], splits: list[str]) -> str:
    """Markdown: rows are metrics, columns the base and each method at strength 1."""
    blocks = []
    for split in splits:
        lines = [f"**{split}**", "", "| | base | " + " | ".join(names) + " |"]
        lines.append("|---|---:|" + "---:|" * len(names))
        for metric in SHOWN if split in SPLITS else ("kl",) if split == "kl_pool" else SHOWN:
            base = figures.over_seeds(names[0], split, metric, 0.0)
            if not base:
                continue
            cells = [title_of(metric).show(statistics.mean(base))]
            cells += [
                with_range(metric, figures.over_seeds(name, split, metric, 1.0)) for name in names
            ]
            lines.append(f"| {title_of(metric).heading()} | " + " | ".join(cells) + " |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def bars(figures: Figures, name: str, budget: float) -> list[tuple[str, bool]]:
    """Every promise of the default preset, with whether it holds."""

    def mean(split: str, metric: str, strength: float = 1.0) -> float:
        return statistics.mean(figures.over_seeds(name, split, metric, strength))

    checks = []
    for split, bound in zip(SPLITS, (0.04, 0.07), strict=True):
        value = mean(split, "per_occupation_bias")
        checks.append((f"{split} bias {value:.2%} <= {bound:.0%}", value <= bound))
        for metric in KEPT:
            lost = mean(split, metric, 0.0) - mean(split, metric)
            checks.append((f"{split} {metric} lost {lost:.2%} <= 1.5 %", lost <= 0.015))
        moved = abs(mean(split, "option_mass", 0.0) - mean(split, "option_mass"))
        checks.append((f"{split} option mass moved {moved:.2%} <= 5 %", moved <= 0.05))
        worse = mean(split, "position_bias") - mean(split, "position_bias", 0.0)
        checks.append((f"{split} position bias {worse:+.2%} <= 3 %", worse <= 0.03))
        curve = [mean(split, "per_occupation_bias", w) for w in STRENGTHS]
        rho = float(spearmanr(STRENGTHS, curve).statistic)
        checks.append((f"{split} Spearman of bias and strength {rho:.2f} <= -0.94", rho <= -0.94))
    kl = mean("kl_pool", "kl")
    checks.append(
        (
            f"KL on the full pool {kl:.4f} <= {BUDGET_SLACK * budget:.4f}",
            kl <= BUDGET_SLACK * budget,
        )
    )
    return checks


def main() -> int:
    arguments = options(__doc__, "spine").parse_args()
    sentences: dict[str, list[Choice]] = {}
    try:
        sentences = by_split(WinoBias(forms=ORGANISM_FORMS).benchmark())
    except ValueError as error:
        print(f"WinoBias is left out: {error}")
    presets = ("default", "paper")
    runs: dict[str, Callable[[Path], list[Result]]] = {
        f"{preset}-{seed}": partial(measure, preset, seed, sentences)
        for preset in presets
        for seed in arguments.seeds
    }
    results = results_of(runs, arguments.kept, arguments.jobs, arguments.again)
    output = arguments.output / "results"
    write_results(output / "spine.jsonl", results)
    figures = Figures(results)
    names = [method(preset) for preset in presets]
    splits = [*SPLITS, *sorted(sentences), "kl_pool"]
    text = table(figures, names, splits)
    header = (
        f"Strength 1, by probabilities, mean over seeds {arguments.seeds} (smallest to largest)."
    )
    (output / "spine.md").write_text(f"{header}\n\n{text}\n", encoding="utf-8")
    print(text)
    held = bars(figures, "dso", KLBudget().budget)
    for sentence, holds in held:
        print("holds " if holds else "MISSED", sentence)
    return 0 if all(holds for _, holds in held) else 1


if __name__ == "__main__":
    sys.exit(main())
