from __future__ import annotations

import io
import pickle

import pytest
from PIL import Image

from dso.tasks.files import Problems
from dso.tasks.pictures import open_picture
from dso.tasks.published.packed import PackedImage, packed_rows
from tests.tasks.published.picture_files import packed, png, write_parquet


def numbered(count):
    return [{"image": packed(png((n, 0, 0))), "name": str(n)} for n in range(count)]


def read(path, texts=("name",), images=("image",)):
    problems = Problems()
    rows = list(packed_rows(path, texts, images, problems))
    return rows, problems.found


@pytest.mark.parametrize("group", [1, 7, 8, 100])
def test_every_image_is_that_of_its_row_whatever_the_row_groups(tmp_path, group):
    path = write_parquet(tmp_path / "a.parquet", numbered(60), group)
    rows, found = read(path)
    assert not found and len(rows) == 60
    for number in (*range(0, 60, 7), 59):
        row = rows[number]
        assert row.where == f"{path}, row {number + 1}"
        assert row.values["name"] == str(number)
        picture = row.values["image"]
        assert picture == pickle.loads(pickle.dumps(picture))
        assert hash(picture) == hash(PackedImage(path, number, "image"))
        assert open_picture(picture).getpixel((0, 0)) == (number, 0, 0)


def test_a_row_without_an_image_has_none_with_or_without_a_path(tmp_path):
    rows = numbered(4)
    rows[1]["image"] = None
    rows[2]["image"] = packed(png((2, 0, 0)), "two.png")
    found, _ = read(write_parquet(tmp_path / "a.parquet", rows))
    assert [row.values["image"] is None for row in found] == [False, True, False, False]


def test_images_are_not_read_with_the_rows(tmp_path):
    rows = numbered(3)
    for row in rows:
        row["image"] = packed(b"no image at all")
    found, wrong = read(write_parquet(tmp_path / "a.parquet", rows))
    assert len(found) == 3 and not wrong
    with pytest.raises(ValueError, match="row 2, field image is no image"):
        open_picture(found[1].values["image"])


def test_a_file_that_changed_or_is_gone_is_said(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", numbered(2))
    with pytest.raises(
        ValueError, match=r"row 10, field image cannot be read: the file has 2 rows"
    ):
        open_picture(PackedImage(path, 9, "image"))
    gone = PackedImage(tmp_path / "b.parquet", 0, "image")
    with pytest.raises(ValueError, match=r"b\.parquet, row 1, field image does not exist"):
        open_picture(gone)
    other = write_parquet(tmp_path / "c.parquet", [{"name": "a"}])
    with pytest.raises(ValueError, match=r"c\.parquet, row 1, field image cannot be read"):
        open_picture(PackedImage(other, 0, "image"))


def test_a_cut_file_is_a_problem_of_the_file(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", numbered(2))
    for data in (path.read_bytes()[:-20], b"", b"text"):
        path.write_bytes(data)
        rows, found = read(path)
        assert not rows and len(found) == 1 and "a damaged parquet file" in found[0]
    assert "damaged" in read(tmp_path / "nowhere.parquet")[1][0]
    empty = write_parquet(tmp_path / "b.parquet", numbered(1))
    table = __import__("pyarrow").parquet.read_table(empty).slice(0, 0)
    __import__("pyarrow").parquet.write_table(table, empty)
    assert "has no rows" in read(empty)[1][0]


def test_the_package_datasets_writes_what_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    images = [Image.new("RGB", (16, 12), (n, 0, 0)) for n in range(3)]
    made = datasets.Dataset.from_dict(
        {"image": [*images, None], "name": ["a", "b", "c", "d"]},
        features=datasets.Features({"image": datasets.Image(), "name": datasets.Value("string")}),
    )
    path = tmp_path / "a.parquet"
    made.to_parquet(str(path))
    rows, found = read(path)
    assert not found and rows[3].values["image"] is None
    for number in range(3):
        assert open_picture(rows[number].values["image"]).getpixel((0, 0)) == (number, 0, 0)


def test_an_image_as_a_camera_held_it_stands_upright(tmp_path):
    image = Image.new("RGB", (20, 10), "red")
    image.paste((0, 0, 255), (10, 0, 20, 10))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn to the right
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, quality=100)
    rows = [{"image": packed(file.getvalue()), "name": "a"}]
    found, _ = read(write_parquet(tmp_path / "a.parquet", rows))
    shown = open_picture(found[0].values["image"])
    assert shown.size == (10, 20)
    assert shown.getpixel((5, 3))[0] > 200 > shown.getpixel((5, 16))[0]
