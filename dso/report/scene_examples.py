"""What a page about drawn scenes shows: questions and captions, answered at ω = 0 and at ω = 1.

`scenes_page.py` writes them as HTML, `scenes_sheet.py` draws them as one picture; the words and
numbers that both show are made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dso.report.plots import BLUE, GREEN, ORANGE
from dso.report.results import Result
from dso.scenes.attributes import ATTIRE_OF, Scene
from dso.scenes.reading import judge
from dso.scenes.world import WORLD
from dso.tasks.choice import Choice
from dso.tasks.scenes import Drawn

STRENGTHS = (0.0, 1.0)
"""What is compared."""
LABELS = ("ω = 0", "ω = 1")
SHOWN = 240
"""Pixels of a side of the pictures on the page; the model sees the same drawing smaller."""
WRONG = "#c9c9c9"
COLOURS = {"woman": ORANGE, "man": BLUE, "right": GREEN, "wrong": WRONG}
"""Of an answer: the gender of whom it points at, or whether it is right."""
KEYS = {
    "woman": "points at the woman", "man": "points at the man", "right": "right answer",
    "wrong": "wrong answer",
}  # fmt: skip
NOTE = (
    "ω = 0 is the base model, ω = 1 the adapter as trained; 95 % intervals in brackets. No scene "
    "on this page, and no wording of a question with options, was ever trained on. Of the held-out "
    "occupations the adapter saw none in training."
)
SPLITS = {
    "heldout_occupations": "held-out occupations",
    "train_occupations": "training occupations",
}
FIGURES = {
    "per_occupation_bias": "bias per occupation, of twins",
    "unambiguous_accuracy": "right answers, where the clothes decide",
    "gender_needed_accuracy": "right answers, where only the gender decides",
    "capability": "right answers about one person",
}
"""By metric, in the order of the table."""


@dataclass(frozen=True)
class Bar:
    """One answer's share of the probability of all answers."""

    text: str
    """The answer."""
    probability: float
    meaning: str
    """A key of `COLOURS`."""

    @property
    def percent(self) -> str:
        """The probability as it is shown."""
        return f"{100 * self.probability:.0f} %"


@dataclass(frozen=True)
class Asked:
    """A question about a drawn scene with the probabilities of its answers.

    Raises:
        ValueError: no drawn scene, or a number of probabilities that is not that of the options.
    """

    choice: Choice
    before: tuple[float, ...]
    """Of the options in their order, at ω = 0; they sum to 1."""
    after: tuple[float, ...]
    """The same at ω = 1."""

    def __post_init__(self) -> None:
        pictures = self.choice.pictures
        if len(pictures) != 1 or not isinstance(pictures[0], Drawn):
            raise ValueError(
                f"choice {self.choice.id!r} shows {len(pictures)} pictures; wanted one drawn scene"
            )
        for given in (self.before, self.after):
            if len(given) != len(self.choice.options):
                raise ValueError(
                    f"choice {self.choice.id!r} has {len(self.choice.options)} options and "
                    f"{len(given)} probabilities; give one each"
                )

    @property
    def scene(self) -> Scene:
        """What is shown."""
        [picture] = self.choice.pictures
        assert isinstance(picture, Drawn)  # as checked above
        return picture.scene

    def bars(self) -> tuple[tuple[Bar, ...], tuple[Bar, ...]]:
        """The answers at ω = 0 and at ω = 1, in the order of the options."""
        first, second = (
            tuple(
                Bar(option.text, probability, self._meaning(number))
                for number, (option, probability) in enumerate(
                    zip(self.choice.options, probabilities, strict=True)
                )
            )
            for probabilities in (self.before, self.after)
        )
        return first, second

    def _meaning(self, option: int) -> str:
        if self.choice.truth is not None:
            return "right" if option == self.choice.truth else "wrong"
        return str(self.choice.options[option].group)

    @property
    def heading(self) -> str:
        """The occupation or the attribute asked for; empty where the question is about who is the
        woman or the man."""
        if self.choice.occupations:
            return self.choice.occupations[0]
        return self.choice.source if self.choice.kind == "capability" else ""

    @property
    def note(self) -> str:
        """Whether the right answer goes with the stereotype, where there is one."""
        return self.choice.source if self.choice.kind == "unambiguous" else ""


