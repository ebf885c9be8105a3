"""`dso evaluate`: from paths to a folder with results, tables and plots."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from dso.commands.arguments import add_loading, add_model, loading_of, positive, strength
from dso.evaluation import by_split, evaluate, splits
from dso.loading import LOADING, Loading
from dso.policy import Policy
from dso.report import ANSWERS, Result, write_report
from dso.sampling import Rollouts, Sampling
from dso.tasks import TASKS, Choice, Task, make_task, task_label

HELP = "measure a model with an adapter over a grid of strengths"
DESCRIPTION = (
    "Measure bias and capabilities at every strength, with 95 % intervals. Writes results.jsonl, a "
    "table and a plot."
)
DEFAULT_STRENGTHS = (0.0, 0.5, 1.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` needs."""
    add_model(parser)
    parser.add_argument(
        "--task",
        help=f"{', '.join(sorted(TASKS))}, or the import path of a dso.tasks.Task; by default the "
        "task the adapter was trained on, or coreference",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="PATH",
        help="folder of the task's files, where it reads any; for own, files (see dso check)",
    )
    parser.add_argument(
        "--strength",
        type=strength,
        nargs="+",
        metavar="W",
        help="grid of strengths (default: 0 0.5 1)",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    parser.add_argument(
        "--limit",
        type=positive,
        help="at most this many choices of a kind in a split (default: all)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of sampled answers and bootstrap")
    parser.add_argument(
        "--batch-size", type=positive, default=64, help="choices a forward pass (default 64)"
    )
    parser.add_argument(
        "--replicates", type=positive, default=1000, help="bootstrap replicates (default 1000)"
    )
    parser.add_argument(
        "--samples",
        type=positive,
        default=0,
        metavar="G",
        help="also generate G answers a prompt, read them and count what means no option",
    )
    parser.add_argument(
        "--max-new-tokens", type=positive, default=16, help="longest generated answer (default 16)"
    )
    parser.add_argument(
        "--skip-long",
        action="store_true",
        help="leave out (and count) prompts longer than the model has positions",
    )
    add_loading(parser)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    evaluate_command(
        model=arguments.model,
        adapter=arguments.adapter,
        task=arguments.task,
        data=_one_or_more(arguments.data),
        strengths=arguments.strength,
        output=arguments.output,
        limit=arguments.limit,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        replicates=arguments.replicates,
        loading=loading_of(arguments),
        samples=arguments.samples,
        max_new_tokens=arguments.max_new_tokens,
        skip_long=arguments.skip_long,
    )


def _one_or_more(paths: list[str] | None) -> str | list[str] | None:
    return paths[0] if paths and len(paths) == 1 else paths


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
        recorded = (policy.recipe or {}).get("task")
        if recorded is None:
            task = "coreference"
        else:
            task, settings = recorded["class_path"], dict(recorded["init_args"])
    if data is not None:
        settings["data"] = data
    return make_task(task, settings)
