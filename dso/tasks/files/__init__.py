"""Data files as rows, one at a time, and what is wrong with them by file, line and field."""

from dso.tasks.files.problems import DataError, Problems, Row
from dso.tasks.files.rows import SUFFIXES, read_rows

__all__ = ["SUFFIXES", "DataError", "Problems", "Row", "read_rows"]
