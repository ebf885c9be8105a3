"""`dso lm-eval`: the tasks of lm-eval on a model with an adapter, at one or several strengths."""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from dso.commands.arguments import add_loading, add_model, loading_of, positive, strength
from dso.loading import LOADING, Loading
from dso.report import Result, markdown_table, results_table, write_results

HELP = "run tasks of lm-eval at one or several strengths"
DESCRIPTION = (
    "Run tasks of the language model evaluation harness (lm-eval) at one or several strengths. "
    "Writes results.jsonl, table.md and, for each strength, what lm-eval itself reports. Needs "
    "pip install 'dso[lm-eval]'."
)
ESTIMATES = {"multiple_choice": "greedy", "generate_until": "generated"}
"""How lm-eval reads answers, by its output types; the others are the model's probabilities."""

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run` needs."""
    add_model(parser)
    parser.add_argument(
        "--tasks",
        nargs="+",
        required=True,
        metavar="TASK",
        help="names of tasks and groups, patterns such as 'mmlu_*', or YAML files of tasks",
    )
    parser.add_argument(
        "--strength",
        type=strength,
        nargs="+",
        metavar="W",
        help="one or several strengths (default: 1, and without an adapter 0)",
    )
    parser.add_argument("--limit", type=positive, help="at most this many questions a task")
    parser.add_argument(
        "--num-fewshot", type=_count, metavar="K", help="solved examples in every prompt"
    )
    parser.add_argument(
        "--batch-size",
        type=_batch_size,
        default=8,
        metavar="B",
        help="requests a forward pass, or auto (default 8)",
    )
    parser.add_argument("--include-path", type=Path, metavar="DIR", help="folder of more tasks")
    parser.add_argument(
        "--apply-chat-template", action="store_true", help="put prompts into the chat template"
    )
    parser.add_argument(
        "--log-samples", action="store_true", help="also write every question and answer"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    add_loading(parser)


def _count(text: str) -> int:
    return 0 if text == "0" else positive(text)


def _batch_size(text: str) -> int | str:
    return text if text.partition(":")[0] == "auto" else positive(text)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    lm_eval_command(
        model=arguments.model,
        tasks=arguments.tasks,
        output=arguments.output,
        adapter=arguments.adapter,
        strengths=arguments.strength,
        limit=arguments.limit,
        num_fewshot=arguments.num_fewshot,
        batch_size=arguments.batch_size,
        include_path=arguments.include_path,
        apply_chat_template=arguments.apply_chat_template,
        log_samples=arguments.log_samples,
        loading=loading_of(arguments),
    )


def lm_eval_command(
    model: str,
    tasks: Sequence[str],
    output: Path,
    adapter: str | None = None,
    strengths: Sequence[float] | None = None,
    limit: int | None = None,
    num_fewshot: int | None = None,
    batch_size: int | str = 8,
    include_path: Path | None = None,
    apply_chat_template: bool = False,
    log_samples: bool = False,
    loading: Loading = LOADING,
) -> list[Result]:
    """Run lm-eval's tasks at every strength; see `dso lm-eval --help`.

    The model is loaded once. Writes `results.jsonl`, `table.md`, and `lm_eval-W.json` for every
    strength W.

    Raises:
        ValueError: lm-eval is not installed, no such task, model, adapter or folder; or lm-eval
            refused what it was asked for.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ValueError("lm-eval is not installed: pip install 'dso[lm-eval]'")
    if include_path is not None and not include_path.is_dir():
        raise ValueError(f"there is no folder {include_path} to include tasks from")
    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    from lm_eval import simple_evaluate
    from lm_eval.utils import handle_non_serializable, make_table

    from dso.inference.lm_eval import SteeredLM

    grid = sorted(set(strengths or [1.0 if adapter else 0.0]))
    names, manager = _find(tasks, include_path)
    steered = SteeredLM(
        model,
        adapter,
        grid[-1],
        dtype=loading.dtype,
        quantisation=loading.quantisation,
        device_map=loading.device_map,
        revision=loading.revision,
        batch_size=batch_size,
    )
    output.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    for omega in grid:
        steered.set_strength(omega)
        try:
            report = simple_evaluate(
                model=steered,
                tasks=names,
                task_manager=manager,
                num_fewshot=num_fewshot,
                batch_size=batch_size,
                limit=limit,
                apply_chat_template=apply_chat_template,
                log_samples=log_samples,
            )
        except AssertionError as error:  # how it refuses, say, answers longer than the model
            raise ValueError(f"lm-eval refused to run {', '.join(names)}: {error}") from error
        assert report is not None
        text = json.dumps(report, indent=2, default=handle_non_serializable, ensure_ascii=False)
        (output / f"lm_eval-{omega:g}.json").write_text(text + "\n", encoding="utf-8")
        results += results_of(dict(report), omega, str(model), adapter and str(adapter))
    write_results(output / "results.jsonl", results)
    _write_tables(results, output / "table.md")
    if len(grid) > 1:
        _print_tables(results)
    else:
        print(make_table(report))
        if "groups" in report:
            print(make_table(report, "groups"))
    print(f"Written to {output}: results.jsonl, table.md and lm-eval's own lm_eval-*.json")
    return results


def _find(tasks: Sequence[str], include_path: Path | None) -> tuple[list[str], Any]:
    """Names that lm-eval knows, patterns filled in, and the index in which it knows them."""
    from lm_eval.tasks import TaskManager

    wanted = [name for given in tasks for name in given.split(",") if name]
    files = [name for name in wanted if Path(name).suffix == ".yaml"]
    absent = [name for name in files if not Path(name).is_file()]
    if absent:
        raise ValueError(f"there is no file {', '.join(absent)}")
    folder = None if include_path is None else str(include_path)
    manager = TaskManager(include_path=folder, include_defaults=False)
    # The index of lm-eval's own 14,000 tasks takes seconds to make, often for nothing.
    if not set(wanted) <= {*manager.all_subtasks, *files}:
        manager = TaskManager(include_path=folder)
    names = list(files)
    for name in wanted:
        if name in files:
            continue
        found = manager.match_tasks([name])
        if not found:
            close = difflib.get_close_matches(name, manager.all_tasks, n=3)
            like = f"; did you mean {' or '.join(close)}?" if close else ""
            raise ValueError(
                f"lm-eval knows no task {name!r}{like} `lm-eval ls tasks` lists those it has, "
                "--include-path adds your own"
            )
        names += found
    return list(dict.fromkeys(names)), manager


def results_of(
    report: dict[str, Any], strength: float, model: str, adapter: str | None
) -> list[Result]:
    """What lm-eval reports as results: one for each metric of every task and group.

    The interval is the value ± 1.96 of lm-eval's standard errors, where it has one. A figure that
    is no finite number is left out, and named in the log.
    """
    results = []
    for task, figures in (report["results"] | report.get("groups", {})).items():
        leaf = task
        while leaf not in report["configs"]:  # a group is read as its tasks are
            leaf = report["group_subtasks"][leaf][0]
        settings = report["configs"][leaf]
        for key, value in figures.items():
            name, comma, reading = key.partition(",")
            if not comma or name.endswith("_stderr"):
                continue
            if not _is_number(value):
                log.warning("%s of %s is %r and left out", key, task, value)
                continue
            error = figures.get(f"{name}_stderr,{reading}")
            half = 1.96 * error if _is_number(error) else None
            results.append(
                Result(
                    strength=strength,
                    split=settings.get("test_split") or settings.get("validation_split") or "test",
                    metric=name if reading == "none" else key,
                    value=float(value),
                    low=None if half is None else value - half,
                    high=None if half is None else value + half,
                    n=figures.get("sample_count", {}).get(key, figures["sample_len"]),
                    seed=report["config"]["fewshot_seed"],
                    estimate=ESTIMATES.get(settings.get("output_type"), "probability"),
                    model=model,
                    adapter=adapter,
                    task=task,
                )
            )
    return results


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _tables(results: Sequence[Result]) -> dict[str, tuple[list[Result], str]]:
    """By task: its results, and the split they are of."""
    tasks = dict.fromkeys(result.task or "" for result in results)
    own = {task: [r for r in results if r.task == task] for task in tasks}
    return {task: (of_task, of_task[0].split) for task, of_task in own.items()}


def _write_tables(results: Sequence[Result], file: Path) -> None:
    tables = [
        f"## {task}\n\n{markdown_table(own, split)}"
        for task, (own, split) in _tables(results).items()
    ]
    file.write_text("\n\n".join(tables) + "\n", encoding="utf-8")


def _print_tables(results: Sequence[Result]) -> None:
    console = Console()
    for task, (own, split) in _tables(results).items():
        console.print(task)
        console.print(results_table(own, split))
