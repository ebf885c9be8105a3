"""Rewards and terms of one's own: plain functions, found by import path and checked when called.

A reward is called with lists of equal length and returns a number for each answer:

    def short(choices: list[Choice], answers: list[Answer]) -> list[float]:
        return [1.0 if len(answer.text) < 20 else 0.0 for answer in answers]

With the exact estimator the answers are the options; with a sampled one they are what was
generated. A term is called with (log_probs, base_log_probs, table), the log-probabilities (N, K) of
the options, and returns a scalar tensor.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dso.tasks.choice import Choice
from dso.tasks.table import ChoiceTable
from dso.training.objective import Custom


class RewardFailed(RuntimeError):
    """A reward or term of the user's own raised, or returned what cannot be used."""


@dataclass(frozen=True)
class Answer:
    """One answer to a choice."""

    text: str
    """What was said; an option's text where nothing is generated."""
    option: int | None
    """The option it means; None where it means none."""


@dataclass(frozen=True)
class CustomReward:
    """A reward with the function it stands for."""

    custom: Custom
    function: Callable[..., Sequence[float]]

    def __call__(
        self, choices: Sequence[Choice], answers: Sequence[Sequence[Answer]], width: int
    ) -> Tensor:
        """(N, width) rewards of the answers to N choices, 0 where a choice has fewer answers.

        Raises:
            RewardFailed: the function raised, or did not return a finite number for each answer.
        """
        flat = [(c, a) for c, given in zip(choices, answers, strict=True) for a in given]
        name = self.custom.function
        try:
            found = self.function(
                [c for c, _ in flat], [a for _, a in flat], **self.custom.settings
            )
            values = torch.as_tensor(found, dtype=torch.float32).detach().cpu()
        except Exception as error:
            raise RewardFailed(
                f"the reward {name} failed on {len(flat)} answers, the first to choice "
                f"{flat[0][0].id!r}: {type(error).__name__}: {error}"
            ) from error
        if values.shape != (len(flat),):
            raise RewardFailed(
                f"the reward {name} returned the shape {tuple(values.shape)} for {len(flat)} "
                "answers; wanted one number for each"
            )
        bad = (~values.isfinite()).nonzero()[:, 0].tolist()
        if bad:
            choice, answer = flat[bad[0]]
            raise RewardFailed(
                f"the reward {name} returned {float(values[bad[0]])} for the answer "
                f"{answer.text!r} to choice {choice.id!r}, and {len(bad)} such values in all; "
                "wanted finite numbers"
            )
        grid = torch.zeros(len(choices), width)
        counts = torch.tensor([len(given) for given in answers])
        grid[torch.arange(width) < counts[:, None]] = values
        return grid


@dataclass(frozen=True)
class CustomTerm:
    """A term with the function it stands for."""

    custom: Custom
    function: Callable[..., Tensor]

    def __call__(self, log_probs: Tensor, base_log_probs: Tensor, table: ChoiceTable) -> Tensor:
        """The term's value, a finite scalar.

        Raises:
            RewardFailed: the function raised, or returned something else.
        """
        name = self.custom.function
        try:
            value = self.function(log_probs, base_log_probs, table, **self.custom.settings)
        except Exception as error:
            raise RewardFailed(
                f"the term {name} failed: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(value, Tensor) or value.shape != ():
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise RewardFailed(f"the term {name} returned {shape}; wanted a scalar tensor")
        if not bool(value.isfinite()):
            raise RewardFailed(f"the term {name} returned {float(value)}; wanted a finite number")
        return value


@dataclass(frozen=True)
class Customs:
    """The functions behind an objective's custom rewards and terms."""

    rewards: tuple[CustomReward, ...] = ()
    terms: tuple[CustomTerm, ...] = ()

    @classmethod
    def load(cls, rewards: Sequence[Custom], terms: Sequence[Custom]) -> Customs:
        """Import them.

        Raises:
            ValueError: an import path that leads to no function.
        """
        return cls(
            tuple(CustomReward(custom, _function(custom.function)) for custom in rewards),
            tuple(CustomTerm(custom, _function(custom.function)) for custom in terms),
        )


def _function(path: str) -> Callable[..., Any]:
    module, _, name = path.rpartition(".")
    if not module:
        raise ValueError(f"{path!r} is no import path; wanted one such as package.module.function")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be imported ({error}); wanted a function by its import path, with its "
            "folder on PYTHONPATH"
        ) from error
    if not callable(found):
        raise ValueError(f"{path} is a {type(found).__name__}; wanted a function")
    function: Callable[..., Any] = found
    return function
