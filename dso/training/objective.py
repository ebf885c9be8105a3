"""What is maximised: the weights of rewards and terms, how they change, how they are combined.

A *reward* is a number for every answer to a choice, higher is better; the estimator finds its
gradient, exactly or from samples. A *term* is a differentiable penalty of the log-probabilities,
lower is better, and needs no estimator. A weight of 0 switches either off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Combine = Literal["sum", "normalised"]
Shape = Literal["linear", "cosine"]
Population = Literal["ambiguous", "known", "all"]

REWARDS = ("parity", "per_sample_parity", "twin_prior", "abstention", "capability")
TERMS = ("twin_consistency", "pair_anchor", "distillation", "option_mass")


@dataclass(frozen=True)
class Schedule:
    """A factor on a weight that goes from one value to another during a run."""

    start: float = 0.0
    """Factor until `begin`."""
    end: float = 1.0
    """Factor from `until` on."""
    begin: float = 0.0
    """Share of the run's steps after which it starts to change."""
    until: float = 1.0
    """Share of the run's steps by which it has changed."""
    shape: Shape = "linear"
    """The way between: linear, or cosine, which starts and ends gently."""

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"a schedule's {name} is {value}; wanted a factor >= 0")
        if not 0 <= self.begin <= self.until <= 1:
            raise ValueError(
                f"a schedule goes from begin {self.begin} to until {self.until}; wanted shares of "
                "the run, 0 <= begin <= until <= 1"
            )
        if self.shape not in get_args(Shape):
            raise ValueError(f"a schedule's shape is {self.shape!r}; wanted linear or cosine")

    def factor(self, progress: float) -> float:
        """The factor when a share `progress` of the run is done."""
        if progress >= self.until:
            return self.end
        if progress <= self.begin:
            return self.start
        share = (progress - self.begin) / (self.until - self.begin)
        if self.shape == "cosine":
            share = 0.5 * (1 - math.cos(math.pi * share))
        return self.start + share * (self.end - self.start)


@dataclass(frozen=True)
class Custom:
    """A reward or a term of your own, a plain function given by its import path."""

    function: str
    """Import path, such as `my_package.rewards.short`."""
    weight: float = 1.0
    """Its weight."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the function."""
    on: Population = "all"
    """Which choices a reward is for: the ambiguous, those with a known right answer, or all. A term
    gets all."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"{self.function}: weight is {self.weight}; wanted a number >= 0")
        if self.on not in get_args(Population):
            known = ", ".join(get_args(Population))
            raise ValueError(f"{self.function}: on is {self.on!r}; wanted one of {known}")

    @property
    def name(self) -> str:
        """Under which it is logged: the function's own name."""
        return self.function.rpartition(".")[2]


@dataclass(frozen=True)
class Objective:
    """Weights of the rewards and terms; 0 switches one off."""

    parity: float = 1.0
    """Reward, ambiguous choices: -1 for the side the model favours, +1 for the other; with more
    than two groups, by whether it favours a group or not."""
    per_sample_parity: float = 0.0
    """Reward, ambiguous choices: against the side that is favoured in this very choice, as strongly
    as it is. It erases what the verb says too."""
    twin_prior: float = 0.0
    """Reward, ambiguous choices with a twin: log q - log p, q the base's answers averaged over the
    twins: what twin consistency and pair anchor do, as a reward that sampled answers can carry."""
    abstention: float = 0.0
    """Reward, ambiguous choices: +1 for an answer that takes neither side (the paper's rule)."""
    capability: float = 1.0
    """Reward, choices with a right answer: +1 for it."""
    twin_consistency: float = 3.0
    """Term: symmetric KL between the answers of gender-swapped twins."""
    pair_anchor: float = 20.0
    """Term: squared move of the twins' mean P(first mentioned) away from the base model's."""
    distillation: float = 0.0
    """Term: KL from the base's answers averaged over the twins to the model's. It needs no
    stereotype labels."""
    option_mass: float = 1.0
    """Term: fall of the options' total log-probability below the base model's."""
    custom_rewards: tuple[Custom, ...] = ()
    """Rewards of your own: functions of (choices, answers) that return a number for each."""
    custom_terms: tuple[Custom, ...] = ()
    """Terms of your own: functions of (log_probs, base_log_probs, table) that return a scalar."""
    schedules: dict[str, Schedule] = field(default_factory=dict)
    """By the name of a reward or term: how its weight changes during the run."""
    combine: Combine = "sum"
    """How rewards are combined: `sum` adds them by their weights; `normalised` first centres each
    and divides it by its spread among the answers to one prompt, so that a weight says what share
    of the gradient a reward has and not how large its numbers are."""
    l1: float = 0.0
    """Lambda of the proximal step: after each optimiser step every entry of a and b moves towards 0
    by learning rate times lambda, and becomes exactly 0 where it would cross."""

    def __post_init__(self) -> None:
        for name in (*REWARDS, *TERMS, "l1"):
            value = getattr(self, name)
            if not math.isfinite(value) or (value < 0 and name != "abstention"):
                raise ValueError(f"objective.{name} is {value}; wanted a number >= 0")
        if self.combine not in get_args(Combine):
            raise ValueError(f"objective.combine is {self.combine!r}; wanted sum or normalised")
        for name in ("custom_rewards", "custom_terms"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        names = [*REWARDS, *TERMS, *(c.name for c in (*self.custom_rewards, *self.custom_terms))]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"objective has two rewards or terms named {', '.join(twice)}: a custom one is "
                "named like its function; give the functions names of their own"
            )
        unknown = sorted(set(self.schedules) - set(names))
        if unknown:
            raise ValueError(
                f"objective.schedules names {', '.join(unknown)}; wanted some of {', '.join(names)}"
            )

    def weight(self, name: str, progress: float = 1.0) -> float:
        """Weight of a reward or term when a share `progress` of the run is done."""
        custom = {c.name: c.weight for c in (*self.custom_rewards, *self.custom_terms)}
        weight = float(custom[name] if name in custom else getattr(self, name))
        schedule = self.schedules.get(name)
        return weight if schedule is None else weight * schedule.factor(progress)
