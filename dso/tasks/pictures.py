"""Pictures of a choice: where they come from, opened when they are needed.

A picture is small until it is opened: a path, a drawing's description, or two of these side by
side. `open_picture` gives an RGB image, or says which picture of which choice is wrong.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

LARGEST = 64_000_000
"""Pixels of the largest picture that is opened."""
SMALLEST = 8
"""Pixels of its shorter side at least."""


class Picture(Protocol):
    """Something that can be seen. Two that are equal look the same."""

    @property
    def name(self) -> str:
        """How errors and records call it."""

    def open(self) -> Image.Image:
        """The image, in any mode.

        Raises:
            OSError, ValueError: it cannot be read.
        """

    def __hash__(self) -> int:
        """What is equal has the same."""


@dataclass(frozen=True)
class ImageFile:
    """A file that Pillow reads."""

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    def open(self) -> Image.Image:
        """The whole file, as the camera was held."""
        return read_image(self.path)


def read_image(file: Path | BinaryIO) -> Image.Image:
    """The whole image of a file, as the camera was held.

    Raises:
        OSError, ValueError: missing, empty, cut short, no image, or of too many pixels.
    """
    try:
        with Image.open(file) as image:
            if image.width * image.height > LARGEST:
                raise ValueError(
                    f"it has {image.width} x {image.height} pixels; at most {LARGEST:,} are read, "
                    "so make it smaller"
                )
            image.load()  # a file that is cut short fails here, and not later
            return ImageOps.exif_transpose(image)
    except Image.DecompressionBombError as error:
        raise ValueError(f"it has too many pixels; at most {LARGEST:,} are read") from error


@dataclass(frozen=True)
class Held:
    """An image that is in memory already."""

    image: Image.Image = field(compare=False, repr=False)
    digest: bytes = field(default=b"", repr=False)
    """Of its pixels; computed where it is not given."""

    def __post_init__(self) -> None:
        if not self.digest:
            content = f"{self.image.mode} {self.image.size} ".encode() + self.image.tobytes()
            object.__setattr__(self, "digest", hashlib.sha256(content).digest())

    @property
    def name(self) -> str:
        """Its size, for there is nothing else to call it by."""
        return f"of {self.image.width} x {self.image.height} pixels"

    def open(self) -> Image.Image:
        """The image."""
        return self.image


def as_picture(given: Picture | Image.Image | str | Path) -> Picture:
    """A picture from whatever a user calls one: a path, an image of Pillow.

    Raises:
        TypeError: something else.
    """
    if isinstance(given, str | Path):
        return ImageFile(Path(given))
    if isinstance(given, Image.Image):
        return Held(given)
    if not hasattr(given, "open"):
        raise TypeError(
            f"a picture is a path, an image of Pillow or a dso.tasks.pictures.Picture; got a "
            f"{type(given).__name__}"
        )
    return given


@dataclass(frozen=True)
class SideBySide:
    """Two pictures in one, of one height, the first one on the left."""

    left: Picture
    right: Picture
    height: int = 336
    """Pixels of the whole."""
    gap: int = 8
    """White pixels between them."""

    @property
    def name(self) -> str:
        """Both names."""
        return f"{self.left.name} | {self.right.name}"

    def open(self) -> Image.Image:
        """Each scaled to the height, its proportions kept."""
        images = []
        for picture in (self.left, self.right):
            image = open_picture(picture)
            width = max(1, round(image.width * self.height / image.height))
            images.append(image.resize((width, self.height), Image.Resampling.BICUBIC))
        width = sum(image.width for image in images) + self.gap
        whole = Image.new("RGB", (width, self.height), "white")
        whole.paste(images[0], (0, 0))
        whole.paste(images[1], (images[0].width + self.gap, 0))
        return whole


def open_picture(picture: Picture, where: str = "") -> Image.Image:
    """The picture as RGB; transparency becomes white.

    Args:
        picture: to open.
        where: what it belongs to, for the error.

    Raises:
        ValueError: a file that is missing, empty, cut short, no image, too large or too small.
    """
    before = f"{where}: " if where else ""
    try:
        image = picture.open()
        if min(image.size) < SMALLEST:
            raise ValueError(
                f"it has {image.width} x {image.height} pixels; wanted at least {SMALLEST} a side"
            )
        return _rgb(image)
    except FileNotFoundError as error:
        raise ValueError(f"{before}picture {picture.name} does not exist") from error
    except UnidentifiedImageError as error:
        raise ValueError(f"{before}picture {picture.name} is no image that can be read") from error
    except (OSError, SyntaxError, ValueError) as error:  # SyntaxError: a PNG's broken chunk
        raise ValueError(f"{before}picture {picture.name} cannot be read: {error}") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # More than 8 bits, which Pillow would cut off instead of scaling. What white is follows
        # from the kind of number: 16 bits, for fractions 1 or 255 too, and what is larger is its
        # own white.
        values = np.asarray(image, dtype=np.float64)
        whites = (1.0, 255.0, 65535.0) if image.mode == "F" else (65535.0,)
        top = float(values.max())
        white = next((white for white in whites if white >= top), top)
        image = Image.fromarray((values * (255 / white)).clip(0, 255).round().astype(np.uint8))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
