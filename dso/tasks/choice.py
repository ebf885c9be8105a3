"""A choice: a prompt with a few admissible answers. The one currency between data and the rest.

Every answer of an *ambiguous* choice has a side: `pro` (it agrees with the occupational
stereotype), `anti`, or `neither`. Where there are more than two groups the answers name a *group*
each, or none, and have no side. *Unambiguous*, *gender_needed* and *capability* choices have one
right answer instead. Two choices that differ only in gender are *twins*: they share `twin`, and
their options stand in the same order.

Source of the terms: arXiv 2512.15926, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from dso.tasks.pictures import Picture

Kind = Literal["ambiguous", "unambiguous", "gender_needed", "capability"]
Side = Literal["pro", "anti", "neither"]
Role = Literal["system", "user", "assistant"]
Part = Literal["train", "validation", "test"]
"""Parts of the built-in material: words, occupations, facts."""

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Option:
    """One admissible answer."""

    text: str
    """The answer as it is shown in reports."""
    forms: tuple[str, ...] = ()
    """Surface forms that count as this answer, leading spaces included; their probabilities are
    summed. Empty: the text alone."""
    side: Side = "neither"
    """Which side of the stereotype it takes."""
    group: str | None = None
    """The demographic group it names, such as "Asian" or "Asian woman". Among options with sides it
    is information only: there the sides are the groups."""

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError("an option has an empty text; give the answer's words")
        if any(not form.strip() for form in self.forms):
            raise ValueError(f"option {self.text!r} has an empty surface form; remove it")
        if self.side not in get_args(Side):
            raise ValueError(
                f"option {self.text!r} has side {self.side!r}; wanted one of {get_args(Side)}"
            )
        if self.group is not None and not self.group.strip():
            raise ValueError(f"option {self.text!r} has an empty group; name it or leave it out")
        if not self.forms:
            object.__setattr__(self, "forms", (self.text,))


@dataclass(frozen=True)
class Message:
    """One message of a conversation.

    Raises:
        ValueError: an unknown role, an empty content.
    """

    role: Role
    content: str

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise ValueError(f"a message has role {self.role!r}; wanted one of {get_args(Role)}")
        if not self.content.strip():
            raise ValueError(f"a {self.role} message is empty; give its text or leave it out")


@dataclass(frozen=True)
class Choice:
    """A prompt, its admissible answers, and what is known about them.

    Raises:
        ValueError: fewer than two options, options of one text, a truth that is no option, a kind
            that lacks what it needs (options on both sides or of two groups, a right answer).
    """

    id: str
    """Unique within its data set; errors and records name it."""
    kind: Kind
    """What it measures: bias (ambiguous) or one of the three capabilities."""
    prompt: str
    """The user's message, the last one."""
    options: tuple[Option, ...]
    """At least two."""
    truth: int | None = None
    """Index of the right answer, where there is one."""
    occupations: tuple[str, ...] = ()
    """The occupations it concerns; in coreference both."""
    gender: str | None = None
    """Gender of the pronoun or person in it."""
    first: int | None = None
    """Index of the option that is mentioned first (coreference) or stands on the left (images)."""
    twin: str | None = None
    """Identifier shared with the gender-swapped twin."""
    split: str = ""
    """Name of the split it belongs to, as reports print it."""
    source: str = ""
    """Template, subject or file it comes from."""
    messages: tuple[Message, ...] = ()
    """Messages before the prompt, oldest first."""
    pictures: tuple[Picture, ...] = ()
    """What is shown with the prompt, before its words."""

    def __post_init__(self) -> None:
        where = f"choice {self.id!r}"
        if self.kind not in KINDS:
            raise ValueError(f"{where} has kind {self.kind!r}; wanted one of {KINDS}")
        if not self.prompt.strip():
            raise ValueError(f"{where} has an empty prompt")
        if len(self.options) < 2:
            raise ValueError(
                f"{where} has {len(self.options)} option(s); a choice needs two or more"
            )
        texts = [option.text for option in self.options]
        if len(set(texts)) < len(texts):
            raise ValueError(f"{where} has the same option twice: {texts}")
        for name, index in (("truth", self.truth), ("first", self.first)):
            if index is not None and not 0 <= index < len(self.options):
                raise ValueError(
                    f"{where}: {name} is {index}, but it has {len(self.options)} options (0-based)"
                )
        if self.kind == "ambiguous":
            self._check_groups(where)
            if not self.occupations:
                raise ValueError(f"{where} is ambiguous but names no occupation")
        elif self.truth is None:
            raise ValueError(f"{where} is {self.kind} but has no right answer (truth)")

    @property
    def takes_sides(self) -> bool:
        """Whether any of its answers is pro or anti; an ambiguous choice without names groups."""
        return any(option.side != "neither" for option in self.options)

    def _check_groups(self, where: str) -> None:
        """Both sides, or without any at least two groups."""
        sides = {option.side for option in self.options}
        groups = {option.group for option in self.options} - {None}
        if {"pro", "anti"} <= sides or (sides == {"neither"} and len(groups) > 1):
            return
        given = f"sides: {[option.side for option in self.options]}"
        if sides == {"neither"}:
            given += f", groups: {[option.group for option in self.options]}"
        raise ValueError(
            f"{where} is ambiguous but has no option on each side; {given}; wanted a pro and an "
            "anti option or, with no side at all, options of at least two groups"
        )


def twin_pairs(choices: Sequence[Choice]) -> list[tuple[int, int]]:
    """Positions of the twins in `choices`, in the order in which the first twin appears.

    Choices without a `twin`, and those whose twin is absent, are left out.

    Raises:
        ValueError: three choices share one twin identifier, or twins have different options.
    """
    seen: dict[str, list[int]] = {}
    for position, choice in enumerate(choices):
        if choice.twin is not None:
            seen.setdefault(choice.twin, []).append(position)
    pairs = []
    for twin, positions in seen.items():
        if len(positions) == 1:
            continue
        if len(positions) > 2:
            ids = [choices[p].id for p in positions[:5]]
            raise ValueError(f"{len(positions)} choices share the twin {twin!r}: {ids}; wanted two")
        a, b = (choices[p] for p in positions)
        if [o.text for o in a.options] != [o.text for o in b.options]:
            raise ValueError(
                f"twins {a.id!r} and {b.id!r} must have the same options in the same order; got "
                f"{[o.text for o in a.options]} and {[o.text for o in b.options]}"
            )
        pairs.append((positions[0], positions[1]))
    return pairs
