"""The tool of each attire, and the thing of each activity.

Units: the hand is at (0, 0); a tool reaches about from -14 to 14 and from -36 to 38. A tool is
large for its owner, since it and the garment are all that tells one attire from another.
"""

from __future__ import annotations

from collections.abc import Callable

from dso.scenes.drawing.canvas import INK, RGB, Brush

EDGE = 2.0
STEEL: RGB = (190, 200, 212)
WOOD: RGB = (176, 116, 60)
WHITE: RGB = (255, 255, 255)
GOLD: RGB = (246, 190, 40)
RED: RGB = (226, 50, 46)
GREEN: RGB = (52, 160, 70)
BLUE: RGB = (46, 110, 220)


def syringe(brush: Brush) -> None:
    """Pointing up, filled with red."""
    brush.line([(0, -36), (0, -16)], INK, 3)
    brush.polygon([(-4, -17), (4, -17), (9, -11), (-9, -11)], STEEL, EDGE)
    brush.box(-9, -11, 9, 20, (232, 250, 255), EDGE)
    brush.box(-9, -2, 9, 20, RED)
    for y in (-6, 1, 8):
        brush.line([(2, y), (9, y)], INK, 1.6)
    brush.box(-3, 22, 3, 31, STEEL, EDGE)
    brush.box(-10, 31, 10, 35, STEEL, EDGE)


def tooth_mirror(brush: Brush) -> None:
    """A round mirror on a handle, with a tooth in it."""
    brush.box(-2.5, 0, 2.5, 36, (90, 200, 215), EDGE)
    brush.oval(0, -16, 15, 15, STEEL, EDGE)
    brush.oval(0, -16, 12, 12, (80, 150, 215))
    brush.oval(-3.5, -19, 5, 5, WHITE)
    brush.oval(3.5, -19, 5, 5, WHITE)
    brush.polygon([(-8, -18), (8, -18), (5, -7), (0, -13), (-5, -7)], WHITE)


def plane(brush: Brush) -> None:
    """Seen from above, climbing."""
    brush.polygon([(0, -12), (15, 8), (15, 13), (0, 6), (-15, 13), (-15, 8)], BLUE, EDGE)
    brush.polygon([(0, 20), (9, 29), (9, 33), (-9, 33), (-9, 29)], RED, EDGE)
    brush.oval(0, 0, 5.5, 33, WHITE, EDGE)
    brush.oval(0, -24, 3.4, 5, (70, 180, 240))


def pan(brush: Brush) -> None:
    """A frying pan with an egg."""
    brush.box(-3, 0, 3, 37, (120, 60, 40), EDGE)
    brush.oval(0, -15, 15, 15, (62, 62, 70), EDGE)
    brush.oval(-1, -15, 11, 10, WHITE)
    brush.oval(1, -16, 5, 5, (255, 180, 20))


def mop(brush: Brush) -> None:
    """Its strands up."""
    brush.line([(0, -14), (0, 38)], INK, 7)
    brush.line([(0, -14), (0, 37)], (240, 200, 60), 3.6)
    for x in (-13, -6.5, 0, 6.5, 13):
        brush.line([(x * 0.5, -32), (x, -4)], INK, 8)
    for x, colour in ((-13, BLUE), (-6.5, WHITE), (0, BLUE), (6.5, WHITE), (13, BLUE)):
        brush.line([(x * 0.5, -32), (x, -6)], colour, 5.4)
    brush.box(-9, -36, 9, -29, (235, 80, 60), EDGE)


def scissors(brush: Brush) -> None:
    """Open, the points up."""
    for side in (-1, 1):
        brush.polygon(
            [(15 * side, -35), (6 * side, -32), (-6 * side, 8), (1 * side, 12)], STEEL, EDGE
        )
    for side in (-1, 1):
        brush.oval(8 * side, 22, 8, 11, (232, 40, 140), EDGE)
        brush.oval(8 * side, 22, 3, 5.5, WHITE)
    brush.oval(0, 4, 2.4, 2.4, INK)


