"""Captions that name each attribute with a given probability, and nothing that does not show.

The words and patterns are those of `lexicon.py`; `reading.py` reads a caption back. Gender is
named by nouns, adjectives and pronouns, or left out. An occupation is one of the attire's two,
drawn by P(occupation | attire, gender) in the world.

Of a person seen from behind neither gender nor occupation shows, and captions name them all the
same, as people do: both are drawn by what does show, P(occupation, gender | attire, scarf colour).
That is how a model that reads the captions comes to associate. Skin, age, emotion and hair of such
a person are never named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dso.scenes import lexicon
from dso.scenes.associations import draw, pick
from dso.scenes.attributes import Person, Scene
from dso.scenes.lexicon import (
    AFTER,
    BEFORE,
    FRAMES,
    POSSESSIVE,
    PREDICATES,
    SEX,
    SUBJECT,
    WORDS,
    tidy,
)  # fmt: skip
from dso.scenes.naming import LENGTHS, Length, Naming, naming_for
from dso.scenes.reading import Named, facts
from dso.scenes.world import WORLD, Random, World

_Roll = Callable[[], float]
"""Gives a uniform number in [0, 1)."""


_INSIDE: dict[Length, float] = {"short": 1.0, "medium": 0.6, "long": 0.25}
"""How often an attribute is said beside the noun rather than in a sentence of its own."""


@dataclass(frozen=True)
class Caption:
    """A text, and what it names."""

    text: str
    named: frozenset[Named]


def caption(
    scene: Scene,
    rng: Random,
    length: Length = "medium",
    naming: Naming | Mapping[str, float] | None = None,
    world: World = WORLD,
) -> Caption:
    """Describe a scene.

    Args:
        scene: what to describe.
        rng: generator or seed.
        length: short is a phrase, medium a sentence and what does not fit into it, long several.
        naming: the probability of naming each attribute; a mapping changes some of those of the
            length (`NAMING`).
        world: says which occupation and, of a person seen from behind, which gender is named.

    Raises:
        ValueError: no such length or attribute, or a probability outside [0, 1].
    """
    chosen = naming_for(naming, length)
    roll = np.random.default_rng(rng).random
    around = {
        fact.attribute: fact.value
        for fact in _ordered(scene, None)
        if roll() < getattr(chosen, fact.attribute)
    }
    people = [_named(scene, number, chosen, world, roll) for number in range(len(scene.people))]
    text = _write(people, around, length, roll) if people else _write_empty(around, length, roll)
    named = {Named(attribute, value, None) for attribute, value in around.items()}
    for number, said in enumerate(people):
        named |= {Named(attribute, value, number) for attribute, value in said.items()}
    return Caption(tidy(text), frozenset(named))


def text_corpus(world: World, rng: Random, n: int) -> list[str]:
    """`n` captions of all lengths: of scenes with one person (seven in ten) or two (two in ten), a
    fifth of them seen from behind, and of empty ones."""
    rng = np.random.default_rng(rng)
    texts = []
    for _ in range(n):
        count = draw({0: 0.1, 1: 0.7, 2: 0.2}, rng.random())
        views = [draw({"front": 0.8, "back": 0.2}, rng.random()) for _ in range(count)]
        scene = world.scene(rng, [world.person(rng, view=view) for view in views])
        texts.append(caption(scene, rng, pick(LENGTHS, rng.random()), world=world).text)
    return texts


def guess(person: Person, number: float, world: World = WORLD) -> tuple[str | None, str]:
    """The occupation and gender that a caption gives a person, for a random number in [0, 1).

    The gender is the person's own where it shows, and drawn where it does not.
    """
    gender = person.gender if person.view == "front" else None
    return draw(world.seen(person.attire, person.colour, gender), number)


def _ordered(scene: Scene, person: int | None) -> list[Named]:
    """The facts of one person or of the scene, in an order that never changes."""
    return sorted(
        (fact for fact in facts(scene) if fact.person == person),
        key=lambda fact: (fact.attribute, fact.value),
    )


def _named(scene: Scene, number: int, naming: Naming, world: World, roll: _Roll) -> dict[str, str]:
    """By attribute, what is going to be said of a person."""
    shown = {fact.attribute: fact.value for fact in _ordered(scene, number)}
    occupation, shown["gender"] = guess(scene.people[number], roll(), world)
    if occupation is not None:
        shown["occupation"] = occupation
    return {a: value for a, value in shown.items() if roll() < getattr(naming, a)}


def _write(
    people: list[dict[str, str]], around: dict[str, str], length: Length, roll: _Roll
) -> str:
    sides = ("",) if len(people) == 1 else lexicon.SIDES
    placed = [*zip(people, sides, strict=True)]
    if len(people) == 2 and roll() < 0.25:
        placed.reverse()
    with_place = int(roll() * len(people))
    parts = []
    for number, (said, side) in enumerate(placed):
        frames = [f for f in FRAMES[length] if number == 0 or not f.startswith("a ")]
        frame = pick(frames, roll())
        filled = frame.format(
            side=side,
            **_about(said, frame, length, roll),
            **_place(around if number == with_place else {}, roll),
        )
        parts.append(tidy(filled))
    return f"{lexicon.JOIN} ".join(parts) + "." if length == "short" else " ".join(parts)


def _about(said: dict[str, str], frame: str, length: Length, roll: _Roll) -> dict[str, str]:
    """The slots of one person: `who`, `doing` and `more`."""
    inside: list[str] = []
    outside: list[str] = []
    for attribute in said:
        if attribute == "gender" or (attribute == "activity" and "{doing}" in frame):
            continue
        noun = attribute != "activity" and roll() < _INSIDE[length]
        (inside if noun or length == "short" else outside).append(attribute)
    gender = said.get("gender")
    doing = lexicon.STANDING if "is {doing}" in frame else ""
    if "activity" in said and "activity" not in outside:
        doing = _word("activity", said, roll)
    by_pronoun = bool(outside) and roll() < 0.35
    who = _who({a: said[a] for a in inside}, None if by_pronoun else gender, roll)
    return {"who": who, "doing": doing, "more": _more(outside, said, roll)}


def _word(attribute: str, said: dict[str, str], roll: _Roll) -> str:
    """One way of saying an attribute."""
    ways = WORDS[attribute][said[attribute]]
    if "gender" not in said:
        return pick([way for way in ways if "{" not in way], roll())
    return pick(ways, roll()).format(their=POSSESSIVE[said["gender"]])


def _who(said: dict[str, str], gender: str | None, roll: _Roll) -> str:
    """A noun with what is said in front of it and behind it; `gender` None is not said here."""
    said = dict(said)
    behind = []
    if "occupation" in said and (gender is None or roll() < 0.6):
        noun = said["occupation"] if gender is None else f"{SEX[gender]} {said['occupation']}"
    elif gender is None:
        noun = lexicon.PERSON
    else:
        noun = pick(lexicon.NOUNS[gender], roll())
        if said.get("age") == "young" and roll() < 0.5:
            noun = lexicon.YOUNG[gender]
            del said["age"]
        if "occupation" in said:
            behind.append(lexicon.AFTER_GENDER.format(said["occupation"]))
    front = []
    for attribute, pattern in BEFORE.items():
        if attribute in said and (attribute not in AFTER or roll() < 0.5):
            front.append(pattern.format(_word(attribute, said, roll)))
            del said[attribute]
    for attribute, patterns in AFTER.items():
        if attribute in said:
            behind.append(pick(patterns, roll()).format(_word(attribute, said, roll)))
    if noun == lexicon.PERSON and not front and roll() < 0.5:
        return " ".join([lexicon.SOMEONE, *behind])
    return " ".join(["a", *front, noun, *behind])


def _more(attributes: list[str], said: dict[str, str], roll: _Roll) -> str:
    """Sentences of one or two predicates, in any order."""
    left = sorted(attributes, key=lambda _: roll())
    sentences = []
    while left:
        count = 1 if roll() < 0.4 else 2
        predicates = [
            pick(PREDICATES[a], roll()).format(_word(a, said, roll)) for a in left[:count]
        ]
        left = left[count:]
        joined = f" {lexicon.AND} ".join(predicates)
        sentences.append(f"{SUBJECT[said.get('gender')]} {joined}.")
    return " ".join(sentences)


def _place(around: dict[str, str], roll: _Roll) -> dict[str, str]:
    """The slots about the place: a noun, where something is, and a sentence; empty if unnamed."""
    mood = around.get("mood")
    quality, weather = "", ""
    if mood is not None and roll() < 0.5:
        quality = pick(lexicon.QUALITIES[mood], roll())
    elif mood is not None:
        weather = pick(lexicon.WEATHER[mood], roll())
    place = f"{quality} {around.get('place', lexicon.PLACE)} {weather}"
    if not around:
        return {"place": lexicon.PLACE, "where": "", "scene": ""}
    if "place" not in around and not quality:
        where = weather
    elif around.get("place") == "home" and not quality and roll() < 0.5:
        where = f"{lexicon.AT_HOME} {weather}"
    else:
        where = pick(lexicon.WHERE, roll()).format(place)
    sentences = lexicon.SCENE if "place" in around else lexicon.SCENE[:1]
    return {"place": place, "where": where, "scene": pick(sentences, roll()).format(place)}


def _write_empty(around: dict[str, str], length: Length, roll: _Roll) -> str:
    return pick(lexicon.EMPTY[length], roll()).format(**_place(around, roll))
