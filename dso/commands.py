"""`dso evaluate`: from paths to a folder with results, tables and plots. `dso check`: own data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from dso.evaluation import by_split, evaluate, splits
from dso.loading import LOADING, Loading
from dso.policy import Policy
from dso.report import Result, markdown_table, plot_strength, results_table, write_results
from dso.sampling import Rollouts, Sampling
from dso.tasks import TASKS, Choice, Task, make_task
from dso.tasks.own import OwnData, Source, missing_splits, read_choices
from dso.tasks.own.ledger import Unpaired

DEFAULT_STRENGTHS = (0.0, 0.5, 1.0)
ANSWERS = "answers.jsonl"


def evaluate_command(
    model: str,
    output: Path,
    adapter: str | None = None,
    task: str | None = None,
    data: str | list[str] | None = None,
    strengths: Sequence[float] | None = None,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    replicates: int = 1000,
    loading: Loading = LOADING,
    samples: int = 0,
    max_new_tokens: int = 16,
    skip_long: bool = False,
) -> list[Result]:
    """Measure a model with an adapter; see `dso evaluate --help`.

    Writes `results.jsonl`, `table.md`, `strength.png` and `evaluation.json` (what was run); with
    `samples`, `answers.jsonl` too: every generated answer with the option it was read as.

    Raises:
        ValueError: bad input, before anything is written.
    """
    grid = list(strengths) if strengths else (list(DEFAULT_STRENGTHS) if adapter else [0.0])
    if adapter is None and any(grid):
        raise ValueError(f"strengths {grid} need an adapter; give --adapter, or --strength 0")
    policy = Policy.from_pretrained(model, adapter, loading=loading)
    chosen = choose_task(policy, task, data)
    # A task the adapter was trained on shows what was held out, and the pool of its KL budget.
    own = adapter is not None and task is None
    data_splits = splits(chosen.load()) if own else by_split(chosen.benchmark())
    sampling = Sampling(samples, max_new_tokens) if samples else None
    with ExitStack() as stack:
        transcript = None
        if sampling is None:
            (output / ANSWERS).unlink(missing_ok=True)  # of an earlier run into this folder
        else:
            output.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context((output / ANSWERS).open("w", encoding="utf-8"))
            transcript = partial(_write_answers, file)
        results = evaluate(
            policy,
            {name: limited(choices, limit) for name, choices in data_splits.items()},
            grid,
            seed=seed,
            batch_size=batch_size,
            replicates=replicates,
            sampling=sampling,
            transcript=transcript,
            skip_long=skip_long,
            model=str(model),
            adapter=str(adapter) if adapter else None,
            task=task_label(chosen),
        )
    run = {
        "model": str(model), "adapter": adapter and str(adapter), "task": chosen.settings(),
        "strengths": grid, "limit": limit, "seed": seed, "replicates": replicates,
        "loading": asdict(loading),
        "samples": samples, "max_new_tokens": max_new_tokens, "skip_long": skip_long,
    }  # fmt: skip
    write_report(results, output, run)
    return results


def _write_answers(
    file: TextIO, strength: float, choices: Sequence[Choice], rollouts: Rollouts
) -> None:
    """One JSON line a choice: what was said, and which option each text was read as."""
    for choice, texts, options in zip(
        choices, rollouts.texts, rollouts.option.tolist(), strict=True
    ):
        read = [choice.options[option].text if option >= 0 else None for option in options]
        record = {
            "id": choice.id, "split": choice.split, "strength": strength, "answers": texts,
            "read_as": read,
        }  # fmt: skip
        file.write(json.dumps(record, ensure_ascii=False) + "\n")


def limited(choices: Sequence[Choice], limit: int | None) -> list[Choice]:
    """The first `limit` choices of each kind; a twin is kept with its twin."""
    counts: dict[str, int] = {}
    twins: set[str] = set()
    kept = []
    for choice in choices:
        counts[choice.kind] = counts.get(choice.kind, 0) + 1
        within = limit is None or counts[choice.kind] <= limit
        if within or choice.twin in twins:
            kept.append(choice)
            if choice.twin is not None:
                twins.add(choice.twin)
    return kept


def choose_task(policy: Policy, task: str | None, data: str | list[str] | None) -> Task:
    """The task asked for; else the one the adapter was trained on; else coreference.

    Raises:
        ValueError: an unknown task, or data for a task that reads none, or only one folder.
    """
    settings: dict[str, Any] = {}
    if task is None:
        recorded = (recipe_of(policy) or {}).get("task")
        if recorded is None:
            task = "coreference"
        else:
            task, settings = recorded["class_path"], dict(recorded["init_args"])
    if data is not None:
        settings["data"] = data
    return make_task(task, settings)


def recipe_of(policy: Policy) -> dict[str, Any] | None:
    """The training recipe in the attached adapter's configuration, where it has one."""
    if not policy.steered:
        return None
    recipe: dict[str, Any] | None = policy.model.peft_config[policy.model.active_adapter].recipe
    return recipe


