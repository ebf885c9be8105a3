"""The words of the scenes: what each means, and the patterns in which a caption says it.

**A word means one thing.** Whoever reads a text needs only `MEANINGS`: "nurse" names an
occupation, "she" a gender, "sunny" a mood, wherever they stand. Words that mean nothing here
("the", "scarf", "with") are in the patterns.

Texts are in lower case. Punctuation marks are words of their own, so "a nurse." and "a nurse ."
are the same text to a word-level tokenizer and to the reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from dso.scenes.attributes import ATTIRE_OF

NOUNS: dict[str, tuple[str, ...]] = {
    "woman": ("woman", "woman", "lady", "mother"),
    "man": ("man", "man", "gentleman", "father"),
}
"""The plainest one is twice as frequent."""
YOUNG: dict[str, str] = {"woman": "girl", "man": "boy"}
"""These name the age as well."""
SEX: dict[str, str] = {"woman": "female", "man": "male"}
SUBJECT: dict[str | None, str] = {"woman": "she", "man": "he", None: "the person"}
POSSESSIVE: dict[str, str] = {"woman": "her", "man": "his"}

WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "age": {"young": ("young",), "grown": ("grown", "adult"), "old": ("old", "elderly")},
    "emotion": {
        "happy": ("happy", "glad", "cheerful"), "sad": ("sad", "unhappy"),
        "angry": ("angry", "furious"), "surprised": ("surprised", "astonished"),
    },
    "activity": {
        "reading": ("reading", "reading a book", "reading {their} book"),
        "drinking": ("drinking", "drinking a coffee", "drinking {their} coffee"),
        "phoning": ("phoning", "phoning a friend", "phoning {their} friend"),
        "painting": ("painting", "painting a picture", "painting {their} picture"),
    },
    "hair": {"black": ("black",), "red": ("red",), "blond": ("blond",), "grey": ("grey",)},
    "colour": {"pink": ("pink",), "blue": ("blue",), "green": ("green",), "yellow": ("yellow",)},
    "skin": {"light": ("light",), "brown": ("brown",), "dark": ("dark",)},
    "view": {"back": ("behind",)},
    "occupation": {occupation: (occupation,) for occupation in ATTIRE_OF},
    "attire": {
        "scrubs": ("scrubs with a syringe",),
        "dental": ("a tunic with a mirror",),
        "airline": ("a uniform with a plane",),
        "kitchen": ("a jacket with a pan",),
        "cleaning": ("an apron with a mop",),
        "salon": ("an apron with scissors",),
        "garden": ("an apron with a plant",),
        "court": ("a robe with scales",),
        "paint": ("overalls with a roller",),
        "workshop": ("an apron with a hammer",),
        "desk": ("a sweater with a laptop",),
        "checking": ("a vest with a clipboard",),
        "money": ("a waistcoat with a calculator",),
        "farm": ("dungarees with a pitchfork",),
        "books": ("a suit with books",),
        "laboratory": ("a coat with a flask",),
    },
    "place": {"street": ("street",), "office": ("office",), "park": ("park",), "home": ("home",)},
}  # fmt: skip
"""By attribute and value, the ways of saying it. An activity's or an attire's way is a phrase."""
PLAIN = ("a", "an", "with", "book", "coffee", "friend", "picture", "apron")
"""Words of such phrases that mean nothing by themselves."""

QUALITIES = {
    "pleasant": (
        "lovely", "calm", "pretty", "clean", "bright", "cosy", "nice", "fresh", "warm", "charming",
    ),
    "unpleasant": (
        "dirty", "gloomy", "ugly", "nasty", "grim", "bleak", "filthy", "messy", "awful", "dull",
    ),
}  # fmt: skip
"""Of a place."""
WEATHER = {
    "pleasant": ("on a sunny day", "in the sunshine"),
    "unpleasant": ("on a rainy day", "in the rain"),
}

BEFORE: dict[str, str] = {"emotion": "{}", "age": "{}", "hair": "{} haired", "skin": "{} skinned"}
"""Patterns in front of a noun, in this order."""
AFTER: dict[str, tuple[str, ...]] = {
    "hair": ("with {} hair",),
    "skin": ("with {} skin",),
    "attire": ("in {}", "wearing {}"),
    "colour": ("in a {} scarf", "with a {} scarf", "wearing a {} scarf"),
    "view": ("seen from {}", "from {}"),
}
"""Patterns behind a noun, in this order."""
AFTER_GENDER = "working as a {}"
"""Of an occupation behind a noun that says the gender."""
PREDICATES: dict[str, tuple[str, ...]] = {
    "emotion": ("is {}", "looks {}", "feels {}"),
    "age": ("is {}", "looks {}"),
    "hair": ("has {} hair",),
    "skin": ("has {} skin",),
    "attire": ("wears {}", "is wearing {}"),
    "colour": ("wears a {} scarf", "has a {} scarf"),
    "activity": ("is {}",),
    "occupation": ("is a {}", "works as a {}"),
    "view": ("is seen from {}",),
}
"""Patterns behind "she", "he" or "the person"; two are joined by "and"."""
AND = "and"
PERSON = "person"
SOMEONE = "someone"
STANDING = "standing"
"""What somebody does of whom nothing else is said."""

SIDES = ("on the left", "on the right")
WHERE = ("in a {}", "in the {}")
"""Of a place, with what is said of it."""
AT_HOME = "at home"
PLACE = "place"
"""A place that is not named."""

FRAMES: dict[str, tuple[str, ...]] = {
    "short": (
        "{who} {doing} {side} {where}",
        "{side}, {who} {doing} {where}",
        "{where}, {who} {doing} {side}",
        "a picture of {who} {doing} {side} {where}",
    ),
    "medium": (
        "{who} {side} is {doing} {where}. {more}",
        "there is {who} {doing} {side} {where}. {more}",
        "{where}, {who} {side} is {doing}. {more}",
        "the picture shows {who} {doing} {side} {where}. {more}",
    ),
    "long": (
        "there is {who} {side} {where}. {more}",
        "{side}, we see {who}. {more} {scene}",
        "this is {who} {side}. {more} {scene}",
        "{scene} {who} {side} is {doing}. {more}",
    ),
}
"""What is said of one person. With two, the sentences of the second follow those of the first, or
short ones are joined by ", and"; `{where}` or `{scene}` is then filled for one of them."""
JOIN = ", and"

SCENE = ("it is a {}.", "the place is a {}.")
"""Sentences about a place, with what is said of it; the second only where the place is named."""
EMPTY: dict[str, tuple[str, ...]] = {
    "short": ("an empty {place}.", "nobody {where}.", "a picture of an empty {place}."),
    "medium": ("there is nobody {where}.", "the picture shows an empty {place}."),
    "long": ("there is nobody here. {scene}", "this is an empty {place}. we see nobody here."),
}
"""Of a scene without people."""


def words(text: str) -> list[str]:
    """A text's words and punctuation marks, in lower case."""
    return re.findall(r"[a-z]+|[^\sa-z]", text.lower())


