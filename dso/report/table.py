"""Results of one split as a table: a row per metric, a column per strength.

Cells hold the value and its 95 % interval, in the unit that the row's heading names. A table shows
one estimate of the answers; metrics that exist in one estimate only are shown in theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from dso.report.results import Result
from dso.report.titles import in_order, title_of

_NO_FIGURE = "-"


@dataclass(frozen=True)
class Grid:
    """Results of one split, ordered."""

    metrics: list[str]
    strengths: list[float]
    cells: dict[tuple[str, float], Result]


def grid(
    results: Sequence[Result],
    split: str,
    metrics: Sequence[str] | None = None,
    estimate: str = "probability",
) -> Grid:
    """The results that a table or a plot of one split shows.

    Args:
        results: of any splits and estimates.
        split: the split to show.
        metrics: which, in this order; all in the usual order when not given.
        estimate: which estimate to show of metrics that have several.

    Raises:
        ValueError: an unknown split or metric, several figures for one cell (several seeds, methods
            or layers), or a metric of several estimates that lacks the one asked for.
    """
    here = [result for result in results if result.split == split]
    if not here:
        known = sorted({result.split for result in results})
        raise ValueError(f"there are no results of split {split!r}; splits: {known}")
    present = in_order(result.metric for result in here)
    chosen = present if metrics is None else list(metrics)
    absent = [metric for metric in chosen if metric not in present]
    if absent:
        raise ValueError(f"there are no results of {absent} on split {split!r}; known: {present}")
    cells: dict[tuple[str, float], Result] = {}
    for metric in chosen:
        for result in _of_estimate([r for r in here if r.metric == metric], estimate):
            key = (metric, result.strength)
            if key in cells:
                raise ValueError(
                    f"there are several results of {metric} at strength {result.strength:g} on "
                    f"split {split!r}: {_difference(cells[key], result)}; pass one of them only"
                )
            cells[key] = result
    return Grid(chosen, sorted({strength for _, strength in cells}), cells)


def results_table(
    results: Sequence[Result],
    split: str,
    estimate: str = "probability",
    intervals: bool = True,
) -> Table:
    """A table for the terminal.

    Args:
        results: of any splits and estimates.
        split: the split to show.
        estimate: which estimate to show of metrics that have several.
        intervals: whether to show 95 % intervals, which need about 110 columns for six strengths.

    Raises:
        ValueError: as `grid`.
    """
    shown = grid(results, split, estimate=estimate)
    caption = "small: 95 % interval" if intervals else None
    table = Table(title=f"{split}, by strength", caption=caption)
    table.add_column("")
    for strength in shown.strengths:
        # Figures stay whole: where the terminal is narrow, the metric's name is what wraps.
        table.add_column(f"{strength:g}", justify="right", no_wrap=True)
    for metric in shown.metrics:
        row = [Text(title_of(metric).heading())]
        for strength in shown.strengths:
            value, interval = _cell(shown.cells.get((metric, strength)))
            row.append(
                Text.assemble(value, (f"\n{interval}", "dim") if intervals and interval else "")
            )
        table.add_row(*row)
    return table


def markdown_table(
    results: Sequence[Result],
    split: str,
    metrics: Sequence[str] | None = None,
    intervals: bool = True,
    estimate: str = "probability",
) -> str:
    """A table for a Markdown page, without a final newline.

    Args:
        results: of any splits and estimates.
        split: the split to show.
        metrics: which, in this order; all in the usual order when not given.
        intervals: whether to show 95 % intervals.
        estimate: which estimate to show of metrics that have several.

    Raises:
        ValueError: as `grid`.
    """
    shown = grid(results, split, metrics, estimate)
    lines = [
        "| Strength | " + " | ".join(f"{strength:g}" for strength in shown.strengths) + " |",
        "|---|" + "---:|" * len(shown.strengths),
    ]
    for metric in shown.metrics:
        cells = []
        for strength in shown.strengths:
            value, interval = _cell(shown.cells.get((metric, strength)))
            cells.append(f"{value} {interval}" if intervals and interval else value)
        lines.append(f"| {title_of(metric).heading()} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(result: Result | None) -> tuple[str, str]:
    """Value and interval in words; the interval is empty where there is none."""
    if result is None:
        return _NO_FIGURE, ""
    title = title_of(result.metric)
    if result.low is None or result.high is None:
        return title.show(result.value), ""
    return title.show(result.value), f"[{title.show(result.low)}, {title.show(result.high)}]"


def _of_estimate(results: Sequence[Result], estimate: str) -> list[Result]:
    """Those of the estimate, or all of them where the metric has one estimate only."""
    estimates = sorted({result.estimate for result in results})
    if len(estimates) == 1:
        return list(results)
    if estimate not in estimates:
        raise ValueError(
            f"{results[0].metric} has no estimate {estimate!r}; it has {estimates}: name one"
        )
    return [result for result in results if result.estimate == estimate]


def _difference(one: Result, other: Result) -> str:
    """What tells two results of one cell apart, in words."""
    figures = ("value", "low", "high", "n", "p", "p_adjusted")
    apart = [
        f"{name} {value!r} and {getattr(other, name)!r}"
        for name, value in vars(one).items()
        if name not in figures and value != getattr(other, name)
    ]
    return ", ".join(apart) or "the same figure twice"
