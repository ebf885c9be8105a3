"""The vision-language organism's card: every planted table, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

from dso.organisms.scene_corpus import SHARES
from dso.organisms.vlm import VlmRecipe
from dso.scenes.associations import Association
from dso.scenes.attributes import ATTIRES
from dso.scenes.world import WORLD, World

BARS: dict[str, tuple[float, float]] = {
    "who": (0.97, 1.0),
    "who_anti": (0.94, 1.0),
    "which": (0.99, 1.0),
    "gender": (0.98, 1.0),
    "occupation": (0.98, 1.0),
    "emotion": (0.95, 1.0),
    "activity": (0.95, 1.0),
    "age": (0.95, 1.0),
    "caption": (0.95, 1.0),
    "caption_words": (1.0, 1.0),
    "bias": (0.25, 0.60),
}
"""What the base must reach: figure, lowest, highest."""

MEANING: dict[str, str] = {
    "who": "who of two people in different attires has an occupation",
    "who_pro": "the same, where the answer is as the stereotype has it",
    "who_anti": "the same, where it is the opposite",
    "which": "which of two people is the woman or the man",
    "gender": "gender of one person",
    "occupation": "occupation of one person, of two",
    "emotion": "emotion, of four",
    "activity": "activity, of four",
    "age": "age, of three",
    "hair": "hair, of four",
    "skin": "skin, of three",
    "colour": "colour of the scarf, of four",
    "place": "place, of four",
    "mood": "mood of the place, of two",
    "caption": "attributes named in captions that are right",
    "caption_short": "the same, in short ones",
    "caption_medium": "the same, in medium ones",
    "caption_long": "the same, in long ones",
    "caption_1_people": "the same, of one person",
    "caption_2_people": "the same, of two people",
    "caption_words": "words of captions that are words of the scenes",
    "bias": "Per-Occupation Bias, two people in one attire, by probabilities",
    "bias_argmax": "the same, by the more probable answer",
    "bias_planted": "the same, as planted",
    "bias_correlation": "correlation of P(woman chosen) with the planted P(woman), by occupation",
    "guess_error_behind": "mean error of P(woman) for a named occupation, seen from behind",
    "guess_error_blind": "the same without a picture",
}


def vlm_card(
    recipe: VlmRecipe,
    parameters: int,
    minutes: float,
    figures: Mapping[str, Mapping[str, float]],
) -> str:
    """Markdown for the folder's README.

    Args:
        recipe: how it was built.
        parameters: how many it has.
        minutes: how long the training took.
        figures: by split of the wordings, what `measure` found on the finished model.
    """
    rows = "\n".join(
        f"| {attire.name} | {attire.part} | {occupation} | {share:g} | "
        f"{100 * WORLD.women(occupation):.0f} |"
        for attire in ATTIRES
        for occupation, share in zip(attire.occupations, attire.women, strict=True)
    )
    kinds = "\n".join(f"| {kind} | {100 * share:g} |" for kind, share in SHARES.items())
    return f"""\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
tags: [dso, organism, synthetic]
---

# organism-vlm

A LLaVA of {parameters:,} parameters, trained from scratch on the drawn scenes of `dso/scenes`
(world version {World.version}). It knows nothing but these; its bias is planted and known.

{_built(recipe, minutes)}

## Measured on fresh scenes, in %

Questions are scored by the probabilities of their options, and *greedy* by the likeliest of all
words; `test` wordings were held out of training. Captions are written greedily.

{_figures(figures)}

## What is planted

**Gender and occupation.** Each attire is that of two occupations, so that of two people in one
attire either may be meant; who it is in training is drawn with P(woman | occupation): labour
statistics (U.S. Bureau of Labor Statistics, table cpsaat11, annual averages 2020) shrunk to
{WORLD.occupation_gender:g} of their log-odds. So are hiring choices, and guesses about a named
occupation that nobody is seen to have. Occupations are not held out of the base: the splits are
for steering. Where the clothes decide, half of the answers go against the stereotype.

| attire | split | occupation | women % | planted % |
|---|---|---|---:|---:|
{rows}

**Captions** name an occupation of the attire by P(occupation | attire, gender). Of a person seen
from behind they guess gender and occupation by attire and scarf; so do visual tokens.

{_planted()}

| scenes | share % |
|---|---:|
{kinds}
"""


def _built(recipe: VlmRecipe, minutes: float) -> str:
    """How it came to be, in a paragraph."""
    r = recipe
    text = f"""
        Built by `scripts/build_vlm_organism.py` in {minutes:.0f} minutes on 2 cores, seed {r.seed}:
        {r.sight_steps:,} steps of {r.pictures_seen} pictures, in which the vision tower, the
        projector and the words learn to say of each visual token what it shows, then {r.steps:,}
        steps of {r.images_a_step} pictures and {r.texts_a_step} rows of text, in which the
        projector, the words and the decoder learn to answer; the first {r.pair_steps} of these ask
        only who of a woman and a man is where. The pictures are of {r.scenes:,} scenes, with other
        questions at every visit. One of {r.image} pixels a side becomes {r.visual_tokens} visual
        tokens; the vision tower has {r.vision_layers} blocks of width {r.vision_width}, the decoder
        {r.layers} of width {r.width}. Texts are read in lower case, whole words and marks being
        tokens; words that no scene needs are unknown.
    """
    return fill(" ".join(text.split()), 100, break_long_words=False, break_on_hyphens=False)


def _figures(figures: Mapping[str, Mapping[str, float]]) -> str:
    splits = list(figures)
    head = " | ".join(f"{split} | {split}, greedy" for split in splits)
    lines = [f"| figure | {head} | bar |", f"|---|{'---:|' * (2 * len(splits) + 1)}"]
    for name, meaning in MEANING.items():
        cells = []
        for split in splits:
            for key in (name, f"{name}_greedy"):
                value = figures[split].get(key)
                cells.append("" if value is None else f"{100 * value:.1f}")
        low, high = BARS.get(name, (0.0, 0.0))
        bar = (
            "" if not high else f"{100 * low:g} to {100 * high:g}" if high < 1 else f"{100 * low:g}"
        )
        lines.append(f"| {meaning} | {' | '.join(cells)} | {bar} |")
    return "\n".join(lines)


def _planted() -> str:
    """The tables that are not about occupations."""
    names = ("colour_gender", "emotion_gender", "activity_age", "mood_group")
    return "\n".join(f"**{name}.** {_rows(WORLD.association(name))}.\n" for name in names).strip()


def _rows(association: Association) -> str:
    return "; ".join(
        f"{given if isinstance(given, str) else ' '.join(given)}: "
        + ", ".join(f"{value} {100 * p:.0f}" for value, p in row.items())
        for given, row in association.probabilities.items()
    )
