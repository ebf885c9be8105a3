"""The options of a row: a list of objects, or columns `option_1`, `option_1_side`, ..."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any

from dso.tasks.choice import Option
from dso.tasks.own.fields import Bad, given_as, items, missing, none_of, text_wrong, word_wrong
from dso.tasks.own.schema import BY_NAME, OPTION_BY_NAME, SIDES, option_column, unknown_field

_COLUMNS = ("text", "forms", "side", "group")


@dataclass(frozen=True, eq=False)
class Layout:
    """What the names of a row's fields say."""

    unknown: tuple[tuple[str, str], ...]
    columns: tuple[tuple[int, dict[str, int]], ...]
    """(number, place of each field in the picked cells) of every option column."""
    pick: Callable[[dict[str, Any]], tuple[Any, ...]]
    """The cells of all option columns."""


@lru_cache(maxsize=256)
def layout_of(names: tuple[str, ...]) -> Layout:
    """What the names of a row's fields say; the rows of a file share it."""
    unknown: list[tuple[str, str]] = []
    columns: dict[int, dict[str, int]] = {}
    picked: list[str] = []
    for name in names:
        if not isinstance(name, str):
            unknown.append((repr(name), "is no name of a field; wanted text"))
        elif name in BY_NAME or name.startswith("_"):
            continue
        elif column := option_column(name):
            columns.setdefault(column[0], {})[column[1]] = len(picked)
            picked.append(name)
        else:
            unknown.append((name, unknown_field(name, list(BY_NAME))))
    pick: Callable[[dict[str, Any]], tuple[Any, ...]]
    if len(picked) > 1:
        pick = itemgetter(*picked)
    else:
        pick = lambda values: tuple(values[name] for name in picked)  # noqa: E731
    return Layout(tuple(unknown), tuple(sorted(columns.items())), pick)


@dataclass(frozen=True)
class Options:
    """The options of a row, and what is wrong with them."""

    options: tuple[Option, ...]
    texts: tuple[str, ...]
    bad: tuple[tuple[str, str], ...]
    unfit: tuple[str, str] | None = None
    """(field, what is wrong with it) in an ambiguous row."""


def read_options(values: dict[str, Any], layout: Layout, forms: tuple[str, ...]) -> Options:
    """The options of a row, in either form.

    Args:
        values: of the row.
        layout: of its names.
        forms: surface forms of an option that brings none, `{}` standing for its text.
    """
    nested = values.get("options")
    cells = layout.pick(values)
    if missing(nested):
        try:
            return _from_columns(layout, cells, forms)
        except TypeError:  # a list in a cell has no hash to be found by
            return _from_columns.__wrapped__(layout, cells, forms)
    if not all(map(missing, cells)):
        return Options((), (), (("options", "is given beside option_1, ...; give one of them"),))
    if not isinstance(nested, list | tuple):
        wrong = f"is {given_as(nested)}; wanted a {BY_NAME['options'].type}"
        return Options((), (), (("options", wrong),))
    bad: Bad = []
    for number, option in enumerate(nested):
        if not isinstance(option, dict):
            wrong = f"is {given_as(option)}; wanted an object with a text"
            bad.append((f"options[{number}]", wrong))
            continue
        bad += [
            (f"options[{number}].{name}", unknown_field(str(name), list(OPTION_BY_NAME)))
            for name in option
            if name not in OPTION_BY_NAME and not str(name).startswith("_")
        ]
    if len(nested) < 2 and not bad:
        bad.append(("options", f"has {len(nested)} option(s); wanted two or more"))
    if bad:
        return Options((), (), tuple(bad))
    listed = tuple(
        [(o.get("text"), _frozen(o.get("forms")), o.get("side"), o.get("group")) for o in nested]
    )
    try:
        return _from_list(listed, forms)
    except TypeError:
        return _from_list.__wrapped__(listed, forms)


