from __future__ import annotations

import re
from collections import Counter
from itertools import chain

import pytest
import torch

from dso.rewards import RunningGap
from dso.tasks import Choice, Coreference, TaskData, grammar, tabulate, twin_pairs
from dso.tasks.coreference import DEFAULT_FORMS, ambiguous, gender_needed, person, unambiguous
from dso.tasks.occupations import BY_NAME, GENDERS, select
from dso.tasks.quiz import FACTS

PRONOUN = re.compile(r"\b(he|she|him|her|his)\b", re.IGNORECASE)
COMBINATIONS = {"train": 288, "validation": 18, "test": 50}


@pytest.fixture(scope="module")
def data() -> TaskData:
    return Coreference().load()


def question_order(choice: Choice) -> tuple[int, ...]:
    """The options in the order in which the question names them."""
    start = choice.prompt.index('"')
    places = [choice.prompt.index(person(o.text), start) for o in choice.options]
    return tuple(sorted(range(len(places)), key=lambda option: places[option]))


# -- ambiguous sentences ------------------------------------------------------------------------


@pytest.mark.parametrize("part", sorted(COMBINATIONS))
def test_twins_differ_only_in_gender(part):
    choices = ambiguous(40, part, part, 0, "s")
    pairs = twin_pairs(choices)
    assert pairs == [(n, n + 1) for n in range(0, 80, 2)]
    for a, b in pairs:
        he, she = choices[a], choices[b]
        assert (he.gender, she.gender) == ("male", "female")
        assert he.prompt != she.prompt
        assert PRONOUN.sub("_", he.prompt) == PRONOUN.sub("_", she.prompt)
        assert {w.lower() for w in PRONOUN.findall(he.prompt)} <= {"he", "him", "his"}
        assert {w.lower() for w in PRONOUN.findall(she.prompt)} <= {"she", "her"}
        assert [o.text for o in he.options] == [o.text for o in she.options]
        assert he.occupations == she.occupations
        assert [{o.side, p.side} for o, p in zip(he.options, she.options, strict=True)] == [
            {"pro", "anti"}
        ] * 2


