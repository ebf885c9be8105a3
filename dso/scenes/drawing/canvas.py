"""Shapes, drawn four times too large and then reduced, together with the label of each pixel.

Every shape is drawn by one call into the picture and, where masks are wanted, into a second image
that holds a label instead of a colour: the masks cannot come apart from what is seen. A pixel of
the picture is the mean of its own 4 x 4 block, and its label the most frequent one there, so that
a change of one block never reaches another pixel.

Coordinates are rounded to whole pixels of the large picture before they reach PIL, and neither
fonts nor a global random state take part: with one version of PIL the same calls give the same
bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

RGB = tuple[int, int, int]
Points = Sequence[tuple[float, float]]

OVERSAMPLING = 4
INK: RGB = (48, 42, 52)
"""Of outlines."""


def shade(colour: RGB, amount: float) -> RGB:
    """A colour made lighter (amount > 0) or darker (< 0), by as many of 255 levels."""
    red, green, blue = (min(255, max(0, round(level + amount))) for level in colour)
    return red, green, blue


def mix(first: RGB, second: RGB, share: float) -> RGB:
    """The colour `share` of the way from the first to the second."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(first, second, strict=True))
    return red, green, blue


class Canvas:
    """A picture of size x size pixels in the making.

    Args:
        size: of a side, in pixels.
        labelled: whether labels are kept too.
    """

    def __init__(self, size: int, labelled: bool) -> None:
        self.size = size
        self.side = size * OVERSAMPLING
        """Of the picture before it is reduced, in its own pixels."""
        self._image = Image.new("RGB", (self.side, self.side))
        self._labels = Image.new("L", (self.side, self.side)) if labelled else None
        self.pen = ImageDraw.Draw(self._image)
        self.label_pen = ImageDraw.Draw(self._labels) if self._labels else None

    def picture(self) -> Image.Image:
        """RGB, size x size."""
        return self._image.reduce(OVERSAMPLING)

    def labels(self) -> NDArray[np.uint8]:
        """The most frequent label of each pixel's block, (size, size); of equals the smallest."""
        assert self._labels is not None, "the canvas was made without labels"
        fine = np.asarray(self._labels)
        blocks = fine.reshape(self.size, OVERSAMPLING, self.size, OVERSAMPLING)
        counts = [
            (blocks == label).sum(axis=3, dtype=np.uint8).sum(axis=1, dtype=np.uint8)
            for label in range(int(fine.max()) + 1)
        ]
        labels: NDArray[np.uint8] = np.argmax(np.stack(counts), axis=0).astype(np.uint8)
        return labels


@dataclass(frozen=True)
class Brush:
    """Draws on a canvas in units of its own, with one label."""

    canvas: Canvas
    x: float
    """Where (0, 0) is, in the canvas' pixels."""
    y: float
    unit: float
    """Pixels of the canvas in one unit."""
    label: int = 0
    """Of everything that it draws."""

    def at(self, x: float, y: float, scale: float = 1.0) -> Brush:
        """The same brush with (0, 0) moved to (x, y) and units `scale` times as large."""
        return replace(
            self, x=self.x + x * self.unit, y=self.y + y * self.unit, unit=self.unit * scale
        )

    def labelled(self, label: int) -> Brush:
        """The same brush with another label."""
        return replace(self, label=label)

    def _points(self, points: Points) -> list[tuple[int, int]]:
        return [(round(self.x + x * self.unit), round(self.y + y * self.unit)) for x, y in points]

    def _oval(self, x: float, y: float, rx: float, ry: float) -> list[tuple[int, int]]:
        return self._points([(x - rx, y - ry), (x + rx, y + ry)])

    def _width(self, width: float) -> int:
        return max(1, round(width * self.unit))

    def oval(self, x: float, y: float, rx: float, ry: float, fill: RGB, edge: float = 0.0) -> None:
        """An ellipse around (x, y), with an outline of ink `edge` units wide outside of it."""
        if edge:
            self.oval(x, y, rx + edge, ry + edge, INK)
        box = self._oval(x, y, rx, ry)
        self.canvas.pen.ellipse(box, fill)
        if self.canvas.label_pen:
            self.canvas.label_pen.ellipse(box, self.label)

    def chord(
        self, x: float, y: float, rx: float, ry: float, start: int, end: int, fill: RGB
    ) -> None:
        """The part of an ellipse cut off between two angles, in degrees clockwise from east."""
        box = self._oval(x, y, rx, ry)
        self.canvas.pen.chord(box, start, end, fill)
        if self.canvas.label_pen:
            self.canvas.label_pen.chord(box, start, end, self.label)

    def arc(
        self, x: float, y: float, rx: float, ry: float, start: int, end: int, fill: RGB,
        width: float,
    ) -> None:  # fmt: skip
        """A part of an ellipse's rim, `width` units wide inwards."""
        box = self._oval(x, y, rx, ry)
        self.canvas.pen.arc(box, start, end, fill, self._width(width))
        if self.canvas.label_pen:
            self.canvas.label_pen.arc(box, start, end, self.label, self._width(width))

    def polygon(self, points: Points, fill: RGB, edge: float = 0.0) -> None:
        """A filled polygon, with an outline of ink `edge` units wide on either side of its rim."""
        if edge:
            self.line([*points, points[0]], INK, 2 * edge)
        corners = self._points(points)
        self.canvas.pen.polygon(corners, fill)
        if self.canvas.label_pen:
            self.canvas.label_pen.polygon(corners, self.label)

    def box(
        self, left: float, top: float, right: float, bottom: float, fill: RGB, edge: float = 0.0
    ) -> None:
        """A rectangle, with an outline of ink `edge` units wide outside of it."""
        if edge:
            self.box(left - edge, top - edge, right + edge, bottom + edge, INK)
        corners = self._points([(left, top), (right, bottom)])
        self.canvas.pen.rectangle(corners, fill)
        if self.canvas.label_pen:
            self.canvas.label_pen.rectangle(corners, self.label)

    def line(self, points: Points, fill: RGB, width: float) -> None:
        """A line through all points, `width` units wide."""
        corners = self._points(points)
        self.canvas.pen.line(corners, fill, self._width(width))
        if self.canvas.label_pen:
            self.canvas.label_pen.line(corners, self.label, self._width(width))
