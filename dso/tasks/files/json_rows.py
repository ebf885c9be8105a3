"""Rows of JSON lines files: one object a line."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dso.tasks.files.lines import LONGEST, REPORT, Lines, bad_text, other_encoding
from dso.tasks.files.problems import Problems, Progress, Row

_ESCAPED = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
"""A NUL, or half a character; two halves make one, so that the texts decide."""


class _JsonNumbers:
    """Hooks of a JSON parser that notice what JSON does not allow."""

    def __init__(self) -> None:
        self.repeated: list[str] = []
        self.odd: list[str] = []

    def pairs(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            names = [name for name, _ in pairs]
            self.repeated += sorted({name for name in names if names.count(name) > 1})
        return made

    def constant(self, text: str) -> float:
        self.odd.append(text)
        return math.nan

    def number(self, text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else self.constant(text)


def json_rows(path: Path, problems: Problems, progress: Progress) -> Iterator[Row]:
    """The objects of a JSON lines file; see `read_rows`."""
    name = str(path)
    with path.open("rb") as raw:
        if wrong := other_encoding(raw):
            problems.add(f"{name}, line 1", None, wrong)
            return
        size = max(1, path.stat().st_size)
        lines = Lines(raw)
        hooks = _JsonNumbers()
        decode = json.JSONDecoder(
            object_pairs_hook=hooks.pairs,
            parse_constant=hooks.constant,
            parse_float=hooks.number,
        ).decode
        while True:
            lines.start()
            where = f"{name}, line {lines.first}"
            try:
                line = next(lines)
            except StopIteration:
                return
            except csv.Error:
                problems.add(
                    where, None, f"has more than {LONGEST:,} characters; is it JSON lines?"
                )
                continue
            if not line.strip(" \t\r\n"):
                continue
            hooks.repeated.clear()
            hooks.odd.clear()
            try:
                values = decode(line)
            except (ValueError, RecursionError) as error:
                bad = bad_text(line) if lines.odd else None
                problems.add(where, None, bad or f"is no JSON: {_json_message(error)}")
                continue
            if not isinstance(values, dict):
                problems.add(
                    where, None, f"is a JSON {_json_type(values)}; wanted an object, {{…}}"
                )
                continue
            odd = (lines.odd and bad_text(line)) or _ESCAPED.search(line)
            if hooks.repeated or hooks.odd or odd:
                wrongs: list[tuple[str, str | None]] = [
                    (key, "is given twice in one object; keep one") for key in hooks.repeated
                ]
                if hooks.odd:
                    wrongs += [(k, _not_finite(v, hooks.odd)) for k, v in values.items()]
                wrongs += [
                    (_shown(key), next(filter(None, map(bad_text, _texts(key, value))), None))
                    for key, value in values.items()
                ]
                if problems.add_all(where, wrongs):
                    continue
            if lines.number % REPORT == 0:
                progress(raw.tell() / size)
            yield Row(where, values)


def _json_message(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos + 1}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    return "a number has too many digits" if "digits" in str(error) else str(error)


def _json_type(value: object) -> str:
    kinds = {list: "list", str: "string", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")


def _shown(key: str) -> str:
    return key.encode("utf-8", "backslashreplace").decode()


def _leaves(value: object) -> Iterator[object]:
    """Everything in a value that is no list and no object, names included."""
    left = [value]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
        else:
            yield value


def _texts(key: str, value: object) -> Iterator[str]:
    yield key
    yield from (leaf for leaf in _leaves(value) if isinstance(leaf, str))


def _not_finite(value: object, given: list[str]) -> str | None:
    for leaf in _leaves(value):
        if isinstance(leaf, float) and math.isnan(leaf):
            return f"is {', '.join(dict.fromkeys(given))}; JSON has finite numbers only"
    return None
