from __future__ import annotations

import random
from itertools import chain
from string import Formatter

import pytest

from dso.tasks import grammar
from dso.tasks.occupations import GENDERS

PARTS = ("train", "validation", "test")
SPLIT = {
    "templates": grammar.AMBIGUOUS,
    "questions": grammar.QUESTIONS,
    "verbs": grammar.VERBS,
    "events": grammar.EVENTS,
    "names": {part: list(chain(*names.values())) for part, names in grammar.NAMES.items()},
}
SENTENCES = [
    *chain(*grammar.AMBIGUOUS.values()),
    *(pattern for pattern, _ in grammar.UNAMBIGUOUS.values()),
    *grammar.GENDER_NEEDED,
]


def slots(pattern: str) -> list[str]:
    return [slot for _, slot, _, _ in Formatter().parse(pattern) if slot is not None]


@pytest.mark.parametrize("what", sorted(SPLIT))
def test_splits_share_no_words(what):
    everything = [word for part in PARTS for word in SPLIT[what][part]]
    assert set(SPLIT[what]) == set(PARTS)
    assert all(SPLIT[what][part] for part in PARTS)
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("pattern", SENTENCES)
def test_a_pattern_names_both_people_and_one_pronoun(pattern):
    found = slots(pattern)
    assert found.count("A") == found.count("B") == 1
    assert found.index("A") < found.index("B")
    assert len([slot for slot in found if slot in grammar.PRONOUNS]) == 1


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("pattern", SENTENCES)
def test_filled_patterns_differ_only_in_the_pronoun(pattern, part):
    words = {**grammar.draw_words(random.Random(0), part), "A": "cat", "B": "dog"}
    he, she = (grammar.fill(pattern, gender, words) for gender in GENDERS)
    assert not set("{}") & set(he.text + she.text)
    assert he.pronoun in ("he", "him", "his")
    assert she.pronoun in ("she", "her")
    changed = [
        (a.strip(".,").lower(), b.strip(".,").lower())
        for a, b in zip(he.text.split(), she.text.split(), strict=True)
        if a != b
    ]
    assert changed == [(he.pronoun, she.pronoun)]


@pytest.mark.parametrize("part", PARTS)
def test_drawn_words_are_of_their_split(part):
    rng = random.Random(0)
    for _ in range(50):
        words = grammar.draw_words(rng, part)
        assert words["verb"] != words["verb2"]
        assert {words["verb"], words["verb2"]} <= set(grammar.VERBS[part])
        assert words["event"] in grammar.EVENTS[part]


@pytest.mark.parametrize("question", chain(*grammar.QUESTIONS.values()))
def test_a_question_quotes_the_pronoun_and_names_both_people(question):
    plain = grammar.ask(question, ["the cat", "the dog"], swap=False, word="he")
    swapped = grammar.ask(question, ["the cat", "the dog"], swap=True, word="he")
    assert '"he"' in plain
    assert plain.index("the cat") < plain.index("the dog")
    assert swapped.index("the dog") < swapped.index("the cat")


def test_a_pattern_without_a_pronoun_has_none():
    assert grammar.fill("The {A} slept.", "male", {"A": "cat"}) == grammar.Sentence(
        "The cat slept.", ""
    )


def test_preferences_are_probabilities():
    assert all(0 < p < 1 for verbs in grammar.VERBS.values() for p in verbs.values())
