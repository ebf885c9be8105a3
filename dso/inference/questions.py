"""Calibration questions: twin pairs for the bias, and questions with a right answer.

They must not have served to train the adapter or to choose it. Those of the built-in coreference
task are therefore drawn afresh.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dso.policy import Policy
from dso.tasks import Choice, Coreference, Kind, Own, Task, twin_pairs
from dso.tasks.choice import Part
from dso.tasks.coreference import ambiguous, mixture
from dso.tasks.occupations import OccupationPart

log = logging.getLogger(__name__)

CAPABILITIES: tuple[Kind, ...] = ("unambiguous", "gender_needed", "capability")
FRESH_PAIRS = 400
"""Pairs, and questions of each kind, that are drawn of the built-in task unless told otherwise."""


@dataclass(frozen=True)
class Calibration:
    """The questions.

    Raises:
        ValueError: no twin pair, no question of a kind, twins that concern different occupations.
    """

    pairs: tuple[tuple[Choice, Choice], ...]
    """Ambiguous twins with sides."""
    questions: dict[Kind, tuple[Choice, ...]]
    """Questions with a right answer, by kind, in the order of `CAPABILITIES`."""
    split: str
    """Name of the split they are from."""
    fresh: bool = False
    """Whether they were drawn for this."""

    def __post_init__(self) -> None:
        if not self.pairs:
            raise ValueError(
                f"split {self.split!r} has no twin pair of ambiguous questions with sides, on "
                "which the bias is measured; give data that has some, or another --split"
            )
        lacking = [kind for kind, asked in self.questions.items() if not asked]
        if lacking or not self.questions:
            has = [kind for kind, asked in self.questions.items() if asked]
            raise ValueError(
                f"split {self.split!r} has no question of the kind {', '.join(lacking)}, so that "
                "nothing can be promised of it; give data that has some, another --split, or "
                f"promise less with --kinds {' '.join(has) or 'KIND'}"
            )
        for one, other in self.pairs:
            if set(one.occupations) != set(other.occupations):
                raise ValueError(
                    f"twins {one.id!r} and {other.id!r} concern different occupations: "
                    f"{list(one.occupations)} and {list(other.occupations)}; wanted the same"
                )

    @property
    def occupations(self) -> dict[str, int]:
        """How many pairs concern each occupation, by name."""
        names = [name for one, _ in self.pairs for name in set(one.occupations)]
        return {name: names.count(name) for name in sorted(set(names))}

    @property
    def counts(self) -> dict[str, int]:
        """How many questions of each kind."""
        return {kind: len(asked) for kind, asked in self.questions.items()}


def calibration_of(
    task: Task,
    split: str | None = None,
    pairs: int | None = None,
    kinds: Sequence[Kind] = CAPABILITIES,
    seed: int = 0,
    *,
    trained_on: bool = True,
) -> Calibration:
    """The calibration questions of a task.

    Args:
        task: what is asked.
        split: `validation`, or the name of an evaluation split; by default `validation`, or the
            only one there is.
        pairs: so many twin pairs, and questions of each kind: of the built-in coreference task
            drawn afresh (by default `FRESH_PAIRS`), of other tasks at most, at random; all by
            default.
        kinds: of questions with a right answer, on which accuracy may not drop.
        seed: of the draw.
        trained_on: whether the adapter was trained on this task; own rows that it was not trained
            on need not be fit to train on.

    Raises:
        ValueError: an unknown split, or as `Calibration`.
    """
    wanted = tuple(kind for kind in CAPABILITIES if kind in kinds)
    if isinstance(task, Coreference):
        name = split or "validation"
        fresh = _fresh(task, name, FRESH_PAIRS if pairs is None else pairs, seed)
        return replace(_sorted(fresh, wanted, name), fresh=True)
    splits: dict[str, list[Choice]] = {}
    if isinstance(task, Own) and not trained_on:
        others = task.benchmark()
    else:
        data = task.load()
        splits, others = {"validation": data.validation}, data.evaluation
    for choice in others:
        splits.setdefault(choice.split, []).append(choice)
    if split is None:
        split = next(iter(splits)) if len(splits) == 1 else "validation"
    if split not in splits:
        raise ValueError(f"there is no split {split!r}; splits: {', '.join(splits)}")
    found = _sorted(splits[split], wanted, split)
    if pairs is None:
        return found
    rng = random.Random(seed)
    return replace(
        found,
        pairs=_some(found.pairs, pairs, rng),
        questions={kind: _some(asked, pairs, rng) for kind, asked in found.questions.items()},
    )


def _fresh(task: Coreference, split: str, count: int, seed: int) -> list[Choice]:
    """New sentences about a split's occupations, in its wording."""
    parts: dict[str, tuple[OccupationPart, Part]] = {
        "validation": ("validation", "validation"),
        "heldout_occupations": ("test", "test"),
        "train_occupations": (task.occupations, "test"),
    }
    if split not in parts:
        raise ValueError(f"there is no split {split!r}; splits: {', '.join(parts)}")
    occupations, wording = parts[split]
    counts = (count, count, count)
    return [
        *ambiguous(count, occupations, wording, seed, split, task.forms),
        *mixture(occupations, wording, counts, seed, split, task.forms),
    ]


def _sorted(choices: Sequence[Choice], kinds: Sequence[Kind], split: str) -> Calibration:
    sided = [choice for choice in choices if choice.kind == "ambiguous" and choice.takes_sides]
    pairs = [(sided[one], sided[other]) for one, other in twin_pairs(sided)]
    if len(sided) > 2 * len(pairs):
        log.info(
            "%s: %d ambiguous choices have no twin and are left out",
            split, len(sided) - 2 * len(pairs),
        )  # fmt: skip
    questions = {kind: tuple(c for c in choices if c.kind == kind) for kind in kinds}
    return Calibration(tuple(pairs), questions, split)


def _some(items: tuple[Any, ...], count: int, rng: random.Random) -> tuple[Any, ...]:
    """At most `count` of them, drawn at random, in their order."""
    if len(items) <= count:
        return items
    return tuple(items[place] for place in sorted(rng.sample(range(len(items)), count)))


def without_long(calibration: Calibration, policy: Policy) -> Calibration:
    """The questions that the model has positions for; the others are counted in the log.

    Raises:
        ValueError: none of a kind is left.
    """

    def fits(*choices: Choice) -> bool:
        return all(map(policy.fits, policy.encode_any(choices)))

    kept = replace(
        calibration,
        pairs=tuple(pair for pair in calibration.pairs if fits(*pair)),
        questions={
            kind: tuple(choice for choice in asked if fits(choice))
            for kind, asked in calibration.questions.items()
        },
    )
    long = len(calibration.pairs) - len(kept.pairs)
    long += sum(calibration.counts.values()) - sum(kept.counts.values())
    if long:
        log.info("%d pairs or questions are longer than the model's positions, left out", long)
    return kept
