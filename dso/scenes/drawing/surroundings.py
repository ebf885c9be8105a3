"""The place behind the people, and its mood.

Units: the picture is 100 wide and high. A band of sky (outdoors, or through a wide window) reaches
down to y = 42, a wall or trees to 72, and then there is ground. What tells a place or a mood lies
along the rims, above the heads and between the feet, where people leave room.
"""

from __future__ import annotations

import random

from dso.scenes.attributes import Scene
from dso.scenes.drawing.canvas import RGB, Brush, mix, shade

SKY: dict[str | None, RGB] = {
    None: (226, 232, 236),
    "pleasant": (120, 204, 255),
    "unpleasant": (120, 126, 142),
}
WHITE: RGB = (255, 255, 255)


class _Shades:
    """Colours of a scene: a little different in each, and duller where it is unpleasant."""

    def __init__(self, draw: random.Random, unpleasant: bool) -> None:
        self._draw = draw
        self._unpleasant = unpleasant

    def __call__(self, red: int, green: int, blue: int) -> RGB:
        colour = shade((red, green, blue), self._draw.uniform(-6, 6))
        return mix(colour, (92, 94, 104), 0.32) if self._unpleasant else colour


def surroundings(brush: Brush, scene: Scene) -> None:
    """Draw everything but the people; the same seed gives the same details in every mood."""
    draw = random.Random(f"place of scene {scene.seed}")
    colours = _Shades(draw, scene.mood == "unpleasant")
    brush.box(0, 0, 100, 100, shade(SKY[scene.mood], draw.uniform(-5, 5)))
    indoors = scene.place in ("office", "home")
    side, shift = draw.random(), draw.random()
    if scene.mood == "pleasant":
        _sun(brush, side, shift)
    elif scene.mood == "unpleasant":
        _clouds(brush, shift)
    _PLACES[scene.place](brush, colours, draw)
    ground = random.Random(f"ground of scene {scene.seed}")
    if scene.mood == "pleasant":
        _flowers(brush, ground, indoors)
    elif scene.mood == "unpleasant":
        _litter(brush, ground)
        if not indoors:
            _rain(brush, ground, 42, 96)


def _sun(brush: Brush, side: float, shift: float) -> None:
    """The sun in a corner, and a rainbow."""
    rings: tuple[RGB, ...] = (
        (236, 70, 70), (255, 160, 50), (255, 230, 70), (80, 200, 100), (90, 110, 230),
    )  # fmt: skip
    for ring, colour in enumerate(rings):
        radius = 60 - 3 * ring
        brush.arc(50, 63 + 2 * shift, radius, radius, 180, 360, colour, 3.2)
    x = 9 if side < 0.5 else 91
    brush.oval(x, 9, 11, 11, (255, 240, 160))
    brush.oval(x, 9, 8, 8, (255, 208, 30))


def _clouds(brush: Brush, shift: float) -> None:
    """Dark ones, and rain below them."""
    for x, y, size in ((6, 6, 1.1), (34, 3, 0.9), (52, 8, 1.1), (70, 3, 0.9), (95, 7, 1.1)):
        for dx, dy, radius in ((-7, 2, 6), (0, -1, 8), (8, 2, 6)):
            brush.oval(
                x + 2 * shift + size * dx, y + size * dy, size * radius, size * radius * 0.8,
                (78, 82, 98),
            )  # fmt: skip
    for x in range(2, 100, 7):
        for y in (16, 28, 40):
            top = y + (x * 5 + 11 * shift) % 7
            brush.line([(x, top), (x - 1.6, top + 7)], (196, 222, 255), 1.2)


def _rain(brush: Brush, draw: random.Random, top: int, bottom: int) -> None:
    for x in range(2, 100, 8):
        y = top + 10 * draw.random()
        while y < bottom - 7:
            brush.line([(x, y), (x - 1.6, y + 7)], (176, 206, 246), 1.2)
            y += 14


def _street(brush: Brush, colours: _Shades, draw: random.Random) -> None:
    left = -4.0
    walls = ((206, 112, 92), (168, 150, 176), (222, 178, 120), (150, 168, 186), (206, 112, 92))
    for wall in walls:
        width, top = 22 + 3 * draw.random(), 22 + 14 * draw.random()
        brush.box(left, top, left + width, 74, colours(*wall))
        for x in (left + 4, left + 13):
            for y in range(int(top) + 4, 68, 11):
                brush.box(x, y, x + 5, y + 6, colours(250, 238, 170))
        left += width
    brush.box(0, 72, 100, 78, colours(196, 194, 190))
    brush.box(0, 78, 100, 100, colours(100, 102, 112))
    shift = 8 * draw.random()
    for x in range(-10, 100, 16):
        brush.polygon(
            [(x + shift, 86), (x + shift + 8, 86), (x + shift + 5, 92), (x + shift - 3, 92)],
            colours(240, 236, 220),
        )


