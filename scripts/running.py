"""What the scripts that train many adapters share: runs side by side, kept and not run twice."""

from __future__ import annotations

import multiprocessing
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import torch

from dso.report import Result, read_results, title_of, write_results

Run = Callable[[Path], list[Result]]
"""Trains and measures; gets a folder of its own."""


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
