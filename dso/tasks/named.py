"""Tasks by name, by import path, or as an adapter's recipe recorded them."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from dso.tasks.coreference import Coreference
from dso.tasks.task import Task
from dso.tasks.winobias import WinoBias

TASKS: dict[str, type[Task]] = {"coreference": Coreference, "winobias": WinoBias}


def make_task(name: str, settings: Mapping[str, Any] | None = None) -> Task:
    """A task from its name in `TASKS` or its import path (`package.module.Class`).

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
    needed = [n for n, p in known.items() if p.default is p.empty and n not in given]
    if needed:
        raise ValueError(f"task {name!r} needs the settings {needed}; got {sorted(given)}")
    return kind(**given)


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
