"""A row of anyone's own data as a `Choice`, or what is wrong with it, field by field.

Files of millions of rows go through here: what repeats from row to row (the layout of a file, the
options, the occupations) is parsed once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import PurePath
from sys import intern
from typing import Any

from dso.tasks.choice import KINDS, Choice, Kind, Message
from dso.tasks.coreference import DEFAULT_FORMS
from dso.tasks.files.problems import Problems, Row
from dso.tasks.own.fields import (
    Bad,
    given_as,
    missing,
    name_or_number,
    names,
    none_of,
    prose,
    require,
    text_wrong,
    word,
    word_wrong,
)
from dso.tasks.own.row_images import row_images
from dso.tasks.own.row_options import Options, layout_of, read_options
from dso.tasks.own.schema import BY_NAME, MESSAGE_FIELDS, ROLES, SPLITS, unknown_field

_SPLIT = re.compile(r"train|validation|test(_[A-Za-z0-9][A-Za-z0-9_-]*)?")
_KINDS: dict[str, Kind] = {name: name for name in KINDS}


def parse_row(row: Row, problems: Problems, forms: Sequence[str] = DEFAULT_FORMS) -> Choice | None:
    """The choice that a row says; None, with the reasons in `problems`, where it says none.

    Args:
        row: with the fields of `dso.tasks.own.schema.FIELDS`.
        problems: takes what is wrong with the row.
        forms: surface forms of options that bring none, `{}` standing for the option's text.

    Raises:
        DataError: more problems than `problems` collects.
    """
    values, where = row.values, row.where
    layout = layout_of(tuple(values))
    bad: Bad = []
    if layout.unknown:
        file = where.rpartition(", ")[0]
        for name, message in layout.unknown:
            problems.add_once(where, name, message, about=f"{file}: {name}")
    kind = word(values, "kind", bad)
    if kind is None:
        require(values, "kind", bad)
    elif kind not in _KINDS:
        bad.append(("kind", none_of(kind, KINDS)))
    prompt, before = _asked(values, bad)
    found = read_options(values, layout, tuple(forms))
    bad.extend(found.bad)
    truth = _index(values, "truth", found, bad)
    first = _index(values, "first", found, bad)
    occupations = names(values, "occupations", bad)
    split = word(values, "split", bad) or ""
    if split and split not in SPLITS and not _SPLIT.fullmatch(split):
        bad.append(("split", none_of(split, SPLITS) + " (or test_NAME)"))
    if kind == "ambiguous":
        if found.unfit:
            bad.append(found.unfit)
        if not occupations:
            require(values, "occupations", bad, "an ambiguous row needs it; ")
    elif truth is None and kind in _KINDS:
        require(values, "truth", bad, f"a row of kind {kind} needs it; ")
    identifier = name_or_number(values, "id", bad) or _default_id(where)
    gender, source = word(values, "gender", bad), prose(values, "source", bad)
    twin = name_or_number(values, "twin", bad)
    images = row_images(values, where, bad)
    if bad:
        problems.add_all(where, bad)
    if bad or layout.unknown or kind is None or prompt is None:
        return None
    try:
        # What many rows share is kept once.
        return Choice(
            identifier, _KINDS[kind], prompt, found.options, truth, occupations,
            gender and intern(gender), first, twin, intern(split), intern(source or ""), before,
            images,
        )  # fmt: skip
    except ValueError as error:
        problems.add(where, None, str(error))
        return None


@lru_cache(maxsize=64)
def _stem(file: str) -> str:
    return PurePath(file).stem


def _default_id(where: str) -> str:
    """`my-17` for "my.csv, line 17"."""
    file, _, place = where.rpartition(", ")
    return f"{_stem(file)}-{place.rpartition(' ')[2]}"


def _index(values: dict[str, Any], name: str, found: Options, bad: Bad) -> int | None:
    """Place of the option whose text a field has."""
    value: Any = values.get(name)
    if missing(value):
        return None
    if value in found.texts:
        return found.texts.index(value)
    if wrong := word_wrong(value, "the text of an option"):
        bad.append((name, wrong))
    elif not found.bad:
        bad.append((name, none_of(value, found.texts)))
    return None


def _asked(values: dict[str, Any], bad: Bad) -> tuple[str | None, tuple[Message, ...]]:
    """The prompt and the messages before it."""
    prompt, system = prose(values, "prompt", bad), prose(values, "system", bad)
    talk = values.get("messages")
    if missing(talk):
        if prompt is None:
            require(values, "prompt", bad)
        return prompt, () if system is None else (Message("system", system),)
    for name in ("prompt", "system"):
        if not missing(values.get(name)):
            bad.append(("messages", f"is given beside {name}; give one of them"))
            return None, ()
    said = len(bad)
    messages = _messages(talk, bad)
    if len(bad) > said or messages is None:
        return None, ()
    if messages[-1].role != "user":
        bad.append(("messages", f"ends with the {messages[-1].role}; the user's is the last"))
    return messages[-1].content, tuple(messages[:-1])


def _messages(talk: object, bad: Bad) -> list[Message] | None:
    if type(talk) is str:
        try:
            talk = json.loads(talk)
        except (ValueError, RecursionError) as error:
            bad.append(("messages", f"is no JSON list of messages: {error}"))
            return None
    if not isinstance(talk, list | tuple) or not talk:
        bad.append(("messages", f"is {given_as(talk)}; wanted a {BY_NAME['messages'].type}"))
        return None
    known = [field.name for field in MESSAGE_FIELDS]
    made = []
    for number, message in enumerate(talk):
        label = f"messages[{number}]"
        if not isinstance(message, dict):
            bad.append((label, f"is {given_as(message)}; wanted an object with role and content"))
            continue
        said = len(bad)
        for name in message:
            if name not in known and not str(name).startswith("_"):
                bad.append((f"{label}.{name}", unknown_field(str(name), known)))
        for field in MESSAGE_FIELDS:
            value = message.get(field.name)
            wrong = "is missing" if missing(value) else text_wrong(value)
            if wrong is None and field.name == "role" and value not in ROLES:
                wrong = none_of(str(value), ROLES)
            if wrong:
                bad.append((f"{label}.{field.name}", wrong))
        if len(bad) == said:
            made.append(Message(message["role"], message["content"]))
    return made
