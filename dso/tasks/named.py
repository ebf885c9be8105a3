"""Tasks by name, by import path, or as an adapter's recipe recorded them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from dso.tasks.coreference import Coreference
from dso.tasks.groups import Groups
from dso.tasks.hiring import Hiring
from dso.tasks.own import Own
from dso.tasks.published import (
    BBQ,
    MMLU,
    MMMU,
    SocialCounterfactuals,
    SynthBias,
    TwoPeople,
    WinoBias,
)
from dso.tasks.scenes import Scenes
from dso.tasks.task import Task

TASKS: dict[str, type[Task]] = {
    "bbq": BBQ,
    "coreference": Coreference,
    "groups": Groups,
    "hiring": Hiring,
    "mmlu": MMLU,
    "mmmu": MMMU,
    "own": Own,
    "scenes": Scenes,
    "social_counterfactuals": SocialCounterfactuals,
    "synthbias": SynthBias,
    "two_people": TwoPeople,
    "winobias": WinoBias,
}


def make_task(name: str, settings: Mapping[str, Any] | None = None) -> Task:
    """A task from its name in `TASKS` or its import path (`package.module.Class`).

    A setting that is itself a task is given as its `class_path` and `init_args`, as
    `Task.settings` has it.

    Raises:
        ValueError: an unknown name, a path that leads to no task, settings it does not have, or
            settings without one it needs.
    """
    kind = TASKS.get(name) or _import(name)
    known = inspect.signature(kind).parameters
    given = dict(settings or {})
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(f"task {name!r} has no setting {unknown}; it has {list(known)}")
    data = given.get("data")
    # Annotations are text here: "str | None" of a folder, "str | list[str] | None" of files.
    if isinstance(data, list) and "list" not in str(known["data"].annotation):
        raise ValueError(f"task {name!r} reads one folder or file; got {len(data)}: {data}")
    needed = [n for n, p in known.items() if p.default is p.empty and n not in given]
    if needed:
        raise ValueError(f"task {name!r} needs the settings {needed}; got {sorted(given)}")
    return kind(**{name: _nested(value) for name, value in given.items()})


def _nested(value: Any) -> Any:
    """The task that a setting describes; any other setting as it is."""
    if not (isinstance(value, Mapping) and "class_path" in value):
        return value
    unknown = sorted(set(value) - {"class_path", "init_args"})
    path, settings = value["class_path"], value.get("init_args")
    if unknown or not isinstance(path, str) or not isinstance(settings, Mapping | None):
        raise ValueError(
            "a task in the settings is a class_path, a text, and init_args, its settings by name; "
            f"got {dict(value)}"
        )
    return make_task(path, settings)


def _import(path: str) -> type[Task]:
    module, _, attribute = path.rpartition(".")
    names = f"wanted one of {sorted(TASKS)} or an import path such as package.module.Class"
    if not module:
        raise ValueError(f"no task is named {path!r}; {names}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, TypeError) as error:
        raise ValueError(f"task {path!r} cannot be imported ({error}); {names}") from error
    if not (inspect.isclass(found) and issubclass(found, Task)) or inspect.isabstract(found):
        raise ValueError(f"{path} is not a dso.tasks.Task that can load its data; {names}")
    return found


def task_label(task: Task) -> str:
    """The short name that results carry."""
    names = {kind: name for name, kind in TASKS.items()}
    return names.get(type(task), type(task).__name__.lower())
