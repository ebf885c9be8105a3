"""Reading one field of a row: what is wrong with its value, in the user's words."""

from __future__ import annotations

import difflib
import math
import re
import reprlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from dso.tasks.own.schema import BY_NAME

Bad = list[tuple[str, str]]
"""(field, what is wrong with it) of a row."""

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def missing(value: object) -> bool:
    """Whether a value says nothing: none, an empty text, or the NaN of an empty cell."""
    return value is None or value == "" or (type(value) is float and math.isnan(value))


def _plain(value: Any) -> bool:
    """Whether a value is, at a glance, a name with nothing wrong: as most are."""
    return type(value) is str and value.isprintable() and value == value.strip() != ""


def given_as(value: object) -> str:
    """A value that is no text, as a message names it."""
    shown = reprlib.repr(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"true or false ({shown})"
    if isinstance(value, int | float):
        return f"a number ({shown})"
    for kind, called in ((str, "text"), (list | tuple, "a list"), (dict, "an object")):
        if isinstance(value, kind):
            return f"{called} ({shown})"
    return f"of type {type(value).__name__} ({shown})"


def none_of(value: str, known: Sequence[str]) -> str:
    """What is wrong with a text that is none of the known ones."""
    near = difflib.get_close_matches(value[:60].strip().lower(), known, n=1, cutoff=0.6)
    shown = value if len(value) <= 60 else value[:57] + "..."
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"is {shown!r}; wanted one of {', '.join(map(repr, known))}{hint}"


def text_wrong(value: object, wanted: str = "text") -> str | None:
    """What is wrong with a value that should be a text."""
    if type(value) is not str:
        return f"is {given_as(value)}; wanted {wanted}"
    if not value.isprintable() and (found := _CONTROL.search(value)):
        code = f"U+{ord(found[0]):04X}"
        return f"has a control character ({code} at character {found.start() + 1}); remove it"
    if not value.strip():
        return "is blank"
    return None


def word_wrong(value: object, wanted: str = "text") -> str | None:
    """What is wrong with a value that should be a name: a text without spaces around it."""
    wrong = text_wrong(value, wanted)
    if wrong is None and value != str(value).strip():
        return f"is {value!r}; remove the spaces or line breaks at its start or end"
    return wrong


def require(values: dict[str, Any], name: str, bad: Bad, why: str = "") -> None:
    """Note that a field is missing, unless it was found wrong already."""
    if not any(field == name or field.startswith(f"{name}[") for field, _ in bad):
        bad.append((name, f"is missing; {why}wanted {BY_NAME[name].meaning}"))


def prose(values: dict[str, Any], name: str, bad: Bad) -> str | None:
    """The text of a field; None where it is missing or, which is noted, wrong."""
    value = values.get(name)
    if missing(value):
        return None
    if wrong := text_wrong(value):
        bad.append((name, wrong))
        return None
    return value  # type: ignore[no-any-return]


def word(values: dict[str, Any], name: str, bad: Bad) -> str | None:
    """As `prose`, for a name."""
    value = values.get(name)
    if _plain(value):
        return value  # type: ignore[no-any-return]
    if missing(value):
        return None
    if wrong := word_wrong(value):
        bad.append((name, wrong))
        return None
    return value  # type: ignore[no-any-return]


def name_or_number(values: dict[str, Any], name: str, bad: Bad) -> str | None:
    """As `word`; a whole number counts as its digits."""
    value = values.get(name)
    if _plain(value):
        return value  # type: ignore[no-any-return]
    if missing(value):
        return None
    if type(value) is int:
        return str(value)
    if wrong := word_wrong(value, BY_NAME[name].type):
        bad.append((name, wrong))
        return None
    return value  # type: ignore[no-any-return]


def items(value: object) -> tuple[list[Any] | None, str | None]:
    """A list, or a text with | between the items, as a list; or what is wrong."""
    if type(value) is str:
        return value.split("|"), None
    if isinstance(value, list | tuple):
        return list(value), None
    return None, f"is {given_as(value)}; wanted a list of texts, or one text with | between them"


@lru_cache(maxsize=4096)
def _split_names(value: str) -> tuple[tuple[str, ...], str | None]:
    return _checked_names(value.split("|"))


def _checked_names(listed: Sequence[Any]) -> tuple[tuple[str, ...], str | None]:
    for number, item in enumerate(listed, 1):
        if wrong := ("is empty" if missing(item) else word_wrong(item)):
            return (), f"has an item {number} that {wrong}"
    repeated = [item for item in listed if listed.count(item) > 1]
    return tuple(listed), f"has {repeated[0]!r} twice" if repeated else None


def names(values: dict[str, Any], name: str, bad: Bad) -> tuple[str, ...]:
    """The names in a field; none where it is missing or, which is noted, wrong."""
    value = values.get(name)
    if missing(value):
        return ()
    found: tuple[str, ...] = ()
    if type(value) is str:
        found, wrong = _split_names(value)
    else:
        listed, wrong = items(value)
        if listed is not None:
            found, wrong = _checked_names(listed)
    if wrong:
        bad.append((name, wrong))
    return found
