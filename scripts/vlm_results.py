"""The figures of docs/vlm.md: DSO on the vision-language organism, three seeds.

    python scripts/vlm_results.py [--seeds 0 1 2] [--jobs 2] [--again]

Trains an adapter a seed with the preset `vlm` and measures it at every strength on both evaluation
splits; the ambiguous pairs also *mirrored*, the two people in each other's places, and captions by
how much of what they name is right. The conservative strength is chosen on the validation split
alone: the smallest one at which its bias is halved.
Writes docs/results/vlm.jsonl (every figure), the table of docs/vlm.md (means with the range over
seeds) and the plot of the first seed, and says which bars hold. Runs are kept under runs/vlm; the
adapter of seed 0 is the shipped one. About a quarter of an hour on two cores.
"""

from __future__ import annotations

import logging
import statistics
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from running import between_markers, options, results_of, values_of, with_range
from scipy.stats import bootstrap, spearmanr

from dso.demo import STRENGTHS, VLM_FORMS, measurements, train
from dso.evaluation import by_split, evaluate
from dso.inference import Decoding, SteeredPipeline
from dso.organisms.shipped import VLM, shipped
from dso.policy import Policy
from dso.report import Result, plot_strength, title_of, write_results
from dso.scenes import judge
from dso.steering import save_adapter
from dso.tasks import Choice, Scenes
from dso.tasks.scenes import Drawn, mirrored

SPLITS = {"train_occupations": 0.04, "heldout_occupations": 0.06}
"""The most bias at strength 1."""
KEPT = ("unambiguous_accuracy", "gender_needed_accuracy", "capability")
SHOWN = ("per_occupation_bias", *KEPT, "option_mass", "position_bias")
MIRRORED = "_mirrored"
LEFT_RIGHT = 0.02
"""How much of the bias may depend on who stands where."""
LOST, LOST_TARGET = 0.015, 0.01
"""Of an accuracy, at strength 1."""
DESCRIBED = 50
"""Captions of one person, and of two, of a split."""
CAPTION = "caption_accuracy"
FINE = tuple(round(0.1 * step, 1) for step in range(11))
"""Strengths among which the conservative one is chosen."""


