"""Hats, the hood of a figure seen from behind, and the scarf.

Units of hats and hood: those of `dso.scenes.drawing.face`; a hat sits above the hairline, so that
hair shows below it. Units of the scarf: those of `dso.scenes.drawing.attire`.
"""

from __future__ import annotations

from dso.scenes.drawing.canvas import INK, RGB, Brush, shade

EDGE = 2.0
STEEL: RGB = (186, 194, 206)
GOLD: RGB = (250, 196, 44)
HOOD: RGB = (146, 138, 128)
"""Of everyone: a garment shows its colours below the hood. A warm grey, like no scarf."""

SCARF: dict[str, RGB] = {
    "pink": (255, 92, 176),
    "blue": (36, 84, 232),
    "green": (26, 168, 72),
    "yellow": (255, 224, 30),
}


def cap(brush: Brush, colour: RGB) -> None:
    """A soft cap without a brim."""
    brush.chord(0, -24, 31 + EDGE, 29 + EDGE, 180, 360, INK)
    brush.chord(0, -25, 31, 28, 180, 360, colour)
    brush.box(-31, -30, 31, -25, shade(colour, -34))


def peaked_cap(brush: Brush, colour: RGB) -> None:
    """With a golden badge."""
    brush.polygon([(-34, -46), (34, -46), (27, -29), (-27, -29)], colour, EDGE)
    brush.chord(0, -44, 34, 12, 180, 360, colour)
    brush.box(-27, -33, 27, -28, GOLD)
    brush.polygon([(-24, -28), (24, -28), (17, -22), (-17, -22)], INK)
    brush.oval(0, -41, 5, 5, GOLD)


def toque(brush: Brush, colour: RGB) -> None:
    """A chef's tall hat."""
    for x, y in ((-17, -51), (17, -51), (0, -55)):
        brush.oval(x, y, 14, 11, INK)
    for x, y in ((-17, -51), (17, -51), (0, -55)):
        brush.oval(x, y, 12, 9, colour)
    brush.box(-21, -48, 21, -28, colour, EDGE)
    brush.box(-20, -52, 20, -40, colour)
    for x in (-10, 0, 10):
        brush.line([(x, -44), (x, -33)], STEEL, 2)


def straw_hat(brush: Brush, colour: RGB) -> None:
    """With a broad brim."""
    brush.chord(0, -32, 24 + EDGE, 24 + EDGE, 180, 360, INK)
    brush.chord(0, -32, 24, 24, 180, 360, colour)
    brush.oval(0, -32, 42, 6, colour, EDGE)
    brush.box(-23, -40, 23, -35, (204, 60, 50))


def visor(brush: Brush, colour: RGB) -> None:
    """A green eyeshade on a band."""
    brush.box(-33, -32, 33, -27, INK)
    brush.polygon([(-30, -30), (30, -30), (24, -20), (-24, -20)], colour, 1.4)


def hood(brush: Brush) -> None:
    """A round hood from behind, with a seam in the middle and folds at the neck."""
    for edge, fill in ((EDGE, INK), (0.0, HOOD)):
        brush.oval(0, -3, 37 + edge, 40 + edge, fill)
        brush.oval(0, 22, 33 + edge, 20 + edge, fill)
    dark = shade(HOOD, -34)
    brush.line([(0, -41), (0, 40)], dark, 2.6)
    for side in (-1, 1):
        brush.line([(13 * side, 38), (16 * side, 24)], dark, 2.6)
        brush.line([(23 * side, 34), (28 * side, 22)], dark, 2.6)
    brush.arc(0, -8, 28, 28, 205, 255, shade(HOOD, 34), 3)


def scarf(brush: Brush, colour: str, lighter: float, behind: bool) -> None:
    """A large one around the neck; from the front an end hangs down."""
    shawl = shade(SCARF[colour], lighter)
    brush.oval(0, -84, 29, 10, shawl, EDGE)
    if not behind:
        brush.polygon([(4, -80), (17, -80), (19, -40), (5, -40)], shawl, EDGE)
        brush.line([(5, -46), (19, -46)], shade(shawl, -60), 2.4)
    brush.line([(-22, -84), (-8, -78), (8, -78), (22, -84)], shade(shawl, -50), 2.2)
