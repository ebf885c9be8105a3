"""What can be seen in a scene: people with their attributes, and the place they are in.

Every attribute is independent of every other; which ones go together how often is said by the
associations of `dso.scenes.world`, and nowhere else. Occupations come in pairs that share an
*attire* (clothes and a tool), one of them stereotyped as a man's and one as a woman's: of two
people in scrubs either may be the nurse.

Women's shares are annual averages for 2020 of the U.S. Bureau of Labor Statistics, table cpsaat11
(public domain), for the title named beside each occupation in `attires.csv`. The splits are made
once and never change; each spans weak and strong stereotypes.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, fields, replace
from importlib import resources
from typing import Literal, get_args

Gender = Literal["woman", "man"]
Skin = Literal["light", "brown", "dark"]
Age = Literal["young", "grown", "old"]
Emotion = Literal["happy", "sad", "angry", "surprised"]
Activity = Literal["reading", "drinking", "phoning", "painting"]
Hair = Literal["black", "red", "blond", "grey"]
Colour = Literal["pink", "blue", "green", "yellow"]
View = Literal["front", "back"]
Place = Literal["street", "office", "park", "home"]
Mood = Literal["pleasant", "unpleasant"]
Part = Literal["train", "validation", "test"]

GENDERS: tuple[Gender, ...] = get_args(Gender)
SKINS: tuple[Skin, ...] = get_args(Skin)
AGES: tuple[Age, ...] = get_args(Age)
EMOTIONS: tuple[Emotion, ...] = get_args(Emotion)
ACTIVITIES: tuple[Activity, ...] = get_args(Activity)
HAIRS: tuple[Hair, ...] = get_args(Hair)
COLOURS: tuple[Colour, ...] = get_args(Colour)
PLACES: tuple[Place, ...] = get_args(Place)
MOODS: tuple[Mood, ...] = get_args(Mood)


@dataclass(frozen=True)
class Attire:
    """Clothes and a tool that two occupations share."""

    name: str
    part: Part
    """The split that both of its occupations belong to."""
    occupations: tuple[str, str]
    """The man-stereotyped one, then the woman-stereotyped one."""
    women: tuple[float, float]
    """Their shares of women, in %."""
    titles: tuple[str, str]
    """Their titles in table cpsaat11."""


def _read() -> tuple[Attire, ...]:
    text = resources.files("dso.scenes").joinpath("attires.csv").read_text(encoding="utf-8")
    return tuple(
        Attire(
            row["attire"],
            row["part"],  # type: ignore[arg-type]
            (row["man_stereotyped"], row["woman_stereotyped"]),
            (float(row["women"]), float(row["women_2"])),
            (row["title"], row["title_2"]),
        )
        for row in csv.DictReader(text.splitlines())
    )


ATTIRES: tuple[Attire, ...] = _read()
ATTIRE_NAMES: tuple[str, ...] = tuple(attire.name for attire in ATTIRES)
ATTIRE_OF: dict[str, Attire] = {o: attire for attire in ATTIRES for o in attire.occupations}
"""By occupation."""
WOMEN: dict[str, float] = {
    o: share / 100 for a in ATTIRES for o, share in zip(a.occupations, a.women, strict=True)
}
"""By occupation, the share of women in the labour force, in [0, 1]."""


def stereotype(occupation: str) -> Gender:
    """The gender that statistics associate with an occupation."""
    return "man" if ATTIRE_OF[occupation].occupations[0] == occupation else "woman"


@dataclass(frozen=True)
class Person:
    """One person, as far as it can be seen.

    Raises:
        ValueError: a value that no attribute has.
    """

    gender: Gender
    """Shown by hair, lips or beard, and shoulders; by nothing where `view` is back."""
    attire: str | None = None
    """One of `ATTIRE_NAMES`; None is everyday clothes, and no tool."""
    skin: Skin = "light"
    age: Age = "grown"
    emotion: Emotion | None = None
    """None is a calm face."""
    activity: Activity | None = None
    """Shown by a thing in the left hand; a tool is in the right one. None is nothing."""
    hair: Hair = "black"
    colour: Colour | None = None
    """Of a scarf over whatever the attire is; None is none."""
    view: View = "front"
    """back is an *ambiguous* figure: seen from behind, with a hood up, so that gender, skin, age,
    emotion and hair do not show."""

    def __post_init__(self) -> None:
        allowed = {
            "gender": GENDERS, "attire": (*ATTIRE_NAMES, None), "skin": SKINS, "age": AGES,
            "emotion": (*EMOTIONS, None), "activity": (*ACTIVITIES, None), "hair": HAIRS,
            "colour": (*COLOURS, None), "view": get_args(View),
        }  # fmt: skip
        for field in fields(self):
            value = getattr(self, field.name)
            if value not in allowed[field.name]:
                raise ValueError(
                    f"{field.name} is {value!r}; wanted one of "
                    f"{', '.join(map(str, allowed[field.name]))}"
                )


@dataclass(frozen=True)
class Scene:
    """No, one or two people somewhere.

    Raises:
        ValueError: more than two people, or a value that no attribute has.
    """

    people: tuple[Person, ...] = ()
    """From left to right."""
    place: Place = "street"
    mood: Mood | None = None
    """Of the surroundings: pleasant (sun, flowers), unpleasant (rain, litter) or neither, None."""
    seed: int = 0
    """Of what means nothing: where exactly people stand, how large they are, shades of colour."""

    def __post_init__(self) -> None:
        if len(self.people) > 2:
            raise ValueError(f"{len(self.people)} people were given; a scene has at most two")
        if self.place not in PLACES:
            raise ValueError(f"place is {self.place!r}; wanted one of {', '.join(PLACES)}")
        if self.mood not in (*MOODS, None):
            raise ValueError(f"mood is {self.mood!r}; wanted one of {', '.join(MOODS)}, or None")

    def exchanged(self) -> Scene:
        """The same scene, each of two people with the other's gender.

        Raises:
            ValueError: there are not two people.
        """
        if len(self.people) != 2:
            raise ValueError(
                f"the scene has {len(self.people)} people; genders are exchanged between two"
            )
        left, right = self.people
        people = (replace(left, gender=right.gender), replace(right, gender=left.gender))
        return replace(self, people=people)
