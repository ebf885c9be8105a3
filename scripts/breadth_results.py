"""Figures of the sampled estimator and of the public data sets on the organism.

    python scripts/breadth_results.py rloo [--seeds 0 1 2]
    python scripts/breadth_results.py cost
    python scripts/breadth_results.py public

`rloo` trains from sampled answers on every seed and measures the organism's splits; `cost` times a
step of each estimator in turn, on the same batches; `public` puts SynthBias, WinoGenerated and MMLU
to the organism without and with the shipped adapter, where their files are found (see
`dso.tasks.published.locate`). Each writes docs/results/<part>.jsonl and <part>.md. About fifteen,
two and twenty minutes on two cores.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import lightning as L
import torch

from dso.demo import ORGANISM_FORMS, STRENGTHS, train
from dso.evaluation import by_split, evaluate
from dso.organisms import shipped
from dso.policy import Policy
from dso.report import Result, markdown_table, title_of, write_results
from dso.tasks import MMLU, ChoiceDataModule, Coreference, SynthBias, Task, TwoPeople
from dso.training import SteeringModule, preset
from dso.training.estimators import EstimatorName

SPLITS = ("train_occupations", "heldout_occupations")
KEPT = ("unambiguous_accuracy", "gender_needed_accuracy", "capability")
SHOWN = ("per_occupation_bias", *KEPT, "option_mass", "position_bias", "position_shift")
ESTIMATORS: tuple[EstimatorName, ...] = ("exact", "reinforce", "rloo")
REPEATS, STEPS = 3, 20


# -- rloo ------------------------------------------------------------------------------------


def train_and_measure(seed: int, folder: Path) -> list[Result]:
    """One adapter from sampled answers, on everything the organism has."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    model = str(shipped("organism-llm"))
    task = Coreference(forms=ORGANISM_FORMS, seed=seed)
    module, _ = train(model, task, folder, "rloo", seed)
    return evaluate(
        module.policy,
        task.load(),
        STRENGTHS,
        seed=seed,
        progress=False,
        task="coreference",
        model=model,
        method="dso_rloo",
        estimator="rloo",
    )