def tidy(text: str) -> str:
    """Mend a filled pattern: spaces, marks that stand alone, and "a" in front of a vowel."""
    text = " ".join(text.split())
    text = re.sub(r" ([.,])", r"\1", text)
    text = re.sub(r"(^|(?<=\.) )[.,] ?", r"\1", text).strip()
    return re.sub(r"\ba (?!uni)(?=[aeiou])", "an ", text)


def vocabulary(*patterns: Any) -> tuple[str, ...]:
    """The sorted words of patterns (strings, or anything made of strings), slots left out."""

    def strings(thing: Any) -> Iterator[str]:
        if isinstance(thing, str):
            yield thing
        elif isinstance(thing, dict):
            yield from strings(tuple(thing.values()))
        else:
            for part in thing:
                yield from strings(part)

    every: Iterable[str] = (re.sub(r"\{\w*\}", " ", text) for text in strings(patterns))
    return tuple(sorted({word for text in every for word in words(text)}))


VOCABULARY: tuple[str, ...] = vocabulary(
    NOUNS, YOUNG, SEX, SUBJECT, POSSESSIVE, WORDS, QUALITIES, WEATHER, BEFORE, AFTER, AFTER_GENDER,
    PREDICATES, AND, PERSON, SOMEONE, STANDING, SIDES, WHERE, AT_HOME, PLACE, FRAMES, JOIN, SCENE,
    EMPTY, "an", ".",
)  # fmt: skip
"""Every word and mark of a caption."""


def _meanings() -> dict[str, tuple[tuple[str, str], ...]]:
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for attribute, values in WORDS.items():
        for value, ways in values.items():
            for word in vocabulary(ways):
                if word not in PLAIN:
                    found[word] = ((attribute, value),)
    for gender, nouns in NOUNS.items():
        for word in (*nouns, SEX[gender], SUBJECT[gender], POSSESSIVE[gender]):
            found[word] = (("gender", gender),)
        found[YOUNG[gender]] = (("gender", gender), ("age", "young"))
    for mood, qualities in QUALITIES.items():
        for word in qualities:
            found[word] = (("mood", mood),)
    weather = {"sunny": "pleasant", "sunshine": "pleasant"}
    weather |= {"rainy": "unpleasant", "rain": "unpleasant"}
    found.update({word: (("mood", mood),) for word, mood in weather.items()})
    return found


MEANINGS: dict[str, tuple[tuple[str, str], ...]] = _meanings()
"""By word, the attributes it names and their values."""
