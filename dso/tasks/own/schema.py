"""The fields of a row of anyone's own choices: the one table that checks, help and docs come from.

A row is one `Choice`. Lists may be written as lists (JSON lines, parquet, the hub) or as one text
with "|" between the items, and options as a list of objects or as columns `option_1`,
`option_1_side`, ..., so that a CSV file says everything the others do.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import get_args

from dso.tasks.choice import KINDS, Role, Side


@dataclass(frozen=True)
class Field:
    """One field of a row, of an option or of a message."""

    name: str
    needed: str
    """When it must be given."""
    type: str
    meaning: str
    """Half a sentence: what to write into it."""
    csv: str = ""
    """How CSV has it, where that differs."""


def _one_of(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"


SPLITS = ("train", "validation", "test")
ROLES: tuple[str, ...] = get_args(Role)
SIDES: tuple[str, ...] = get_args(Side)

TEXT, ID, WORDS = "text", "text or whole number", "list of texts"

FIELDS: tuple[Field, ...] = (
    Field("kind", "always", TEXT, f"what it measures: {_one_of(KINDS)}"),
    Field("prompt", "this or messages", TEXT, "what the user asks"),
    Field(
        "messages", "this or prompt", "list of objects",
        "a conversation, oldest message first and the user's last: objects with role and content",
        csv="the list as JSON",
    ),
    Field("system", "no", TEXT, "a system message before the prompt"),
    Field(
        "images", "no", WORDS,
        "the pictures that are shown before the prompt: files, by paths from the table's folder",
        csv="left.png|right.png",
    ),
    Field(
        "options", "always", "list of objects", "the admissible answers, two or more",
        csv="option_1, option_2, ... and option_1_side, ...",
    ),
    Field(
        "truth", "unless ambiguous", TEXT,
        "the right answer: the text of one of the options",
    ),
    Field(
        "occupations", "if ambiguous", WORDS,
        "the occupations it is about; in coreference both", csv="nurse|guard",
    ),
    Field("gender", "no", TEXT, "gender of the pronoun or the person in it"),
    Field("first", "no", TEXT, "text of the option that the prompt mentions first"),
    Field(
        "twin", "if ambiguous with sides, in train", ID,
        "a name that it shares with its gender-swapped twin and with no other row; rows of groups "
        "need none",
    ),
    Field(
        "split", "in all rows or none", TEXT,
        f"{_one_of(SPLITS)}; test_NAME is a test split that is reported on its own",
    ),
    Field("id", "no", ID, "a name that no other row has, in any file; by default file and line"),
    Field("source", "no", TEXT, "where it comes from: a template, a subject, a file"),
)  # fmt: skip

OPTION_FIELDS: tuple[Field, ...] = (
    Field("text", "always", TEXT, "the answer as reports show it", csv="option_1"),
    Field(
        "forms", "no", WORDS,
        "spellings that count as this answer, leading spaces included; by default the task's "
        "patterns with the text put in",
        csv="option_1_forms: \" nurse|the nurse\"",
    ),
    Field(
        "side", "if ambiguous: this or group", TEXT,
        f"{_one_of(SIDES)}: whether the answer agrees with the stereotype; in an ambiguous row one "
        "option is pro and one anti, or none takes a side and they name groups",
        csv="option_1_side",
    ),
    Field(
        "group", "if ambiguous: this or side", TEXT,
        "the demographic group it names; in an ambiguous row without sides two groups or more, and "
        "an answer such as \"can't tell\" names none",
        csv="option_1_group",
    ),
)  # fmt: skip

MESSAGE_FIELDS: tuple[Field, ...] = (
    Field("role", "always", TEXT, _one_of(ROLES)),
    Field("content", "always", TEXT, "the message"),
)

BY_NAME = {field.name: field for field in FIELDS}
OPTION_BY_NAME = {field.name: field for field in OPTION_FIELDS}

_COLUMN = re.compile(r"option_([1-9]\d{0,3})(?:_(forms|side|group))?")


def option_column(name: str) -> tuple[int, str] | None:
    """Number and field of an option's column: `option_2_side` is (2, "side"); None for others."""
    match = _COLUMN.fullmatch(name)
    return match and (int(match[1]), match[2] or "text")


def unknown_field(name: str, known: Sequence[str]) -> str:
    """What is wrong with a field of a name that is not known, and which was perhaps meant."""
    columns = ["option_1", "option_1_forms", "option_1_side", "option_1_group"]
    near = difflib.get_close_matches(
        name.strip().lower(), [*known, *(columns if "options" in known else ())], n=1, cutoff=0.6
    )
    hint = f"did you mean {near[0]!r}? A" if near else f"known are {_listed(known)}; a"
    return f"is an unknown field; {hint} name that starts with _ is ignored"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def field_table() -> str:
    """The fields as Markdown tables: of a row, of an option, of a message."""
    parts = []
    for title, fields in (
        ("A row", FIELDS),
        ("An option", OPTION_FIELDS),
        ("A message", MESSAGE_FIELDS),
    ):
        lines = [f"| {title} | needed | type | what to write | in CSV |", "|---|---|---|---|---|"]
        for field in fields:
            csv = f"`{field.csv}`" if field.csv and " as " not in field.csv else field.csv
            lines.append(
                f"| `{field.name}` | {field.needed} | {field.type} | {field.meaning} | "
                f"{csv.replace('|', chr(92) + '|')} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def field_text() -> str:
    """The fields as plain lines, for the command line's help."""
    lines = []
    for title, fields in (("fields of a row", FIELDS), ("fields of an option", OPTION_FIELDS)):
        lines.append(f"{title}:")
        for field in fields:
            csv = f" (CSV: {field.csv})" if field.csv else ""
            lines.append(f"  {field.name}: {field.type}, needed: {field.needed}")
            lines.append(
                fill(f"{field.meaning}{csv}", 96, initial_indent=" " * 6, subsequent_indent=" " * 6)
            )
    return "\n".join(lines) + "\n"