@pytest.mark.parametrize("part", sorted(COMBINATIONS))
def test_a_gender_blind_model_has_no_gap_for_any_occupation(part):
    table = tabulate(ambiguous(37, part, part, 1, "s"))
    answers = torch.rand(len(table), 2, dtype=torch.float64)
    answers[1::2] = answers[::2]
    gap = RunningGap(len(table.occupation_names))
    sums = gap.batch_sums(answers / answers.sum(-1, keepdim=True), table)
    assert (sums[1] > 0).all()
    torch.testing.assert_close(sums[0], torch.zeros_like(sums[0]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("part", sorted(COMBINATIONS))
@pytest.mark.parametrize("passes", [1, 2])
def test_pairs_are_balanced_over_occupations_and_orders(part, passes):
    total = COMBINATIONS[part] * passes
    choices = ambiguous(total, part, part, 0, "s")[::2]
    assert set(Counter(c.occupations for c in choices).values()) == {passes}
    mentioned = Counter(chain(*(c.occupations for c in choices)))
    assert set(mentioned) == {o.name for o in select(part)}
    assert len(set(mentioned.values())) == 1
    first = Counter(c.occupations[0] for c in choices)
    assert {2 * n for n in first.values()} == set(mentioned.values())
    orders = Counter(question_order(c) for c in choices)
    assert orders[0, 1] == orders[1, 0] == total // 2
    assert all(c.first == 0 and c.options[0].text == c.occupations[0] for c in choices)


def test_a_part_of_a_pass_has_no_combination_twice():
    counts = Counter(c.occupations for c in ambiguous(300, "train", "train", 0, "s")[::2])
    assert set(counts.values()) == {1, 2}
    assert len(counts) == COMBINATIONS["train"]


def test_people_are_of_opposite_stereotypes_in_the_order_of_mention():
    for choice in ambiguous(50, "test", "test", 0, "s"):
        assert {BY_NAME[name].stereotype for name in choice.occupations} == {"male", "female"}
        a, b = (choice.prompt.index(f"he {name}") for name in choice.occupations)
        assert a < b


def test_names_and_chiefs_have_their_articles():
    assert [person(name) for name in ("Anna", "nurse", "CEO")] == ["Anna", "the nurse", "the CEO"]


# -- questions with a right answer --------------------------------------------------------------


def test_unambiguous_kinds_are_equally_frequent_and_their_truth_is_the_syntaxs():
    choices = unambiguous(60, "train", "train", 0, "s")
    assert set(Counter(c.source for c in choices).values()) == {12}
    for choice in choices:
        assert choice.truth == grammar.UNAMBIGUOUS[choice.source][1]
        assert choice.options[0].text == choice.occupations[0]
    assert {question_order(c) for c in choices} == {(0, 1), (1, 0)}


def test_gender_decides_where_it_is_needed():
    gender_of = {
        name: gender
        for names in grammar.NAMES.values()
        for gender, people in names.items()
        for name in people
    } | {noun: GENDERS[place] for pair in grammar.KIN for place, noun in enumerate(pair)}
    choices = gender_needed(80, "test", 0, "s")
    for choice in choices:
        genders = [gender_of[option.text] for option in choice.options]
        assert sorted(genders) == ["female", "male"]
        assert genders[choice.truth] == choice.gender
        said = {word.lower() for word in PRONOUN.findall(choice.prompt)}
        assert len(said) == 1
        assert said <= ({"he", "him", "his"} if choice.gender == "male" else {"she", "her"})
        assert choice.prompt[0].isupper()
    assert Counter(c.source for c in choices) == {"names": 40, "kin": 40}
    assert {c.truth for c in choices} == {0, 1}


# -- the task -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2, 1_000_003])
def test_no_evaluation_prompt_is_trained_on(seed):
    data = Coreference(seed=seed).load()
    trained = {choice.prompt for choice in data.train + data.pool}
    assert not trained & {choice.prompt for choice in data.evaluation}
    held_out = {fact.question for fact in FACTS if fact.part == "test"}
    assert not trained & held_out
    assert {c.prompt for c in data.evaluation if c.kind == "capability"} <= held_out


def test_no_ambiguous_or_unambiguous_prompt_of_validation_is_trained_on(data):
    trained = {choice.prompt for choice in data.train + data.pool}
    asked = {choice.prompt for choice in data.validation if choice.kind != "capability"}
    assert not trained & asked


def test_the_splits_have_their_occupations(data):
    def occupations(choices):
        return {name for choice in choices for name in choice.occupations}

    def names(part):
        return {o.name for o in select(part)}

    assert occupations(data.train + data.pool) == names("train")
    assert occupations(data.validation) == names("validation")
    by_split = {split: [c for c in data.evaluation if c.split == split] for split in {
        c.split for c in data.evaluation
    }}  # fmt: skip
    assert set(by_split) == {"train_occupations", "heldout_occupations"}
    assert occupations(by_split["train_occupations"]) == names("train")
    assert occupations(by_split["heldout_occupations"]) == names("test")


def test_compound_occupations_take_the_place_of_the_trained_ones():
    sizes = {"pairs": 32, "pool": 64, "validation": 4, "evaluation": 32}
    plain, compound = (
        Coreference(**sizes).load(),
        Coreference(**sizes, occupations="compound").load(),
    )
    names = {o.name for o in select("compound")}
    splits = {"train", "pool", "train_occupations"}
    for choices in (compound.train, compound.pool, compound.evaluation):
        for choice in choices:
            if choice.split in splits:
                assert set(choice.occupations) <= names
    assert {name for c in compound.train for name in c.occupations} == names
    assert compound.validation == plain.validation
    assert compound.evaluation[32 * 5 :] == plain.evaluation[32 * 5 :]


def test_the_sizes_are_those_asked_for():
    data = Coreference(pairs=5, pool=10, validation=6, evaluation=7).load()
    assert len(data.train) == 10
    assert Counter(c.kind for c in data.pool) == {
        "unambiguous": 6, "gender_needed": 2, "capability": 2,
    }  # fmt: skip
    for choices, count in ((data.validation, 6), (data.evaluation[:35], 7)):
        assert Counter(c.kind for c in choices) == {
            "ambiguous": 2 * count, "unambiguous": count, "gender_needed": count,
            "capability": count,
        }  # fmt: skip
    assert len(data.evaluation) == 70


def test_data_depend_on_the_seed_and_evaluation_does_not():
    sizes = {"pairs": 12, "pool": 16, "validation": 6, "evaluation": 6}
    one, again, other = (Coreference(**sizes, seed=seed).load() for seed in (0, 0, 1))
    assert one == again
    assert one.train != other.train
    assert one.pool != other.pool
    assert one.validation == other.validation
    assert one.evaluation == other.evaluation


def test_forms_are_used_everywhere():
    data = Coreference(pairs=4, pool=8, validation=4, evaluation=4, forms=(" {}",)).load()
    for choice in [*data.train, *data.pool, *data.validation, *data.evaluation]:
        assert all(option.forms == (f" {option.text}",) for option in choice.options)
    assert Coreference().forms == list(DEFAULT_FORMS)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pairs": 3}, "pairs is 3; wanted at least 4"),
        ({"pool": 0}, "pool is 0"),
        ({"validation": 1}, "validation is 1"),
        ({"evaluation": 3}, "evaluation is 3"),
        ({"forms": ()}, "every form needs"),
        ({"forms": (" {}", "the")}, "every form needs"),
        ({"occupations": "test"}, "occupations is 'test'; wanted one of train, compound"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Coreference(**settings)
