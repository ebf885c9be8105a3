"""A task: what is asked of a model, ready to train on and to evaluate with."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from dso.tasks.choice import Choice, twin_pairs


@dataclass(frozen=True)
class TaskData:
    """The choices of a task, by use. No choice stands in two of them.

    Raises:
        ValueError: an identifier that stands twice, a training choice that is not ambiguous or
            names a twin that is absent, a choice of the pool without a right answer.
    """

    train: list[Choice]
    """Ambiguous choices that the reward acts on."""
    pool: list[Choice]
    """Prompts with a right answer, on which the steered model is held close to its base and
    rewarded for being right."""
    validation: list[Choice]
    """Choices of every kind for choosing hyper-parameters and checkpoints."""
    evaluation: list[Choice]
    """Choices of every kind for reporting; `Choice.split` groups them."""

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for name in ("train", "pool", "validation", "evaluation"):
            for choice in getattr(self, name):
                if choice.id in seen:
                    raise ValueError(
                        f"two choices have the identifier {choice.id!r} (second one in {name}); "
                        "identifiers must be unique in a task"
                    )
                seen.add(choice.id)
        for choice in self.train:
            if choice.kind != "ambiguous":
                raise ValueError(
                    f"training choice {choice.id!r} is {choice.kind}; only ambiguous ones are "
                    "trained on, prompts with a right answer belong in the pool"
                )
        for choice in self.pool:
            if choice.truth is None:
                raise ValueError(
                    f"choice {choice.id!r} of the pool has no right answer (truth); ambiguous "
                    "choices belong in train"
                )
        named = sum(choice.twin is not None for choice in self.train)
        unpaired = named - 2 * len(twin_pairs(self.train))
        if unpaired:
            raise ValueError(
                f"{unpaired} of {len(self.train)} training choices name a twin that is absent; "
                "without it a fair model does not score 0: give both twins, or leave `twin` empty "
                "for choices that have none by their nature"
            )


class Task(ABC):
    """Loads its data. A subclass takes its settings as keyword arguments of `__init__` and keeps
    each as an attribute of the same name, so that an adapter's recipe can name them."""

    @abstractmethod
    def load(self) -> TaskData:
        """Generate or read the choices; deterministic for given settings."""

    def benchmark(self) -> list[Choice]:
        """What is put to a model that was not trained on this task: by default what is reported
        after training; a task that trains on public data adds those."""
        return self.load().evaluation

    def settings(self) -> dict[str, Any]:
        """`class_path` and `init_args`, as a configuration file or an adapter's recipe has them.

        A setting that is itself a task stands there the same way.
        """
        values = {name: getattr(self, name) for name in inspect.signature(type(self)).parameters}
        module = type(self).__module__
        if module.startswith("dso.tasks."):
            module = "dso.tasks"  # where it is named for users, whichever file it stands in
        return {
            "class_path": f"{module}.{type(self).__qualname__}",
            "init_args": {
                name: value.settings() if isinstance(value, Task) else value
                for name, value in values.items()
            },
        }
