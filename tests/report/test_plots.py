"""Plots are written, without touching pyplot, and refuse what they cannot show."""

from __future__ import annotations

import math
import struct

import pytest
from matplotlib import pyplot

from dso.report import plot_occupations, plot_strength
from tests.report.made_up_results import result, sweep


def size(path) -> tuple[int, int]:
    """Width and height of a PNG."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return struct.unpack(">II", data[16:24])


@pytest.mark.parametrize("splits", [1, 2], ids=["one split", "two splits"])
def test_strength_is_plotted_with_a_panel_per_split(tmp_path, splits):
    results = [r for n in range(splits) for r in sweep(f"split_{n}")]
    path = tmp_path / "new" / "strength.png"
    plot_strength(results, path)
    width, height = size(path)
    assert width >= 1000 and height >= 600
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(
    "results",
    [
        [r for r in sweep() if r.metric == "capability"],
        [r for r in sweep() if r.strength == 0],
        [result(low=None, high=None)],
        [*sweep(), result("capability", 0.9, split="other")],
    ],
    ids=["no bias", "one strength", "no interval", "splits of different metrics"],
)
def test_strength_is_plotted_from_what_there_is(tmp_path, results):
    plot_strength(results, tmp_path / "strength.png")
    assert size(tmp_path / "strength.png")[0] >= 1000


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "nothing to plot"),
        ([result("kl", 0.1)], "nothing to plot"),
        ([result(), result(seed=1)], "seed 0 and 1"),
    ],
)
def test_strength_refuses_what_it_cannot_show(tmp_path, results, message):
    with pytest.raises(ValueError, match=message):
        plot_strength(results, tmp_path / "strength.png")
    assert not list(tmp_path.iterdir())


def test_occupations_are_plotted_and_grow_with_their_number(tmp_path):
    few, many = tmp_path / "few.png", tmp_path / "many.png"
    plot_occupations([0.5, math.nan], [0.1, math.nan], ["nurse", "not measured"], few)
    plot_occupations([0.5] * 30, [-0.1] * 30, [f"number {n}" for n in range(30)], many)
    assert size(few)[0] == size(many)[0] >= 1000
    assert size(few)[1] < size(many)[1]


@pytest.mark.parametrize(
    ("before", "after", "names", "message"),
    [
        ([0.1], [0.1, 0.2], ["a"], "as many of each"),
        ([math.nan], [math.nan], ["a"], "nothing to plot"),
        ([0.1], [math.nan], ["nurse"], "'nurse'"),
    ],
)
def test_occupations_refuse_what_they_cannot_show(tmp_path, before, after, names, message):
    with pytest.raises(ValueError, match=message):
        plot_occupations(before, after, names, tmp_path / "occupations.png")
