"""A scene as a picture, and which of its pixels show what.

One person stands in the middle; of two, each has a half of the picture and never leaves it, so that
nothing about one of them changes a pixel of the other's half. The same scene gives the same bytes
every time: all chance comes from its seed, by name, never from a global state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dso.scenes.attributes import Scene
from dso.scenes.drawing.canvas import Brush, Canvas
from dso.scenes.drawing.figure import BODY, FACE, HAIR, Variation, figure
from dso.scenes.drawing.surroundings import surroundings

Region = Literal["hair", "face", "body", "background"]
REGIONS: tuple[Region, ...] = get_args(Region)
SIZES = (48, 512)
"""The smallest and the largest side of a picture, in pixels."""


@dataclass(frozen=True, eq=False)
class PersonMasks:
    """The pixels of one person that can be seen, each (size, size)."""

    hair: NDArray[np.bool_]
    face: NDArray[np.bool_]
    """Skin of the head and all on it: features, beard, glasses."""
    body: NDArray[np.bool_]
    """All else: clothes, hats, hands, tool and thing; from behind the whole figure."""


@dataclass(frozen=True, eq=False)
class Masks:
    """Each (size, size); every pixel is in exactly one of the four."""

    hair: NDArray[np.bool_]
    face: NDArray[np.bool_]
    body: NDArray[np.bool_]
    background: NDArray[np.bool_]
    people: tuple[PersonMasks, ...]
    """From left to right; over all people they make up the masks above."""


def _draw(scene: Scene, size: int, labelled: bool) -> Canvas:
    smallest, largest = SIZES
    if not smallest <= size <= largest:
        raise ValueError(f"size is {size}; wanted {smallest} to {largest} pixels")
    canvas = Canvas(size, labelled)
    surroundings(Brush(canvas, 0, 0, canvas.side / 100), scene)
    alone = len(scene.people) == 1
    for place, person in enumerate(scene.people):
        unit = canvas.side / (180 if alone else 212)
        x = canvas.side * (0.5 if alone else 0.25 + 0.5 * place)
        y = canvas.side * (1.1 if alone else 0.985)
        variation = Variation.drawn(place, scene.seed)
        figure(Brush(canvas, x, y, unit), person, variation, 3 * place)
    return canvas


def render(scene: Scene, size: int = 80) -> Image.Image:
    """Draw a scene.

    Args:
        scene: what to draw.
        size: of a side, in pixels, from 48 to 512.

    Returns:
        RGB, size x size.

    Raises:
        ValueError: the size is out of range.
    """
    return _draw(scene, size, labelled=False).picture()


def masks(scene: Scene, size: int = 80) -> Masks:
    """Which pixels of `render(scene, size)` show what.

    The masks come from the same drawing: a pixel belongs to what covers most of it.

    Args:
        scene: what to draw.
        size: of a side, in pixels, from 48 to 512.

    Raises:
        ValueError: the size is out of range.
    """
    labels = _draw(scene, size, labelled=True).labels()
    people = tuple(
        PersonMasks(*(labels == 3 * place + label for label in (HAIR, FACE, BODY)))
        for place in range(len(scene.people))
    )
    nobody = np.zeros(labels.shape, dtype=bool)
    return Masks(
        hair=np.any([nobody, *(p.hair for p in people)], axis=0),
        face=np.any([nobody, *(p.face for p in people)], axis=0),
        body=np.any([nobody, *(p.body for p in people)], axis=0),
        background=labels == 0,
        people=people,
    )
