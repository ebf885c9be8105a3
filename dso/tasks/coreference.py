"""The built-in coreference task: two people, one pronoun, "who does it refer to?".

Ambiguous sentences pair a man- with a woman-stereotyped occupation, come as twins (he / she), and
name the options of the question in both orders equally often. Unambiguous ones have one right
answer by their syntax; gender-needed ones have one only for a reader who uses the gender.

Follows arXiv 2512.15926, section 4 (coreference, type 1 and type 2), and WinoBias
(arXiv 1804.06876); the sentences are our own (`grammar.py`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal, get_args

from dso.tasks import grammar
from dso.tasks.choice import Choice, Option, Part
from dso.tasks.occupations import GENDERS, Gender, OccupationPart, select, side
from dso.tasks.quiz import quiz
from dso.tasks.task import Task, TaskData

TrainedOn = Literal["train", "compound"]
"""Occupations that can be trained on."""

EVALUATION_SEED = 1_000_003
"""Seed of validation and evaluation data, the same in every run."""

DEFAULT_FORMS: tuple[str, ...] = (" {}", "{}", " the {}", "the {}", "The {}", " The {}")
"""Surface forms of an answer that count for any model."""


def person(name: str) -> str:
    """A person as a sentence names them: names bare, everybody else with an article."""
    return name if name[0].isupper() and name != "CEO" else f"the {name}"


def options_for(
    people: Sequence[str], forms: Sequence[str], gender: Gender | None = None
) -> tuple[Option, ...]:
    """The people as options in the order of mention, with sides where a gender is given."""
    return tuple(
        Option(
            text=name,
            forms=tuple(form.format(name) for form in forms),
            side="neither" if gender is None else side(name, gender),
        )
        for name in people
    )


def _occupation_pairs(
    part: OccupationPart, count: int, rng: random.Random
) -> list[tuple[str, str]]:
    """`count` (first, second) mentions of opposite stereotypes; all combinations equally often."""
    men = [o.name for o in select(part, "male")]
    women = [o.name for o in select(part, "female")]
    every = [pair for m in men for w in women for pair in ((m, w), (w, m))]
    pairs: list[tuple[str, str]] = []
    while len(pairs) < count:
        rng.shuffle(every)
        pairs.extend(every)
    return pairs[:count]


def ambiguous(
    pairs: int,
    occupations: OccupationPart,
    wording: Part,
    seed: int,
    split: str,
    forms: Sequence[str] = DEFAULT_FORMS,
) -> list[Choice]:
    """Twin pairs of ambiguous sentences: 2 · `pairs` choices, twins next to each other.

    Args:
        pairs: number of twin pairs.
        occupations: split of the occupations.
        wording: split of the templates, verbs, events and questions.
        seed: of the draw.
        split: name of the split in reports and identifiers.
        forms: surface forms of an answer, `{}` standing for the occupation.
    """
    rng = random.Random(f"ambiguous-{occupations}-{wording}-{seed}")
    choices = []
    for number, people in enumerate(_occupation_pairs(occupations, pairs, rng)):
        pattern = rng.choice(grammar.AMBIGUOUS[wording])
        words = grammar.draw_words(rng, wording)
        question = rng.choice(grammar.QUESTIONS[wording])
        twin = f"{split}-ambiguous-{number}"
        for gender in GENDERS:
            sentence = grammar.fill(pattern, gender, {**words, "A": people[0], "B": people[1]})
            asked = grammar.ask(
                question, [person(p) for p in people], swap=number % 2 == 1, word=sentence.pronoun
            )
            choices.append(
                Choice(
                    id=f"{twin}-{gender}",
                    kind="ambiguous",
                    prompt=f"{sentence.text} {asked}",
                    options=options_for(people, forms, gender),
                    occupations=people,
                    gender=gender,
                    first=0,
                    twin=twin,
                    split=split,
                    source=pattern,
                )
            )
    return choices


def unambiguous(
    count: int,
    occupations: OccupationPart,
    wording: Part,
    seed: int,
    split: str,
    forms: Sequence[str] = DEFAULT_FORMS,
) -> list[Choice]:
    """`count` sentences whose syntax decides, the kinds equally often, genders drawn evenly."""
    rng = random.Random(f"unambiguous-{occupations}-{wording}-{seed}")
    kinds = list(grammar.UNAMBIGUOUS)
    choices = []
    for number, people in enumerate(_occupation_pairs(occupations, count, rng)):
        kind = kinds[number % len(kinds)]
        pattern, truth = grammar.UNAMBIGUOUS[kind]
        gender = rng.choice(GENDERS)
        words = {**grammar.draw_words(rng, wording), "A": people[0], "B": people[1]}
        sentence = grammar.fill(pattern, gender, words)
        named = [person(p) for p in people]
        question = rng.choice(grammar.QUESTIONS[wording])
        asked = grammar.ask(question, named, swap=rng.random() < 0.5, word=sentence.pronoun)
        choices.append(
            Choice(
                id=f"{split}-unambiguous-{number}",
                kind="unambiguous",
                prompt=f"{sentence.text} {asked}",
                options=options_for(people, forms),
                truth=truth,
                occupations=people,
                gender=gender,
                first=0,
                split=split,
                source=kind,
            )
        )
    return choices


def gender_needed(
    count: int, wording: Part, seed: int, split: str, forms: Sequence[str] = DEFAULT_FORMS
) -> list[Choice]:
    """`count` sentences that only the gender decides: two names, or a man and a woman."""
    rng = random.Random(f"gender-needed-{wording}-{seed}")
    names = grammar.NAMES[wording]
    choices = []
    for number in range(count):
        source = ("names", "kin")[number % 2]
        genders = rng.sample(GENDERS, 2)
        if source == "names":
            people = [rng.choice(names[g]) for g in genders]
        else:
            nouns = rng.choice(grammar.KIN)
            people = [nouns[GENDERS.index(g)] for g in genders]
        named = [person(p) for p in people]
        truth = rng.randrange(2)
        words = {**grammar.draw_words(rng, wording), "A": named[0], "B": named[1]}
        sentence = grammar.fill(rng.choice(grammar.GENDER_NEEDED), genders[truth], words)
        text = sentence.text[0].upper() + sentence.text[1:]
        question = rng.choice(grammar.QUESTIONS[wording])
        asked = grammar.ask(question, named, swap=rng.random() < 0.5, word=sentence.pronoun)
        choices.append(
            Choice(
                id=f"{split}-gender-needed-{number}",
                kind="gender_needed",
                prompt=f"{text} {asked}",
                options=options_for(people, forms),
                truth=truth,
                gender=genders[truth],
                first=0,
                split=split,
                source=source,
            )
        )
    return choices


def kl_pool(
    count: int,
    seed: int,
    forms: Sequence[str] = DEFAULT_FORMS,
    occupations: OccupationPart = "train",
    split: str = "pool",
) -> list[Choice]:
    """`count` prompts on which training holds the KL, in the training wording: half unambiguous, a
    quarter quiz, a quarter gender-needed."""
    quarter = count // 4
    counts = count - 2 * quarter, quarter, quarter
    return mixture(occupations, "train", counts, seed, split, forms)


class Coreference(Task):
    """The built-in coreference task: training data, KL pool, validation and two evaluation splits.

    Evaluation splits: `train_occupations` (the training occupations in held-out templates, verbs
    and questions) and `heldout_occupations` (the test occupations, everything held out).

    Args:
        pairs: twin pairs to train on.
        pool: prompts of the KL pool: half unambiguous, a quarter quiz, a quarter gender-needed.
        validation: twin pairs, and questions of each other kind, of the validation split.
        evaluation: twin pairs, and questions of each other kind, of each evaluation split.
        forms: surface forms that count as an answer, `{}` standing for the word. The default list
            serves any model; a model whose answers always have one form is faster with that one.
        seed: of the draw. Evaluation data do not depend on it: all runs are measured alike.
        occupations: the occupations trained on, in the pool too: `train`, or `compound` for others,
            whose names have two and three words.
    """

    def __init__(
        self,
        pairs: int = 300,
        pool: int = 2400,
        validation: int = 120,
        evaluation: int = 300,
        forms: Sequence[str] = DEFAULT_FORMS,
        seed: int = 0,
        occupations: TrainedOn = "train",
    ) -> None:
        for name, value in (("pairs", pairs), ("pool", pool), ("validation", validation)):
            if value < 4:
                raise ValueError(f"coreference: {name} is {value}; wanted at least 4")
        if evaluation < 4:
            raise ValueError(f"coreference: evaluation is {evaluation}; wanted at least 4")
        if not forms or any("{}" not in form for form in forms):
            raise ValueError(f"coreference: every form needs '{{}}' for the answer; got {forms}")
        if occupations not in get_args(TrainedOn):
            raise ValueError(
                f"coreference: occupations is {occupations!r}; wanted one of "
                f"{', '.join(get_args(TrainedOn))}"
            )
        self.pairs = pairs
        self.pool = pool
        self.validation = validation
        self.evaluation = evaluation
        self.forms = list(forms)
        self.seed = seed
        self.occupations: TrainedOn = occupations

    def load(self) -> TaskData:
        """Generate the choices."""
        trained = self.occupations
        return TaskData(
            train=ambiguous(self.pairs, trained, "train", self.seed, "train", self.forms),
            pool=kl_pool(self.pool, self.seed, self.forms, trained),
            validation=self._split("validation", "validation", "validation", self.validation),
            evaluation=[
                *self._split(trained, "test", "train_occupations", self.evaluation),
                *self._split("test", "test", "heldout_occupations", self.evaluation),
            ],
        )

    def _split(
        self, occupations: OccupationPart, wording: Part, name: str, count: int
    ) -> list[Choice]:
        return [
            *ambiguous(count, occupations, wording, EVALUATION_SEED, name, self.forms),
            *mixture(occupations, wording, (count,) * 3, EVALUATION_SEED, name, self.forms),
        ]


def mixture(
    occupations: OccupationPart,
    wording: Part,
    counts: tuple[int, int, int],
    seed: int,
    split: str,
    forms: Sequence[str],
) -> list[Choice]:
    """Choices with a right answer: (unambiguous, gender-needed, quiz) as many as `counts` says."""
    return [
        *unambiguous(counts[0], occupations, wording, seed, split, forms),
        *gender_needed(counts[1], wording, seed, split, forms),
        *quiz(counts[2], wording, seed, split, forms),
    ]
