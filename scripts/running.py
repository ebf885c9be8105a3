"""What the scripts that train many adapters share: options, runs side by side, figures, tables."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from dso.metrics import per_occupation_bias
from dso.policy import Policy
from dso.report import Result, read_results, title_of, write_results
from dso.tasks import Choice, tabulate

Run = Callable[[Path], list[Result]]
"""Trains and measures; gets a folder of its own."""
BATCH = 128
"""Choices a forward pass, where the bias is looked at."""


def options(doc: str | None, kept: str) -> argparse.ArgumentParser:
    """The options that these scripts have in common.

    Args:
        doc: of the script; its first line is the description.
        kept: folder below `runs` of what the runs measured.
    """
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("docs"), help="folder of the tables")
    parser.add_argument("--kept", type=Path, default=Path("runs", kept), help="of finished runs")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--again", action="store_true", help="run what was run before, too")
    return parser


def results_of(runs: Mapping[str, Run], folder: Path, jobs: int, again: bool) -> list[Result]:
    """The results of every run, in the order of `runs`.

    What a run measured is kept in `<folder>/<name>.jsonl`: a script that was interrupted goes on
    where it was.

    Args:
        runs: by name; picklable.
        folder: of the kept results.
        jobs: runs at a time, which share the cores.
        again: run those too whose results are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.jsonl" for name in runs}
    wanted = [name for name, file in files.items() if again or not file.is_file()]
    with ProcessPoolExecutor(
        jobs,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(max(1, (os.cpu_count() or 1) // jobs),),
    ) as pool:
        waiting = {pool.submit(runs[name], folder / name): name for name in wanted}
        for done, run in enumerate(as_completed(waiting), 1):
            name = waiting[run]
            write_results(files[name], run.result())
            print(f"{done} of {len(wanted)}: {name}", flush=True)
    return [result for file in files.values() for result in read_results(file)]


@torch.no_grad()
def bias_of(policy: Policy, choices: Sequence[Choice], strength: float) -> float:
    """Bias per occupation, by probabilities."""
    encoded, table = policy.encode(choices), tabulate(choices)
    with policy.at(strength):
        scores = [
            policy.option_log_probs(encoded[place : place + BATCH])
            for place in range(0, len(encoded), BATCH)
        ]
    answers = torch.cat(scores).softmax(-1).cpu()
    return float(per_occupation_bias(answers, table.side, table.occupation))


def values_of(
    results: Iterable[Result], metric: str, estimate: str = "probability", **labels: object
) -> list[float]:
    """The values of a metric whose results have these labels, one a seed."""
    return [
        r.value
        for r in results
        if r.metric == metric
        and r.estimate == estimate
        and all(getattr(r, name) == value for name, value in labels.items())
    ]


def with_range(metric: str, values: Sequence[float]) -> str:
    """Mean over seeds (smallest to largest), in the metric's unit."""
    show = title_of(metric).show
    if not values:
        return "–"
    return f"{show(statistics.mean(values))} ({show(min(values))} to {show(max(values))})"


def between_markers(page: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->` of a page.

    Raises:
        ValueError: the page lacks the markers.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    old = page.read_text(encoding="utf-8")
    if old.count(start) != 1 or old.count(end) != 1:
        raise ValueError(f"{page} needs {start} and {end}, once each")
    before, rest = old.split(start)
    _, after = rest.split(end)
    page.write_text(f"{before}{start}\n{text}\n{end}{after}", encoding="utf-8")
