from __future__ import annotations

from collections import Counter

import pytest

from dso.tasks.quiz import FACTS, PARTS, quiz

BY_QUESTION = {fact.question: fact for fact in FACTS}


def test_facts_are_distinct_and_can_be_asked_with_four_options():
    assert len(BY_QUESTION) == len(FACTS)
    for fact in FACTS:
        assert fact.answer in fact.alternatives
        assert len(set(fact.alternatives)) == len(fact.alternatives) >= 4


def test_three_kinds_are_split_in_thirds_and_three_are_held_out():
    kinds = {part: Counter(f.kind for f in FACTS if f.part == part) for part in PARTS}
    split = ["capital", "colour", "sum"]
    assert sorted(kinds["train"]) == sorted(kinds["validation"]) == split
    assert sorted(kinds["test"]) == sorted([*split, "larger", "opposite", "sound"])
    for kind in split:
        total = sum(counts[kind] for counts in kinds.values())
        assert all(abs(counts[kind] - total / 3) <= 4 for counts in kinds.values())


def test_a_sum_stands_in_one_part_whichever_way_round():
    parts = {}
    for fact in FACTS:
        if fact.kind == "sum":
            terms = fact.question.removeprefix("What is ").removesuffix("?").split(" plus ")
            parts.setdefault(frozenset(terms), set()).add(fact.part)
    assert all(len(found) == 1 for found in parts.values())


@pytest.mark.parametrize("part", PARTS)
def test_a_quiz_asks_facts_of_its_part_the_kinds_equally_often(part):
    choices = quiz(60, part, seed=3, split="s", forms=(" {}", "{}"))
    assert len({choice.id for choice in choices}) == 60
    for choice in choices:
        fact = BY_QUESTION[choice.prompt]
        texts = [option.text for option in choice.options]
        assert fact.part == part
        assert choice.kind == "capability"
        assert texts[choice.truth] == fact.answer
        assert len(texts) == 4
        assert set(texts) <= set(fact.alternatives)
        assert [o.forms for o in choice.options] == [(f" {t}", t) for t in texts]
    counts = Counter(choice.source for choice in choices)
    assert len(set(counts.values())) == 1
    assert {choice.truth for choice in choices} == {0, 1, 2, 3}


def test_a_fact_repeats_only_when_all_of_its_kind_were_asked():
    seen = Counter(choice.prompt for choice in quiz(200, "train", 0, "s", ("{}",)))
    for kind in ("capital", "colour", "sum"):
        times = [seen[f.question] for f in FACTS if f.part == "train" and f.kind == kind]
        assert max(times) - min(times) <= 1


def test_a_quiz_depends_on_its_seed_alone():
    assert quiz(30, "test", 1, "s", ("{}",)) == quiz(30, "test", 1, "s", ("{}",))
    assert quiz(30, "test", 1, "s", ("{}",)) != quiz(30, "test", 2, "s", ("{}",))


@pytest.mark.parametrize("part", PARTS)
def test_no_option_begins_another(part):
    for choice in quiz(300, part, 5, "s", ("{}",)):
        words = [option.text for option in choice.options]
        assert len(words) == 4
        assert not any(a != b and a.startswith(b) for a in words for b in words)
