"""Garments: for each attire a shape and colours of its own.

Units: the middle of the soles is (0, 0), the shoulders are at y = -92, the waist at -42. Nothing
here depends on the person: of two people in one attire either may have either of its occupations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dso.scenes.drawing import headwear
from dso.scenes.drawing.canvas import INK, RGB, Brush, shade

WHITE: RGB = (250, 250, 250)
STEEL: RGB = (186, 194, 206)
GOLD: RGB = (250, 196, 44)
SHOULDER, WAIST = -92.0, -42.0

Detail = Callable[[Brush], None]


def v_neck(brush: Brush, colour: RGB) -> None:
    """An open collar."""
    brush.polygon([(-9, -90), (9, -90), (0, -72)], colour, 1.2)


def buttons(brush: Brush, colour: RGB) -> None:
    """Two columns of buttons."""
    for y in (-76, -65, -54):
        brush.oval(-6, y, 2.6, 2.6, colour)
        brush.oval(6, y, 2.6, 2.6, colour)


def apron(brush: Brush, colour: RGB) -> None:
    """A bib, two straps and a skirt."""
    for side in (-1, 1):
        brush.line([(11 * side, -92), (9 * side, -74)], colour, 4)
    brush.polygon([(-12, -76), (12, -76), (16, -26), (-16, -26)], colour, 1.4)
    brush.box(-7, -56, 7, -48, shade(colour, -26))


def apron_strings(brush: Brush, colour: RGB) -> None:
    """An apron from behind: crossed straps and a bow."""
    brush.line([(-14, -92), (12, -52)], colour, 5)
    brush.line([(14, -92), (-12, -52)], colour, 5)
    brush.box(-17, -53, 17, -47, colour)
    for side in (-1, 1):
        brush.polygon([(0, -50), (9 * side, -56), (9 * side, -43)], colour, 1)


def dungarees(brush: Brush, colour: RGB) -> None:
    """A bib that goes over into the trousers."""
    for side in (-1, 1):
        brush.line([(13 * side, -92), (11 * side, -72)], colour, 6)
    brush.polygon([(-14, -74), (14, -74), (17, -40), (-17, -40)], colour, 1.4)
    for side in (-1, 1):
        brush.oval(11 * side, -71, 2.6, 2.6, GOLD)


def suit(brush: Brush, shirt: RGB, tie: RGB) -> None:
    """A shirt and a tie between lapels."""
    brush.polygon([(-11, -92), (11, -92), (0, -58)], shirt, 1.2)
    brush.polygon([(-3.5, -86), (3.5, -86), (4, -68), (0, -60), (-4, -68)], tie)


def bands(brush: Brush, colour: RGB) -> None:
    """The white bands of a gown."""
    for side in (-1, 1):
        brush.polygon([(0, -88), (7 * side, -88), (11 * side, -60), (3 * side, -60)], colour, 0.8)


def open_coat(brush: Brush, shirt: RGB) -> None:
    """A coat that shows the shirt below, with a pocket."""
    brush.polygon([(-9, -92), (9, -92), (5, -44), (-5, -44)], shirt, 1.2)
    brush.line([(0, -44), (0, -20)], INK, 1.6)
    brush.box(-17, -58, -9, -50, (80, 190, 120))


def stripes(brush: Brush, colour: RGB) -> None:
    """Two bands that shine around the chest and two over the shoulders."""
    for side in (-1, 1):
        brush.line([(11 * side, -92), (11 * side, -44)], colour, 5)
    brush.box(-17, -64, 17, -58, colour)


def pinstripes(brush: Brush, colour: RGB) -> None:
    """Thin vertical lines."""
    for x in (-13, -8, 8, 13):
        brush.line([(x, -86), (x, -44)], colour, 1.8)


def splashes(brush: Brush) -> None:
    """Of paint, in many colours."""
    for x, y, radius, colour in (
        (-9, -78, 4.4, (235, 60, 60)), (8, -70, 4.8, (60, 130, 235)),
        (-5, -58, 4.2, (255, 200, 40)), (10, -52, 3.8, (60, 180, 90)),
        (-10, -28, 4.0, (255, 128, 10)), (9, -20, 4.2, (200, 70, 200)),
    ):  # fmt: skip
        brush.oval(x, y, radius, radius, colour)


def lanyard(brush: Brush, colour: RGB) -> None:
    """A badge around the neck."""
    brush.line([(-9, -92), (0, -64), (9, -92)], colour, 3)
    brush.box(-6, -66, 6, -52, WHITE, 1.2)
    brush.box(-3, -63, 3, -58, (70, 120, 200))


def stethoscope(brush: Brush, colour: RGB) -> None:
    """Around the neck."""
    brush.line([(-10, -92), (-9, -74), (-6, -62)], colour, 3.4)
    brush.line([(10, -92), (9, -80)], colour, 3.4)
    brush.oval(-6, -59, 4.6, 4.6, STEEL, 1.2)


def tape(brush: Brush, colour: RGB) -> None:
    """A tape measure around the neck."""
    for side in (-1, 1):
        brush.line([(12 * side, -92), (13 * side, -58)], colour, 5)
        for y in (-80, -72, -64):
            brush.line([(10.5 * side, y), (14.5 * side, y)], INK, 1.4)


def collar(brush: Brush, colour: RGB) -> None:
    """A broad collar, and a hem of the same colour."""
    brush.polygon([(-14, -92), (14, -92), (7, -80), (-7, -80)], colour, 1)
    brush.line([(8, -80), (8, -44)], colour, 3.6)


def bow_tie(brush: Brush, shirt: RGB, tie: RGB) -> None:
    """On a shirt front."""
    brush.polygon([(-9, -92), (9, -92), (6, -60), (-6, -60)], shirt, 1)
    for side in (-1, 1):
        brush.polygon([(0, -80), (8 * side, -86), (8 * side, -74)], tie, 1)


def yoke(brush: Brush, colour: RGB) -> None:
    """From behind: a broad piece over the shoulders, with a seam below."""
    brush.box(-17, -92, 17, -76, colour)
    brush.line([(0, -76), (0, -44)], colour, 2.6)


def neckline(brush: Brush, colour: RGB) -> None:
    """Of a plain shirt."""
    brush.chord(0, -92, 9, 9, 0, 180, colour)


def belt(brush: Brush, colour: RGB) -> None:
    """Around the waist."""
    brush.box(-17, -52, 17, -46, colour)


def seam(brush: Brush, colour: RGB) -> None:
    """From the neck to the hem of a long garment."""
    brush.line([(0, -88), (0, -10)], colour, 3)


@dataclass(frozen=True)
class Outfit:
    """A garment and what goes with it."""

    top: RGB
    sleeves: RGB
    legs: RGB
    front: tuple[Detail, ...]
    """Drawn on the garment of a person seen from the front, in this order."""
    back: tuple[Detail, ...]
    """The same for one seen from behind."""
    hat: Detail | None = None
    long: bool = False
    """Whether the garment reaches down over the legs."""
    shoes: RGB = (66, 58, 62)


GREY: RGB = (110, 116, 130)
BEIGE: RGB = (206, 196, 178)
TEAL: RGB = (24, 160, 152)
LILAC: RGB = (186, 160, 236)
NAVY: RGB = (28, 42, 96)
CHARCOAL: RGB = (60, 60, 68)
SKY: RGB = (96, 176, 240)
LEMON: RGB = (255, 226, 70)
BLACK: RGB = (42, 39, 48)
MAGENTA: RGB = (236, 60, 150)
CREAM: RGB = (246, 232, 190)
LEAF: RGB = (58, 140, 60)
RUST: RGB = (214, 72, 50)
LEATHER: RGB = (132, 88, 52)
INDIGO: RGB = (92, 70, 180)
LIME: RGB = (204, 246, 40)
SLATE: RGB = (78, 84, 98)
DENIM: RGB = (52, 92, 176)
WINE: RGB = (140, 36, 62)

OUTFITS: dict[str | None, Outfit] = {
    None: Outfit(
        BEIGE, BEIGE, GREY,
        front=(partial(neckline, colour=(170, 158, 140)),),
        back=(partial(yoke, colour=(186, 176, 158)),),
    ),
    "scrubs": Outfit(
        TEAL, TEAL, TEAL,
        front=(partial(v_neck, colour=WHITE), partial(stethoscope, colour=INK)),
        back=(partial(yoke, colour=(140, 220, 212)),),
        hat=partial(headwear.cap, colour=(40, 180, 172)), shoes=WHITE,
    ),
    "dental": Outfit(
        LILAC, LILAC, WHITE,
        front=(partial(collar, colour=WHITE),), back=(partial(yoke, colour=WHITE),), shoes=WHITE,
    ),
    "airline": Outfit(
        NAVY, NAVY, NAVY,
        front=(partial(suit, shirt=WHITE, tie=(220, 40, 50)), partial(buttons, colour=GOLD)),
        back=(partial(belt, colour=GOLD),), hat=partial(headwear.peaked_cap, colour=NAVY),
    ),
    "kitchen": Outfit(
        WHITE, WHITE, CHARCOAL,
        front=(partial(buttons, colour=INK),), back=(partial(apron_strings, colour=CHARCOAL),),
        hat=partial(headwear.toque, colour=WHITE),
    ),
    "cleaning": Outfit(
        SKY, SKY, (60, 90, 150),
        front=(partial(apron, colour=LEMON),), back=(partial(apron_strings, colour=LEMON),),
    ),
    "salon": Outfit(
        BLACK, BLACK, GREY,
        front=(partial(apron, colour=MAGENTA),), back=(partial(apron_strings, colour=MAGENTA),),
    ),
    "garden": Outfit(
        CREAM, CREAM, (120, 86, 56),
        front=(partial(apron, colour=LEAF),), back=(partial(apron_strings, colour=LEAF),),
    ),
    "court": Outfit(
        BLACK, BLACK, BLACK,
        front=(partial(bands, colour=WHITE),), back=(partial(seam, colour=(130, 130, 150)),),
        long=True,
    ),
    "paint": Outfit(
        WHITE, (150, 156, 166), WHITE,
        front=(splashes,), back=(splashes,), hat=partial(headwear.cap, colour=(255, 150, 50)),
    ),
    "workshop": Outfit(
        RUST, RUST, DENIM,
        front=(partial(apron, colour=LEATHER), partial(tape, colour=LEMON)),
        back=(partial(apron_strings, colour=LEATHER),),
    ),
    "desk": Outfit(
        INDIGO, INDIGO, CHARCOAL,
        front=(partial(lanyard, colour=GOLD),), back=(partial(yoke, colour=(130, 110, 214)),),
    ),
    "checking": Outfit(
        LIME, GREY, CHARCOAL,
        front=(partial(stripes, colour=(222, 228, 236)),),
        back=(partial(stripes, colour=(222, 228, 236)),),
    ),
    "money": Outfit(
        SLATE, WHITE, CHARCOAL,
        front=(
            partial(pinstripes, colour=(160, 168, 184)),
            partial(bow_tie, shirt=WHITE, tie=(30, 150, 80)),
        ),
        back=(partial(pinstripes, colour=(160, 168, 184)),),
        hat=partial(headwear.visor, colour=(40, 190, 100)),
    ),
    "farm": Outfit(
        (226, 60, 54), (226, 60, 54), DENIM,
        front=(partial(dungarees, colour=DENIM),), back=(partial(dungarees, colour=DENIM),),
        hat=partial(headwear.straw_hat, colour=(244, 208, 110)), shoes=(110, 76, 44),
    ),
    "books": Outfit(
        WINE, WINE, (150, 130, 104),
        front=(partial(suit, shirt=(250, 238, 206), tie=(200, 150, 60)),),
        back=(partial(yoke, colour=(176, 70, 96)),),
    ),
    "laboratory": Outfit(
        WHITE, WHITE, GREY,
        front=(partial(open_coat, shirt=(90, 160, 230)),), back=(partial(seam, colour=STEEL),),
        long=True,
    ),
}  # fmt: skip
"""By attire; None is everyday clothes."""
