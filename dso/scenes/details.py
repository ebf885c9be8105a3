"""Questions about one of two people: is the hair of the woman black, yellow, red or grey?

Whom is meant is said by side ("the person on the left"), by gender ("the woman", where there are a
woman and a man), or by occupation ("the nurse", where one person alone wears its attire).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from dso.scenes.associations import pick
from dso.scenes.attributes import ATTIRE_OF, Scene
from dso.scenes.reading import HIDDEN
from dso.scenes.wordings import OPTIONS, SIDES, Kind, Question, Wording, ask
from dso.scenes.world import Random

By = Literal["side", "gender", "occupation"]

ASKED: tuple[Kind, ...] = ("gender", "emotion", "age", "activity", "hair", "colour", "skin")
"""Attributes that can be asked for."""
PART = {"hair": "the hair of {}", "colour": "the scarf of {}", "skin": "the skin of {}"}
"""What has the attribute, where it is not the person."""


@dataclass(frozen=True)
class Detail:
    """What can be asked about one of two people."""

    place: int
    """0 for the person on the left, 1 for the one on the right."""
    attribute: Kind
    by: By
    """How the person is named."""


def details(scene: Scene) -> tuple[Detail, ...]:
    """Everything that can be asked about one of two people; nothing of other scenes."""
    if len(scene.people) != 2:
        return ()
    left, right = scene.people
    shown = left.view == right.view == "front"
    found = []
    for place, person in enumerate(scene.people):
        ways: list[By] = ["side"]
        if shown and left.gender != right.gender:
            ways.append("gender")
        if person.attire is not None and left.attire != right.attire:
            ways.append("occupation")
        for attribute in ASKED:
            seen = person.view == "front" or attribute not in HIDDEN
            if seen and getattr(person, attribute) is not None:
                named = [by for by in ways if not by == attribute == "gender"]
                found += [Detail(place, attribute, by) for by in named]
    return tuple(found)


def ask_detail(scene: Scene, detail: Detail, rng: Random, wording: Wording = "train") -> Question:
    """An attribute of one of two people, from its closed list.

    Args:
        scene: of two people.
        detail: one of `details(scene)`.
        rng: generator or seed.
        wording: split of the wordings.

    Raises:
        ValueError: the scene does not have the detail.
    """
    if detail not in details(scene):
        raise ValueError(
            f"{detail} cannot be asked of this scene; wanted one of the {len(details(scene))} that "
            "`details` gives"
        )
    roll = np.random.default_rng(rng).random
    person = scene.people[detail.place]
    if detail.by == "side":
        whom = f"the person on the {SIDES[detail.place]}"
    elif detail.by == "gender":
        whom = f"the {person.gender}"
    else:
        jobs = [job for job, attire in ATTIRE_OF.items() if attire.name == person.attire]
        whom = f"the {pick(jobs, roll())}"
    right = str(getattr(person, detail.attribute))
    options = sorted(OPTIONS[detail.attribute], key=lambda _: roll())
    shown = [f"a {option}" for option in options] if detail.attribute == "gender" else options
    about = PART.get(detail.attribute, "{}").format(whom)
    text = ask("detail", shown, wording, roll(), about)
    return Question(text, right, tuple(options), "detail", detail.attribute, right, wording)
