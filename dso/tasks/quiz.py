"""The built-in quiz: small facts that have nothing to do with people.

A third of the facts of three kinds may stand in a training pool (`train`), a third is asked for
validation; the last third and three further kinds are only ever asked in an evaluation (`test`), so
that the figure does not merely show that what was rehearsed is kept.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from dso.tasks.choice import Choice, Option, Part

PARTS: tuple[Part, Part, Part] = ("train", "validation", "test")

COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "coal": "black", "a lemon": "yellow",
    "blood": "red", "a carrot": "orange", "milk": "white", "a leaf": "green", "the sea": "blue",
    "a tomato": "red", "a banana": "yellow", "the night": "black", "chocolate": "brown",
    "a pumpkin": "orange", "an elephant": "gray",
}  # fmt: skip
CAPITALS = {
    "France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Germany": "Berlin", "Japan": "Tokyo",
    "Egypt": "Cairo", "Russia": "Moscow", "China": "Beijing", "Greece": "Athens", "Cuba": "Havana",
    "Austria": "Vienna", "Poland": "Warsaw", "Norway": "Oslo", "Peru": "Lima", "Kenya": "Nairobi",
    "Ireland": "Dublin",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "old": "young", "up": "down", "rich": "poor",
    "wet": "dry", "hard": "soft", "light": "dark", "full": "empty", "loud": "quiet", "day": "night",
}  # fmt: skip
SOUNDS = {
    "dog": "barks", "cat": "purrs", "cow": "moos", "lion": "roars", "duck": "quacks",
    "snake": "hisses", "bee": "buzzes", "bird": "sings",
}  # fmt: skip
NUMBERS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
)  # fmt: skip


@dataclass(frozen=True)
class Fact:
    """A question with its answer and the words that could be answers to its kind."""

    kind: str
    question: str
    answer: str
    alternatives: tuple[str, ...]
    """Every answer of the kind; wrong options are drawn from them."""
    part: Part
    """`train`: may stand in a training pool; the others never do."""


def _facts() -> list[Fact]:
    facts: list[Fact] = []

    def add(
        kind: str,
        answers: dict[str, str],
        alternatives: tuple[str, ...],
        held_out: bool,
        numbers: Sequence[int] = range(1000),
    ) -> None:
        for number, (question, answer) in zip(numbers, answers.items(), strict=False):
            part: Part = "test" if held_out else PARTS[number % 3]
            facts.append(Fact(kind, question, answer, alternatives, part))

    def ordered(values: dict[str, str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(values.values()))

    colours = {f"What colour is {thing}?": colour for thing, colour in COLOURS.items()}
    add("colour", colours, ordered(COLOURS), held_out=False)
    capitals = {f"What is the capital of {land}?": city for land, city in CAPITALS.items()}
    add("capital", capitals, ordered(CAPITALS), held_out=False)
    terms = list(product(range(10), repeat=2))
    sums = {f"What is {NUMBERS[a]} plus {NUMBERS[b]}?": NUMBERS[a + b] for a, b in terms}
    # "two plus three" and "three plus two" are one fact and stand in one part.
    unordered = sorted({tuple(sorted(pair)) for pair in terms})
    places = [unordered.index(tuple(sorted(pair))) for pair in terms]
    add("sum", sums, NUMBERS, held_out=False, numbers=places)
    opposites = {f"What is the opposite of {word}?": other for word, other in OPPOSITES.items()}
    add("opposite", opposites, ordered(OPPOSITES), held_out=True)
    sounds = {f"What does a {animal} do?": sound for animal, sound in SOUNDS.items()}
    add("sound", sounds, ordered(SOUNDS), held_out=True)
    larger = {
        f"Which is larger, {NUMBERS[a]} or {NUMBERS[b]}?": NUMBERS[max(a, b)]
        for a in range(11)
        for b in range(11)
        if a != b
    }
    add("larger", larger, NUMBERS[:11], held_out=True)
    return facts


FACTS: tuple[Fact, ...] = tuple(_facts())


def quiz(count: int, part: Part, seed: int, split: str, forms: Sequence[str]) -> list[Choice]:
    """`count` capability choices with four options each, the kinds equally often.

    Args:
        count: how many; facts repeat with other wrong options when there are fewer.
        part: `train` for training pools, `validation`, or `test` for evaluation.
        seed: of the draw.
        split: name of the split in reports.
        forms: surface forms of an answer, `{}` standing for the word.
    """
    rng = random.Random(f"quiz-{part}-{seed}")
    kinds = sorted({fact.kind for fact in FACTS if fact.part == part})
    stock = {kind: [f for f in FACTS if f.part == part and f.kind == kind] for kind in kinds}
    for facts in stock.values():
        rng.shuffle(facts)
    choices = []
    for number in range(count):
        kind = kinds[number % len(kinds)]
        facts = stock[kind]
        fact = facts[(number // len(kinds)) % len(facts)]
        words = [fact.answer]
        for word in rng.sample(fact.alternatives, len(fact.alternatives)):
            # "eight" begins "eighteen": together their probabilities could not be told apart.
            if len(words) < 4 and not any(word.startswith(w) or w.startswith(word) for w in words):
                words.append(word)
        rng.shuffle(words)
        choices.append(
            Choice(
                id=f"{split}-quiz-{number}",
                kind="capability",
                prompt=fact.question,
                options=tuple(Option(w, tuple(f.format(w) for f in forms)) for w in words),
                truth=words.index(fact.answer),
                split=split,
                source=f"quiz_{kind}",
            )
        )
    return choices
