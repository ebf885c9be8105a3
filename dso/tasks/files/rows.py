"""Rows of CSV, JSON lines and parquet files, one at a time, each with the place it stands at.

Whatever is wrong with a file is collected in `Problems` with file, line and field and said at once;
nothing is skipped in silence and no file is held in memory. What the fields mean is said in
`schema.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from pathlib import Path

from dso.tasks.files.csv_rows import csv_rows
from dso.tasks.files.json_rows import json_rows
from dso.tasks.files.parquet_rows import parquet_rows
from dso.tasks.files.problems import DataError, Problems, Progress, Row

__all__ = ["SUFFIXES", "DataError", "Problems", "Row", "read_rows"]

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Endings of the files that can be read."""


def read_rows(
    path: str | Path, problems: Problems, progress: Progress = lambda share: None
) -> Iterator[Row]:
    """The rows of a CSV, TSV, JSON lines or parquet file, in order.

    A row that cannot be read is noted in `problems` and not yielded; the rows behind it are.

    Args:
        path: of the file; its ending says what it is.
        problems: takes what is wrong; call `check` when the rows are through.
        progress: told now and then which share of the file has been read, 0 to 1.

    Raises:
        DataError: more problems than `problems` collects.
        ValueError: a parquet file, and pyarrow is not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    before, count = len(problems.found), 0
    try:
        if wrong := _unreadable(path, suffix):
            problems.add(str(path), None, wrong)
            return
        if suffix == ".parquet":
            rows = parquet_rows(path, problems, progress)
        elif suffix in (".csv", ".tsv"):
            rows = csv_rows(path, problems, progress, "\t" if suffix == ".tsv" else ",")
        else:
            rows = json_rows(path, problems, progress)
        for row in rows:
            count += 1
            yield row
    except OSError as error:
        problems.add(str(path), None, f"cannot be read: {error.strerror or error}")
    if not count and len(problems.found) == before:
        problems.add(str(path), None, "has no rows; wanted one or more")


def _unreadable(path: Path, suffix: str) -> str | None:
    if path.is_dir():
        known = sorted(file.name for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
        inside = f"such as {path / known[0]}" if known else f"ending in one of {SUFFIXES}"
        return f"is a folder; wanted a file, {inside}"
    if not path.exists():
        parent = path.parent
        names = [file.name for file in parent.iterdir()] if parent.is_dir() else []
        close = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(str(parent / name) for name in close)}?"
        if not parent.is_dir():
            return f"does not exist, nor does the folder {parent}"
        return "does not exist" + (hint if close else f"; the folder {parent} has no such file")
    if suffix not in SUFFIXES:
        return f"has the ending {suffix!r}; wanted one of {SUFFIXES}"
    return None
