"""The examples that the demo on pictures shows: chosen by a rule, answered at ω = 0 and at ω = 1.

All are from the task's evaluation splits, which nothing is trained on. Every rule takes the first
of their kind, in the order in which the task has them, whatever the answers are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from dso.inference.decoding import Decoding
from dso.inference.pipeline import SteeredPipeline
from dso.policy import Policy
from dso.report.results import Result
from dso.report.scene_examples import (
    STRENGTHS,
    Asked,
    Described,
    ScenesPage,
    Section,
    Twins,
)
from dso.scenes.attributes import GENDERS
from dso.tasks.choice import Choice, Kind, twin_pairs
from dso.tasks.scenes import CLOSED, Drawn

HELD_OUT, TRAINED_ON = "heldout_occupations", "train_occupations"
TRAINED_SHOWN = 4
"""Training occupations of which a pair of twins is shown."""
SHOWN = 2
"""Examples with and against the stereotype for each side the answer is on, and of questions for the
woman and for the man."""
DESCRIBED = 3
"""Pictures of one person, and of two, that are described."""
DESCRIBE = "describe the picture."


def scenes_page(
    policy: Policy, choices: Sequence[Choice], results: Sequence[Result], about: str
) -> ScenesPage:
    """Choose the examples and answer them at ω = 0 and at ω = 1.

    Args:
        policy: with its adapter, in eval mode.
        choices: the evaluation splits of `Scenes`.
        results: of the evaluation.
        about: which model, which adapter, how trained.

    Raises:
        ValueError: the choices lack one of the kinds that are shown.
    """
    held_out = [choice for choice in choices if choice.split == HELD_OUT]
    trained_on = [choice for choice in choices if choice.split == TRAINED_ON]
    pairs = [*first_twins(held_out), *first_twins(trained_on)[:TRAINED_SHOWN]]
    clear = [
        choice
        for source in ("with the stereotype", "against the stereotype")
        for side in (0, 1)
        for choice in _of(held_out, "unambiguous", [source], side)[:SHOWN]
    ]
    needed = _of(held_out, "gender_needed", ["which"])
    which = [
        choice
        for gender in GENDERS
        for choice in [c for c in needed if f"the {gender}," in c.prompt][:SHOWN]
    ]
    closed = [choice for kind in CLOSED for choice in _of(held_out, "capability", [kind])[:1]]
    alone = _of(held_out, "capability", CLOSED)[:DESCRIBED]
    together = [choice for choice in held_out if choice.kind == "unambiguous"][:DESCRIBED]
    twins = ask(policy, [choice for pair in pairs for choice in pair])
    return ScenesPage(
        about,
        results,
        (
            Section(
                "Who is it? Twins",
                "Two pictures that differ in nothing but who is the woman and who is the man, and "
                "one question that has no right answer. At ω = 0 the colours change places with "
                "the genders: the answer follows the gender. At ω = 1 the bar should stay where "
                "it is.",
                "the first pair of every held-out occupation in the evaluation, and of the first "
                f"{TRAINED_SHOWN} training occupations.",
                [Twins(*two) for two in zip(twins[::2], twins[1::2], strict=True)],
            ),
            Section(
                "Where the clothes decide",
                "One of the two wears the attire of the occupation asked for, so that there is a "
                "right answer, with or against the stereotype. Steering should not change it.",
                f"the first {SHOWN} scenes with the stereotype and the answer on the left, the "
                f"first {SHOWN} with it on the right, and the same against the stereotype; of "
                "held-out occupations.",
                ask(policy, clear),
            ),
            Section(
                "Where only the gender decides",
                "A model that has merely forgotten what gender is fails here and nowhere else.",
                f"the first {SHOWN} questions for the woman and for the man, in attires of "
                "held-out occupations.",
                ask(policy, which),
            ),
            Section(
                "One person",
                "What the model knows of a person should stay as it was.",
                "the first question about each attribute, in attires of held-out occupations.",
                ask(policy, closed),
            ),
            Section(
                "Captions",
                "What the model writes, greedily, and how much of it the scene bears out. An "
                "attire is that of two occupations, and either is right.",
                f"the first {DESCRIBED} pictures of one person and the first {DESCRIBED} of two in "
                "different attires, of held-out occupations.",
                describe(policy, [_scene(choice) for choice in (*alone, *together)]),
            ),
        ),
    )


def first_twins(choices: Sequence[Choice]) -> list[tuple[Choice, Choice]]:
    """The first pair of twins of each occupation, in the order of their appearance."""
    found: dict[str, tuple[Choice, Choice]] = {}
    for one, other in twin_pairs(choices):
        found.setdefault(choices[one].occupations[0], (choices[one], choices[other]))
    return list(found.values())


@torch.inference_mode()
def ask(policy: Policy, choices: Sequence[Choice]) -> list[Asked]:
    """Put choices to the model at ω = 0 and at ω = 1.

    Args:
        policy: with its adapter, in eval mode.
        choices: with one drawn scene each.
    """
    if not choices:
        return []
    encoded = policy.encode(choices)
    answers = []
    for strength in STRENGTHS:
        with policy.at(strength):
            answers.append(policy.option_log_probs(encoded).softmax(-1).cpu().tolist())
    return [
        Asked(choice, *(tuple(row[: len(choice.options)]) for row in rows))
        for choice, *rows in zip(choices, *answers, strict=True)
    ]


def describe(policy: Policy, pictures: Sequence[Drawn]) -> list[Described]:
    """Have the model describe pictures, greedily, at ω = 0 and at ω = 1."""
    pipeline = SteeredPipeline(policy)
    texts = [
        pipeline.answers(
            [DESCRIBE] * len(pictures),
            [strength],
            Decoding(max_new_tokens=96),
            pictures=[[picture] for picture in pictures],
        )
        for strength in STRENGTHS
    ]
    return [
        Described(picture.scene, DESCRIBE, before.text.strip(), after.text.strip())
        for picture, before, after in zip(pictures, *texts, strict=True)
    ]


def _of(
    choices: Iterable[Choice], kind: Kind, sources: Sequence[str], truth: int | None = None
) -> list[Choice]:
    return [
        choice
        for choice in choices
        if choice.kind == kind and choice.source in sources and truth in (None, choice.truth)
    ]


def _scene(choice: Choice) -> Drawn:
    [picture] = choice.pictures
    if not isinstance(picture, Drawn):
        raise ValueError(f"choice {choice.id!r} shows {picture.name}; wanted a drawn scene")
    return picture
