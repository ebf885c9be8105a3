"""Example scenes and answers at ω = 0 and 1 as one picture, with what `scenes_page.py` writes.

Everything is drawn on one set of axes whose units are pixels, from the top left; each part says how
high it is, so that the sheet is as high as all of them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from dso.report.scene_examples import (
    COLOURS,
    KEYS,
    LABELS,
    NOTE,
    SHOWN,
    Asked,
    Bar,
    Described,
    ScenesPage,
    Section,
    Twins,
)
from dso.scenes.attributes import Scene
from dso.scenes.drawing import render

WIDTH = 1200
MARGIN, GAP, PAD = 36, 16, 14
DPI = 100
INK, QUIET, LINE, PAPER = "#1c1c1c", "#555555", "#dcdcdc", "#fbfbf9"
LINE_HEIGHT = 1.4
CHARACTER = 0.54
"""Width of a character of the font, as a share of its size; wide enough for most lines."""
BOLD = 1.12
"""How much wider those of the bold one are."""
ASCENT = 0.95
"""From the top of a line to where its letters stand, as a share of the font's size."""


def draw_scenes_sheet(page: ScenesPage, path: str | Path) -> None:
    """Draw the page as a PNG; missing folders are created.

    Raises:
        ValueError: a figure that is not among the page's results.
    """
    blocks = [_top(page), *(_section(section) for section in page.sections)]
    height = 2 * MARGIN + sum(block.height for block in blocks)
    figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI, facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    y = float(MARGIN)
    for block in blocks:
        block.draw(_Pen(axes), MARGIN, y)
        y += block.height
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height, 0)
    axes.set_aspect("auto")
    FigureCanvasAgg(figure)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=PAPER)


