from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dso.tasks import Choice, Option
from dso.tasks.pictures import LARGEST, ImageFile, SideBySide, open_picture

RAMP = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (16, 1))
COLOURS = np.stack([RAMP, RAMP[:, ::-1], np.full_like(RAMP, 90)], axis=-1)


def shown(path: Path) -> np.ndarray:
    return np.asarray(open_picture(ImageFile(path)), dtype=int)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp"])
def test_a_colour_picture_is_what_was_saved(tmp_path, name):
    Image.fromarray(COLOURS).save(tmp_path / name, lossless=True)
    assert np.array_equal(shown(tmp_path / name), COLOURS)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("L", "a.png"), ("1", "a.png"), ("P", "a.png"), ("P", "a.gif"), ("LA", "a.png"),
     ("RGBA", "a.png"), ("CMYK", "a.tif"), ("CMYK", "a.jpg"), ("YCbCr", "a.jpg")],
)  # fmt: skip
def test_every_mode_becomes_the_same_colours(tmp_path, mode, name):
    image = Image.fromarray(COLOURS)
    image.convert(mode).save(tmp_path / name, **({"quality": 100} if name == "a.jpg" else {}))
    wanted = np.asarray(Image.open(tmp_path / name).convert("RGB"), dtype=int)
    assert np.abs(shown(tmp_path / name) - wanted).max() <= 1
    if mode in ("RGBA", "CMYK", "YCbCr"):
        assert np.abs(shown(tmp_path / name) - COLOURS).mean() < 20


@pytest.mark.parametrize(
    ("values", "name"),
    [(RAMP.astype(np.uint16) * 257, "a.png"), (RAMP.astype(np.uint16) * 257, "a.tif"),
     (RAMP.astype(np.int32) * 1000, "a.tif"), (RAMP.astype(np.float32) / 255, "a.tif")],
    ids=["png-16", "tif-16", "tif-32", "tif-float"],
)  # fmt: skip
def test_more_than_eight_bits_are_scaled_and_not_cut_off(tmp_path, values, name):
    Image.fromarray(values).save(tmp_path / name)
    found = shown(tmp_path / name)
    assert np.abs(found[:, :, 0] - RAMP).max() <= 1
    assert np.array_equal(found[:, :, 0], found[:, :, 2])


def test_what_is_transparent_is_white(tmp_path):
    image = Image.fromarray(COLOURS)
    clear = image.copy()
    clear.putalpha(0)
    clear.save(tmp_path / "rgba.png")
    assert np.all(shown(tmp_path / "rgba.png") == 255)
    half = image.copy()
    half.putalpha(128)
    half.save(tmp_path / "half.png")
    wanted = COLOURS * (128 / 255) + 255 * (127 / 255)
    assert np.abs(shown(tmp_path / "half.png") - wanted).max() <= 1
    palette = Image.new("P", (16, 16), 1)
    palette.putpalette([10, 20, 30, 200, 0, 0])
    palette.paste(0, (0, 0, 8, 16))
    palette.save(tmp_path / "p.png", transparency=0)
    found = shown(tmp_path / "p.png")
    assert np.all(found[:, :8] == 255)
    assert np.all(found[:, 8:] == (200, 0, 0))


def test_a_picture_is_as_the_camera_was_held(tmp_path):
    image = Image.fromarray(COLOURS)
    exif = image.getexif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(shown(tmp_path / "a.png"), COLOURS[::-1, ::-1])


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.webp", "a.tif", "a.bmp"])
def test_a_picture_that_is_cut_short_is_refused(tmp_path, name):
    path = tmp_path / name
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=f"choice 'x': picture .*{name}"):
            open_picture(ImageFile(path), "choice 'x'")


def test_what_is_no_picture_is_said(tmp_path):
    path = tmp_path / "a.png"
    with pytest.raises(ValueError, match=r"a\.png does not exist"):
        open_picture(ImageFile(path))
    for data in (b"", b"hello", b"\x89PNG\r\n\x1a\n"):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"picture .*a\.png is no image that can be read"):
            open_picture(ImageFile(path))
    with pytest.raises(ValueError, match="cannot be read"):
        open_picture(ImageFile(tmp_path))


def test_a_damaged_chunk_is_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(COLOURS).save(path)
    whole = path.read_bytes()
    for place in range(30, len(whole) - 12, 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        try:
            found = shown(path)
        except ValueError as error:
            assert "a.png" in str(error)
        else:
            assert found.shape == COLOURS.shape


def test_what_is_too_large_or_too_small_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "a.png"
    for size, wrong in (
        ((9_000, 9_000), f"9000 x 9000 pixels; at most {LARGEST:,}"),
        ((20_000, 10_000), f"too many pixels; at most {LARGEST:,}"),
        ((4, 40), "4 x 40 pixels; wanted at least 8 a side"),
    ):
        Image.new("1", size).save(path)
        assert path.stat().st_size < 100_000
        with pytest.raises(ValueError, match=wrong):
            open_picture(ImageFile(path))


def test_side_by_side_keeps_order_proportions_and_height(tmp_path):
    Image.new("RGB", (20, 10), "red").save(tmp_path / "a.png")
    Image.new("RGB", (10, 40), "blue").save(tmp_path / "b.png")
    pair = SideBySide(ImageFile(tmp_path / "a.png"), ImageFile(tmp_path / "b.png"), 40, 6)
    found = np.asarray(open_picture(pair))
    assert found.shape == (40, 80 + 6 + 10, 3)
    assert np.all(found[:, :80] == (255, 0, 0))
    assert np.all(found[:, 80:86] == 255)
    assert np.all(found[:, 86:] == (0, 0, 255))
    swapped = np.asarray(open_picture(SideBySide(pair.right, pair.left, 40, 6)))
    assert np.array_equal(swapped[:, 16:], found[:, :80])
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"choice 'x': .*b\.png is no image"):
        open_picture(pair, "choice 'x'")


def test_pictures_that_are_equal_have_one_hash_and_travel_between_processes(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    one, same = ImageFile(tmp_path / "a.png"), ImageFile(tmp_path / "a.png")
    assert one == same and hash(one) == hash(same)
    assert SideBySide(one, same) != SideBySide(one, same, 40)
    assert pickle.loads(pickle.dumps(SideBySide(one, same))) == SideBySide(same, one)
    choice = Choice(
        "x", "capability", "What?", (Option("a"), Option("b")), truth=0, pictures=(one,)
    )
    assert choice.pictures == (same,)