def _office(brush: Brush, colours: _Shades, draw: random.Random) -> None:
    frame = colours(250, 250, 252)
    shift = 4 * draw.random()
    for x in (0, 23 + shift, 48 + shift, 73 + shift, 99):
        brush.box(x - 1, 0, x + 1, 42, frame)
    brush.box(0, 0, 100, 2, frame)
    brush.box(0, 40, 100, 76, colours(214, 222, 232))
    brush.box(0, 40, 100, 43, colours(150, 164, 184))
    desk, screen = colours(200, 160, 112), colours(52, 58, 76)
    for x in (2, 44, 86):
        brush.box(x + shift / 2, 46, x + 12, 56, screen)
        brush.box(x + shift / 2 + 1.5, 47.5, x + 10.5, 54.5, colours(110, 190, 236))
        brush.box(x + 5, 56, x + 7, 60, screen)
    brush.box(0, 60, 100, 64, desk)
    for x in (1, 49, 96):
        brush.box(x, 64, x + 3, 78, shade(desk, -30))
    brush.box(0, 76, 100, 100, colours(104, 132, 172))
    for x in range(0, 100, 20):
        brush.line([(x + shift, 76), (x + shift - 6, 100)], colours(86, 112, 152), 1)


def _park(brush: Brush, colours: _Shades, draw: random.Random) -> None:
    brush.oval(20, 60, 50, 22, colours(156, 206, 120))
    brush.oval(85, 62, 45, 20, colours(142, 196, 112))
    for middle, crown in ((3, 30), (50, 34), (97, 28)):
        x, top = middle + 3 * draw.random(), crown + 5 * draw.random()
        brush.box(x - 2, top + 8, x + 2, 76, colours(132, 88, 54))
        leaves = colours(46, 138, 62)
        brush.oval(x, top + 4, 11, 13, leaves)
        brush.oval(x - 4, top, 6, 6, shade(leaves, 26))
    brush.box(0, 70, 100, 100, colours(104, 186, 84))
    blades = colours(66, 148, 58)
    for x in range(3, 100, 9):
        y = 80 + 14 * draw.random()
        brush.line([(x, y), (x + 1.5, y - 4), (x + 3, y)], blades, 1.2)


def _home(brush: Brush, colours: _Shades, draw: random.Random) -> None:
    wall, curtain = colours(248, 206, 158), colours(206, 74, 78)
    brush.box(0, 0, 100, 4, wall)
    brush.box(0, 38, 100, 76, wall)
    for x in range(4, 100, 12):
        brush.line([(x, 38), (x, 76)], shade(wall, -16), 2)
    width = 5 + 2 * draw.random()
    brush.box(0, 3, width, 44, curtain)
    brush.box(100 - width, 3, 100, 44, curtain)
    brush.box(50 - width / 2, 3, 50 + width / 2, 44, curtain)
    brush.box(0, 2, 100, 5, colours(140, 90, 56))
    sofa = colours(122, 86, 150)
    brush.box(-2, 50, 102, 74, sofa)
    for x in (0, 46, 92):
        brush.box(x, 56, x + 9, 74, shade(sofa, 30))
    brush.box(0, 74, 100, 100, colours(190, 128, 76))
    planks = colours(160, 102, 58)
    for y in (79, 85, 92):
        brush.line([(0, y), (100, y)], planks, 0.9)


_PLACES = {"street": _street, "office": _office, "park": _park, "home": _home}


def _flowers(brush: Brush, draw: random.Random, potted: bool) -> None:
    petals: tuple[RGB, ...] = ((255, 80, 120), (255, 220, 60), (255, 255, 255), (190, 90, 240))
    for index, left in enumerate((5, 14, 37, 46, 54, 63, 87, 95)):
        x, y = left + 2 * draw.random(), 84 + 4 * draw.random()
        brush.line([(x, y), (x, 96)], (30, 120, 50), 1.4)
        if potted:
            brush.polygon([(x - 3, 92), (x + 3, 92), (x + 2, 99), (x - 2, 99)], (204, 98, 52))
        else:
            brush.polygon([(x, 95), (x + 4, 89), (x + 1, 96)], (30, 120, 50))
        colour = petals[index % 4]
        for dx, dy in ((-2, 0), (2, 0), (0, -2), (0, 2)):
            brush.oval(x + dx, y + dy, 2, 2, colour)
        brush.oval(x, y, 1.5, 1.5, (250, 160, 30))


def _litter(brush: Brush, draw: random.Random) -> None:
    shift = 4 * draw.random()
    for middle, width in ((50, 12), (6, 9), (94, 10)):
        brush.oval(middle + shift - 2, 94, width, 4.2, (56, 68, 96))
        brush.oval(middle + shift - 3, 93.4, width * 0.7, 2.4, (104, 128, 168))
    for left, top in ((3, 84), (42, 86), (58, 85), (90, 84)):
        x, y = left + 3 * draw.random(), top + 2 * draw.random()
        brush.box(x, y, x + 3.4, y + 5.4, (200, 50, 50), 0.5)
        brush.box(x, y + 1.6, x + 3.4, y + 3, WHITE)
        brush.polygon(
            [(x + 5, y + 5.4), (x + 5, y + 2), (x + 8, y + 1), (x + 10, y + 4), (x + 9, y + 5.6)],
            (236, 234, 226), 0.5,
        )  # fmt: skip
