"""A world: the strength of every planted association, and scenes drawn from them.

    gender   given the occupation     P(woman | occupation), labour statistics shrunk in log-odds
    colour   given the gender
    emotion  given the gender
    activity given the age
    mood     given the gender and skin of the one person, or of one of two

Everything else is uniform and independent. Draws go in that order, and fixing an attribute is an
intervention, not an observation: what is drawn before it stays as it was (fixing a pink scarf does
not make women of people; `World.seen` is the function that reasons backwards). Every draw uses
the same number of random numbers whatever is fixed, so that two worlds, or two scenes of which one
has an attribute fixed, differ in nothing else under the same seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from dso.scenes import attributes
from dso.scenes.associations import ASSOCIATIONS, Association, Given, draw, pick
from dso.scenes.attributes import ATTIRE_OF, ATTIRES, GENDERS, WOMEN, Gender, Person, Scene

Random = np.random.Generator | int
"""A generator, which is advanced, or a seed."""

PRESENT: dict[str, float] = {
    "attire": 0.8,
    "emotion": 0.8,
    "activity": 0.7,
    "colour": 0.6,
    "mood": 0.8,
}
"""How often an attribute that may be missing is there, where it is not fixed. Whether it is there
is independent of everything; the associations say which value it has."""

_DRAWN = ("attire", "gender", "skin", "age", "hair", "emotion", "colour", "activity")
_GIVEN = {
    "activity": ("activity_age", "age"),
    "emotion": ("emotion_gender", "gender"),
    "colour": ("colour_gender", "gender"),
}
_EVEN: dict[str, float] = dict.fromkeys(GENDERS, 0.5)


@lru_cache(maxsize=256)
def _association(name: str, strength: float) -> Association:
    return replace(ASSOCIATIONS[name], strength=strength)


def _check_name(name: str) -> None:
    if name not in ASSOCIATIONS:
        raise ValueError(f"no association is called {name!r}; wanted {', '.join(ASSOCIATIONS)}")


def _check_fixed(fixed: Iterable[str], kind: type) -> None:
    allowed = [field.name for field in fields(kind) if field.name != "people"]
    unknown = sorted(set(fixed) - set(allowed))
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)} cannot be fixed: a {kind.__name__} has {', '.join(allowed)}"
        )


@dataclass(frozen=True)
class World:
    """The strengths of the planted associations: 0 is none, 1 is the whole table.

    Raises:
        ValueError: a strength outside [0, 1].
    """

    occupation_gender: float = 0.6
    """Two visible genders multiply what one occupation says, so that raw labour statistics (mean
    |2p - 1| = 0.64) saturate a model's choices; 0.6 of their log-odds has a mean of 0.45."""
    colour_gender: float = 1.0
    """Pink scarves are women's, blue ones men's; green and yellow ones nobody's."""
    emotion_gender: float = 1.0
    """Happy and surprised people are rather women, angry ones men; sad ones neither."""
    activity_age: float = 1.0
    """Reading is for the old, phoning for the young, drinking rather for those between."""
    mood_group: float = 1.0
    """How pleasant the surroundings of each of six groups (gender by skin) are."""

    version: ClassVar[int] = 1
    """Rises whenever a draw from the same seed, or a table, changes."""

    def __post_init__(self) -> None:
        for field in fields(self):
            _association(field.name, getattr(self, field.name))

    @classmethod
    def without(cls, *names: str) -> World:
        """A control world: the default one, with the named associations at strength 0.

        Raises:
            ValueError: there is no such association.
        """
        for name in names:
            _check_name(name)
        return cls(**dict.fromkeys(names, 0.0))

    def association(self, name: str) -> Association:
        """One association at this world's strength.

        Raises:
            ValueError: there is no such association.
        """
        _check_name(name)
        return _association(name, getattr(self, name))

    def probability(self, name: str, given: Given, value: str) -> float:
        """P(value | given) by the association `name`, as planted in this world."""
        return self.association(name).probability(given, value)

    def women(self, occupation: str) -> float:
        """P(woman | occupation) in this world."""
        return self.probability("occupation_gender", occupation, "woman")

    def occupation_bias(self, occupations: Sequence[str] = tuple(WOMEN)) -> float:
        """The planted Per-Occupation Bias: the mean of |2 P(woman | occupation) - 1|."""
        return sum(abs(2 * self.women(o) - 1) for o in occupations) / len(occupations)

    def seen(
        self, attire: str | None, colour: str | None = None, gender: Gender | None = None
    ) -> dict[tuple[str | None, Gender], float]:
        """P(occupation, gender | what shows), by Bayes with equally frequent occupations.

        Args:
            attire: None is everyday clothes: no occupation.
            colour: of the scarf; None says nothing.
            gender: where it shows; None where it does not.
        """
        occupations = [None] if attire is None else _occupations(attire)
        weights: dict[tuple[str | None, Gender], float] = {}
        for occupation in occupations:
            for g in GENDERS if gender is None else (gender,):
                p = 0.5 if occupation is None else self._gender(occupation)[g]
                if colour is not None:
                    p *= self.probability("colour_gender", g, colour)
                weights[occupation, g] = p
        total = sum(weights.values())
        return {key: weight / total for key, weight in weights.items()}

    def _gender(self, occupation: str) -> dict[str, float]:
        return self.association("occupation_gender").distribution(occupation)

    def person(self, rng: Random, occupation: str | None = None, **fixed: Any) -> Person:
        """Draw a person, seen from the front unless `view` is fixed.

        Args:
            rng: generator or seed.
            occupation: decides the attire and the probability of the gender. None draws one of
                all (`PRESENT` says how often), or one of the two of a fixed attire.
            fixed: attributes of `Person` by name; None fixes one to be missing.

        Raises:
            ValueError: no such occupation, attribute or value, or an attire that is another
                occupation's.
        """
        _check_fixed(fixed, Person)
        numbers = dict(zip(_DRAWN, np.random.default_rng(rng).random((8, 2)), strict=True))
        occupation = _occupation(occupation, fixed, *numbers["attire"])
        drawn: dict[str, Any] = {
            "attire": None if occupation is None else ATTIRE_OF[occupation].name
        }
        for name in _DRAWN[1:]:
            present, number = numbers[name]
            if name in fixed:
                drawn[name] = fixed[name]
            elif present >= PRESENT.get(name, 1.0):
                drawn[name] = None
            elif name == "gender":
                row = _EVEN if occupation is None else self._gender(occupation)
                drawn[name] = draw(row, number)
            elif name in _GIVEN:
                association, given = _GIVEN[name]
                drawn[name] = draw(self.association(association).distribution(drawn[given]), number)
            else:
                drawn[name] = pick(getattr(attributes, f"{name.upper()}S"), number)
        return Person(**drawn | fixed)

    def scene(self, rng: Random, people: int | Sequence[Person] = 1, **fixed: Any) -> Scene:
        """Draw a scene.

        Args:
            rng: generator or seed.
            people: how many to draw, or the people themselves, from left to right.
            fixed: `place`, `mood` or `seed`; None fixes the mood to be neither.

        Raises:
            ValueError: no such attribute or value, or more than two people.
        """
        _check_fixed(fixed, Scene)
        rng = np.random.default_rng(rng)
        place, present, number, whose, seed = rng.random(5)
        if isinstance(people, int):
            people = tuple(self.person(rng) for _ in range(people))
        drawn: dict[str, Any] = {
            "place": pick(attributes.PLACES, place),
            "mood": None,
            "seed": int(seed * 2**31),
        }
        if present < PRESENT["mood"]:
            drawn["mood"] = draw(self._mood(people, whose), number)
        return Scene(tuple(people), **drawn | fixed)

    def _mood(self, people: Sequence[Person], whose: float) -> dict[str, float]:
        if not people:
            return dict.fromkeys(attributes.MOODS, 0.5)
        person = pick(people, whose)
        return self.association("mood_group").distribution((person.gender, person.skin))


WORLD = World()
"""The default world."""


def _occupations(attire: str) -> tuple[str, str]:
    for known in ATTIRES:
        if known.name == attire:
            return known.occupations
    raise ValueError(
        f"no attire is called {attire!r}; wanted one of {', '.join(attributes.ATTIRE_NAMES)}"
    )


def _occupation(
    occupation: str | None, fixed: dict[str, Any], present: float, number: float
) -> str | None:
    """The occupation that a person is drawn with, from what is asked for."""
    if occupation is not None:
        if occupation not in ATTIRE_OF:
            raise ValueError(
                f"no occupation is called {occupation!r}; wanted one of {', '.join(ATTIRE_OF)}"
            )
        attire = ATTIRE_OF[occupation].name
        if fixed.get("attire", attire) != attire:
            raise ValueError(
                f"the attire of a {occupation} is {attire!r}, and {fixed['attire']!r} was given; "
                "leave one of the two out"
            )
        return occupation
    if "attire" in fixed:
        return None if fixed["attire"] is None else pick(_occupations(fixed["attire"]), number)
    return pick(tuple(ATTIRE_OF), number) if present < PRESENT["attire"] else None
