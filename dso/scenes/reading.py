"""Read what a caption names, and judge it by the scene: the inverse of `captions.py`.

The reader looks words up in `lexicon.MEANINGS` and does not parse grammar, so it also reads the
broken sentences of a model. Of two people, a clause is about the one whose side it names, and a
clause without a side about the one before; clauses end with a full stop or with ", and".
"""

from __future__ import annotations

from dataclasses import dataclass

from dso.scenes.attributes import ATTIRES, Person, Scene
from dso.scenes.lexicon import MEANINGS, words

HIDDEN: tuple[str, ...] = ("gender", "occupation", "skin", "age", "emotion", "hair")
"""What does not show of a person seen from behind; the occupation is what its attire allows."""

_OCCUPATIONS = {attire.name: attire.occupations for attire in ATTIRES}


@dataclass(frozen=True)
class Named:
    """One attribute that a text names."""

    attribute: str
    """Of `Person` or `Scene`, or occupation."""
    value: str
    person: int | None
    """0 is the only person or the one on the left, 1 the one on the right; None is the scene."""


@dataclass(frozen=True)
class Judgement:
    """What a text names, in the order of naming, sorted by whether the scene bears it out."""

    right: tuple[Named, ...]
    wrong: tuple[Named, ...]
    """Contradicted: another value shows, or there is no such thing or person."""
    guessed: tuple[Named, ...]
    """Neither: of a person seen from behind, something that does not show."""


def read_caption(text: str) -> tuple[Named, ...]:
    """What a text names, each once, in the order of naming."""
    found: dict[Named, None] = {}
    person = 0
    for clause in _clauses(words(text)):
        sides = [word for word in clause if word in ("left", "right")]
        if sides:
            person = ("left", "right").index(sides[0])
        for word in clause:
            for attribute, value in MEANINGS.get(word, ()):
                whose = None if attribute in ("place", "mood") else person
                found[Named(attribute, value, whose)] = None
    return tuple(found)


def _clauses(tokens: list[str]) -> list[list[str]]:
    clauses: list[list[str]] = [[]]
    for token, following in zip(tokens, [*tokens, ""][1:], strict=True):
        if token == "." or (token == "," and following == "and"):
            clauses.append([])
        else:
            clauses[-1].append(token)
    return clauses


def facts(scene: Scene) -> frozenset[Named]:
    """Everything that can truthfully be named. Both occupations of an attire can."""
    named = {Named("place", scene.place, None)}
    if scene.mood is not None:
        named.add(Named("mood", scene.mood, None))
    for number, person in enumerate(scene.people):
        named |= {Named(attribute, value, number) for attribute, value in _shown(person)}
    return frozenset(named)


def _shown(person: Person) -> list[tuple[str, str]]:
    always = {"attire": person.attire, "activity": person.activity, "colour": person.colour}
    shown = [(attribute, value) for attribute, value in always.items() if value is not None]
    if person.view == "back":
        return [*shown, ("view", "back")]
    if person.attire is not None:
        shown += [("occupation", occupation) for occupation in _OCCUPATIONS[person.attire]]
    if person.emotion is not None:
        shown.append(("emotion", person.emotion))
    return [*shown, ("gender", person.gender), ("skin", person.skin), ("age", person.age),
            ("hair", person.hair)]  # fmt: skip


def judge(text: str, scene: Scene) -> Judgement:
    """Compare what a text names with what the scene shows."""
    true = facts(scene)
    right, wrong, guessed = [], [], []
    for named in read_caption(text):
        if named in true:
            right.append(named)
        elif _is_guess(named, scene):
            guessed.append(named)
        else:
            wrong.append(named)
    return Judgement(tuple(right), tuple(wrong), tuple(guessed))


def _is_guess(named: Named, scene: Scene) -> bool:
    if named.person is None or named.person >= len(scene.people):
        return False
    person = scene.people[named.person]
    if person.view == "front" or named.attribute not in HIDDEN:
        return False
    return named.attribute != "occupation" or (
        person.attire is not None and named.value in _OCCUPATIONS[person.attire]
    )
