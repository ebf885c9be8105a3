"""From a public data set's choices to a task's data: parting, drawing, and the controls.

A sentence's part comes from a hash of what must stay together (a sentence without its gender, an
occupation, a question's stereotype), so that it depends neither on the order of the rows nor on a
seed. `assemble` makes the same of every such data set:

    train        twin pairs of the training part
    pool         unambiguous : gender-needed : capability as 2 : 1 : 1, of the training part
    validation   some of every kind, of the validation part
    evaluation   some or all of every kind, of the test part

What a data set lacks (gender-needed questions, a quiz, unambiguous sentences) is built in.
"""

from __future__ import annotations

import hashlib
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from dso.tasks.choice import Choice, Part, twin_pairs
from dso.tasks.coreference import EVALUATION_SEED, mixture
from dso.tasks.task import Task, TaskData

Member = TypeVar("Member")

TRAIN, VALIDATION = 0.3, 0.1
"""Shares of the parts; the rest is the test part."""

CONTROLS = 300
"""Built-in questions of each kind in a split, at most."""


def part_of(key: str) -> Part:
    """The part that a key belongs to: 30 % train, 10 % validation, 60 % test, by its hash."""
    digest = hashlib.sha256(key.encode("utf-8")).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < TRAIN:
        return "train"
    return "validation" if share < TRAIN + VALIDATION else "test"


def one_to_one(members: Iterable[tuple[object, bool, Member]]) -> Iterator[tuple[Member, Member]]:
    """Pairs of one member of either side with the same key, each member once, in their order.

    Args:
        members: (key, which side, member) each.
    """
    groups: dict[object, tuple[list[Member], list[Member]]] = defaultdict(lambda: ([], []))
    for key, side, member in members:
        groups[key][side].append(member)
    for one, other in groups.values():
        yield from zip(one, other, strict=False)


def draw(choices: Sequence[Choice], count: int | None, rng: random.Random) -> list[Choice]:
    """At most `count` of the choices, all of them for None, in their own order."""
    if count is None or count >= len(choices):
        return list(choices)
    return [choices[place] for place in sorted(rng.sample(range(len(choices)), count))]


def draw_pairs(choices: Sequence[Choice], count: int | None, rng: random.Random) -> list[Choice]:
    """At most `count` twin pairs of the choices, all of them for None, twins side by side."""
    pairs = twin_pairs(choices)
    if count is not None and count < len(pairs):
        pairs = [pairs[place] for place in sorted(rng.sample(range(len(pairs)), count))]
    return [choices[place] for pair in pairs for place in pair]


def check_settings(task: str, forms: Sequence[str] = ("{}",), **counts: int | None) -> None:
    """Refuse counts below 1 and forms that leave no place for the answer; None is "all".

    Raises:
        ValueError: naming the task and the setting.
    """
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{task}: {name} is {value}; wanted at least 1")
    if not forms or any("{}" not in form for form in forms):
        raise ValueError(f"{task}: every form needs '{{}}' for the answer; got {list(forms)}")


def assemble(
    task: str,
    choices: Sequence[Choice],
    *,
    train_pairs: int | None,
    pool: int,
    validation: int | None,
    evaluation: int | None,
    forms: Sequence[str],
    seed: int,
    capability: Task | None = None,
) -> TaskData:
    """A task's data from choices whose split is the task's name, "_" and their part.

    Args:
        task: its name.
        choices: ambiguous ones, and unambiguous ones where the data set has them.
        train_pairs: twin pairs to train on; None: all of the part.
        pool: prompts of the pool. It is smaller where one of its three kinds has too few.
        validation: at most so many twin pairs, and questions of each other kind; None: all.
        evaluation: the same. With None ambiguous choices without a twin are taken too.
        forms: surface forms of the built-in questions.
        seed: of training pairs and pool; validation and evaluation are always drawn alike.
        capability: takes the place of the built-in quiz: some of its pool, and all of its
            validation and evaluation, whose sizes are its own settings.

    Raises:
        ValueError: fewer twin pairs in the training part than asked for, or a capability task
            without capability questions.
    """
    parts = {
        (part, kind): [c for c in choices if c.split == f"{task}_{part}" and c.kind == kind]
        for part in ("train", "validation", "test")
        for kind in ("ambiguous", "unambiguous")
    }
    own = any(choice.kind == "unambiguous" for choice in choices)
    train = draw_pairs(parts["train", "ambiguous"], train_pairs, random.Random(f"{task}-{seed}"))
    if train_pairs is not None and len(train) < 2 * train_pairs:
        raise ValueError(
            f"{task}: the training part has {len(train) // 2} twin pairs and train_pairs is "
            f"{train_pairs}; ask for fewer, or give more data"
        )
    tested = None if capability is None else capability.load()

    def split(part: Part, count: int | None, questions: list[Choice] | None) -> list[Choice]:
        name, rng = f"{task}_{part}", random.Random(EVALUATION_SEED)
        ambiguous, clear = parts[part, "ambiguous"], parts[part, "unambiguous"]
        n = CONTROLS if count is None else min(count, CONTROLS)
        counts = (0 if own else n, n, n if questions is None else 0)
        return [
            *(ambiguous if count is None else draw_pairs(ambiguous, count, rng)),
            *draw(clear, count, rng),
            *mixture(part, part, counts, EVALUATION_SEED, name, forms),
            *(questions or []),
        ]

    return TaskData(
        train=train,
        pool=_pool(
            pool,
            parts["train", "unambiguous"] if own else None,
            None if tested is None else _questions(task, tested.pool, "pool"),
            forms,
            seed,
        ),
        validation=split(
            "validation",
            validation,
            None if tested is None else _questions(task, tested.validation, "validation"),
        ),
        evaluation=split(
            "test",
            evaluation,
            None if tested is None else _questions(task, tested.evaluation, "evaluation"),
        ),
    )


def _pool(
    size: int,
    clear: list[Choice] | None,
    questions: list[Choice] | None,
    forms: Sequence[str],
    seed: int,
) -> list[Choice]:
    """Half unambiguous, a quarter gender-needed, a quarter capability; None is built in."""
    wanted = size // 4
    quarter = min(
        wanted,
        wanted if questions is None else len(questions),
        wanted if clear is None else len(clear) // 2,
    )
    half = size - 2 * quarter if quarter == wanted else 2 * quarter
    counts = (half if clear is None else 0, quarter, quarter if questions is None else 0)
    rng = random.Random(f"pool-{seed}")
    return [
        *draw(clear or [], half, rng),
        *mixture("train", "train", counts, seed, "pool", forms),
        *draw(questions or [], quarter, rng),
    ]


def _questions(task: str, choices: Sequence[Choice], use: str) -> list[Choice]:
    questions = [choice for choice in choices if choice.kind == "capability"]
    if not questions:
        raise ValueError(f"{task}: the capability task has no capability question in its {use}")
    return questions
