"""Rows of CSV files, with the line each starts on."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from dso.tasks.files.lines import REPORT, Lines, bad_text, other_encoding
from dso.tasks.files.problems import Problems, Progress, Row


def csv_rows(path: Path, problems: Problems, progress: Progress, delimiter: str) -> Iterator[Row]:
    """The rows of a CSV file, cells as they are; see `read_rows`."""
    name = str(path)
    with path.open("rb") as raw:
        if wrong := other_encoding(raw):
            problems.add(f"{name}, line 1", None, wrong)
            return
        size = max(1, path.stat().st_size)
        lines = Lines(raw)
        # Strict: an unclosed quote is an error here, not a cell that swallows the file.
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        while True:
            lines.start()
            try:
                cells = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                problems.add(f"{name}, line {lines.first}", None, _csv_message(str(error)))
                if header is None:
                    return
                lines.back_to_second()
                continue
            if len(cells) <= 1 and not "".join(cells).strip():
                continue
            where = f"{name}, line {lines.first}"
            if header is None:
                if wrong := _bad_header(cells, delimiter):
                    problems.add(where, None, wrong)
                    return
                header = cells
                continue
            if len(cells) != len(header):
                problems.add(
                    where, None,
                    f"has {len(cells)} cell(s), but the header names {len(header)} columns"
                    + ("; is a cell with a comma or line break not quoted?"
                       if len(cells) > len(header) else ""),
                )  # fmt: skip
                continue
            if lines.odd and bad_text("".join(map(str, lines.record))):
                wrongs = [
                    (field, bad_text(cell)) for field, cell in zip(header, cells, strict=True)
                ]
                if problems.add_all(where, wrongs):
                    continue
            if lines.number % REPORT == 0:
                progress(raw.tell() / size)
            yield Row(where, dict(zip(header, cells, strict=True)))
        if header is None:
            problems.add(name, None, "is empty; wanted a header line and rows")


def _csv_message(error: str) -> str:
    if "unexpected end of data" in error:
        return "opens a quote that is never closed"
    if "expected after" in error:
        return (
            'has a quote (") inside a quoted cell, or one that is not closed; write "" for a quote'
        )
    if "field larger" in error:
        return f"has a cell of more than {csv.field_size_limit():,} characters, or an open quote"
    return f"cannot be read: {error}"


def _bad_header(names: list[str], delimiter: str) -> str | None:
    for number, name in enumerate(names, 1):
        if not name.strip():
            return f"column {number} of the header has no name"
        if wrong := bad_text(name):
            return f"column {number} of the header {wrong}"
        if name in names[: number - 1]:
            return f"the header names {name!r} twice (columns {names.index(name) + 1} and {number})"
    others = [mark for mark in (";", "\t", ",") if mark != delimiter and mark in names[0]]
    if len(names) == 1 and others:
        return (
            f"the header is one column with {others[0]!r} in it; wanted columns separated by "
            f"{delimiter!r} (a file with tabs ends in .tsv)"
        )
    return None
