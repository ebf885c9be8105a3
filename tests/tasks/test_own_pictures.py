"""Anyone's own rows with pictures: read, checked by row and field, opened by `dso check`."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from dso.cli import main
from dso.tasks import Own, twin_pairs
from dso.tasks.files import DataError
from dso.tasks.own import Source, read_choices
from dso.tasks.pictures import ImageFile, open_picture

DOCS = Path("docs/own-data.md").read_text(encoding="utf-8")
HEADER = (
    "id", "kind", "prompt", "images", "option_1", "option_1_side", "option_2", "option_2_side",
    "truth", "occupations", "gender", "first", "twin", "split",
)  # fmt: skip
WHO = "Which person is the {}, the one on the left or the one on the right?"


def picture(path: Path, colour: str = "red", size: tuple[int, int] = (20, 10)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def rows(folder: Path) -> list[dict[str, str]]:
    """A pair of twins and a gender-needed question in each split, their pictures made."""
    made = []
    for split in ("train", "validation", "test"):
        shown = [f"people/{split}-{gender}.png" for gender in ("male", "female")]
        for name, colour in zip(shown, ("red", "blue"), strict=True):
            picture(folder / name, colour)
        common = {"option_1": "left", "option_2": "right", "split": split}
        for number, gender in enumerate(("male", "female")):
            sides = ("pro", "anti")[:: -1 if number else 1]
            made.append(common | {
                "kind": "ambiguous", "prompt": WHO.format("plumber"), "images": shown[number],
                "option_1_side": sides[0], "option_2_side": sides[1], "occupations": "plumber",
                "gender": gender, "first": "left", "twin": split, "id": f"{split}-{gender}",
            })  # fmt: skip
        made.append(common | {
            "kind": "gender_needed", "prompt": WHO.format("woman"), "images": "|".join(shown),
            "truth": "left", "id": f"{split}-woman",
        })  # fmt: skip
    return made


def write(path: Path, given: list[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, HEADER, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(given)
        return path
    listed = [
        {name: value for name, value in row.items() if value}
        | {"images": row["images"].split("|")}
        for row in given
    ]  # fmt: skip
    if path.suffix == ".parquet":
        names = [name for name in HEADER if name != "images"]
        columns = {name: [row.get(name) for row in given] for name in names}
        columns["images"] = [row["images"] for row in listed]
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return path
    path.write_text("".join(json.dumps(row) + "\n" for row in listed), encoding="utf-8")
    return path


def read(path: Path, **settings):
    return read_choices(Source((str(path),)), **settings)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_pictures_lie_beside_the_table_in_every_format(tmp_path, suffix, monkeypatch):
    path = write(tmp_path / f"my{suffix}", rows(tmp_path))
    data = Own(str(path)).load()
    assert [c.pictures for c in data.train] == [
        (ImageFile(tmp_path / "people" / f"train-{gender}.png"),) for gender in ("male", "female")
    ] or [c.pictures for c in data.train[::-1]] == [
        (ImageFile(tmp_path / "people" / f"train-{gender}.png"),) for gender in ("male", "female")
    ]
    assert len(twin_pairs(data.train)) == 1
    (needed,) = data.pool
    assert [open_picture(shown).getpixel((0, 0)) for shown in needed.pictures] == [
        (255, 0, 0), (0, 0, 255),
    ]  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert [open_picture(c.pictures[0]).size for c in Own(f"my{suffix}").load().train] == [
        (20, 10)
    ] * 2


def test_an_absolute_path_and_a_row_without_pictures_stay_as_they_are(tmp_path):
    given = rows(tmp_path / "a")
    for row in given:
        row["images"] = "|".join(str(tmp_path / "a" / name) for name in row["images"].split("|"))
    given[2]["images"] = ""
    data = Own(str(write(tmp_path / "b" / "my.csv", given))).load()
    assert data.pool[0].pictures == ()
    assert all(c.pictures[0].path.parent == tmp_path / "a" / "people" for c in data.train)


def spoil(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "bomb":
        Image.new("1", (20_000, 10_000)).save(path)
    elif how == "large":
        Image.new("1", (9_000, 9_000)).save(path)
    elif how == "small":
        Image.new("1", (4, 40)).save(path)
    else:
        path.write_bytes({"empty": b"", "cut": whole[: len(whole) - 30], "text": b"none"}[how])


BAD = {
    "missing": "names 'people/test-male.png', which does not exist in ",
    "empty": r"names 'people/test-male.png', which is empty \(0 bytes\)",
    "folder": "names 'people/test-male.png', which is a folder; wanted a file",
    "cut": "test-male.png cannot be read: ",
    "text": "test-male.png is no image that can be read",
    "bomb": "test-male.png cannot be read: it has too many pixels",
    "large": "test-male.png cannot be read: it has 9000 x 9000 pixels; at most 64,000,000",
    "small": "test-male.png cannot be read: it has 4 x 40 pixels",
}


@pytest.mark.parametrize("how", BAD)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_bad_picture_is_named_with_row_and_field(tmp_path, how, suffix):
    path = write(tmp_path / f"my{suffix}", rows(tmp_path))
    spoil(tmp_path / "people" / "test-male.png", how)
    place = {".csv": "line 8", ".jsonl": "line 7", ".parquet": "row 7"}[suffix]
    with pytest.raises(DataError, match=rf"my{suffix}, {place}, field images: .*{BAD[how]}"):
        read(path, open_images=True)
    if how in ("missing", "empty", "folder"):
        with pytest.raises(ValueError, match=rf"{place}, field images: {BAD[how]}"):
            Own(str(path)).load()
    else:
        choice = next(c for c in Own(str(path)).load().evaluation if c.id == "test-male")
        with pytest.raises(ValueError, match=f"choice 'test-male': .*{BAD[how]}"):
            open_picture(choice.pictures[0], f"choice {choice.id!r}")


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ("people/train-male.png|", "has an item 2 that is empty"),
        ("people/train-male.png|people/train-male.png", "has 'people/train-male.png' twice"),
        (" people/train-male.png", "remove the spaces"),
        ("people/train-male.png\a", "has a control character"),
    ],
)
def test_what_is_no_list_of_paths_is_said(tmp_path, given, wrong):
    made = rows(tmp_path)
    made[0]["images"] = given
    with pytest.raises(DataError, match=wrong):
        read(write(tmp_path / "my.jsonl" if "\a" in given else tmp_path / "my.csv", made))


def test_images_that_are_no_paths_are_refused(tmp_path):
    made = rows(tmp_path)
    path = write(tmp_path / "my.jsonl", made)
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"images": [{"bytes": "abc", "path": None}]})
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match="line 1, field images: has an item 1 that is an object"):
        read(path)


def test_every_bad_picture_is_said_and_too_many_stop_the_reading(tmp_path):
    path = write(tmp_path / "my.csv", rows(tmp_path))
    for gender in ("male", "female"):
        for split in ("train", "test"):
            spoil(tmp_path / "people" / f"{split}-{gender}.png", "text")
    with pytest.raises(DataError) as error:
        read(path, open_images=True)
    lines = re.findall(r"line (\d+), field images", str(error.value))
    assert lines == ["2", "3", "8", "9"]  # each image once, by the first row that names it
    with pytest.raises(DataError, match=r"stopped after 3 problem\(s\)"):
        read(path, open_images=True, limit_errors=3)


def test_check_opens_the_pictures_and_says_how_many(tmp_path, capsys):
    path = write(tmp_path / "my.csv", rows(tmp_path))
    assert main(["check", "--data", str(path)]) == 0
    assert "6 images, which all open" in capsys.readouterr().out
    spoil(tmp_path / "people" / "validation-female.png", "cut")
    assert main(["check", "--data", str(path)]) == 2
    assert "my.csv, line 6, field images: " in capsys.readouterr().err


def test_options_that_differ_only_in_case_are_refused(tmp_path):
    made = rows(tmp_path)
    made[2] |= {"option_2": "LEFT"}
    with pytest.raises(
        DataError, match="line 4, field option_2: is 'LEFT', which differs from 'left' in case only"
    ):
        read(write(tmp_path / "my.csv", made))


def test_rows_of_a_hub_data_set_name_whole_paths(tmp_path):
    pytest.importorskip("datasets")
    made = rows(tmp_path / "a")
    folder = write(tmp_path / "b" / "my.jsonl", made).parent
    with pytest.raises(DataError, match="field images: names files, but not from where"):
        read_choices(Source(hub=str(folder)))
    for row in made:
        row["images"] = "|".join(str(tmp_path / "a" / name) for name in row["images"].split("|"))
    folder = write(tmp_path / "c" / "my.jsonl", made).parent
    found = read_choices(Source(hub=str(folder)), open_images=True)
    assert found.images == 6
    assert found.of("train")[0].pictures[0].path.parent == tmp_path / "a" / "people"


def test_the_example_in_the_documentation_is_right(tmp_path):
    (text,) = [
        block for block in re.findall(r"```csv\n(.*?)```", DOCS, flags=re.DOTALL)
        if ",images," in block.splitlines()[0]
    ]  # fmt: skip
    for name in set(re.findall(r"pictures/[\w-]+\.png", text)):
        picture(tmp_path / name)
    (tmp_path / "my.csv").write_text(text, encoding="utf-8")
    found = read(tmp_path / "my.csv", open_images=True)
    assert (found.images, found.twins.pairs) == (2, 1)
    assert [choice.kind for choice in found.of("train")] == ["ambiguous"] * 2 + ["gender_needed"]