@dataclass(frozen=True)
class Twins:
    """A question about two scenes that differ in who has which gender, and in nothing else.

    Raises:
        ValueError: not the twins of one pair.
    """

    one: Asked
    other: Asked

    def __post_init__(self) -> None:
        pair = self.one.choice.twin
        if pair is None or pair != self.other.choice.twin:
            raise ValueError(
                f"choices {self.one.choice.id!r} and {self.other.choice.id!r} are no twins"
            )

    @property
    def occupation(self) -> str:
        """The one asked for."""
        return self.one.choice.occupations[0]

    @property
    def held_out(self) -> bool:
        """Whether its occupation was kept from training."""
        return ATTIRE_OF[self.occupation].part != "train"

    @property
    def planted(self) -> str:
        """What was planted about the occupation."""
        return f"planted: the woman in {100 * WORLD.women(self.occupation):.0f} % of cases"

    @property
    def moved(self) -> tuple[float, float]:
        """By how much P(left) changes with the genders, at ω = 0 and at ω = 1, in [0, 1]."""
        return (
            abs(self.one.before[0] - self.other.before[0]),
            abs(self.one.after[0] - self.other.after[0]),
        )

    @property
    def verdict(self) -> str:
        """What the exchange of the genders does to the answer."""
        before, after = self.moved
        return (
            f"Exchanging the genders moves P(left) by {100 * before:.0f} points at ω = 0, by "
            f"{100 * after:.0f} at ω = 1."
        )


@dataclass(frozen=True)
class Described:
    """A scene with what the model writes about it."""

    scene: Scene
    question: str
    before: str
    """At ω = 0."""
    after: str
    """At ω = 1."""

    def judged(self) -> tuple[str, str]:
        """How true each of the two is, in words."""
        first, second = (_judged(text, self.scene) for text in (self.before, self.after))
        return first, second


def _judged(text: str, scene: Scene) -> str:
    found = judge(text, scene)
    named = len(found.right) + len(found.wrong)
    if not named:
        return "names nothing that could be right or wrong"
    wrong = ", ".join(f"{fact.attribute} {fact.value}" for fact in found.wrong)
    told = f"{len(found.right)} of {named} named attributes are right"
    return f"{told}; wrong: {wrong}" if wrong else told


@dataclass(frozen=True)
class Section:
    """Some examples of one kind.

    Raises:
        ValueError: there are none.
    """

    title: str
    says: str
    """What there is to be seen."""
    rule: str
    """How the examples were chosen."""
    items: Sequence[Twins] | Sequence[Asked] | Sequence[Described]
    """All of one type."""

    def __post_init__(self) -> None:
        if not self.items:
            raise ValueError(f"section {self.title!r} has no examples")

    @property
    def columns(self) -> int:
        """How many examples are side by side."""
        if not isinstance(self.items[0], Asked):
            return 2
        return 4 if len(self.items) % 4 == 0 else 5


@dataclass(frozen=True)
class ScenesPage:
    """All that the page shows."""

    about: str
    """Which model, which adapter, how trained."""
    results: Sequence[Result]
    """Of the evaluation, at ω = 0 and 1 at least."""
    sections: Sequence[Section]

    @property
    def title(self) -> str:
        """The page's."""
        return "Who in the picture is the nurse?"

    @property
    def planted(self) -> str:
        """What the bias is."""
        return (
            "Every attire (scrubs with a syringe, an apron with a mop) is that of two occupations, "
            "one stereotyped as a man's and one as a woman's. Of a woman and a man in the same "
            "attire either may be the one asked for. In the organism's training data it was the "
            "woman with a probability that depends on the occupation alone: her share in U.S. "
            f"labour statistics, shrunk to {WORLD.occupation_gender:g} of its log-odds. That is "
            f"the planted bias: {100 * WORLD.occupation_bias():.0f} % over all occupations, where "
            "0 % is a toss and 100 % is always the stereotype. The steering adapter, at strength "
            "ω, is to remove it and nothing else."
        )

    def rows(self) -> list[tuple[str, str, str, str]]:
        """(occupations, figure, at ω = 0, at ω = 1) of the table of figures, in percent, with
        95 % intervals.

        Raises:
            ValueError: a figure that is not among the results.
        """
        return [
            (where, words, *(self._cell(split, metric, w) for w in STRENGTHS))  # type: ignore[misc]
            for split, where in SPLITS.items()
            for metric, words in FIGURES.items()
        ]

    def _cell(self, split: str, metric: str, strength: float) -> str:
        wanted = (split, metric, strength, "probability", None)
        for r in self.results:
            if (r.split, r.metric, r.strength, r.estimate, r.group) == wanted:
                between = "" if r.low is None or r.high is None else (
                    f" ({100 * r.low:.1f} to {100 * r.high:.1f})"
                )  # fmt: skip
                return f"{100 * r.value:.1f}{between}"
        raise ValueError(
            f"there is no {metric} of {split} at strength {strength:g} among the results; measure "
            "it first"
        )
