"""A head from the front: hair, face, and what gender, skin, age and emotion do to them.

Units: the head's centre is (0, 0), the face is an ellipse from -31 to 31 and from -25 to 39, and
hair reaches up to -44. Everything that an emotion changes lies between the hairline and the chin.
Brows and beard have colours of their own, so that hair colour shows in the hair alone, and age does
not turn it grey.
"""

from __future__ import annotations

from dataclasses import dataclass

from dso.scenes.attributes import Person
from dso.scenes.drawing.canvas import INK, RGB, Brush, mix, shade

SKIN: dict[str, RGB] = {
    "light": (252, 218, 190),
    "brown": (203, 146, 100),
    "dark": (122, 79, 54),
}
HAIR: dict[str, RGB] = {
    "black": (40, 34, 42),
    "red": (196, 62, 24),
    "blond": (246, 208, 72),
    "grey": (172, 174, 182),
}
BROW: RGB = (46, 32, 30)
MOUTH: RGB = (92, 18, 28)
LIPS: RGB = (222, 38, 78)
WHITE: RGB = (255, 255, 255)
EDGE = 2.2


@dataclass(frozen=True)
class Look:
    """What the seed decides about a head; no attribute depends on it."""

    skin: float
    """Lighter or darker, in levels of 255."""
    hair: float
    """Lighter or darker, in levels of 255."""
    parting: float
    """Where the fringe parts, from -1 (left) to 1."""
    moustache: bool
    """Whether a grown man has one; his beard's shadow he has always."""


def back_hair(brush: Brush, person: Person, look: Look) -> None:
    """The hair behind face and body: to the shoulders, or short."""
    colour = shade(HAIR[person.hair], look.hair)
    if person.gender == "woman":
        fall = [(-38, -10), (-43, 36), (-36, 46), (36, 46), (43, 36), (38, -10)]
        brush.polygon(fall, colour, EDGE)
        brush.oval(0, -6, 39, 38, colour, EDGE)
        brush.polygon(fall, colour)
        for side in (-1, 1):
            brush.line([(39 * side, 2), (38 * side, 40)], shade(colour, -28), 2.5)
    else:
        brush.oval(0, -6, 35, 37, colour, EDGE)


def face(brush: Brush, person: Person, look: Look) -> None:
    """Skin, and on it everything but the hair."""
    skin = shade(SKIN[person.skin], look.skin)
    if person.gender == "man":
        for side in (-1, 1):
            brush.oval(32 * side, 8, 5, 7, skin, EDGE)
    brush.oval(0, 7, 31, 32, INK)
    brush.oval(0, 7, 31 - EDGE / 2, 32 - EDGE / 2, skin)
    bearded = person.gender == "man" and person.age != "young"
    if bearded:
        brush.chord(0, 7, 29.9, 30.9, 5, 175, mix(skin, (58, 38, 32), 0.42))
        brush.oval(0, 1, 24, 17, skin)
    shadow = mix(skin, (70, 24, 16), 0.45)
    if person.age == "old":
        for side in (-1, 1):
            brush.line([(14 * side, 16), (19 * side, 20), (20 * side, 27)], shadow, 2.6)
            brush.line([(24 * side, 13), (28 * side, 16)], shadow, 2.2)
            brush.line([(24 * side, 17), (28 * side, 20)], shadow, 2.2)
    brush.oval(0, 14, 3, 2.2, shadow)
    if bearded and look.moustache:
        brush.polygon([(0, 15), (13, 21), (11, 24), (0, 20), (-11, 24), (-13, 21)], BROW)
    _mouth(brush, person)
    for side in (-1, 1):
        _eye(brush, person, side)
    if person.age == "old":
        brush.line([(-4, 4), (4, 4)], (64, 62, 92), 2.6)
    _brows(brush, person)