class _Pen:
    """Draws in pixels."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes

    def text(self, x: float, y: float, text: str, size: float = 14, **style: Any) -> None:
        """One line or several; `y` is at the top of the first, whatever letters it has."""
        settings: dict[str, Any] = {"color": INK, "zorder": 3} | style
        settings |= {"fontsize": size * 72 / DPI, "va": "baseline", "parse_math": False}
        for number, line in enumerate(text.split("\n")):
            self.axes.text(x, y + size * (ASCENT + number * LINE_HEIGHT), line, **settings)

    def picture(self, x: float, y: float, side: float, scene: Scene) -> None:
        """A scene."""
        pixels = np.asarray(render(scene, SHOWN))
        # Above the card: images are drawn below shapes otherwise.
        self.axes.imshow(pixels, extent=(x, x + side, y + side, y), zorder=2)

    def box(self, x: float, y: float, width: float, height: float, colour: str) -> None:
        """A filled rectangle."""
        self.axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, linewidth=0))

    def card(self, x: float, y: float, width: float, height: float) -> None:
        """What an example stands on."""
        style = "round,pad=0,rounding_size=8"
        self.axes.add_patch(
            FancyBboxPatch((x, y), width, height, style, facecolor="white", edgecolor=LINE)
        )


@dataclass(frozen=True)
class _Block:
    """A part of the sheet."""

    height: float
    draw: Callable[[_Pen, float, float], None]
    """With the place of its top left corner."""


def _wrapped(text: str, width: float, size: float) -> str:
    return textwrap.fill(text, max(8, int(width / (size * CHARACTER))))


def _text(text: str, width: float, size: float = 14, **style: Any) -> _Block:
    """A paragraph."""
    filled = _wrapped(text, width / (BOLD if "weight" in style else 1.0), size)
    height = (filled.count("\n") + 1) * size * LINE_HEIGHT
    return _Block(height, lambda pen, x, y: pen.text(x, y, filled, size, **style))


def _space(height: float) -> _Block:
    return _Block(height, lambda pen, x, y: None)


def _down(*blocks: _Block) -> _Block:
    """One below the other."""

    def draw(pen: _Pen, x: float, y: float) -> None:
        for block in blocks:
            block.draw(pen, x, y)
            y += block.height

    return _Block(sum(block.height for block in blocks), draw)


def _across(blocks: Sequence[_Block], step: float) -> _Block:
    """One beside the other, `step` apart."""

    def draw(pen: _Pen, x: float, y: float) -> None:
        for number, block in enumerate(blocks):
            block.draw(pen, x + number * step, y)

    return _Block(max(block.height for block in blocks), draw)


def _cards(blocks: Sequence[_Block], columns: int) -> _Block:
    """Rows of cards, those of a row equally high."""
    width = (WIDTH - 2 * MARGIN - (columns - 1) * GAP) / columns
    rows = []
    for start in range(0, len(blocks), columns):
        row = blocks[start : start + columns]
        height = max(block.height for block in row) + 2 * PAD
        rows += [_across([_card(block, width, height) for block in row], width + GAP), _space(GAP)]
    return _down(*rows)


def _card(content: _Block, width: float, height: float) -> _Block:
    def draw(pen: _Pen, x: float, y: float) -> None:
        pen.card(x, y, width, height)
        content.draw(pen, x + PAD, y + PAD)

    return _Block(height, draw)


def _inside(columns: int) -> float:
    """Width of what is in a card."""
    return (WIDTH - 2 * MARGIN - (columns - 1) * GAP) / columns - 2 * PAD


def _top(page: ScenesPage) -> _Block:
    width = WIDTH - 2 * MARGIN
    return _down(
        _text(page.title, width, 28, weight="bold"), _text(page.about, width, 13, color=QUIET),
        _space(6), _text(page.planted, width, 15), _space(10), _table(page), _space(8),
        _text(NOTE, width, 13, color=QUIET), _space(8), _keys(),
    )  # fmt: skip


def _table(page: ScenesPage) -> _Block:
    columns = (0, 190, 540, 740)
    rows = [("", "figure, in %", *LABELS), *page.rows()]

    def draw(pen: _Pen, x: float, y: float) -> None:
        for number, row in enumerate(rows):
            top = y + 24 * number
            if number:
                pen.box(x, top - 5, 920, 1, LINE)
            for column, text in zip(columns, row, strict=True):
                pen.text(x + column, top, text, 14, weight="normal" if number else "bold")

    return _Block(24 * len(rows), draw)


def _keys() -> _Block:
    def draw(pen: _Pen, x: float, y: float) -> None:
        for number, (key, text) in enumerate(KEYS.items()):
            pen.box(x + 200 * number, y, 16, 16, COLOURS[key])
            pen.text(x + 200 * number + 24, y, text)

    return _Block(20, draw)


def _section(section: Section) -> _Block:
    width = WIDTH - 2 * MARGIN
    cards = []
    for item in section.items:
        match item:
            case Twins():
                cards.append(_twins(item))
            case Asked():
                cards.append(_asked(item, _inside(section.columns)))
            case Described():
                cards.append(_described(item))
    return _down(
        _space(34), _text(section.title, width, 21, weight="bold"), _text(section.says, width, 15),
        _text(f"Which examples: {section.rule}", width, 13, color=QUIET), _space(10),
        _cards(cards, section.columns),
    )  # fmt: skip


def _twins(twins: Twins) -> _Block:
    width = _inside(2)
    half = (width - GAP) / 2
    where = "held-out" if twins.held_out else "trained on"
    return _down(
        _text(f"{twins.occupation}  ·  {where}", width, 16, weight="bold"),
        _text(twins.planted, width, 13, color=QUIET),
        _text(twins.one.choice.prompt, width, 14, style="italic"),
        _space(6),
        _across([_seen(one, half) for one in (twins.one, twins.other)], half + GAP),
        _space(6),
        _text(twins.verdict, width, 13, color=QUIET),
    )


def _asked(asked: Asked, width: float) -> _Block:
    heads = [_text(asked.heading, width, 14, weight="bold")] if asked.heading else []
    notes = [_text(asked.note, width, 12, color=QUIET)] if asked.note else []
    question = _text(asked.choice.prompt, width, 13, style="italic")
    return _down(*heads, *notes, question, _space(6), _seen(asked, width))


def _described(described: Described) -> _Block:
    side = 170.0
    width = _inside(2) - side - GAP
    parts = [_text(described.question, width, 14, style="italic"), _space(6)]
    for label, said, judged in zip(
        LABELS, (described.before, described.after), described.judged(), strict=True
    ):
        parts += [_text(f"{label}  “{said}”", width), _text(judged, width, 12, color=QUIET)]
        parts.append(_space(8))
    return _across([_picture(described.scene, side), _down(*parts)], side + GAP)


def _seen(asked: Asked, width: float) -> _Block:
    answers = _stacked if asked.choice.first is not None else _listed
    return _down(_picture(asked.scene, width), _space(8), answers(asked, width))


def _picture(scene: Scene, side: float) -> _Block:
    return _Block(side, lambda pen, x, y: pen.picture(x, y, side, scene))


def _stacked(asked: Asked, width: float) -> _Block:
    """One bar a strength: the left answer on the left, the right one on the right."""

    def draw(pen: _Pen, x: float, y: float) -> None:
        for label, bars in zip(LABELS, asked.bars(), strict=True):
            pen.text(x, y + 1, label, 13, color=QUIET)
            left, room = x + 46.0, width - 46
            for bar, side, edge in zip(bars, ("left", "right"), (x + 46, x + width), strict=True):
                pen.box(left, y, room * bar.probability, 18, COLOURS[bar.meaning])
                left += room * bar.probability
                pen.text(edge, y + 20, f"{bar.text} {bar.percent}", 12, ha=side)
            y += 42

    return _Block(2 * 42, draw)


def _listed(asked: Asked, width: float) -> _Block:
    """One bar an answer, strength by strength."""

    def line(pen: _Pen, x: float, y: float, bar: Bar) -> None:
        pen.text(x, y, bar.text, 12)
        pen.box(x + 84, y, width - 128, 13, "#eeeeee")
        pen.box(x + 84, y, (width - 128) * bar.probability, 13, COLOURS[bar.meaning])
        pen.text(x + width, y, bar.percent, 12, ha="right")

    def draw(pen: _Pen, x: float, y: float) -> None:
        for label, bars in zip(LABELS, asked.bars(), strict=True):
            pen.text(x, y, label, 12, color=QUIET)
            for number, bar in enumerate(bars, 1):
                line(pen, x, y + 18 * number, bar)
            y += 18 * (len(bars) + 1) + 6

    return _Block(2 * (18 * (len(asked.choice.options) + 1) + 6), draw)
