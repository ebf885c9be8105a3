"""How much a caption says: the probability that it names each attribute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args

Length = Literal["short", "medium", "long"]
LENGTHS: tuple[Length, ...] = get_args(Length)


@dataclass(frozen=True)
class Naming:
    """The probability that a caption names each attribute, where there is something to name.

    Raises:
        ValueError: a probability outside [0, 1].
    """

    gender: float
    occupation: float
    """By its word, such as nurse."""
    attire: float
    """By the clothes and the tool."""
    age: float
    emotion: float
    activity: float
    hair: float
    colour: float
    skin: float
    view: float
    """That a person is seen from behind; the other view is never named."""
    place: float
    mood: float

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 0 <= getattr(self, field.name) <= 1:
                raise ValueError(
                    f"the probability of naming {field.name} is {getattr(self, field.name)}; "
                    "wanted a number from 0 to 1"
                )

    @classmethod
    def every(cls, probability: float) -> Naming:
        """The same probability for every attribute."""
        return cls(**{field.name: probability for field in fields(cls)})


NAMING: dict[Length, Naming] = {
    "short": replace(Naming.every(0.15), gender=0.7, occupation=0.6),
    "medium": replace(Naming.every(0.4), gender=0.75, occupation=0.65, attire=0.2),
    "long": replace(Naming.every(0.8), gender=0.9, occupation=0.8, attire=0.4),
}
"""What a caption of each length names, where nothing else is asked for."""


def naming_for(naming: Naming | Mapping[str, float] | None, length: Length) -> Naming:
    """The probabilities to use: those given, or the length's with some of them changed.

    Raises:
        ValueError: there is no such attribute, or no such length.
    """
    if length not in LENGTHS:
        raise ValueError(f"length is {length!r}; wanted one of {', '.join(LENGTHS)}")
    if isinstance(naming, Naming):
        return naming
    unknown = sorted(set(naming or {}) - {field.name for field in fields(Naming)})
    if unknown:
        raise ValueError(
            f"captions name no {', '.join(unknown)}; wanted "
            f"{', '.join(field.name for field in fields(Naming))}"
        )
    return replace(NAMING[length], **(naming or {}))