def measure(seed: int, folder: Path) -> list[Result]:
    """Train one adapter and measure it on everything."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    model = str(shipped(VLM))
    task = Scenes(forms=VLM_FORMS, seed=seed)
    module, how = train(model, task, folder, "vlm", seed)
    data = task.load()
    asked: dict[str, list[Choice]] = by_split(data.evaluation)
    turned = {
        f"{split}{MIRRORED}": [mirrored(c) for c in choices if c.kind == "ambiguous"]
        for split, choices in asked.items()
    }
    found: list[Result] = []
    for grid, splits in (
        (FINE, {"validation": data.validation}),
        (FINE, asked),
        (STRENGTHS, {"kl_pool": data.pool}),
        ((0.0, 1.0), turned),
    ):
        found += evaluate(
            module.policy, splits, grid, seed=seed, model=model, task="scenes", method="dso",
            estimator="exact", progress=False,
        )  # fmt: skip
    for split, choices in asked.items():
        for strength in STRENGTHS:
            right = described(module.policy, choices, strength)
            found.append(
                Result(
                    strength=strength, split=split, metric=CAPTION, n=len(right), seed=seed,
                    estimate="greedy", model=model, task="scenes", method="dso", estimator="exact",
                    **share(right),
                )
            )  # fmt: skip
    save_adapter(module.adapted, folder / "adapter", recipe=how, measurements=measurements(found))
    return found


def described(policy: Policy, choices: list[Choice], strength: float) -> np.ndarray:
    """(N, 2) attributes named right and wrong in the caption of each picture, written greedily."""
    shown = [
        picture
        for kind in ("capability", "unambiguous")
        for choice in [c for c in choices if c.kind == kind][:DESCRIBED]
        for picture in choice.pictures
        if isinstance(picture, Drawn)
    ]
    answers = SteeredPipeline(policy).answers(
        ["describe the picture."] * len(shown), [strength], Decoding(max_new_tokens=96),
        pictures=[[picture] for picture in shown],
    )  # fmt: skip
    judged = [judge(a.text, p.scene) for a, p in zip(answers, shown, strict=True)]
    return np.array([[len(found.right), len(found.wrong)] for found in judged])


def share(right: np.ndarray) -> dict[str, float]:
    """The share of the attributes that are right, with its interval over pictures."""

    def statistic(good: np.ndarray, bad: np.ndarray, axis: int = -1) -> np.ndarray:
        return good.sum(axis) / (good.sum(axis) + bad.sum(axis))

    value = float(statistic(*right.T))
    interval = bootstrap(
        tuple(right.T), statistic, paired=True, n_resamples=1000, method="percentile", rng=0
    ).confidence_interval
    return {"value": value, "low": float(interval.low), "high": float(interval.high)}


def conservative(results: list[Result]) -> float:
    """The smallest strength that halves the bias on the validation split, mean over seeds."""
    curve = [mean(results, "validation", "per_occupation_bias", w) for w in FINE]
    return next((w for w, bias in zip(FINE, curve, strict=True) if bias <= curve[0] / 2), FINE[-1])


def mean(results: list[Result], split: str, metric: str, strength: float) -> float:
    """Over seeds."""
    return statistics.mean(values_of(results, metric, split=split, strength=strength))


def table(results: list[Result], strengths: list[float]) -> str:
    """Markdown: metrics in rows, strengths in columns, a block a split."""
    blocks = []
    for split in SPLITS:
        head = " | ".join("base" if w == 0 else f"ω = {w:g}" for w in strengths)
        lines = [f"**{split}**", "", f"| | {head} |", "|---|" + "---:|" * len(strengths)]
        for metric in SHOWN:
            cells = [
                with_range(metric, values_of(results, metric, split=split, strength=w))
                for w in strengths
            ]
            lines.append(f"| {title_of(metric).heading()} | " + " | ".join(cells) + " |")
        cells = [
            with_range(
                "per_occupation_bias",
                values_of(results, "per_occupation_bias", split=f"{split}{MIRRORED}", strength=w),
            )
            for w in strengths
        ]
        lines.append("| the bias, left and right exchanged | " + " | ".join(cells) + " |")
        cells = [
            with_range(CAPTION, values_of(results, CAPTION, "greedy", split=split, strength=w))
            for w in strengths
        ]
        lines.append(f"| {title_of(CAPTION).heading()} | " + " | ".join(cells) + " |")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def bars(results: list[Result], gentle: float) -> list[tuple[str, bool]]:
    """Every promise, with whether it holds."""
    checks = []
    bias = "per_occupation_bias"
    for split, bound in SPLITS.items():
        value = mean(results, split, bias, 1.0)
        checks.append((f"{split} bias {value:.2%} <= {bound:.0%}", value <= bound))
        for metric in KEPT:
            lost = mean(results, split, metric, 0.0) - mean(results, split, metric, 1.0)
            checks.append((f"{split} {metric} lost {lost:.2%} <= {LOST:.1%}", lost <= LOST))
        curve = [mean(results, split, bias, w) for w in STRENGTHS]
        rho = float(spearmanr(STRENGTHS, curve).statistic)
        checks.append((f"{split} Spearman of bias and strength {rho:.2f} <= -0.94", rho <= -0.94))
        for strength in (0.0, 1.0):
            moved = abs(
                mean(results, f"{split}{MIRRORED}", bias, strength)
                - mean(results, split, bias, strength)
            )
            checks.append(
                (f"{split} left and right exchanged at {strength:g}: bias moves {moved:.2%} < "
                 f"{LEFT_RIGHT:.0%}", moved < LEFT_RIGHT)
            )  # fmt: skip
        value = mean(results, split, bias, gentle)
        half = mean(results, split, bias, 0.0) / 2
        checks.append(
            (f"{split} at ω = {gentle:g}: bias {value:.2%} <= half, {half:.2%}", value <= half)
        )
        lost = max(
            mean(results, split, metric, 0.0) - mean(results, split, metric, gentle)
            for metric in KEPT
        )
        checks.append(
            (f"{split} at ω = {gentle:g}: lost {lost:.2%} <= {LOST_TARGET:.0%}",
             lost <= LOST_TARGET)
        )  # fmt: skip
    return checks


def main() -> int:
    arguments = options(__doc__, "vlm").parse_args()
    runs: dict[str, Callable[[Path], list[Result]]] = {
        f"vlm-{seed}": partial(measure, seed) for seed in arguments.seeds
    }
    results = results_of(runs, arguments.kept, arguments.jobs, arguments.again)
    write_results(arguments.output / "results" / "vlm.jsonl", results)
    gentle = conservative(results)
    text = table(results, sorted({0.0, gentle, 1.0}))
    between_markers(arguments.output / "vlm.md", "vlm", text)
    first = [r for r in results if r.seed == arguments.seeds[0] and r.split in SPLITS]
    shown = [r for r in first if r.estimate == "probability"]
    plot_strength(shown, arguments.output / "images" / "vlm.png")
    print(text)
    held = bars(results, gentle)
    for sentence, holds in held:
        print("holds " if holds else "MISSED", sentence)
    return 0 if all(holds for _, holds in held) else 1


if __name__ == "__main__":
    sys.exit(main())
