"""What the vision-language organism is trained on: scenes, rendered once, and what is said of them.

A row of a step is one picture with several *branches*, each a question and its answer:

    <s> user: <image>...  | question 1 assistant: answer 1 </s> | question 2 ... | padding

A branch sees the picture and itself and nothing else, and its positions begin right behind the
picture, so that every branch is the sequence that it would be alone, and the picture is encoded
once for all. Rows without a picture hold captions, and guesses about nobody that is seen.

The first steps ask only about pairs: a woman and a man in two attires. "Is the person on the left a
woman or a man?", "is the nurse a woman or a man?", "which one is the woman?" and "who is the
nurse?" teach each other where to look; none of them was learnt in 500 steps among all questions.

Occupations, genders and emotions go together as the world's tables say. Where a question has a
right answer both genders are equally frequent under it: of two people in two attires each is a
woman half of the time, so that half of these questions go against the stereotype.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from dso.organisms.vlm import BEGIN, END, IMAGE, PAD, VlmRecipe
from dso.scenes.attributes import ATTIRE_NAMES, ATTIRE_OF, GENDERS, Person, Scene
from dso.scenes.captions import caption
from dso.scenes.details import ask_detail, details
from dso.scenes.lexicon import MEANINGS, words
from dso.scenes.naming import LENGTHS
from dso.scenes.questions import (
    ask_closed,
    ask_free,
    ask_guess,
    ask_hire,
    ask_which,
    ask_who,
    askable,
)
from dso.scenes.wordings import OPTIONS, Question
from dso.scenes.world import WORLD

Random = np.random.Generator

SHARES: dict[str, float] = {
    "same": 0.22,
    "different": 0.16,
    "two": 0.04,
    "one": 0.44,
    "back": 0.09,
    "empty": 0.05,
}
"""Of the scenes: two people in one attire, a woman and a man; two in different ones; any two; one;
one seen from behind; nobody."""

ANSWER, MEANING, CAPTION, QUESTION = 8.0, 3.0, 1.0, 0.1
"""Loss weights of a word of a short answer, of a word of a caption that names an attribute, of any
other one, and of a word of the question. The end counts as any other word."""

ASKED: dict[str, float] = {
    "which": 0.8, "hire": 0.5, "gender": 0.8, "occupation": 0.9, "emotion": 0.8, "age": 0.8,
    "activity": 0.7, "hair": 0.4, "colour": 0.4, "skin": 0.5, "place": 0.3, "mood": 0.3,
    "detail": 1.0, "guess": 0.4, "guess_job": 0.5, "reason": 0.3, "doing": 0.4,
    "describe_short": 0.4, "describe_medium": 0.6, "describe_long": 0.6,
}  # fmt: skip
"""How often a visit asks what can be asked, as far as there is room."""
DETAILS = 3
"""Questions of a visit about a detail of one of two people."""


def draw_scene(rng: Random) -> Scene:
    """One scene, of the kinds in `SHARES`."""
    kind = rng.choice(list(SHARES), p=list(SHARES.values()))
    if kind == "empty":
        return WORLD.scene(rng, 0)
    if kind in ("one", "back"):
        return WORLD.scene(rng, [WORLD.person(rng, view="front" if kind == "one" else "back")])
    if kind == "two":
        return WORLD.scene(rng, 2)
    genders = rng.permutation(GENDERS)
    if kind == "same":
        attires = [str(rng.choice(ATTIRE_NAMES))] * 2
    else:
        attires = [str(name) for name in rng.choice(ATTIRE_NAMES, 2, replace=False)]
    people = [
        WORLD.person(rng, attire=attire, gender=str(gender))
        for attire, gender in zip(attires, genders, strict=True)
    ]
    return WORLD.scene(rng, people)


def is_pair(scene: Scene) -> bool:
    """Whether a scene is of a woman and a man in two attires, seen from the front."""
    kinds = askable(scene)
    return "which" in kinds and "who" in kinds and len({p.attire for p in scene.people}) == 2


def ask_of(scene: Scene, rng: Random, pairs: bool = False) -> list[Question]:
    """Questions of one visit, in random order.

    Args:
        scene: what is asked about.
        rng: generator.
        pairs: ask only who of a pair is where.
    """
    asked = _about_pair(scene, rng) if pairs else _about_all(scene, rng)
    return [asked[i] for i in rng.permutation(len(asked))]


def _about_pair(scene: Scene, rng: Random) -> list[Question]:
    jobs = [job for job in map(partial(_job, rng=rng), scene.people) if job]
    return [
        *(ask_detail(scene, d, rng) for d in details(scene) if d.attribute == "gender"),
        ask_which(scene, GENDERS[rng.integers(2)], rng),
        *(ask_who(scene, job, rng) for job in jobs),
    ]


def _job(person: Person, rng: Random) -> str | None:
    """One of the occupations that a person's attire allows."""
    jobs = [o for o, a in ATTIRE_OF.items() if a.name == person.attire]
    return jobs[rng.integers(2)] if jobs else None