def _frozen(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


@lru_cache(maxsize=4096)
def _from_list(listed: tuple[tuple[Any, ...], ...], forms: tuple[str, ...]) -> Options:
    labels = [{name: f"options[{n}].{name}" for name in _COLUMNS} for n in range(len(listed))]
    given = [dict(zip(_COLUMNS, cells, strict=True)) for cells in listed]
    return _checked(labels, given, forms, [])


@lru_cache(maxsize=4096)
def _from_columns(layout: Layout, cells: tuple[Any, ...], forms: tuple[str, ...]) -> Options:
    if not layout.columns:
        wrong = f"is missing; wanted {BY_NAME['options'].meaning} (CSV: {BY_NAME['options'].csv})"
        return Options((), (), (("options", wrong),))
    bad: Bad = []
    labels, given, last = [], [], 0
    for number, places in layout.columns:
        cell = {name: cells[places[name]] if name in places else None for name in _COLUMNS}
        if all(map(missing, cell.values())):
            continue
        if number > last + 1:
            bad.append((f"option_{last + 1}", f"is missing, but option_{number} is given"))
        last = number
        prefix = f"option_{number}"
        labels.append({n: prefix if n == "text" else f"{prefix}_{n}" for n in _COLUMNS})
        given.append(cell)
    if last < 2:
        bad.append((f"option_{last + 1}", "is missing; a row needs two options or more"))
    return _checked(labels, given, forms, bad)


def _checked(
    labels: list[dict[str, str]],
    given: list[dict[str, Any]],
    patterns: tuple[str, ...],
    bad: Bad,
) -> Options:
    options: list[Option] = []
    for label, cell in zip(labels, given, strict=True):
        text: Any = cell["text"]
        side: Any = cell["side"]
        group: Any = cell["group"]
        said = len(bad)
        wrong = "is missing" if missing(text) else word_wrong(text)
        if wrong is None and any(option.text == text for option in options):
            wrong = f"is {text!r} again; every option needs a text of its own"
        elif wrong is None and (same := _same_but_case(text, options)):
            wrong = (
                f"is {text!r}, which differs from {same!r} in case only; an answer would count as "
                "either, so give other words"
            )
        if wrong:
            bad.append((label["text"], wrong))
        side = "neither" if missing(side) else side
        if wrong := word_wrong(side):
            bad.append((label["side"], wrong))
        elif side not in SIDES:
            bad.append((label["side"], none_of(side, SIDES)))
        group = None if missing(group) else group
        if group is not None and (wrong := word_wrong(group)):
            bad.append((label["group"], wrong))
        forms: tuple[str, ...] = ()
        if not missing(cell["forms"]):
            listed, wrong = items(cell["forms"])
            for number, item in enumerate(listed or (), 1):
                problem = "is empty" if missing(item) else text_wrong(item)
                wrong = wrong or (f"has an item {number} that {problem}" if problem else None)
            if wrong:
                bad.append((label["forms"], wrong))
            forms = tuple(listed or ()) if not wrong else ()
        if len(bad) > said:
            continue
        forms = forms or tuple(pattern.replace("{}", text) for pattern in patterns)
        if shared := [(f, o.text) for o in options for f in o.forms if f in forms]:
            form, other = shared[0]
            bad.append((label["forms"], f"{form!r} counts for {text!r} and for {other!r}"))
        options.append(Option(text, forms, side, group))
    if bad:
        return Options((), (), tuple(bad))
    texts = tuple(option.text for option in options)
    return Options(tuple(options), texts, (), _unfit(labels, options))


def _same_but_case(text: str, options: list[Option]) -> str | None:
    return next((o.text for o in options if o.text.casefold() == text.casefold()), None)


def _unfit(labels: list[dict[str, str]], options: list[Option]) -> tuple[str, str] | None:
    """What keeps options from being those of an ambiguous row."""
    sides = [option.side for option in options]
    groups = [option.group for option in options]
    sided, named = set(sides) - {"neither"}, set(groups) - {None}
    if len(sided) == 2 or (not sided and len(named) > 1):
        return None
    # The field to change: groups where a group is named and no side, sides elsewhere.
    name, empty = ("group", None) if named and not sided else ("side", "neither")
    given: list[str | None] = groups if name == "group" else [*sides]
    place = given.index(empty) if empty in given else len(options) - 1
    shown = f"the sides are {sides}" + (f", the groups {groups}" if named else "")
    return (
        labels[place][name],
        "an ambiguous row needs one option that is pro and one that is anti or, with no side at "
        f"all, options that name at least two groups; {shown}",
    )
