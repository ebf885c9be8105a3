"""What is wrong with some data, collected with file, line and field and said at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


class DataError(ValueError):
    """Everything that is wrong with some data, one problem a line."""


class Problems:
    """What is wrong with some data, collected to be said at once.

    Args:
        limit: so many are collected before the error is raised.
    """

    def __init__(self, limit: int = 20) -> None:
        if limit < 1:
            raise ValueError(f"the limit of problems is {limit}; wanted 1 or more")
        self.limit = limit
        self.found: list[str] = []
        self._common: set[str] = set()

    def add(self, where: str, field: str | None, message: str) -> None:
        """Note that the row or file at `where` is wrong.

        Raises:
            DataError: this is problem number `limit`.
        """
        place = where if field is None else f"{where}, field {field}"
        self.found.append(f"{place}: {message}")
        if len(self.found) >= self.limit:
            raise DataError(self._text(f"stopped after {self.limit} problem(s); there may be more"))

    def add_once(self, where: str, field: str | None, message: str, *, about: str) -> None:
        """As `add`, for what is wrong with many rows alike: `about` is said of the first only.

        Raises:
            DataError: this is problem number `limit`.
        """
        if about not in self._common:
            self._common.add(about)
            self.add(where, field, message)

    def add_all(self, where: str, fields: Iterable[tuple[str, str | None]]) -> bool:
        """Note what is wrong with the fields of a row, given (field, message or None) each.

        Returns:
            Whether anything was wrong.

        Raises:
            DataError: this made problem number `limit`.
        """
        bad = [(field, message) for field, message in fields if message]
        for field, message in bad:
            self.add(where, field, message)
        return bool(bad)

    def check(self) -> None:
        """Nothing, where nothing is wrong.

        Raises:
            DataError: something is; all of it is named.
        """
        if self.found:
            raise DataError(self._text())

    def _text(self, *more: str) -> str:
        lines = [*self.found, *more]
        return "\n".join(lines if len(lines) == 1 else [f"{len(self.found)} problem(s)", *lines])


Progress = Callable[[float], None]
"""Told now and then which share of a file has been read, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a file."""

    where: str
    """File and line on which the record starts ("my.csv, line 17"), or file and row of a parquet
    file; both count from 1."""
    values: dict[str, Any]
    """By field; strings in CSV, "" for an empty cell."""