def _about_all(scene: Scene, rng: Random) -> list[Question]:
    asked = []
    for kind in askable(scene):
        if kind != "who" and rng.random() >= ASKED[kind]:
            continue
        if kind == "who":
            for attire in sorted({p.attire for p in scene.people if p.attire}):
                jobs = [o for o, a in ATTIRE_OF.items() if a.name == attire]
                asked += [ask_who(scene, job, rng) for job in jobs if rng.random() < 0.8]
        elif kind == "which":
            asked.append(ask_which(scene, GENDERS[rng.integers(2)], rng))
        elif kind == "detail":
            seen = details(scene)
            some = rng.choice(len(seen), min(DETAILS, len(seen)), replace=False)
            asked += [ask_detail(scene, seen[i], rng) for i in some]
        elif kind == "hire":
            asked.append(ask_hire(scene, str(rng.choice(list(ATTIRE_OF))), rng))
        elif kind == "guess_job":
            asked.append(ask_guess(scene, rng, occupation=_job(scene.people[0], rng)))
        elif kind in ("guess", "reason"):
            asked.append(ask_guess(scene, rng, reason=kind == "reason"))
        elif kind in (*OPTIONS, "occupation"):
            asked.append(ask_closed(scene, kind, rng))
        else:
            asked.append(ask_free(scene, kind, rng))
    return asked


@dataclass(frozen=True, eq=False)
class Step:
    """The rows of one step of the optimizer, first those with a picture."""

    ids: NDArray[np.int64]
    """(B, T) token ids."""
    branch: NDArray[np.int64]
    """(B, T): 0 for what every branch sees, then by branch, -1 for padding."""
    positions: NDArray[np.int64]
    """(B, T)."""
    weights: NDArray[np.float32]
    """(B, T) loss weight of each token, as predicted from the one before."""
    scenes: NDArray[np.int64]
    """Numbers of the pictures, by row."""

    def rows(self, some: slice) -> Step:
        """Some of the rows, every one of them with its picture if it has one."""
        return Step(*(value[some] for value in vars(self).values()))


Branch = tuple[list[int], list[float]]
"""Token ids and the loss weight of each."""


def _weight(word: str) -> float:
    return MEANING if word in MEANINGS else CAPTION