def _eye(brush: Brush, person: Person, side: int) -> None:
    x, y = 13 * side, 5.0
    width, height, pupil = (8.4, 9.4, 5.6) if person.age == "young" else (7.0, 6.8, 3.8)
    if person.emotion == "surprised":
        width, height, pupil = width + 1.2, height + 2.2, pupil - 1
    if person.age == "old":
        brush.oval(x, y, 11.4, 11.0, (64, 62, 92))
        brush.oval(x, y, 9.2, 8.8, (216, 234, 246))
    if person.gender == "woman":
        for lift in (-6, -1):
            brush.line([(x + 5 * side, y + lift + 2), (x + 12 * side, y + lift - 3)], INK, 2.4)
    brush.oval(x, y, width, height, INK)
    brush.oval(x, y, width - 1.2, height - 1.2, WHITE)
    brush.oval(x, y + 2 if person.emotion == "sad" else y, pupil, pupil, INK)
    if person.age == "young":
        brush.oval(x + 1.5, y - 2.5, 2.2, 2.2, WHITE)
    if person.emotion == "sad":
        brush.oval(19 * side, 20, 3.8, 5.5, (70, 150, 255))


def _brows(brush: Brush, person: Person) -> None:
    """From the inner to the outer end; an emotion moves both ends."""
    inner, outer, width = {
        "happy": (-8.0, -6.5, 3.2),
        "sad": (-11.5, -4.5, 3.6),
        "angry": (-2.0, -10.0, 5.0),
        "surprised": (-12.0, -10.5, 3.4),
    }.get(person.emotion or "calm", (-7.8, -6.6, 3.2))
    for side in (-1, 1):
        brush.line([(5 * side, inner), (20 * side, outer)], BROW, width)


def _mouth(brush: Brush, person: Person) -> None:
    lips = person.gender == "woman"
    rim = LIPS if lips else MOUTH
    thick = 2.6 if lips else 1.6
    if person.emotion == "happy":
        brush.chord(0, 18, 15 + thick / 2, 13 + thick, 0, 180, rim)
        brush.chord(0, 19.5, 14, 11.5, 0, 180, MOUTH)
        brush.chord(0, 19.5, 13, 7, 0, 180, WHITE)
    elif person.emotion == "sad":
        brush.arc(0, 33, 13, 12, 195, 345, rim, 3.4 + thick / 2)
    elif person.emotion == "angry":
        brush.box(-13 - thick, 21 - thick, 13 + thick, 29 + thick, rim)
        brush.box(-13, 21, 13, 29, WHITE)
        brush.line([(-13, 25), (13, 25)], INK, 1.4)
        for x in (-6.5, 0, 6.5):
            brush.line([(x, 21), (x, 29)], INK, 1.4)
    elif person.emotion == "surprised":
        brush.oval(0, 25, 7 + thick, 8.5 + thick, rim)
        brush.oval(0, 25, 7, 8.5, (58, 8, 16))
    else:
        brush.line([(-8, 25), (8, 25)], rim, 2.6 + thick)


def front_hair(brush: Brush, person: Person, look: Look) -> None:
    """The fringe, above everything an emotion moves."""
    colour = shade(HAIR[person.hair], look.hair)
    part = 9 * look.parting
    if person.gender == "woman":
        brush.polygon(
            [(part, -23), (-16, -18.5), (-28, -11), (-34, 10), (-38, -8), (-22, -34), (0, -42),
             (22, -34), (38, -8), (34, 10), (28, -11), (16, -18.5)],
            colour,
        )  # fmt: skip
        brush.line([(part, -23), (part / 2, -38)], shade(colour, -34), 2.4)
    else:
        brush.polygon(
            [(-33, 2), (-28, -13), (-20, -20), (part, -18.5), (20, -21), (28, -13), (33, 2),
             (34, -14), (22, -34), (0, -41), (-22, -34), (-34, -14)],
            colour,
        )  # fmt: skip
        for x in (-12, 0, 12):
            brush.line([(x + part / 3, -36), (x + part / 2, -24)], shade(colour, -30), 2.2)
