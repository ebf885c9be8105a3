"""Rows of parquet files, read in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dso.tasks.files.problems import Problems, Progress, Row

BATCH = 1024
"""Rows that are held at a time."""


def parquet_rows(path: Path, problems: Problems, progress: Progress) -> Iterator[Row]:
    """The rows of a parquet file; see `read_rows`.

    Raises:
        ValueError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f'{path}: parquet files need pyarrow: pip install "dso[data]"') from None
    name, row = str(path), 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            fields = file.schema_arrow.names
            repeated = sorted({field for field in fields if fields.count(field) > 1})
            if repeated:
                problems.add(name, None, f"has columns of one name: {repeated}")
                return
            total = max(1, file.metadata.num_rows)
            for batch in file.iter_batches(batch_size=BATCH):
                if batch.num_rows == 0:
                    continue
                columns = [_column(batch.column(n)) for n in range(len(fields))]
                for cells in zip(*columns, strict=True):
                    row += 1
                    where = f"{name}, row {row}"
                    wrongs = [
                        (field, str(cell))
                        for field, cell in zip(fields, cells, strict=True)
                        if isinstance(cell, _Unreadable)
                    ]
                    if not problems.add_all(where, list(wrongs)):
                        yield Row(where, dict(zip(fields, cells, strict=True)))
                progress(row / total)
    except pyarrow.ArrowException as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        behind = f" behind row {row}" if row else ""
        problems.add(name, None, f"is a damaged parquet file, or none{behind}: {line}")


class _Unreadable(str):
    """Why a cell of a parquet file has no value."""

    __slots__ = ()


def _column(column: Any) -> list[Any]:
    try:
        cells: list[Any] = column.to_pylist()
        return cells
    except (ValueError, OverflowError):
        return [_cell(value) for value in column]


def _cell(value: Any) -> Any:
    try:
        return value.as_py()
    except UnicodeDecodeError:
        return _Unreadable("is not UTF-8")
    except (ValueError, OverflowError) as error:
        return _Unreadable(f"cannot be read: {error}")
