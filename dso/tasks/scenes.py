"""The built-in task on pictures: two drawn people, "who is the nurse?", left or right.

Ambiguous scenes show a woman and a man in the attire of the occupation asked for, so that either
may be right; they come as twins in which the two have exchanged their genders and nothing else.
Unambiguous ones show it on one of them only, as often against the stereotype as with it. "Which
one is the woman?" is the question that needs the gender, and closed questions about one person are
the capability.

Follows arXiv 2512.15926, section 4 (occupation recognition); the scenes are our own (`dso.scenes`).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image

from dso.scenes.attributes import ATTIRES, GENDERS, Attire, Gender, Part, Person, Scene, stereotype
from dso.scenes.drawing import render
from dso.scenes.questions import ask_closed, ask_hire, ask_which, ask_who, askable
from dso.scenes.wordings import SIDES, Kind, Question, Wording
from dso.scenes.world import World
from dso.tasks.choice import Choice, Option
from dso.tasks.task import Task, TaskData

EVALUATION_SEED = 1_000_003
"""Seed of validation and evaluation data, the same in every run."""
DEFAULT_FORMS: tuple[str, ...] = (" {}", "{}", " the {}", "the {}", "The {}", " The {}")
"""Surface forms of an answer that count for any model."""
SIZE = 80
"""Pixels of a side."""
CLOSED: tuple[Kind, ...] = ("gender", "occupation", "emotion", "age", "activity")
"""What is asked of one person as the capability."""
FAIR = World.without("colour_gender", "emotion_gender")
"""Of the scenes of twins: nothing but what is drawn as gender goes with it."""

Asked = Literal["who", "hire"]


@dataclass(frozen=True)
class Drawn:
    """A scene as a picture."""

    scene: Scene
    size: int = SIZE
    """Pixels of a side."""

    @property
    def name(self) -> str:
        """Who is in it, and its seed."""
        people = " and ".join(f"a {person.gender}" for person in self.scene.people)
        return f"of {people or 'nobody'} (seed {self.scene.seed})"

    def open(self) -> Image.Image:
        """The drawing."""
        return render(self.scene, self.size)


def _rng(kind: str, split: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(f"{kind} {split}".encode())])


def _attires(part: Part) -> list[Attire]:
    return [attire for attire in ATTIRES if attire.part == part]


def _options(
    question: Question, forms: Sequence[str], scene: Scene | None = None
) -> tuple[Option, ...]:
    """Left and right in this order, or the closed list in the question's; with the sides that
    they take where a scene of a woman and a man is given."""
    texts = SIDES if set(question.options) == set(SIDES) else question.options
    made = []
    for place, text in enumerate(texts):
        gender = None if scene is None else scene.people[place].gender
        pro = gender == stereotype(question.about) if scene is not None else None
        made.append(
            Option(
                text=text,
                forms=tuple(form.format(text) for form in forms),
                side="neither" if pro is None else "pro" if pro else "anti",
                group=gender,
            )
        )
    return tuple(made)


def _pair(
    rng: np.random.Generator, attires: tuple[str, str], genders: Sequence[Gender]
) -> tuple[Person, Person]:
    left, right = (
        FAIR.person(rng, attire=attire, gender=gender)
        for attire, gender in zip(attires, genders, strict=True)
    )
    return left, right


def _genders(number: int) -> tuple[Gender, Gender]:
    return GENDERS if number % 2 else GENDERS[::-1]  # type: ignore[return-value]


def ambiguous(
    pairs: int, part: Part, wording: Wording, seed: int, split: str, *,
    forms: Sequence[str] = DEFAULT_FORMS, size: int = SIZE, asked: Asked = "who",
) -> list[Choice]:  # fmt: skip
    """Twin pairs of ambiguous scenes: 2 · `pairs` choices, twins next to each other.

    Args:
        pairs: number of twin pairs; the occupations are asked for equally often.
        part: split of the occupations.
        wording: split of the questions.
        seed: of the draw.
        split: name of the split in reports and identifiers.
        forms: surface forms of an answer, `{}` standing for the word.
        size: pixels of a side.
        asked: who is it, or whom to hire.
    """
    rng = _rng(asked, split, seed)
    jobs = [(attire.name, job) for attire in _attires(part) for job in attire.occupations]
    choices = []
    for number in range(pairs):
        attire, occupation = jobs[number % len(jobs)]
        turn = number // len(jobs)  # the order of the question's sides must not go with the job
        scene = FAIR.scene(rng, _pair(rng, (attire, attire), _genders(turn // 2)))
        ask = ask_who if asked == "who" else ask_hire
        words = int(rng.integers(2**31))
        twin = f"{split}-{asked}-{number}"
        for name, shown in (("as drawn", scene), ("exchanged", scene.exchanged())):
            question = ask(shown, occupation, words, FAIR, wording, bool(turn % 2))
            choices.append(
                Choice(
                    id=f"{twin}-{name.split()[0]}",
                    kind="ambiguous",
                    prompt=question.text,
                    options=_options(question, forms, shown),
                    occupations=(occupation,),
                    gender=shown.people[0].gender,
                    first=0,
                    twin=twin,
                    split=split,
                    source=asked,
                    pictures=(Drawn(shown, size),),
                )
            )
    return choices


def unambiguous(
    count: int, part: Part, wording: Wording, seed: int, split: str, *,
    forms: Sequence[str] = DEFAULT_FORMS, size: int = SIZE,
) -> list[Choice]:  # fmt: skip
    """`count` scenes of a woman and a man of whom one wears the attire asked for: with and against
    the stereotype, on the left and on the right equally often. Arguments as `ambiguous`."""
    rng = _rng("unambiguous", split, seed)
    attires = _attires(part)
    jobs = [(attire, job) for attire in attires for job in attire.occupations]
    choices = []
    for number in range(count):
        attire, occupation = jobs[number % len(jobs)]
        others = [other.name for other in attires if other is not attire]
        other = others[int(rng.integers(len(others)))]
        turn = number // len(jobs)
        worn = (attire.name, other) if turn % 2 else (other, attire.name)
        people = _pair(rng, worn, _genders(turn // 2))
        scene = FAIR.scene(rng, people)
        question = ask_who(
            scene, occupation, int(rng.integers(2**31)), FAIR, wording, bool(rng.integers(2))
        )
        right = people[SIDES.index(str(question.truth))]
        with_it = "with" if right.gender == stereotype(occupation) else "against"
        choices.append(
            _closed_choice(
                f"{split}-unambiguous-{number}", "unambiguous", question, scene, split, forms, size,
                f"{with_it} the stereotype", (occupation,),
            )
        )  # fmt: skip
    return choices


def gender_needed(
    count: int, part: Part, wording: Wording, seed: int, split: str, *,
    forms: Sequence[str] = DEFAULT_FORMS, size: int = SIZE,
) -> list[Choice]:  # fmt: skip
    """`count` times "which one is the woman?", or the man. Arguments as `ambiguous`."""
    rng = _rng("gender-needed", split, seed)
    attires = _attires(part)
    choices = []
    for number in range(count):
        worn = tuple(attires[int(n)].name for n in rng.integers(len(attires), size=2))
        scene = FAIR.scene(rng, _pair(rng, worn, _genders(number)))  # type: ignore[arg-type]
        question = ask_which(
            scene,
            GENDERS[int(rng.integers(2))],
            int(rng.integers(2**31)),
            wording,
            bool(rng.integers(2)),
        )
        choices.append(
            _closed_choice(
                f"{split}-gender-needed-{number}", "gender_needed", question, scene, split, forms,
                size, "which",
            )
        )  # fmt: skip
    return choices


def closed(
    count: int, part: Part, wording: Wording, seed: int, split: str, *,
    forms: Sequence[str] = DEFAULT_FORMS, size: int = SIZE,
) -> list[Choice]:  # fmt: skip
    """`count` closed questions about one person, the kinds of `CLOSED` in turn. Arguments as
    `ambiguous`."""
    rng = _rng("closed", split, seed)
    attires = _attires(part)
    choices: list[Choice] = []
    while len(choices) < count:
        kind = CLOSED[len(choices) % len(CLOSED)]
        person = FAIR.person(rng, attire=attires[int(rng.integers(len(attires)))].name)
        scene = FAIR.scene(rng, (person,))
        words = int(rng.integers(2**31))
        if kind not in askable(scene):
            continue  # nothing in the hand, a calm face: another person
        question = ask_closed(scene, kind, words, wording)
        choices.append(
            _closed_choice(
                f"{split}-closed-{len(choices)}", "capability", question, scene, split, forms, size,
                kind,
            )
        )  # fmt: skip
    return choices


def _closed_choice(
    name: str, kind: Literal["unambiguous", "gender_needed", "capability"], question: Question,
    scene: Scene, split: str, forms: Sequence[str], size: int, source: str,
    occupations: tuple[str, ...] = (),
) -> Choice:  # fmt: skip
    """A choice with a right answer."""
    options = _options(question, forms)
    sided = set(question.options) == set(SIDES)
    return Choice(
        id=name,
        kind=kind,
        prompt=question.text,
        options=options,
        truth=[option.text for option in options].index(str(question.truth)),
        occupations=occupations,
        first=0 if sided else None,
        split=split,
        source=source,
        pictures=(Drawn(scene, size),),
    )


def mirrored(choice: Choice) -> Choice:
    """The same question about the same two people, each in the other's place.

    A bias that follows the people keeps its size; one that follows the place does not.

    Args:
        choice: with the options left and right, in this order, as this task makes them.

    Raises:
        ValueError: a choice that is not about one picture of two people, left or right.
    """
    [picture] = choice.pictures if len(choice.pictures) == 1 else [None]
    if (
        not isinstance(picture, Drawn)
        or len(picture.scene.people) != 2
        or tuple(option.text for option in choice.options) != SIDES
    ):
        raise ValueError(
            f"{choice.id}: only a choice between left and right about one drawn scene of two "
            "people can be mirrored"
        )
    left, right = choice.options
    scene = replace(picture.scene, people=picture.scene.people[::-1])
    return replace(
        choice,
        id=f"{choice.id}-mirrored",
        options=(
            replace(left, side=right.side, group=right.group),
            replace(right, side=left.side, group=left.group),
        ),
        truth=None if choice.truth is None else 1 - choice.truth,
        gender=picture.scene.people[1].gender if choice.gender else None,
        twin=choice.twin and f"{choice.twin}-mirrored",
        pictures=(replace(picture, scene=scene),),
    )


class Scenes(Task):
    """The built-in task on pictures: training data, KL pool, validation and two evaluation splits.

    Evaluation splits: `train_occupations` (the training occupations in scenes and questions never
    trained on) and `heldout_occupations` (the test occupations, likewise).

    Args:
        pairs: twin pairs to train on.
        pool: prompts of the KL pool: half unambiguous, a quarter closed questions about one person,
            a quarter "which one is the woman?".
        validation: twin pairs, and questions of each other kind, of the validation split.
        evaluation: twin pairs, and questions of each other kind, of each evaluation split.
        forms: surface forms that count as an answer, `{}` standing for the word. The default list
            serves any model; a model whose answers always have one form is faster with that one.
        size: pixels of a side of the pictures.
        hire: ask whom to hire instead of who it is.
        seed: of the draw. Evaluation data do not depend on it: all runs are measured alike.
    """

    def __init__(
        self,
        pairs: int = 300,
        pool: int = 1200,
        validation: int = 120,
        evaluation: int = 300,
        forms: Sequence[str] = DEFAULT_FORMS,
        size: int = SIZE,
        hire: bool = False,
        seed: int = 0,
    ) -> None:
        given = {"pairs": pairs, "pool": pool, "validation": validation, "evaluation": evaluation}
        for name, value in given.items():
            if value < 4:
                raise ValueError(f"scenes: {name} is {value}; wanted at least 4")
        if not forms or any("{}" not in form for form in forms):
            raise ValueError(f"scenes: every form needs '{{}}' for the answer; got {forms}")
        self.pairs = pairs
        self.pool = pool
        self.validation = validation
        self.evaluation = evaluation
        self.forms = list(forms)
        self.size = size
        self.hire = hire
        self.seed = seed

    def load(self) -> TaskData:
        """Draw the choices; pictures are drawn when they are looked at."""
        quarter = self.pool // 4
        return TaskData(
            train=self._ambiguous(self.pairs, "train", "train", self.seed, "train"),
            pool=self._right("train", "train", self.seed, "pool", self.pool - 2 * quarter, quarter),
            validation=self._split("validation", "train", "validation", self.validation),
            evaluation=[
                *self._split("train", "test", "train_occupations", self.evaluation),
                *self._split("test", "test", "heldout_occupations", self.evaluation),
            ],
        )

    def _split(self, part: Part, wording: Wording, name: str, count: int) -> list[Choice]:
        return [
            *self._ambiguous(count, part, wording, EVALUATION_SEED, name),
            *self._right(part, wording, EVALUATION_SEED, name, count, count),
        ]

    def _ambiguous(
        self, pairs: int, part: Part, wording: Wording, seed: int, split: str
    ) -> list[Choice]:
        asked: Asked = "hire" if self.hire else "who"
        return ambiguous(
            pairs, part, wording, seed, split, forms=self.forms, size=self.size, asked=asked
        )

    def _right(
        self, part: Part, wording: Wording, seed: int, split: str, first: int, others: int
    ) -> list[Choice]:
        """Choices with a right answer: so many unambiguous, and of each other kind."""
        return [
            choice
            for kind, count in ((unambiguous, first), (gender_needed, others), (closed, others))
            for choice in kind(count, part, wording, seed, split, forms=self.forms, size=self.size)
        ]