def rloo(output: Path, seeds: list[int], jobs: int) -> int:
    """Train and measure every seed; returns 0 where the bars hold."""
    results: list[Result] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(
            jobs,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=torch.set_num_threads,
            initargs=(max(1, (os.cpu_count() or 1) // jobs),),
        ) as pool,
    ):
        runs = [pool.submit(train_and_measure, seed, Path(folder) / f"{seed}") for seed in seeds]
        for seed, run in zip(seeds, runs, strict=True):
            results += run.result()
            print(f"seed {seed}: done", flush=True)
    write_results(output / "rloo.jsonl", results)

    def over_seeds(split: str, metric: str, strength: float) -> list[float]:
        return [
            r.value
            for r in results
            if (r.split, r.metric, r.strength) == (split, metric, strength)
            and r.estimate == "probability"
        ]

    lines = [f"Strength 1, by probabilities, mean over seeds {seeds} (smallest to largest)."]
    for split in SPLITS:
        lines += ["", f"**{split}**", "", "| | base | rloo |", "|---|---:|---:|"]
        for metric in SHOWN:
            show = title_of(metric).show
            base, steered = over_seeds(split, metric, 0.0), over_seeds(split, metric, 1.0)
            lines.append(
                f"| {title_of(metric).heading()} | {show(statistics.mean(base))} | "
                f"{show(statistics.mean(steered))} ({show(min(steered))} to {show(max(steered))}) |"
            )
    text = "\n".join(lines) + "\n"
    (output / "rloo.md").write_text(text, encoding="utf-8")
    print(text)
    split = SPLITS[0]
    bias = statistics.mean(over_seeds(split, "per_occupation_bias", 1.0))
    held = [(f"{split} bias {bias:.2%} <= 8 %", bias <= 0.08)]
    for metric in KEPT:
        before, after = (statistics.mean(over_seeds(split, metric, w)) for w in (0.0, 1.0))
        held.append((f"{split} {metric} lost {before - after:.2%} <= 2 %", before - after <= 0.02))
    for sentence, holds in held:
        print("holds " if holds else "MISSED", sentence)
    return 0 if all(holds for _, holds in held) else 1


# -- cost ------------------------------------------------------------------------------------


class _Clock(L.Callback):
    """Seconds of every training step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *args: object) -> None:
        self._started = time.perf_counter()

    def on_train_batch_end(self, *args: object) -> None:
        self.seconds.append(time.perf_counter() - self._started)


def time_steps(estimator: EstimatorName, steps: int, folder: Path) -> list[float]:
    """Seconds of each step, the first two left out."""
    settings = preset("default" if estimator == "exact" else "rloo")
    module = SteeringModule(str(shipped("organism-llm")), **(settings | {"estimator": estimator}))
    clock = _Clock()
    trainer = L.Trainer(
        accelerator="auto",
        devices=1,
        max_steps=steps + 2,
        max_epochs=1,
        default_root_dir=folder,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, ChoiceDataModule(Coreference(forms=ORGANISM_FORMS)))
    return clock.seconds[2:]


def cost(output: Path) -> int:
    """Seconds a step of every estimator, taken in turn so that a busy machine hurts them alike."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    seconds: dict[str, list[float]] = {name: [] for name in ESTIMATORS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(REPEATS):
            for name in ESTIMATORS:
                seconds[name] += time_steps(name, STEPS, Path(folder))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    labels = {"model": str(shipped("organism-llm")), "strength": 1.0, "split": "train", "seed": 0}
    results = []
    for name, values in seconds.items():
        low, *_, high = statistics.quantiles(values, n=40)
        results += [
            Result(
                metric="seconds_per_step", value=medians[name], low=low, high=high,
                n=len(values), estimate="measured", estimator=name, **labels,
            ),
            Result(
                metric="step_cost_beside_exact", value=medians[name] / medians["exact"],
                low=None, high=None, n=len(values), estimate="measured", estimator=name, **labels,
            ),
        ]  # fmt: skip
    write_results(output / "cost.jsonl", results)
    lines = [
        f"Median of {REPEATS * STEPS} steps on {torch.get_num_threads()} CPU threads: 32 ambiguous "
        "and 64 pool prompts a step, four sampled answers a prompt.",
        "",
        "| estimator | seconds a step | beside exact |",
        "|---|---:|---:|",
        *(f"| {n} | {m:.3f} | {m / medians['exact']:.1f} |" for n, m in medians.items()),
    ]
    text = "\n".join(lines) + "\n"
    (output / "cost.md").write_text(text, encoding="utf-8")
    print(text)
    return 0


# -- public ----------------------------------------------------------------------------------


def public(output: Path) -> int:
    """The published data sets, all of their rows, without and with the shipped adapter."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model, adapter = str(shipped("organism-llm")), str(shipped("organism-llm-dso"))
    policy = Policy.from_pretrained(model, adapter)
    tasks: dict[str, Task] = {
        "synthbias": SynthBias(forms=ORGANISM_FORMS),
        "two_people": TwoPeople(forms=ORGANISM_FORMS),
        "mmlu": MMLU(),
    }
    results: list[Result] = []
    parts = []
    for name, task in tasks.items():
        try:
            choices = task.benchmark()
        except ValueError as error:
            print(f"{name} is left out: {error}")
            continue
        # One split a data set: all rows are asked, and nothing was trained on them.
        whole = [replace(choice, split=name) for choice in choices]
        found = evaluate(
            policy,
            by_split(whole),
            [0.0, 1.0],
            replicates=200,
            skip_long=True,
            task=name,
            model=model,
            adapter=adapter,
        )
        results += found
        parts.append(f"**{name}**\n\n{markdown_table(found, name)}")
        print(parts[-1], flush=True)
    write_results(output / "public.jsonl", results)
    (output / "public.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=("rloo", "cost", "public"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of rloo")
    parser.add_argument("--jobs", type=int, default=2, help="runs of rloo at a time")
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.part == "rloo":
        return rloo(arguments.output, arguments.seeds, arguments.jobs)
    return cost(arguments.output) if arguments.part == "cost" else public(arguments.output)


if __name__ == "__main__":
    sys.exit(main())
