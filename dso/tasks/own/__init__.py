"""Anyone's own choices: one schema for CSV, JSON lines, parquet and the hub, and the task."""

from dso.tasks.own.reading import OwnData, Source, read_choices
from dso.tasks.own.row_choice import parse_row
from dso.tasks.own.schema import FIELDS, field_table
from dso.tasks.own.task import Own, missing_splits

__all__ = [
    "FIELDS",
    "Own",
    "OwnData",
    "Source",
    "field_table",
    "missing_splits",
    "parse_row",
    "read_choices",
]
