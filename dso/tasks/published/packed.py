"""Parquet files with images in them, as the package `datasets` writes them, read without these.

An image is a pair of `bytes` and `path`. Tens of thousands of them fill a machine's memory, so the
rows are read without their bytes, each with a `PackedImage` in place of its image: a place in a
file, from which the image is taken when it is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any

from PIL import Image

from dso.tasks.files.rows import Problems, Row
from dso.tasks.pictures import read_image

BATCH = 8
"""Rows whose images are in memory at a time."""
BUFFER = 2**20
"""Bytes that are read from a file at a time."""


@dataclass(frozen=True)
class PackedImage:
    """An image inside a parquet file."""

    path: Path
    row: int
    """From 0."""
    column: str

    @property
    def name(self) -> str:
        """File, row (from 1) and column."""
        return f"{self.path}, row {self.row + 1}, field {self.column}"

    def open(self) -> Image.Image:
        """The image.

        Raises:
            FileNotFoundError, OSError, ValueError: the file is gone or another one by now, or the
                image cannot be read.
        """
        data = _bytes(self.path, self.row, self.column)
        if not data:
            raise ValueError("it is empty (0 bytes)")
        return read_image(BytesIO(data))


def packed_rows(
    path: Path, texts: Sequence[str], images: Sequence[str], problems: Problems
) -> Iterator[Row]:
    """The rows of a parquet file with some of its columns, a `PackedImage` or None for an image.

    Args:
        path: of the file.
        texts: columns that are read.
        images: columns of images.
        problems: takes what is wrong with the file.

    Raises:
        DataError: more problems than `problems` collects.
        ValueError: pyarrow is not installed.
    """
    pyarrow = _pyarrow(path)
    try:
        with _open(path) as file:
            schema = file.schema_arrow
            if _lacking(path, schema, texts, images, problems):
                return
            # Of an image only the path is read; where there is no image, there is no pair either.
            columns = [*texts, *(f"{name}.path" for name in images)]
            number = 0
            for batch in file.iter_batches(columns=columns):
                cells = [batch.column(name).to_pylist() for name in texts]
                given = [batch.column(name).is_valid().to_pylist() for name in images]
                for place in range(batch.num_rows):
                    values: dict[str, Any] = {
                        name: column[place] for name, column in zip(texts, cells, strict=True)
                    }
                    for name, column in zip(images, given, strict=True):
                        values[name] = PackedImage(path, number, name) if column[place] else None
                    number += 1
                    yield Row(f"{path}, row {number}", values)
            if not number:
                problems.add(str(path), None, "has no rows; wanted one or more")
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        problems.add(str(path), None, f"is a damaged parquet file, or none: {line}")


def parquet_folder(hub: str, patterns: Sequence[str], what: str) -> Path:
    """The folder of a data set's parquet files on the Hugging Face hub, downloaded where needed.

    Args:
        hub: id of the data set, or a folder with its files.
        patterns: of the files that are wanted.
        what: the data set's name in errors.

    Raises:
        ValueError: it cannot be downloaded.
    """
    if Path(hub).is_dir():
        return Path(hub)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub, repo_type="dataset", allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{what}: the data set {hub!r} cannot be loaded: {first}") from error


def _lacking(
    path: Path, schema: Any, texts: Sequence[str], images: Sequence[str], problems: Problems
) -> bool:
    """Whether a column is missing or no column of images, which is noted."""
    before = len(problems.found)
    has = ", ".join(map(repr, schema.names))
    for name in (*texts, *images):
        if name not in schema.names:
            problems.add(str(path), name, f"there is no such column; the file has {has}")
    for name in set(images) & set(schema.names):
        kind = schema.field(name).type
        fields = {kind.field(n).name for n in range(kind.num_fields)}
        if not {"bytes", "path"} <= fields:
            wrong = f"is of type {kind}; wanted images as `datasets` writes them, bytes and path"
            problems.add(str(path), name, wrong)
    return len(problems.found) > before


def _pyarrow(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(f'{path}: parquet files need pyarrow: pip install "dso[data]"') from None
    return pyarrow


def _open(path: Path) -> Any:
    parquet = _pyarrow(path).parquet
    return parquet.ParquetFile(path, memory_map=True, buffer_size=BUFFER)


@lru_cache(maxsize=512)
def _ends(path: Path, written: int) -> tuple[int, ...]:
    """The number of rows up to the end of each row group, of a file written at that time."""
    with _open(path) as file:
        groups = range(file.metadata.num_row_groups)
        return tuple(accumulate(file.metadata.row_group(n).num_rows for n in groups))


def _bytes(path: Path, row: int, column: str) -> bytes | None:
    """The bytes of one image; its row group is read up to it and no further."""
    pyarrow = _pyarrow(path)
    try:
        ends = _ends(path, path.stat().st_mtime_ns)
        group = next((n for n, end in enumerate(ends) if row < end), None)
        if group is None:
            raise ValueError(f"the file has {ends[-1] if ends else 0} rows by now")
        left = row - (ends[group - 1] if group else 0)
        with _open(path) as file:
            if column not in file.schema_arrow.names:
                raise ValueError("the file has no such column by now")
            name = f"{column}.bytes"
            for batch in file.iter_batches(batch_size=BATCH, row_groups=[group], columns=[name]):
                if left < batch.num_rows:
                    cell = batch.column(column)[left].as_py()
                    return None if cell is None else cell["bytes"]
                left -= batch.num_rows
    except pyarrow.ArrowException as error:
        raise ValueError(f"the file is damaged: {error}") from error
    raise ValueError("the file is cut short")
