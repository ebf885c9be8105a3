"""`dso demo`: train on the shipped organism, measure before and after, say what happened."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from dso.evaluation import evaluate
from dso.metrics import per_occupation_gap
from dso.organisms.shipped import shipped
from dso.policy import Policy
from dso.report import Result, plot_occupations, write_report
from dso.steering import save_adapter
from dso.tasks import Choice, ChoiceDataModule, Coreference, Task, tabulate, task_label
from dso.training import SaveAdapter, SteeringModule, preset
from dso.training.presets import STEPS, Preset
from dso.training.saving import recipe
from dso.training.setting_up import plain_trainer

STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
ORGANISM_FORMS = (" {}",)
"""The organism answers with one form; scoring only that one makes a step one forward pass."""


def train(
    model: str,
    task: Task,
    output: Path,
    preset_name: Preset,
    seed: int,
    steps: int | None = None,
) -> tuple[SteeringModule, dict[str, object]]:
    """Train an adapter on a task; returns the module and the recipe.

    Args:
        model: folder of the base model.
        task: what to train on.
        output: where the adapter goes, as `adapter`.
        preset_name: `default`, `paper` or `rloo`.
        seed: of the order of the data.
        steps: training steps; the preset's when not given.
    """
    data = ChoiceDataModule(task, seed=seed)
    module = SteeringModule(model, **preset(preset_name))
    trainer = plain_trainer(steps or STEPS, output, SaveAdapter(), progress=True)
    trainer.fit(module, data)
    return module, recipe(module, data, trainer.global_step)


def demo(
    output: Path,
    preset_name: Preset = "default",
    seed: int = 0,
    steps: int | None = None,
    task: Task | None = None,
) -> list[Result]:
    """Train, evaluate at six strengths, write adapter, table and plots, and say what happened.

    Args:
        output: folder to write into.
        preset_name: `default`, `paper` or `rloo`.
        seed: of the data and their order.
        steps: training steps; the preset's when not given.
        task: the built-in coreference task when not given.
    """
    task = task or Coreference(forms=ORGANISM_FORMS, seed=seed)
    console = Console()
    started = time.perf_counter()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    model = str(shipped("organism-llm"))
    console.print(
        f"Training a steering adapter on [bold]{model}[/bold] (preset {preset_name}, seed {seed})"
    )
    module, how = train(model, task, output, preset_name, seed, steps)
    trained = time.perf_counter() - started
    data = task.load()
    results = evaluate(
        module.policy,
        data,
        STRENGTHS,
        seed=seed,
        model=model,
        adapter=str(output / "adapter"),
        task=task_label(task),
        method="dso" if preset_name == "default" else f"dso_{preset_name}",
        estimator=module.estimator,
    )
    save_adapter(module.adapted, output / "adapter", recipe=how, measurements=measurements(results))
    run = {"model": model, "preset": preset_name, "seed": seed, "recipe": how}
    write_report(results, output, run)
    heldout = [c for c in data.evaluation if c.split == "heldout_occupations"]
    _plot_occupations(module.policy, data.evaluation, output / "occupations.png")
    console.print(_examples(module.policy, heldout))
    for line in summary(results):
        console.print(line)
    total = time.perf_counter() - started
    console.print(
        f"[dim]Trained in {trained:.0f} s, all in {total:.0f} s. The adapter is in "
        f"{output / 'adapter'}, plots beside it.[/dim]"
    )
    return results


def measurements(results: list[Result]) -> list[dict[str, float | str]]:
    """The held-out figures by probability, one row per strength, for the adapter's card."""
    rows: dict[float, dict[str, float | str]] = {}
    for r in results:
        if r.split == "heldout_occupations" and r.estimate == "probability":
            rows.setdefault(r.strength, {"strength": r.strength, "split": r.split})[r.metric] = (
                round(r.value, 4)
            )
    return list(rows.values())


def summary(results: list[Result]) -> list[str]:
    """Three lines that say what happened."""

    def value(metric: str, strength: float, split: str = "heldout_occupations") -> float:
        return next(
            r.value
            for r in results
            if (r.metric, r.strength, r.split, r.estimate)
            == (metric, strength, split, "probability")
        )

    bias = [value("per_occupation_bias", w) for w in STRENGTHS]
    names = ("unambiguous_accuracy", "gender_needed_accuracy", "capability")
    worst = max(names, key=lambda name: value(name, 0.0) - value(name, 1.0))
    lost = value(worst, 0.0) - value(worst, 1.0)
    train_bias = value("per_occupation_bias", 1.0, "train_occupations")
    return [
        f"1. Whom a pronoun meant depended on stereotypes: bias {bias[0]:.1%} without steering, "
        f"{bias[-1]:.1%} at strength 1, on occupations that were never trained on "
        f"({train_bias:.1%} on those that were).",
        f"2. What it can do stayed: the largest loss is {max(lost, 0.0) * 100:.1f} points, in "
        f"{worst.replace('_', ' ')}.",
        "3. The strength is a knob: bias "
        + ", ".join(f"{b:.1%}" for b in bias)
        + " at "
        + ", ".join(f"{w:g}" for w in STRENGTHS)
        + ".",
    ]


@torch.inference_mode()
def _plot_occupations(policy: Policy, choices: list[Choice], path: Path) -> None:
    ambiguous = [c for c in choices if c.kind == "ambiguous"]
    table = tabulate(ambiguous)
    encoded = policy.encode(ambiguous)
    gaps = []
    for strength in (0.0, 1.0):
        with policy.at(strength):
            scored = [
                policy.option_log_probs(encoded[i : i + 64]) for i in range(0, len(encoded), 64)
            ]
        answers = torch.cat(scored).cpu().softmax(-1)
        gaps.append(per_occupation_gap(answers, table.side, table.occupation).tolist())
    plot_occupations(gaps[0], gaps[1], table.occupation_names, path)


@torch.inference_mode()
def _examples(policy: Policy, choices: list[Choice], count: int = 3) -> Table:
    """A few held-out twin pairs with the model's answers before and after."""
    ambiguous = [c for c in choices if c.kind == "ambiguous"]
    shown = ambiguous[: 2 * count]
    encoded = policy.encode(shown)
    columns = []
    for strength in (0.0, 1.0):
        with policy.at(strength):
            columns.append(policy.option_log_probs(encoded).softmax(-1).cpu())
    table = Table("question", "answer", "strength 0", "strength 1", title="Held-out examples")
    for row, choice in enumerate(shown):
        for index, option in enumerate(choice.options):
            before, after = (float(c[row, index]) for c in columns)
            prompt = choice.prompt if index == 0 else ""
            table.add_row(prompt, option.text, f"{before:.0%}", f"{after:.0%}")
        if row % 2:
            table.add_section()
    return table
