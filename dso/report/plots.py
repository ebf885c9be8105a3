"""Plots for a README or a report: figures against strength, and every occupation before and after.

Drawn on `Figure` objects, so that nothing touches pyplot's global state and no display is needed.
Colours are those of Okabe and Ito, which colour-blind readers can tell apart; lines differ in their
markers too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from dso.report.results import Result
from dso.report.table import Grid, grid
from dso.report.titles import title_of

BLUE, ORANGE, GREEN, VERMILLION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#666666"

_LINES = {
    "per_occupation_bias": (VERMILLION, "o"),
    "unambiguous_accuracy": (BLUE, "s"),
    "gender_needed_accuracy": (GREEN, "^"),
    "capability": (ORANGE, "D"),
}
_SIZES = {"unambiguous_accuracy": 9}
_BIAS = "per_occupation_bias"
_DPI = 150


def plot_strength(results: Sequence[Result], path: str | Path) -> None:
    """Bias with its 95 % interval, and the capabilities, against the strength of the steering.

    One panel per split, in the order in which the results name them. Written to `path`, whose
    ending chooses the format.

    Args:
        results: of one model and seed, expected answers ("probability") where there are several.
        path: file to write; missing folders are created.

    Raises:
        ValueError: no result that the plot shows, or several for one point.
    """
    splits = list(dict.fromkeys(r.split for r in results if r.metric in _LINES))
    if not splits:
        raise ValueError(f"there is nothing to plot: no results of {list(_LINES)}")
    figure = Figure(figsize=(max(6.7, 4.3 * len(splits)), 4.6), dpi=_DPI)
    panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    for axes, split in zip(panels, splits, strict=True):
        present = {r.metric for r in results if r.split == split}
        _draw_split(axes, grid(results, split, [m for m in _LINES if m in present]))
        axes.set_title(split.replace("_", " ").capitalize(), fontsize=11)
    figure.suptitle("Bias and abilities by strength of the steering", fontsize=12)
    handles = {str(line.get_label()): line for axes in panels for line in axes.get_lines()}
    # Below the panels: the accuracies lie so close together that labels at the lines would overlap.
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="lower center",
        ncols=2,
        frameon=False,
        columnspacing=2,
    )
    figure.tight_layout(rect=(0, 0.12, 1, 1))
    _save(figure, path)


def plot_occupations(
    before: Sequence[float], after: Sequence[float], names: Sequence[str], path: str | Path
) -> None:
    """Signed gap of every occupation before and after steering, sorted by the gap before.

    Args:
        before: O signed gaps of the base model, fractions; see `metrics.per_occupation_gap`. An
            occupation that is NaN in both was not measured and is left out.
        after: O signed gaps of the steered model.
        names: O names.
        path: file to write; missing folders are created.

    Raises:
        ValueError: different lengths, nothing measured, or a gap that is missing on one side only.
    """
    if not len(before) == len(after) == len(names):
        raise ValueError(
            f"got {len(before)} gaps before, {len(after)} after and {len(names)} names; wanted as "
            "many of each"
        )
    rows = []
    for base, steered, name in zip(map(float, before), map(float, after), names, strict=True):
        if math.isnan(base) and math.isnan(steered):
            continue
        if not (math.isfinite(base) and math.isfinite(steered)):
            raise ValueError(f"the gaps of {name!r} are {base} before and {steered} after")
        rows.append((100 * base, 100 * steered, name))
    if not rows:
        raise ValueError("there is nothing to plot: no occupation was measured")
    rows.sort(key=lambda row: row[0])
    height = 2.0 + 0.23 * len(rows)
    figure = Figure(figsize=(6.7, height), dpi=_DPI)
    axes = figure.subplots()
    _draw_dumbbells(axes, rows)
    # Above the figure rather than the axes, which long names push to the right.
    figure.suptitle("Stereotyped answers by occupation", fontsize=12)
    figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=2, frameon=False)
    figure.tight_layout(rect=(0, 0.3 / height, 1, 1))
    _save(figure, path)


def _draw_split(axes: Axes, shown: Grid) -> None:
    for metric in shown.metrics:
        colour, marker = _LINES[metric]
        points = [shown.cells[metric, s] for s in shown.strengths if (metric, s) in shown.cells]
        axes.plot(
            [point.strength for point in points],
            [100 * point.value for point in points],
            color=colour,
            marker=marker,
            markersize=_SIZES.get(metric, 5),
            # Hollow, so that a line it coincides with shows through.
            markerfacecolor="white" if metric in _SIZES else colour,
            linewidth=2.2 if metric == _BIAS else 1.6,
            label=title_of(metric).text + (" (95 % interval)" if metric == _BIAS else ""),
            # The bias is the main figure: above the others where they meet.
            zorder=4 if metric == _BIAS else 3,
        )
        if metric == _BIAS:
            _draw_band(axes, points, colour)
    axes.set_xlabel("Strength ω")
    axes.set_ylim(-2, 104)
    axes.yaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.grid(axis="y", color="#dddddd", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_band(axes: Axes, points: Sequence[Result], colour: str) -> None:
    ends = [(p.strength, p.low, p.high) for p in points if p.low is not None and p.high is not None]
    axes.fill_between(
        [strength for strength, _, _ in ends],
        [100 * low for _, low, _ in ends],
        [100 * high for _, _, high in ends],
        color=colour,
        alpha=0.18,
        linewidth=0,
    )


def _draw_dumbbells(axes: Axes, rows: Sequence[tuple[float, float, str]]) -> None:
    """`rows` of (percent before, percent after, name), from the bottom up."""
    places = range(len(rows))
    before, after = [row[0] for row in rows], [row[1] for row in rows]
    axes.axvline(0, color=GREY, linewidth=1.2, zorder=1)
    axes.hlines(places, before, after, color="#bbbbbb", linewidth=2, zorder=2)
    axes.scatter(
        before,
        places,
        s=34,
        facecolor="white",
        edgecolor=VERMILLION,
        linewidth=1.6,
        zorder=3,
        label="before steering",
    )
    axes.scatter(after, places, s=34, color=BLUE, zorder=4, label="after steering")
    axes.set_yticks(places, [row[2] for row in rows])
    axes.set_ylim(-0.8, len(rows) - 0.2)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(PercentFormatter(decimals=0))
    axes.grid(axis="x", color="#dddddd", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_xlabel("Answers that follow the stereotype minus those against it")


def _save(figure: Figure, path: str | Path) -> None:
    FigureCanvasAgg(figure)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