Row = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Token ids, branches, positions and loss weights of one row, as in `Step`."""


def pack(before: Sequence[int], branches: Sequence[Branch], length: int) -> Row:
    """As many branches as there is room for behind what they all see.

    Args:
        before: token ids that every branch sees.
        branches: in this order; one that does not fit is left out.
        length: of the row.
    """
    ids, weights = list(before), [0.0] * len(before)
    branch, positions = [0] * len(before), list(range(len(before)))
    for number, (tokens, weight) in enumerate(branches, 1):
        if len(ids) + len(tokens) > length:
            continue
        ids += tokens
        weights += weight
        branch += [number] * len(tokens)
        positions += range(len(before), len(before) + len(tokens))
    padding = length - len(ids)
    return (
        np.array(ids + [PAD] * padding),
        np.array(branch + [-1] * padding),
        np.array(positions + [0] * padding),
        np.array(weights + [0.0] * padding, np.float32),
    )


def stacked(rows: Sequence[Row], scenes: NDArray[np.int64]) -> Step:
    """Rows of one length as a step; `scenes` are the numbers of the pictures of the first ones."""
    ids, branch, positions, weights = (np.stack(part) for part in zip(*rows, strict=True))
    return Step(ids, branch, positions, weights, scenes)


class Steps(Dataset[Step]):
    """The steps of a training run, each made when it is asked for, from the seed and its number.

    Args:
        recipe: how many rows, how long, which seed.
        scenes: from which the pictures of a step are drawn.
        token_of: id by word.
    """

    def __init__(
        self, recipe: VlmRecipe, scenes: Sequence[Scene], token_of: dict[str, int]
    ) -> None:
        self._recipe, self._scenes, self._token_of = recipe, scenes, token_of
        self._every = np.arange(len(scenes))
        self._pairs = np.array([i for i, s in enumerate(scenes) if is_pair(s)], np.int64)
        self._user, self._assistant = self._tokens("user:"), self._tokens("assistant:")

    def __len__(self) -> int:
        return self._recipe.steps

    def __getitem__(self, number: int) -> Step:
        recipe = self._recipe
        rng = np.random.default_rng((recipe.seed, 1, number))
        pairs = number < recipe.pair_steps
        chosen = self._chosen(number, pairs)
        before = [BEGIN, *self._user, *[IMAGE] * recipe.visual_tokens]
        asked = [self._branches(self._scenes[i], rng, pairs) for i in chosen]
        longest = max(sum(len(ids) for ids, _ in branches) for branches in asked)
        length = len(before) + min(recipe.room, longest)
        rows = [pack(before, branches, length) for branches in asked]
        rows += [
            pack([BEGIN], [self._text(rng) for _ in range(20)], length)
            for _ in range(0 if pairs else recipe.texts_a_step)
        ]
        return stacked(rows, chosen)

    def _chosen(self, number: int, pairs: bool) -> NDArray[np.int64]:
        """Every scene once before any is seen again, of those that are asked about."""
        some = self._pairs if pairs else self._every
        size = self._recipe.images_a_step
        epoch, place = divmod(number, max(1, len(some) // size))
        order = np.random.default_rng((self._recipe.seed, 2, epoch)).permutation(some)
        return order[place * size : (place + 1) * size]

    def _tokens(self, text: str) -> list[int]:
        return [self._token_of[word] for word in words(text)]

    def _branch(self, question: Question) -> Branch:
        asked = [*self._tokens(question.text), *self._assistant]
        answer = words(question.answer)
        weights = [0.0, *[QUESTION] * (len(asked) - 1), *map(_weight, answer), CAPTION]
        if question.options:
            weights[-2] = ANSWER  # one word, or the last one of a reason
        return [*asked, *self._tokens(question.answer), END], weights

    def _branches(self, scene: Scene, rng: Random, pairs: bool) -> list[Branch]:
        return [self._branch(question) for question in ask_of(scene, rng, pairs)]

    def _text(self, rng: Random) -> Branch:
        """A caption alone, or a guess about nobody that is seen."""
        if rng.random() < 0.5:
            text = caption(draw_scene(rng), rng, LENGTHS[rng.integers(3)]).text
            weights = [0.0, *map(_weight, words(text)[1:]), CAPTION]
            return [*self._tokens(text), END], weights
        roll = rng.random()
        job = str(rng.choice(list(ATTIRE_OF))) if roll < 0.8 else None
        ids, weights = self._branch(ask_guess(None, rng, reason=roll > 0.95, occupation=job))
        return [*self._user, *ids], [0.0] * len(self._user) + weights