def plant(brush: Brush) -> None:
    """A flower in a pot."""
    brush.line([(0, 8), (0, -18)], (30, 110, 50), 4)
    for side in (-1, 1):
        brush.polygon([(0, 6), (15 * side, -10), (13 * side, 3)], GREEN, EDGE)
    brush.oval(0, -22, 12.5, 12.5, (250, 110, 160), EDGE)
    brush.oval(0, -22, 5, 5, (255, 220, 60))
    brush.polygon([(-14, 8), (14, 8), (9, 35), (-9, 35)], (204, 98, 52), EDGE)
    brush.box(-15, 6, 15, 13, (222, 122, 72), EDGE)


def scales(brush: Brush) -> None:
    """Two pans hanging from a beam."""
    brush.box(-2.4, -30, 2.4, 32, GOLD, EDGE)
    brush.box(-11, 31, 11, 36, GOLD, EDGE)
    brush.box(-15, -28, 15, -23.5, GOLD, EDGE)
    for side in (-1, 1):
        brush.line([(8.5 * side, -24), (8.5 * side - 5, -12)], INK, 1.8)
        brush.line([(8.5 * side, -24), (8.5 * side + 5, -12)], INK, 1.8)
        brush.chord(8.5 * side, -12, 8, 11, 0, 180, INK)
        brush.chord(8.5 * side, -11, 6, 8, 0, 180, GOLD)


def roller(brush: Brush) -> None:
    """A paint roller, dripping orange."""
    brush.line([(0, 2), (0, -8), (13, -8), (13, -20)], INK, 4)
    brush.box(-4, 2, 4, 37, BLUE, EDGE)
    brush.box(-15, -35, 13, -18, (255, 128, 10), EDGE)
    brush.box(-15, -35, 13, -30, (255, 172, 80))
    brush.oval(-9, -14, 3.4, 6, (255, 128, 10))


def hammer(brush: Brush) -> None:
    """Its face to the left, its claw to the right."""
    brush.box(-3.6, -20, 3.6, 37, WOOD, EDGE)
    brush.polygon(
        [(-9, -35), (8, -35), (15, -31), (15, -26), (8, -25), (8, -18), (-9, -18)],
        (140, 150, 164), EDGE,
    )  # fmt: skip
    brush.box(-15, -37, -9, -16, (96, 106, 122), EDGE)


def laptop(brush: Brush) -> None:
    """Open, its screen to the viewer."""
    brush.box(-14, -20, 14, 6, (70, 76, 90), EDGE)
    brush.box(-11, -17, 11, 3, (50, 205, 255))
    for y, right in ((-12, 6), (-7, 0), (-2, 8)):
        brush.line([(-9, y), (right, y)], WHITE, 2.6)
    brush.polygon([(-13, 9), (13, 9), (15, 18), (-15, 18)], (170, 176, 188), EDGE)


def clipboard(brush: Brush) -> None:
    """With ticks and a cross."""
    brush.box(-15, -26, 15, 22, (150, 92, 46), EDGE)
    brush.box(-11.5, -20, 11.5, 18.5, WHITE)
    brush.box(-6, -30, 6, -22, STEEL, EDGE)
    for y, colour in ((-13, GREEN), (-1, RED), (11, GREEN)):
        brush.line([(-9, y), (-6.5, y + 3), (-2.5, y - 4)], colour, 2.8)
        brush.line([(1, y), (9, y)], (120, 120, 130), 2.4)


def calculator(brush: Brush) -> None:
    """With a coin."""
    brush.box(-14, -32, 14, 14, (74, 80, 92), EDGE)
    brush.box(-10.5, -28, 10.5, -18, (170, 230, 150))
    for y in (-12, -4, 4):
        for x, colour in ((-10.5, WHITE), (-3, WHITE), (4.5, (255, 140, 30))):
            brush.box(x, y, x + 5.5, y + 5, colour)
    brush.oval(0, 25, 12, 12, GOLD, EDGE)
    brush.oval(0, 25, 7.5, 7.5, (216, 150, 20))


def pitchfork(brush: Brush) -> None:
    """Three prongs up."""
    brush.line([(0, -8), (0, 38)], INK, 8)
    brush.line([(0, -8), (0, 37)], WOOD, 4.4)
    for x in (-12, 0, 12):
        brush.line([(x, -36), (x, -10)], INK, 7)
    brush.box(-15, -16, 15, -7, INK)
    for x in (-12, 0, 12):
        brush.line([(x, -34), (x, -11)], STEEL, 3.6)
    brush.box(-13, -13.5, 13, -9.5, STEEL)


