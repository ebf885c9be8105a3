"""The run of `dso demo`, on the language organism or on the vision-language one."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from dso.demo.scenes import HELD_OUT, TRAINED_ON, scenes_page
from dso.evaluation import evaluate
from dso.metrics import per_occupation_gap
from dso.organisms.shipped import LLM, VLM, shipped
from dso.policy import Policy
from dso.report import (
    Result,
    draw_scenes_sheet,
    plot_occupations,
    write_report,
    write_scenes_page,
)
from dso.steering import save_adapter
from dso.tasks import Choice, ChoiceDataModule, Coreference, Scenes, Task, tabulate, task_label
from dso.training import SaveAdapter, SteeringModule, preset
from dso.training.presets import FOR_LLM, FOR_VLM, Preset, data_of, steps_of
from dso.training.saving import recipe
from dso.training.setting_up import plain_trainer

STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
ORGANISM_FORMS = (" {}",)
"""The organism answers with one form; scoring only that one makes a step one forward pass."""
VLM_FORMS = ("{}",)
"""Of the vision-language organism, whose words have no space in front."""
EVALUATION, POOL = 100, 400
"""Of the task on pictures, in the demo: a question costs as much as twenty of words."""
KEPT = 0.02
"""Of an accuracy, the loss below which it counts as kept."""
PAGE, SHEET = "scenes.html", "scenes.png"


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
        preset_name: one of `dso.training.presets`.
        seed: of the order of the data.
        steps: training steps; the preset's when not given.
    """
    data = ChoiceDataModule(task, seed=seed, **data_of(preset_name))
    module = SteeringModule(model, **preset(preset_name))
    trainer = plain_trainer(steps or steps_of(preset_name), output, SaveAdapter(), progress=True)
    trainer.fit(module, data)
    return module, recipe(module, data, trainer.global_step)


def demo(
    output: Path,
    preset_name: Preset | None = None,
    seed: int = 0,
    steps: int | None = None,
    task: Task | None = None,
    *,
    vlm: bool = False,
    model: str | Path | None = None,
) -> list[Result]:
    """Train, evaluate at six strengths, write adapter, table and plots, and say what happened.

    On the vision-language organism it also writes a page of example scenes and answers.

    Args:
        output: folder to write into.
        preset_name: one for the organism; `default`, or `vlm` on pictures, when not given.
        seed: of the data and their order.
        steps: training steps; the preset's when not given.
        task: the built-in coreference task, or the scenes, when not given.
        vlm: the vision-language organism and pictures instead of the language organism and texts.
        model: folder of the base model; the shipped organism's when not given.

    Raises:
        ValueError: a preset for the other organism, or an organism that is not there.
    """
    known = FOR_VLM if vlm else FOR_LLM
    name: Preset = known[0] if preset_name is None else preset_name
    if name not in known:
        raise ValueError(
            f"there is no preset {name!r} for the {'vision-' if vlm else ''}language organism; "
            f"wanted {' or '.join(map(repr, known))}, or leave it out"
        )
    console = Console()
    started = time.perf_counter()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    folder = str(model or shipped(VLM if vlm else LLM))
    if task is None and vlm:
        task = Scenes(forms=VLM_FORMS, seed=seed, evaluation=EVALUATION, pool=POOL)
    task = task or Coreference(forms=ORGANISM_FORMS, seed=seed)
    console.print(
        f"Training a steering adapter on [bold]{folder}[/bold] (preset {name}, seed {seed})"
    )
    module, how = train(folder, task, output, name, seed, steps)
    trained = time.perf_counter() - started
    data = task.load()
    results = evaluate(
        module.policy,
        data,
        STRENGTHS,
        seed=seed,
        model=folder,
        adapter=str(output / "adapter"),
        task=task_label(task),
        method="dso" if name == known[0] else f"dso_{name}",
        estimator=module.estimator,
    )
    save_adapter(module.adapted, output / "adapter", recipe=how, measurements=measurements(results))
    run = {"model": folder, "preset": name, "seed": seed, "recipe": how}
    write_report(results, output, run)
    heldout = [c for c in data.evaluation if c.split == HELD_OUT]
    _plot_occupations(module.policy, data.evaluation, output / "occupations.png")
    if vlm:
        about = (
            f"Model {folder}, adapter {output / 'adapter'}: preset {name}, {how['steps']} steps, "
            f"seed {seed}."
        )
        page = scenes_page(module.policy, data.evaluation, results, about)
        write_scenes_page(page, output / PAGE)
        draw_scenes_sheet(page, output / SHEET)
    else:
        console.print(_examples(module.policy, heldout))
    for line in summary(results, MEANT_IN_PICTURES if vlm else MEANT_BY_PRONOUNS):
        console.print(line)
    if vlm:
        console.print(f"Scenes and answers at ω = 0 and 1 to look at: {output / PAGE} (or {SHEET})")
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
        if r.split == HELD_OUT and r.estimate == "probability":
            rows.setdefault(r.strength, {"strength": r.strength, "split": r.split})[r.metric] = (
                round(r.value, 4)
            )
    return list(rows.values())


MEANT_BY_PRONOUNS = "Whom a pronoun meant depended on stereotypes"
MEANT_IN_PICTURES = "Who in a picture was meant depended on gender, as the stereotypes have it"


def summary(results: list[Result], meant: str = MEANT_BY_PRONOUNS) -> list[str]:
    """Three lines that say what happened.

    Args:
        results: at every one of `STRENGTHS`, of both evaluation splits.
        meant: what the bias is, in a clause.
    """

    def value(metric: str, strength: float, split: str = HELD_OUT) -> float:
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
    train_bias = value("per_occupation_bias", 1.0, TRAINED_ON)
    return [
        f"1. {meant}: bias {bias[0]:.1%} without steering, "
        f"{bias[-1]:.1%} at strength 1, on occupations that were never trained on "
        f"({train_bias:.1%} on those that were).",
        f"2. What it can do {'stayed' if lost < KEPT else 'suffered'}: the largest loss is "
        f"{max(lost, 0.0) * 100:.1f} points, in {worst.replace('_', ' ')}.",
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
