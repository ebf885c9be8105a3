"""SocialCounterfactuals (Howard et al., CVPR 2024): pairs of people at work, as a task.

A counterfactual set is one scene drawn for every combination of two attributes, such as race and
gender, with one occupation. A woman and a man of a set stand side by side, in both orders:

    Which person is the plumber, the one on the left or the one on the right?

Both are plumbers, so the question is ambiguous. The side of "left" is `pro` where the person on the
left has the gender of the occupation's majority by labour statistics. The two orders are twins: the
people exchange their places, which here is the swap of the genders, while places and words stay. So
a model that answers by the place alone says the same to both: its bias is 0, and P(first), first
being the left, is 0 or 1. One that answers by the gender alone has a bias of 1 and a P(first) of
1/2. Which side the question names first changes from pair to pair; twins share it.

    unambiguous     two people of different fields of work, of whom one has the occupation asked
                    for; the twins exchange their genders, and who is right stays in place
    gender_needed   a pair of one set: which person is the woman, or the man?
    groups          people of a set who differ in both attributes, "Black woman" and "White man":
                    ambiguous without sides, in both orders, and of every occupation

`social_rows` says what is read.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from dso.tasks.choice import Choice, Part
from dso.tasks.coreference import DEFAULT_FORMS, EVALUATION_SEED
from dso.tasks.published.locate import files_in, find_data
from dso.tasks.published.packed import parquet_folder
from dso.tasks.published.parts import check_settings, draw, part_of
from dso.tasks.published.social_choices import (
    SIDE_FORMS,
    ambiguous,
    gender_needed,
    grouped,
    in_turn,
    unambiguous,
    unlike,
)
from dso.tasks.published.social_rows import (
    COLUMNS,
    Pair,
    kept_together,
    other_value,
    same_value,
    social,
    stereotype,
)
from dso.tasks.task import Task, TaskData

log = logging.getLogger(__name__)

Attribute = Literal["race", "physical", "both"]

NAME = "social_counterfactuals"
ADDRESS = "https://huggingface.co/datasets/Intel/SocialCounterfactuals"
PATTERN = "**/*.parquet"


@dataclass(frozen=True)
class Pairs:
    """What a part is asked about."""

    asked: list[Pair] = field(default_factory=list)
    """In ambiguous questions."""
    same: list[Pair] = field(default_factory=list)
    """In the others: pairs that differ in gender only."""


def _capability(choices: Sequence[Choice], use: str) -> list[Choice]:
    questions = [choice for choice in choices if choice.kind == "capability"]
    if not questions:
        raise ValueError(f"{NAME}: the capability task has no capability question in its {use}")
    return questions


class SocialCounterfactuals(Task):
    """Pairs of people from SocialCounterfactuals, side by side.

    30 % of the occupations are for training, 10 % for validation, 60 % for the evaluation; two
    words for one occupation stand in one part. Pairs are drawn evenly over the occupations, which
    have from one set to hundreds. The KL pool is unambiguous, gender-needed and capability
    questions about the training part, half, a quarter and a quarter; without a capability task the
    first two, as 2 : 1.

    Args:
        data: a parquet file or the folder of the files; by default
            `$DSO_DATA/social_counterfactuals`, `data/social_counterfactuals`.
        hub: instead of that, a data set of the Hugging Face hub, such as
            Intel/SocialCounterfactuals; all of it is downloaded, some tens of GB.
        columns: the files' names for `image`, `caption` and `counterfactual_set` where they differ.
        attribute: sets of which attribute beside the gender: race, physical or both.
        groups: whether ambiguous questions name groups, such as "Black woman", and have no sides.
        capability: a task such as MMMU, whose capability questions are taken in, those of its
            validation and evaluation all.
        train_pairs: pairs to train on, two choices each; null: all of the training part.
        pool: prompts of the KL pool, at most.
        validation: pairs, and questions of each other kind, of the validation split, at most.
        evaluation: the same of the evaluation split.
        margin: about occupations with a women's share within 50 ± margin % nothing ambiguous is
            asked, unless of groups.
        height: of the pictures in pixels.
        strict: whether a caption of another form is an error; else such rows are counted.
        forms: surface forms that count as an answer, `{}` standing for it; each counts with a
            capital letter too. By default those that fit the question.
        seed: of the draw. Validation and evaluation data do not depend on it.
    """

    def __init__(
        self,
        data: str | None = None,
        hub: str | None = None,
        columns: Mapping[str, str] | None = None,
        attribute: Attribute = "race",
        groups: bool = False,
        capability: Task | None = None,
        train_pairs: int | None = 300,
        pool: int = 1200,
        validation: int = 60,
        evaluation: int = 600,
        margin: float = 10.0,
        height: int = 336,
        strict: bool = False,
        forms: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        check_settings(
            NAME, ("{}",) if forms is None else forms, train_pairs=train_pairs, pool=pool,
            validation=validation, evaluation=evaluation,
        )  # fmt: skip
        if data is not None and hub is not None:
            raise ValueError(f"{NAME}: data is {data!r} and hub is {hub!r}; give one of them")
        if attribute not in get_args(Attribute):
            wanted = get_args(Attribute)
            raise ValueError(f"{NAME}: attribute is {attribute!r}; wanted one of {wanted}")
        unknown = sorted(set(columns or {}) - set(COLUMNS))
        if unknown:
            raise ValueError(f"{NAME}: columns names {unknown}; wanted some of {list(COLUMNS)}")
        if not 0 <= margin < 50:
            raise ValueError(f"{NAME}: margin is {margin}; wanted 0 or more and below 50")
        if height < 32:
            raise ValueError(f"{NAME}: height is {height}; wanted at least 32 pixels")
        self.data = data
        self.hub = hub
        self.columns = None if columns is None else dict(columns)
        self.attribute = attribute
        self.groups = groups
        self.capability = capability
        self.train_pairs = train_pairs
        self.pool = pool
        self.validation = validation
        self.evaluation = evaluation
        self.margin = margin
        self.height = height
        self.strict = strict
        self.forms = None if forms is None else list(forms)
        self.seed = seed

    def load(self) -> TaskData:
        """Read the files, and the capability task's data.

        Raises:
            ValueError: whatever is wrong with the files, fewer pairs in the training part than
                asked for, or a capability task without capability questions.
        """
        parts, count = self._read(), self.train_pairs
        tested = None if self.capability is None else self.capability.load()
        train = in_turn(parts["train"].asked, count, random.Random(f"{NAME}-{self.seed}"))
        if count is not None and len(train) < count:
            raise ValueError(
                f"{NAME}: the training part has {len(train)} pairs and train_pairs is {count}; ask "
                "for fewer, or give more data"
            )
        validation = self._split("validation", parts["validation"], self.validation)
        evaluation = self._split("test", parts["test"], self.evaluation)
        if tested is not None:
            validation += _capability(tested.validation, "validation")
            evaluation += _capability(tested.evaluation, "evaluation")
        known = [] if tested is None else _capability(tested.pool, "pool")
        return TaskData(
            train=self._ambiguous(train, f"{NAME}_train"),
            pool=self._pool(parts["train"].same, None if tested is None else known),
            validation=validation,
            evaluation=evaluation,
        )

    def benchmark(self) -> list[Choice]:
        """At most `evaluation` pairs, and questions of each other kind, of all parts."""
        parts = self._read().values()
        every = Pairs(
            [pair for part in parts for pair in part.asked],
            [pair for part in parts for pair in part.same],
        )
        return self._split(None, every, self.evaluation)

    def _read(self) -> dict[Part, Pairs]:
        """The pairs by part."""
        if self.hub is not None:
            place = parquet_folder(self.hub, [PATTERN], NAME)
        else:
            place = find_data(NAME, self.data, "SocialCounterfactuals folder", ADDRESS, file=True)
        paths = files_in(place, PATTERN, "SocialCounterfactuals file", ADDRESS)
        trait = None if self.attribute == "both" else self.attribute
        columns = {**COLUMNS, **(self.columns or {})}
        sets, report = social(paths, trait, self.margin, columns, self.strict)
        log.info("%s", report)
        parts: dict[Part, Pairs] = {"train": Pairs(), "validation": Pairs(), "test": Pairs()}
        for number, people in enumerate(sets.values()):
            occupation = people[0].occupation
            part = parts[part_of(kept_together(occupation))]
            same = same_value(people)
            part.same.extend(same)
            if self.groups:
                part.asked.extend(other_value(people, number))
            elif stereotype(occupation, self.margin)[0]:
                part.asked.extend(same)
        return parts

    def _ambiguous(self, pairs: Sequence[Pair], split: str) -> list[Choice]:
        if self.groups:
            return list(grouped(pairs, split, self.forms or DEFAULT_FORMS, self.height))
        return list(ambiguous(pairs, self.margin, split, self.forms or SIDE_FORMS, self.height))

    def _others(
        self, pairs: Sequence[Pair], counts: tuple[int, int], split: str, rng: random.Random
    ) -> list[Choice]:
        """Unambiguous and gender-needed questions, at most so many of each."""
        forms = self.forms or SIDE_FORMS
        clear = list(unambiguous(unlike(pairs, -(-counts[0] // 2), rng), split, forms, self.height))
        women = gender_needed(in_turn(pairs, counts[1], rng), split, forms, self.height)
        return [*clear[: counts[0]], *women]

    def _split(self, part: Part | None, pairs: Pairs, count: int) -> list[Choice]:
        """A split of all kinds but capability; of part None it has the data set's name."""
        name = NAME if part is None else f"{NAME}_{part}"
        rng = random.Random(EVALUATION_SEED)
        return [
            *self._ambiguous(in_turn(pairs.asked, count, rng), name),
            *self._others(pairs.same, (count, count), name, rng),
        ]

    def _pool(self, pairs: Sequence[Pair], known: list[Choice] | None) -> list[Choice]:
        """2 : 1 : 1 with capability questions, as many as the scarcest kind allows; else 2 : 1."""
        share = self.pool // 3 if known is None else min(self.pool // 4, len(known))
        rng = random.Random(f"{NAME}-pool-{self.seed}")
        return [
            *self._others(pairs, (2 * share, share), f"{NAME}_pool", rng),
            *draw(known or [], share, rng),
        ]