def books(brush: Brush) -> None:
    """A pile of three."""
    for y, left, right, colour in (
        (-24, -12, 15, RED), (-8, -15, 12, (250, 196, 50)), (8, -13, 15, (50, 100, 200)),
    ):  # fmt: skip
        brush.box(left, y, right, y + 13, colour, EDGE)
        brush.box(right - 6, y + 2.5, right, y + 10.5, (250, 244, 228))


def flask(brush: Brush) -> None:
    """Half full, bubbling."""
    brush.polygon(
        [(-5, -24), (5, -24), (5, -8), (15, 24), (-15, 24), (-5, -8)], (226, 244, 250), EDGE
    )
    brush.polygon([(-8, 2), (8, 2), (14, 23), (-14, 23)], (150, 60, 220))
    brush.box(-7, -28, 7, -24, WHITE, EDGE)
    brush.oval(-3, 12, 3, 3, (222, 180, 255))
    brush.oval(5, 17, 2.2, 2.2, (222, 180, 255))
    brush.oval(3, -33, 3.4, 3.4, (190, 110, 250))


TOOLS: dict[str, Callable[[Brush], None]] = {
    "scrubs": syringe,
    "dental": tooth_mirror,
    "airline": plane,
    "kitchen": pan,
    "cleaning": mop,
    "salon": scissors,
    "garden": plant,
    "court": scales,
    "paint": roller,
    "workshop": hammer,
    "desk": laptop,
    "checking": clipboard,
    "money": calculator,
    "farm": pitchfork,
    "books": books,
    "laboratory": flask,
}
"""By attire."""


def open_book(brush: Brush) -> None:
    """For reading."""
    brush.polygon(
        [(0, -14), (-15, -20), (-15, 12), (0, 18), (15, 12), (15, -20)], (150, 30, 40), EDGE
    )
    brush.polygon([(0, -11), (-12.5, -16), (-12.5, 9), (0, 14)], WHITE)
    brush.polygon([(0, -11), (12.5, -16), (12.5, 9), (0, 14)], (240, 236, 222))
    for y in (-9, -2, 5):
        brush.line([(-11, y - 1), (-3, y + 2)], (110, 110, 120), 2)
        brush.line([(11, y - 1), (3, y + 2)], (110, 110, 120), 2)
    brush.line([(0, -12), (0, 15)], INK, 1.8)


def cup(brush: Brush) -> None:
    """For drinking: large and steaming."""
    brush.arc(-9, 4, 8, 10, 90, 270, INK, 7)
    brush.arc(-9, 4, 6, 8, 90, 270, (255, 140, 40), 3)
    brush.polygon([(-9, -10), (14, -10), (11, 20), (-6, 20)], (255, 140, 40), EDGE)
    brush.oval(2.5, -10, 11.5, 4, (90, 50, 26), EDGE)
    for x in (-5, 5):
        brush.line([(x, -17), (x + 4, -22), (x, -27), (x + 4, -33)], (128, 136, 150), 3)


def phone(brush: Brush) -> None:
    """For phoning: at a call, with waves."""
    brush.box(-11, -16, 9, 22, (30, 30, 38), EDGE)
    brush.box(-8.5, -12, 6.5, 14, (60, 220, 120))
    brush.oval(-1, 18, 2.4, 2.4, WHITE)
    brush.oval(-2, -3, 4.5, 4.5, WHITE)
    brush.arc(0, -16, 9, 9, 210, 330, INK, 2.8)
    brush.arc(0, -16, 15, 15, 210, 330, INK, 2.8)


def palette(brush: Brush) -> None:
    """For painting: with a brush."""
    brush.line([(10, 10), (-3, -35)], INK, 6)
    brush.line([(10, 10), (-2, -32)], (230, 190, 120), 3)
    brush.oval(-3, -33, 4, 5, RED, 1.2)
    brush.oval(0, 4, 15, 14, (226, 176, 112), EDGE)
    brush.oval(9, 11, 3.4, 3.4, INK)
    for x, y, colour in ((-10, 5, RED), (-4, -3, BLUE), (5, -3, (255, 214, 40)), (-4, 12, GREEN)):
        brush.oval(x, y, 4, 4, colour)


THINGS: dict[str, Callable[[Brush], None]] = {
    "reading": open_book,
    "drinking": cup,
    "phoning": phone,
    "painting": palette,
}
"""By activity."""
