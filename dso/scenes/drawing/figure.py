"""A whole person: posture, body, and the order in which its pieces are drawn.

Units: a grown person is 192 high, the soles at (0, 0). The head is drawn large, about 45 % of the
height, so that the face can be read. Seen from behind, every one has the same posture, hood and
gloves.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from dso.scenes.attributes import Person
from dso.scenes.drawing import attire, face, headwear, tools
from dso.scenes.drawing.canvas import INK, RGB, Brush, shade

GLOVE: RGB = (84, 88, 100)
EDGE = 2.0
HAIR, FACE, BODY = 1, 2, 3
"""Labels of one person's pixels, before those of the people to the left are added."""


@dataclass(frozen=True)
class Variation:
    """What the seed decides about a person."""

    x: float
    """Sideways, in units."""
    size: float
    """A factor."""
    cloth: float
    """Lighter or darker clothes, in levels of 255."""
    look: face.Look

    @classmethod
    def drawn(cls, place: int, seed: int) -> Variation:
        """That of the person at one place of a scene; the same for all attributes."""
        draw = random.Random(f"person {place} of scene {seed}")
        x, size, cloth, skin, hair, parting, moustache = (draw.uniform(-1, 1) for _ in range(7))
        look = face.Look(5 * skin, 7 * hair, parting, moustache > 0)
        return cls(x, 1 + 0.06 * size, 7 * cloth, look)


@dataclass(frozen=True)
class Posture:
    """What age does to the figure."""

    body: float
    """Size of the body, a factor."""
    head: float
    """Size of the head, a factor."""
    stoop: tuple[float, float]
    """Of the head: sideways and down, in units."""


POSTURES = {
    "young": Posture(0.80, 0.95, (0, 0)),
    "grown": Posture(1.0, 1.0, (0, 0)),
    "old": Posture(0.95, 0.98, (-3, 5)),
}


def figure(ground: Brush, person: Person, variation: Variation, first_label: int) -> None:
    """Draw a person.

    Args:
        ground: its (0, 0) is where the person stands, before the seed moves them.
        variation: what the seed decides.
        first_label: added to `HAIR`, `FACE` and `BODY`.
    """
    behind = person.view == "back"
    posture = POSTURES["grown" if behind else person.age]
    ground = ground.at(variation.x, 0, variation.size).labelled(first_label + BODY)
    body = ground.at(0, 0, posture.body)
    stoop_x, stoop_y = posture.stoop
    head_y = attire.SHOULDER * posture.body - 33 * posture.head + stoop_y
    head = ground.at(stoop_x, head_y, posture.head)
    hair, skin = head.labelled(first_label + HAIR), head.labelled(first_label + FACE)
    outfit = attire.OUTFITS[person.attire]
    hands = GLOVE if behind else shade(face.SKIN[person.skin], variation.look.skin)

    if not behind:
        face.back_hair(hair, person, variation.look)
    shoulder = 21.0 if behind else 24.0 if person.gender == "man" else 18.0
    _body(body, outfit, shoulder, variation.cloth, hands)
    for detail in outfit.back if behind else outfit.front:
        detail(body)
    _arms(body, shade(outfit.sleeves, variation.cloth), shoulder)
    if behind:
        headwear.hood(head)
    if person.colour:
        headwear.scarf(body, person.colour, variation.cloth, behind)
    hand = -56 * posture.body
    if person.attire:
        tools.TOOLS[person.attire](ground.at(29, hand))
    if person.activity:
        tools.THINGS[person.activity](ground.at(-29, hand))
    if not behind:
        face.face(skin, person, variation.look)
        face.front_hair(hair, person, variation.look)
        if outfit.hat:
            outfit.hat(head)
    for side in (-1, 1):
        body.oval(25 * side, -55, 4.6, 4.6, hands, 1.6)


def _body(brush: Brush, outfit: attire.Outfit, shoulder: float, lighter: float, skin: RGB) -> None:
    """Neck, legs and torso."""
    legs, top = shade(outfit.legs, lighter), shade(outfit.top, lighter)
    for side in (-1, 1):
        brush.oval(9 * side, -4, 9, 5, outfit.shoes, EDGE)
        if not outfit.long:
            left, right = sorted((1 * side, 16 * side))
            brush.box(left, -46, right, -6, legs, EDGE)
    brush.box(-7, -98, 7, -88, skin)
    hem = -8 if outfit.long else attire.WAIST
    flare = 20 if outfit.long else 17
    brush.polygon(
        [(-shoulder + 5, -92), (shoulder - 5, -92), (shoulder, -86), (flare - 1, -60),
         (flare, hem), (-flare, hem), (1 - flare, -60), (-shoulder, -86)],
        top, EDGE,
    )  # fmt: skip


def _arms(brush: Brush, colour: RGB, shoulder: float) -> None:
    """From the shoulders to the hands."""
    for edge, fill in ((EDGE, INK), (0.0, colour)):
        for side in (-1, 1):
            arm = [((shoulder - 4) * side, -86), ((shoulder + 4) * side, -69), (25 * side, -59)]
            brush.line(arm, fill, 9 + 2 * edge)
            for x, y in arm:
                brush.oval(x, y, 4.5 + edge, 4.5 + edge, fill)
