"""Small parquet files of our own in the formats of the public data sets with images."""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
from PIL import Image

Rows = list[dict[str, Any]]

IMAGE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
WORK = (
    "plumber", "electrician", "carpenter", "firefighter", "security guard", "chef", "driver",
    "CEO", "mechanic", "nurse", "librarian", "receptionist", "cashier", "housekeeper", "recruiter",
    "hairdresser", "Florist", "teacher", "farmer", "clerk",
)  # fmt: skip
RACES = ("White", "Black", "Middle Eastern")
LEADS = ("a", "A photo of a", "A picture of a")


def png(colour: tuple[int, int, int], size: tuple[int, int] = (16, 12)) -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def packed(data: bytes | None, path: str | None = None) -> dict[str, Any]:
    """An image as the package `datasets` writes it."""
    return {"bytes": data, "path": path}


def write_parquet(path: Path, rows: Rows, group: int = 7) -> Path:
    """The rows; columns named image... are images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {}
    for name in rows[0]:
        kind = IMAGE if name.startswith("image") else pyarrow.string()
        columns[name] = pyarrow.array([row[name] for row in rows], kind)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=group)
    return path


def social_row(
    number: int, occupation: str, value: str, gender: str, lead: str = "a", set_: str | None = None
) -> dict[str, Any]:
    """A row; women are red, the value is in the green and the number of the set in the blue."""
    shade = (*RACES, "old", "young").index(value) if value in (*RACES, "old", "young") else 9
    colour = (200 if gender == "female" else 20, 40 * shade, number % 256)
    return {
        "image": packed(png(colour)),
        "caption": f"{lead} {value} {gender} {occupation}",
        "counterfactual_set": set_ or f"race_gender_{occupation.lower()}_{number}",
        "a1a2": f"{value} {gender}", "a1": value, "a2": gender, "a1_type": "race",
        "a2_type": "gender",
    }  # fmt: skip


def social_rows(work: tuple[str, ...] = WORK, sets: int = 2) -> Rows:
    """Sets of three races and two genders, so many for each occupation."""
    rows = []
    for number, (occupation, copy) in enumerate(product(work, range(sets))):
        lead = LEADS[(number + copy) % len(LEADS)]
        for value, gender in product(RACES, ("male", "female")):
            rows.append(social_row(number, occupation, value, gender, lead))
    return rows


def write_social(folder: Path, rows: Rows | None = None) -> Path:
    """Two files, as the hub names them; returns the folder of `data`."""
    rows = social_rows() if rows is None else rows
    half = max(1, len(rows) // 2)
    for number, part in enumerate((rows[:half], rows[half:])):
        if part:
            write_parquet(folder / "data" / f"train-0000{number}-of-00002.parquet", part)
    return folder


def mmmu_row(
    number: int, split: str = "validation", subject: str = "Art", **changes: Any
) -> dict[str, Any]:
    """A question with one image; the right answer goes round the letters."""
    images = {f"image_{n}": None for n in range(1, 8)}
    return {
        "id": f"{split}_{subject}_{number}", "question": f"What is {number} in <image 1>?",
        "options": "['red', \"the painter's\", 'blue']", "explanation": "",
        **images, "image_1": packed(png((number, 0, 0)), f"{number}.png"),
        "img_type": "['Paintings']", "answer": "ABC"[number % 3], "topic_difficulty": "Easy",
        "question_type": "multiple-choice", "subfield": "Drawing",
    } | changes  # fmt: skip


def write_mmmu(
    folder: Path, subjects: tuple[str, ...] = ("Art", "Art_Theory"), rows: Rows | None = None
) -> Path:
    """Five dev and six validation questions of each subject; `rows` are the first's validation."""
    for subject in subjects:
        for split, count in (("dev", 5), ("validation", 6)):
            made = [mmmu_row(n, split, subject) for n in range(count)]
            if rows is not None and split == "validation" and subject == subjects[0]:
                made = rows
            write_parquet(folder / subject / f"{split}-00000-of-00001.parquet", made)
    return folder
