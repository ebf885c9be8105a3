"""Damaged rows and files of the public formats: named with file and line, or counted."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dso.tasks.published.bbq import bbq
from dso.tasks.published.mmlu import read_folder
from dso.tasks.published.synthbias import synthbias
from dso.tasks.published.two_people import two_people
from tests.tasks.published.public_files import (
    Rows,
    bbq_rows,
    blank_rows,
    mmlu_rows,
    synthbias_rows,
    write_bbq,
    write_blanks,
    write_csv,
    write_mmlu,
    write_synthbias,
)

Reader = Callable[[Path], tuple[int, int]]
"""Reads a file and says how many rows there were and how many are accounted for."""


def read_synthbias(path: Path) -> tuple[int, int]:
    choices, report = synthbias(path)
    return report.rows, len(choices) + report.duplicates + sum(report.left_out.values())


def read_two_people(path: Path) -> tuple[int, int]:
    choices, report = two_people(path)
    return report.rows, len(choices) // 2 + sum(report.left_out.values())


def read_bbq(path: Path) -> tuple[int, int]:
    choices, report = bbq([path])
    return report.rows, len(choices) + report.duplicates + sum(report.left_out.values())


def read_mmlu(path: Path) -> tuple[int, int]:
    rows = path.read_bytes().count(b"\n") - 1
    return rows, len(read_folder(path.parent.parent)["test"])


def write_mmlu_test(folder: Path, rows: Rows) -> Path:
    write_mmlu(folder, ("sums",))
    return write_csv(folder / "test" / "sums_test.csv", rows)


FORMATS: dict[str, tuple[Rows, Callable[[Path, Rows], Path], Reader]] = {
    "synthbias": (synthbias_rows()[:4] + synthbias_rows()[-4:], write_synthbias, read_synthbias),
    "two_people": (blank_rows()[:8], write_blanks, read_two_people),
    "bbq": (bbq_rows(2), write_bbq, read_bbq),
    "mmlu": (mmlu_rows("sums", 8), write_mmlu_test, read_mmlu),
}
JSON_LINES = ("two_people", "bbq")
OPTIONAL = ("version", "women")


def spoil(rng: random.Random, row: dict[str, Any], objects: bool) -> dict[str, Any]:
    """The row with one field that no reader can take."""
    field = rng.choice([name for name in row if name not in OPTIONAL])
    values: list[Any] = ["", "   "]
    if objects:
        values += [None, [], {}, [[1]], {"a": None}, 1.5, True]
    spoilt = {**row, field: rng.choice(values)}
    if objects and rng.random() < 0.2:
        del spoilt[field]
    return spoilt


def garble(rng: random.Random, row: dict[str, Any]) -> dict[str, Any]:
    """The row with one text cut, doubled, exchanged with another, or full of odd characters."""
    fields = [name for name, value in row.items() if isinstance(value, str)]
    field, other = rng.choice(fields), rng.choice(fields)
    text = row[field]
    place = rng.randrange(len(text) + 1)
    value = rng.choice(
        [text[:place], text + text, row[other], text[:place] + "\u202e🙂_," + text[place:], "_"]
    )
    return {**row, field: value}


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_that_no_reader_can_take_is_named_with_its_line(name, tmp_path):
    rows, write, read = FORMATS[name]
    rng = random.Random(name)
    for _ in range(80):
        place = rng.randrange(len(rows))
        spoilt = spoil(rng, rows[place], name in JSON_LINES)
        path = write(tmp_path, [*rows[:place], spoilt, *rows[place + 1 :]])
        line = place + (1 if name in JSON_LINES else 2)
        with pytest.raises(ValueError, match=rf"{path.name}, line {line}\b") as error:
            read(path)
        assert ": " in str(error.value)


@pytest.mark.parametrize("name", FORMATS)
def test_a_garbled_row_is_named_or_accounted_for(name, tmp_path):
    rows, write, read = FORMATS[name]
    rng = random.Random(name)
    for _ in range(80):
        place = rng.randrange(len(rows))
        given = [*rows[:place], garble(rng, rows[place]), *rows[place + 1 :]]
        path = write(tmp_path, given)
        try:
            counted, accounted = read(path)
        except ValueError as error:
            line = place + (1 if name in JSON_LINES else 2)
            assert f"{path.name}, line {line}" in str(error)
        else:
            assert counted == accounted == len(given)


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_with_damaged_bytes_is_refused_or_accounted_for(name, tmp_path):
    rows, write, read = FORMATS[name]
    rng = random.Random(name)
    path = write(tmp_path, rows)
    whole = path.read_bytes()
    for _ in range(80):
        start = rng.randrange(len(whole))
        end = start + rng.choice([0, 0, 1, 30])
        path.write_bytes(
            whole[:start] + rng.choice([b"", b'"', b"\xff", b"\0", b"\n"]) + whole[end:]
        )
        try:
            counted, accounted = read(path)
        except ValueError as error:
            assert path.name in str(error)
        else:
            assert name == "mmlu" or counted == accounted
