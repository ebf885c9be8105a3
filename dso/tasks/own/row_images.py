"""The images that a row of anyone's own data names: files, by paths from the table's folder.

That each is there and not empty is checked with its row. `open_all` opens them, each once.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from stat import S_ISDIR
from typing import Any

from rich.console import Console
from rich.progress import Progress as Bar

from dso.tasks.files.problems import Problems
from dso.tasks.own.fields import Bad, names
from dso.tasks.pictures import ImageFile, Picture, open_picture

WORKERS = 4
"""Images that are open at a time, at most."""
MANY = 500
"""Images from which on a progress bar is shown."""


def row_images(values: dict[str, Any], where: str, bad: Bad) -> tuple[ImageFile, ...]:
    """The images of a row, in its order; what is wrong with one is noted.

    Args:
        values: of the row.
        where: it stands: "my.csv, line 17".
        bad: takes what is wrong.
    """
    listed = names(values, "images", bad)
    if not listed:
        return ()
    file = where.rpartition(", ")[0]
    folder = _folder(file)
    if folder is None and not all(map(os.path.isabs, listed)):
        bad.append(
            ("images", f"names files, but not from where: {file} is no file; give whole paths")
        )
        return ()
    folder = folder or Path()
    wrong = [(name, _wrong(folder / name)) for name in listed]
    bad += [("images", f"names {name!r}, which {problem}") for name, problem in wrong if problem]
    return tuple(ImageFile(folder / name) for name in listed)


@lru_cache(maxsize=64)
def _folder(file: str) -> Path | None:
    """The table's folder; None where the rows are those of a hub data set."""
    path = Path(file)
    return path.parent if path.is_file() else None


def _wrong(path: Path) -> str | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return f"does not exist in {path.parent}"
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    if S_ISDIR(found.st_mode):
        return "is a folder; wanted a file"
    return None if found.st_size else "is empty (0 bytes)"


def open_all(images: Mapping[Picture, str], problems: Problems) -> None:
    """Open every image once, a few at a time.

    Args:
        images: with the row that each is of.
        problems: takes what is wrong with them.

    Raises:
        DataError: more problems than `problems` collects.
    """
    console = Console(stderr=True)
    quiet = not console.is_terminal or len(images) < MANY
    workers = min(WORKERS, os.cpu_count() or 1)
    with (
        ThreadPoolExecutor(workers) as pool,
        Bar(console=console, transient=True, disable=quiet) as bar,
    ):
        job = bar.add_task("opening images", total=len(images))
        # In parts, so that no more than a part is under way when there are too many problems.
        size, listed = 16 * workers, list(images.items())
        for part in (listed[start : start + size] for start in range(0, len(listed), size)):
            wrongs = pool.map(_opened, [image for image, _ in part])
            for (_, where), wrong in zip(part, wrongs, strict=True):
                if wrong:
                    problems.add(where, "images", wrong)
            bar.advance(job, len(part))


def _opened(image: Picture) -> str | None:
    """What is wrong with an image."""
    try:
        open_picture(image)
    except ValueError as error:
        return str(error)
    return None
