"""Finding a public data set's files, and taking fields from their rows.

Nothing is downloaded: a data set that is not there is named with the places that were looked at
and its public address.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from dso.tasks.files.rows import Problems, Row, read_rows


def find_data(name: str, given: str | None, what: str, address: str, file: bool = False) -> Path:
    """The path given, else the first that exists of a few usual places.

    The usual places are `$DSO_DATA/<name>`, `data/<name>` and `../shared/data/<name>`.

    Args:
        name: of the folder in the usual places.
        given: the user's path, or None.
        what: what is wanted, as an error says it ("WinoBias folder").
        address: where the public can get it.
        file: whether a file will do; else only a folder.

    Raises:
        ValueError: none of them exists; the places are named.
    """
    if given is not None:
        places = [Path(given)]
    else:
        roots = [os.environ.get("DSO_DATA"), "data", "../shared/data"]
        places = [Path(root) / name for root in roots if root]
    for place in places:
        if place.is_dir() or (file and place.is_file()):
            return place
    raise ValueError(
        f"no {what}: looked at {', '.join(map(str, places))}. Give its path (--data of "
        "`dso evaluate`, `data` of the task), or set the environment variable DSO_DATA to the "
        f"folder above it; the files are at {address}"
    )


def files_in(place: Path, pattern: str, what: str, address: str) -> list[Path]:
    """`place` where it is a file, else the folder's files of the pattern, by name.

    Raises:
        ValueError: the folder has none.
    """
    if place.is_file():
        return [place]
    files = sorted(path for path in place.glob(pattern) if path.is_file())
    if not files:
        raise ValueError(
            f"no {what}: the folder {place} has no file {pattern}; the files are at {address}"
        )
    return files


def rows_of(path: Path, fields: Sequence[str], problems: Problems) -> Iterator[Row]:
    """The rows of a file. A table without one of the columns `fields` is a problem, not rows.

    Rows of JSON lines may each lack another field; `text_of` and `value_of` say so of the row.
    """
    checked = path.suffix.lower() in (".jsonl", ".ndjson")
    for row in read_rows(path, problems):
        if not checked:
            checked = True
            missing = [field for field in fields if field not in row.values]
            for field in missing:
                has = ", ".join(map(repr, row.values))
                problems.add(str(path), field, f"there is no such column; the file has {has}")
            if missing:
                return
        yield row


def value_of(row: Row, field: str, problems: Problems) -> Any:
    """A field's value; None, and a problem, where the row has none."""
    value = row.values.get(field)
    if value is None:
        problems.add(row.where, field, "is missing; wanted a value")
    return value


def text_of(row: Row, field: str, problems: Problems) -> str | None:
    """A field's text without spaces around it; None, and a problem, where there is none."""
    value = value_of(row, field, problems)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        shown = "is empty" if isinstance(value, str) else f"is {value!r}"
        problems.add(row.where, field, f"{shown}; wanted a text")
        return None
    return value.strip()


def index_of(value: object, count: int) -> int | None:
    """A 0-based index below `count` as a whole number or its digits; None for anything else."""
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < count:
        return value
    return None
