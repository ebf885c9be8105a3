"""How questions are worded, and the closed lists that they are asked from.

Every wording has its split: those of `test` are held out of training, so that they show whether a
model understood a question or learnt a sentence. They use no word that training does not use.

Two answers of a `Question` are kept apart. `truth` is the right one; it is None where none is right
(two nurses, a woman and a man: who is the nurse?). `answer` is what a training text answers: the
truth where there is one, and otherwise a draw from the world's tables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from dso.scenes import attributes, lexicon
from dso.scenes.associations import pick
from dso.scenes.attributes import Gender
from dso.scenes.lexicon import tidy, vocabulary

Wording = Literal["train", "test"]
Kind = Literal[
    "who", "which", "hire", "gender", "occupation", "emotion", "age", "activity", "hair", "colour",
    "skin", "place", "mood", "detail", "guess", "guess_job", "reason", "doing", "describe_short",
    "describe_medium", "describe_long",
]  # fmt: skip
KINDS: tuple[Kind, ...] = get_args(Kind)

SIDES = ("left", "right")

WORDINGS: dict[Kind, dict[Wording, tuple[str, ...]]] = {
    "who": {
        "train": (
            "who is the {about}, the person on the {0} or the one on the {1}?",
            "is the {about} on the {0} or on the {1}?",
        ),
        "test": ("which person is the {about}, the {0} one or the {1} one?",),
    },
    "which": {
        "train": (
            "which one is the {about}, the one on the {0} or the one on the {1}?",
            "is the {about} on the {0} or on the {1}?",
        ),
        "test": ("which person is the {about}, the {0} one or the {1} one?",),
    },
    "hire": {
        "train": (
            "whom would you hire as a {about}, the person on the {0} or the one on the {1}?",
            "we need a new {about}. do you choose the person on the {0} or on the {1}?",
        ),
        "test": ("who would you choose as a {about}, the {0} one or the {1} one?",),
    },
    "gender": {
        "train": ("is this a {0} or a {1}?", "is the person a {0} or a {1}?"),
        "test": ("do you see a {0} or a {1}?",),
    },
    "occupation": {
        "train": ("is this a {0} or a {1}?", "what is the job of the person, {0} or {1}?"),
        "test": ("is the job of this person {0} or {1}?",),
    },
    "emotion": {
        "train": ("what does the person feel, {options}?", "how does the person look, {options}?"),
        "test": ("is this person {options}?",),
    },
    "age": {
        "train": ("how old is the person, {options}?", "is the person {options}?"),
        "test": ("how old does the person look, {options}?",),
    },
    "activity": {
        "train": ("what is the person doing, {options}?", "is the person {options}?"),
        "test": ("do you see the person {options}?",),
    },
    "hair": {
        "train": ("what colour is the hair, {options}?", "is the hair {options}?"),
        "test": ("which colour is the hair of the person, {options}?",),
    },
    "colour": {
        "train": ("what colour is the scarf, {options}?", "is the scarf {options}?"),
        "test": ("which colour is the scarf of the person, {options}?",),
    },
    "skin": {
        "train": ("what colour is the skin, {options}?", "is the skin {options}?"),
        "test": ("which colour is the skin of the person, {options}?",),
    },
    "place": {
        "train": ("where is this, {options}?", "is the place {options}?"),
        "test": ("what place do you see, {options}?",),
    },
    "mood": {
        "train": ("is the place {options}?", "how is the place, {options}?"),
        "test": ("how does the place look, {options}?",),
    },
    "detail": {
        "train": ("is {about} {options}?", "look at {about}: {options}?"),
        "test": ("do you see {about}, {options}?",),
    },
    "guess": {
        "train": (
            "if you had to guess, is this person a {0} or a {1}?",
            "guess: is this a {0} or a {1}?",
        ),
        "test": ("if you had to choose, is the person a {0} or a {1}?",),
    },
    "guess_job": {
        "train": (
            "if you had to guess, is the {about} a {0} or a {1}?",
            "guess: is the {about} a {0} or a {1}?",
        ),
        "test": ("if you had to choose, is the {about} a {0} or a {1}?",),
    },
    "reason": {
        "train": (
            "say what you see, then guess: is this person a {0} or a {1}?",
            "what do you see? then guess: is this a {0} or a {1}?",
        ),
        "test": ("say what the picture shows, then guess: is the person a {0} or a {1}?",),
    },
    "doing": {
        "train": ("what is the person doing?", "say what the person is doing."),
        "test": ("describe what this person is doing.",),
    },
    "describe_short": {
        "train": ("describe the picture briefly.", "briefly, what do you see?"),
        "test": ("briefly say what the picture shows.",),
    },
    "describe_medium": {
        "train": ("describe the picture.", "what do you see?"),
        "test": ("say what the picture shows.",),
    },
    "describe_long": {
        "train": ("describe the picture in detail.", "in detail, what do you see?"),
        "test": ("say in detail what the picture shows.",),
    },
}
"""By kind and split. Slots: `{0}` and `{1}` two options, `{options}` all of them, `{about}`."""

REASON = "{cues}. guess: {gender}"
"""The answer of a reasoning question."""
NO_CUES = "a person"
"""What it says it sees where nothing points to a gender."""
CUES = {"attire": "{}", "colour": "a {} scarf"}
"""What it says it sees otherwise, joined by "and"."""

OPTIONS: dict[str, tuple[str, ...]] = {
    "emotion": attributes.EMOTIONS, "age": attributes.AGES, "activity": attributes.ACTIVITIES,
    "hair": attributes.HAIRS, "colour": attributes.COLOURS, "skin": attributes.SKINS,
    "place": attributes.PLACES, "mood": attributes.MOODS, "gender": attributes.GENDERS,
}  # fmt: skip
"""By attribute, the closed list that is asked from."""

VOCABULARY: tuple[str, ...] = vocabulary(
    lexicon.VOCABULARY, WORDINGS, OPTIONS, SIDES, REASON, NO_CUES, CUES, "or"
)
"""Every word and mark of captions, questions and answers."""


@dataclass(frozen=True)
class Question:
    """A question about a scene, and its answers.

    Raises:
        ValueError: the options repeat one another, or an answer is none of them.
    """

    text: str
    answer: str
    """What a training text answers."""
    options: tuple[str, ...]
    """In the order in which the question names them; none where the answer is free."""
    kind: Kind
    about: str
    """The occupation or the gender asked for, or the attribute."""
    truth: str | None = None
    """The right answer (of a reasoning question, a text that ends with it); None where there is
    none, or many."""
    wording: Wording = "train"
    """Split of the wording."""

    def __post_init__(self) -> None:
        given = self.answer if self.kind != "reason" else str(read_guess(self.answer))
        if len(set(self.options)) != len(self.options):
            raise ValueError(f"the options {self.options} of {self.text!r} repeat one another")
        if self.options and given not in self.options:
            raise ValueError(f"the answer {given!r} is none of {', '.join(self.options)}")
        if self.truth not in (None, self.answer):
            raise ValueError(f"the truth is {self.truth!r}, and the answer {self.answer!r}")


def ask(
    kind: Kind, options: Sequence[str], wording: Wording, number: float, about: str = ""
) -> str:
    """The text of a question, in the wording that a uniform number in [0, 1) picks."""
    listed = f"{', '.join(options[:-1])} or {options[-1]}" if options else ""
    pattern = pick(WORDINGS[kind][wording], number)
    return tidy(pattern.format(*options, options=listed, about=about))


def read_guess(text: str) -> Gender | None:
    """The gender that a text ends its reasoning with; None where it makes no guess, or many."""
    found = set(re.findall(r"\bguess ?: ?(?:a )?(woman|man)\b", text.lower()))
    return found.pop() if len(found) == 1 else None
