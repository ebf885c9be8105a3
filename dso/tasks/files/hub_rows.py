"""Rows of a data set on the hub, or of a folder that `datasets` can load, streamed."""

from __future__ import annotations

from collections.abc import Iterator

from dso.tasks.files.problems import Problems, Row


def hub_rows(name: str, config: str | None, problems: Problems) -> Iterator[Row]:
    """The rows of a data set, split by split.

    Where the data set has several splits and its rows no field `split`, a row gets the name of its
    split.

    Args:
        name: hub id, or a folder.
        config: the data set's configuration, where it has several.
        problems: takes what is wrong.

    Raises:
        DataError: more problems than `problems` collects.
        ValueError: the package `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise ValueError(
            f'the hub data set {name!r} needs the package datasets: pip install "dso[data]"'
        ) from None
    try:
        loaded = datasets.load_dataset(name, config, streaming=True)
    except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
        problems.add(name, None, f"cannot be loaded as a data set: {_first_line(error)}")
        return
    count = 0
    for split, rows in loaded.items():
        several = len(loaded) > 1
        label = f"{name} ({split})" if several else name
        number = 0
        stream = iter(rows)
        while True:
            try:
                values = next(stream)
            except StopIteration:
                break
            except (datasets.exceptions.DatasetsError, ValueError, OSError) as error:
                problems.add(
                    f"{label}, row {number + 1}", None, f"is damaged: {_first_line(error)}"
                )
                break
            number += 1
            if several and "split" not in values:
                values = {**values, "split": str(split)}
            yield Row(f"{label}, row {number}", values)
        count += number
    if not count:
        problems.add(name, None, "has no rows; wanted one or more")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