def task_label(task: Task) -> str:
    """The short name that results carry."""
    names = {kind: name for name, kind in TASKS.items()}
    return names.get(type(task), type(task).__name__.lower())


def write_report(results: Sequence[Result], folder: Path, run: dict[str, Any]) -> None:
    """Results as JSON lines, Markdown tables and a plot in `folder`, and tables on the terminal."""
    folder.mkdir(parents=True, exist_ok=True)
    write_results(folder / "results.jsonl", results)
    (folder / "evaluation.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    names = [name for name in dict.fromkeys(r.split for r in results) if name != "kl_pool"]
    tables = [f"## {name}\n\n{markdown_table(results, name)}" for name in names]
    (folder / "table.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    plot_strength([r for r in results if r.split in names], folder / "strength.png")
    console = Console()
    for name in names:
        strengths = len({r.strength for r in results})
        wide = console.width >= 40 + 12 * strengths
        console.print(results_table(results, name, intervals=wide))
    console.print(
        f"Written to {folder}: results.jsonl (every figure with its interval), table.md, "
        f"strength.png, evaluation.json{', answers.jsonl' if (folder / ANSWERS).exists() else ''}"
    )


def check_command(
    data: Sequence[str],
    hub: str | None = None,
    hub_config: str | None = None,
    unpaired: Unpaired = "refuse",
    limit_errors: int = 20,
) -> OwnData:
    """Read and check anyone's own rows and print what is in them; see `dso check --help`.

    Raises:
        ValueError: no rows are named, or anything is wrong with them, all of it by line and field.
    """
    if not data and hub is None:
        raise ValueError("nothing to check; give --data FILE or --hub NAME")
    source = Source(tuple(data), hub, hub_config)
    read = read_choices(source, unpaired=unpaired, limit_errors=limit_errors)
    table = Table(title="Rows by split and kind")
    for name in ("split", "kind", "rows", "kept", "left out"):
        table.add_column(name, justify="left" if name in ("split", "kind") else "right")
    for split in read.splits:
        for kind in (kind for name, kind in read.counts if name == split):
            rows, kept = read.counts[split, kind], len(read.kept[split, kind])
            table.add_row(split, kind, f"{rows:,}", f"{kept:,}", f"{rows - kept:,}")
    console = Console()
    console.print(table)
    twins, sided = read.twins, [f"{name} ({split})" for split, name in read.one_sided]
    console.print(
        f"{twins.pairs:,} twin pairs; {twins.lonely:,} rows whose twin is nowhere, "
        f"{twins.untwinned:,} ambiguous rows with sides that name none, {twins.left_out:,} of them "
        "in train and left out"
    )
    if twins.grouped:
        console.print(f"{twins.grouped:,} rows of groups, which need no twin")
    shown = ", ".join(sided[:10]) + (", ..." if len(sided) > 10 else "")
    console.print(
        f"{read.occupations:,} occupations in ambiguous rows with sides and a gender; with one "
        f"gender only: {shown or 'none'}"
    )
    lacking = missing_splits(read)
    for sentence in lacking:
        console.print(f"not enough for dso fit: {sentence}")
    console.print("Every row is right." + ("" if lacking else " Enough for dso fit."))
    return read
