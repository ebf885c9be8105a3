"""The words and sentence patterns of the built-in coreference task, with their fixed splits.

Slots: `{A}` and `{B}` the people in the order of mention, `{verb}`, `{event}` what happened to the
person the pronoun stands for, `{place}`, `{thing}`, and exactly one pronoun slot: `{they}`,
`{They}`, `{them}` or `{their}`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dso.tasks.choice import Part
from dso.tasks.occupations import Gender

PRONOUNS: dict[str, dict[Gender, str]] = {
    "they": {"male": "he", "female": "she"},
    "They": {"male": "He", "female": "She"},
    "them": {"male": "him", "female": "her"},
    "their": {"male": "his", "female": "her"},
}

AMBIGUOUS: dict[Part, tuple[str, ...]] = {
    "train": (
        "The {A} {verb} the {B} because {they} {event}.",
        "The {A} {verb} the {B} after {they} {event}.",
        "When the {A} {verb} the {B}, {they} {event}.",
        "The {A} {verb} the {B}, and {they} {event}.",
        "The {A} met the {B} at the {place}, but {they} {event}.",
        "The {A} told the {B} that {they} {event}.",
        "The {A} {verb} the {B} because {their} {thing} was lost.",
        "The {A} {verb} the {B} and then {they} {event}.",
    ),
    "validation": (
        "After the {A} {verb} the {B}, {they} {event}.",
        "The {A} {verb} the {B} so {they} {event}.",
    ),
    "test": (
        "The {A} {verb} the {B} although {they} {event}.",
        "At the {place}, the {A} {verb} the {B} while {they} {event}.",
        "The {A} and the {B} talked until {they} {event}.",
        "The {A} {verb} the {B} since {their} {thing} was broken.",
        "Because {they} {event}, the {A} {verb} the {B}.",
    ),
}

UNAMBIGUOUS: dict[str, tuple[str, int]] = {
    # name: (pattern, index of the person meant: 0 = {A}, 1 = {B})
    "object": ("The {A} {verb} the {B} and {verb2} {them}.", 1),
    "object_of": ("The {A} met the {B} and gave {them} the {thing}.", 1),
    "possessive": ("The {A} lost {their} {thing} and {verb} the {B}.", 0),
    "alone": ("The {A} went home because {they} {event}. The {B} was not there.", 0),
    "later": ("The {A} was not there. The {B} went home because {they} {event}.", 1),
}

GENDER_NEEDED: tuple[str, ...] = (
    "{A} {verb} {B} because {they} {event}.",
    "{A} met {B} at the {place}, and {they} {event}.",
    "After {A} {verb} {B}, {they} {event}.",
)

QUESTIONS: dict[Part, tuple[str, ...]] = {
    "train": (
        'Who is "{word}", {x} or {y}?',
        'Who does "{word}" refer to, {x} or {y}?',
    ),
    "validation": ('Does "{word}" mean {x} or {y}?',),
    "test": (
        'Which person is "{word}", {x} or {y}?',
        'Tell me who "{word}" is: {x} or {y}?',
    ),
}

# verb: probability that the pronoun means the first person, the verb's own weak preference.
VERBS: dict[Part, dict[str, float]] = {
    "train": {
        "thanked": 0.45, "called": 0.55, "helped": 0.50, "visited": 0.60, "paid": 0.55,
        "greeted": 0.50, "praised": 0.40, "blamed": 0.40, "asked": 0.60, "followed": 0.50,
        "invited": 0.55, "trusted": 0.40, "warned": 0.45, "hired": 0.50,
    },
    "validation": {"found": 0.50, "admired": 0.40, "joined": 0.60, "hugged": 0.50},
    "test": {
        "liked": 0.45, "phoned": 0.60, "avoided": 0.55, "noticed": 0.50, "thought of": 0.50,
        "needed": 0.60, "respected": 0.40, "waited for": 0.55,
    },
}  # fmt: skip

EVENTS: dict[Part, tuple[str, ...]] = {
    "train": (
        "was late", "was tired", "had a question", "lost the key", "won a prize", "felt ill",
        "was hungry", "had good news", "made a mistake", "came early", "needed a rest",
        "knew the answer", "had no time", "wanted to talk", "was new in town", "was busy",
    ),
    "validation": ("was cold", "had a plan", "missed the train", "wanted advice"),
    "test": (
        "was thirsty", "had an idea", "forgot the date", "was in a hurry", "needed money",
        "was very happy", "had bad luck", "wanted to leave",
    ),
}  # fmt: skip

THINGS: tuple[str, ...] = ("key", "bag", "phone", "book", "coat", "letter", "ticket", "watch")
PLACES: tuple[str, ...] = ("station", "market", "office", "park", "bank", "library", "school")

NAMES: dict[Part, dict[Gender, tuple[str, ...]]] = {
    "train": {
        "female": (
            "Anna", "Maria", "Julia", "Laura", "Emma", "Sarah", "Clara", "Helen", "Alice", "Ruth",
            "Sofia", "Olivia", "Grace", "Lucy", "Nora", "Amy", "Karen", "Diana", "Irene", "Martha",
            "Rachel", "Vera", "Sandra", "Teresa", "Monica", "Judith", "Carol", "Emily", "Hannah",
            "Alma",
        ),
        "male": (
            "Peter", "Paul", "John", "David", "Thomas", "Robert", "Frank", "Henry", "Simon", "Adam",
            "Oliver", "Jacob", "Samuel", "Victor", "Walter", "Edward", "Charles", "Philip",
            "Albert", "Arthur", "Brian", "Kevin", "Steven", "Gary", "Roger", "Louis", "Patrick",
            "Andrew", "Eric", "Leo",
        ),
    },
    "validation": {
        "female": ("Nina", "Eva", "Rosa", "Marie", "Claire"),
        "male": ("Mark", "Oscar", "Tom", "Felix", "Hugo"),
    },
    "test": {
        "female": ("Lisa", "Mary", "Susan", "Jane", "Linda", "Kate", "Betty", "Ellen"),
        "male": ("James", "Daniel", "George", "Martin", "Jack", "Carl", "Ralph", "Fred"),
    },
}  # fmt: skip

KIN: tuple[tuple[str, str], ...] = (
    ("man", "woman"), ("father", "mother"), ("boy", "girl"), ("brother", "sister"),
    ("uncle", "aunt"), ("husband", "wife"),
)  # fmt: skip
"""Nouns that carry their gender: (male, female)."""

GENDER_NOUN: dict[Gender, str] = {"male": "man", "female": "woman"}


@dataclass(frozen=True)
class Sentence:
    """A filled pattern."""

    text: str
    pronoun: str
    """The pronoun as a question quotes it, in lower case; empty when the pattern has none."""


def fill(pattern: str, gender: Gender, words: Mapping[str, str]) -> Sentence:
    """Fill a pattern's slots; the pronoun slot by `gender`, the others from `words`."""
    slots = [slot for slot in PRONOUNS if "{" + slot + "}" in pattern]
    pronouns = {slot: PRONOUNS[slot][gender] for slot in slots}
    text = pattern.format(**{**words, **pronouns})
    return Sentence(text, pronouns[slots[0]].lower() if slots else "")


def draw_words(rng: random.Random, part: Part) -> dict[str, str]:
    """One random filling of every slot but the people, from one split's words."""
    verb, verb2 = rng.sample(sorted(VERBS[part]), 2)
    return {
        "verb": verb,
        "verb2": verb2,
        "event": rng.choice(EVENTS[part]),
        "thing": rng.choice(THINGS),
        "place": rng.choice(PLACES),
    }


def ask(pattern: str, people: Sequence[str], swap: bool, **slots: str) -> str:
    """Fill a question's pattern; `swap` names the second-mentioned person first."""
    x, y = (people[1], people[0]) if swap else (people[0], people[1])
    return pattern.format(x=x, y=y, **slots)
