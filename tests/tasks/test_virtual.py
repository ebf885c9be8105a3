from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from dso.tasks import Coreference
from dso.tasks.choice import Choice, Message, Option, twin_pairs
from dso.tasks.occupations import BY_NAME, select
from dso.tasks.virtual import can_be_renamed, draw_partners, renamed, stereotypes

TRAIN = Coreference(pairs=300, pool=8).load()
PAIRS = [(TRAIN.train[a], TRAIN.train[b]) for a, b in twin_pairs(TRAIN.train)]
SWAP = {"nurse": "guard", "guard": "nurse"}


def choice(prompt: str, *names: str, kind="ambiguous", gender="male", side="pro", **more) -> Choice:
    other = {"pro": "anti", "anti": "pro"}[side]
    options = [
        Option(name, (f" {name}", f"The {name}"), side=(side, other)[n % 2])
        for n, name in enumerate(names)
    ]
    return Choice(
        id=prompt, kind=kind, prompt=prompt, options=tuple(options), occupations=names,
        gender=gender, first=0, twin="t", **more,
    )  # fmt: skip


ASKED = choice("The nurse thanked the guard. Who is he?", "nurse", "guard")


# -- stereotypes --------------------------------------------------------------------------------


def test_the_built_in_occupations_have_the_stereotype_of_their_table():
    known = stereotypes(TRAIN.train + TRAIN.pool)
    assert set(known) == {occupation.name for occupation in select("train")}
    for name, stereotype in known.items():
        own = BY_NAME[name].stereotype
        other = {"male": "female", "female": "male"}[own]
        assert stereotype == {(own, "pro"), (other, "anti")}


def test_only_ambiguous_choices_about_an_option_say_what_the_stereotype_is():
    known = choice("The cook met the clerk.", "cook", "clerk", kind="unambiguous", truth=0)
    asides = replace(ASKED, occupations=("nurse",))
    assert stereotypes([known, asides]) == {"nurse": {("male", "pro")}}


def test_an_occupation_with_two_sides_for_one_gender_is_left_out():
    wrong = choice("The nurse met the clerk.", "nurse", "clerk", side="anti")
    assert set(stereotypes([ASKED, wrong])) == {"guard", "clerk"}
    other_gender = replace(wrong, gender="female")
    assert set(stereotypes([ASKED, other_gender])) == {"nurse", "guard", "clerk"}


# -- partners -----------------------------------------------------------------------------------


def test_partners_have_the_stereotype_and_are_not_in_the_pair():
    known, rng = stereotypes(TRAIN.train), random.Random(0)
    for pair in PAIRS:
        partners = draw_partners(pair, known, rng)
        assert partners is not None
        assert set(partners) == set(pair[0].occupations)
        assert not set(partners.values()) & set(partners)
        assert all(known[old] == known[new] for old, new in partners.items())


def test_partners_are_drawn_evenly_and_by_the_generator_alone():
    known = stereotypes(TRAIN.train)
    first, again = (
        [draw_partners(PAIRS[0], known, rng) for _ in range(4000)]
        for rng in (random.Random(1), random.Random(1))
    )
    assert first == again
    for old in PAIRS[0][0].occupations:
        counts = Counter(partners[old] for partners in first)
        able = {name for name, stereotype in known.items() if stereotype == known[old]} - {old}
        assert set(counts) == able
        expected = 4000 / len(able)
        assert all(abs(n - expected) < 5 * expected**0.5 for n in counts.values())


def test_two_people_of_one_stereotype_get_two_partners():
    known = dict.fromkeys(("nurse", "guard", "cook", "clerk"), "the same")
    for seed in range(20):
        partners = draw_partners([ASKED], known, random.Random(seed))
        assert set(partners.values()) == {"cook", "clerk"}
    assert draw_partners([ASKED], dict.fromkeys(("nurse", "guard", "cook"), ""), random) is None


def test_a_person_who_is_named_already_is_no_partner():
    known = dict.fromkeys(("nurse", "guard"), "a") | dict.fromkeys(("cook", "clerk"), "b")
    asked = replace(choice("The nurse met him.", "nurse", "the guard"), occupations=("nurse",))
    assert draw_partners([asked], known, random.Random(0)) is None
    aside = replace(choice("The nurse met a guard.", "nurse", "cook"), occupations=("nurse",))
    assert draw_partners([aside], known, random.Random(0)) is None
    free = replace(aside, prompt="The nurse met a clerk.")
    assert draw_partners([free], known, random.Random(0)) == {"nurse": "guard"}


@pytest.mark.parametrize("known", [{}, {"nurse": 0, "cook": 0}, {"nurse": 0, "guard": 0}])
def test_without_another_occupation_for_each_there_are_no_partners(known):
    assert draw_partners([ASKED], known, random.Random(0)) is None


def test_a_pair_about_nobody_has_no_partners():
    quiz = replace(ASKED, kind="capability", truth=0, occupations=())
    assert draw_partners([quiz], {"nurse": 0, "cook": 0}, random.Random(0)) is None


# -- names --------------------------------------------------------------------------------------


def test_names_are_replaced_in_all_that_is_read_and_nothing_else_changes():
    told = (Message("user", "The guard is here."), Message("assistant", "And the nurse?"))
    asked = replace(ASKED, messages=told, split="train", source="the nurse")
    new = renamed(asked, {"nurse": "clerk", "guard": "pilot"})
    assert new.prompt == "The clerk thanked the pilot. Who is he?"
    assert [m.content for m in new.messages] == ["The pilot is here.", "And the clerk?"]
    assert [m.role for m in new.messages] == ["user", "assistant"]
    assert [o.text for o in new.options] == ["clerk", "pilot"]
    assert new.options[1].forms == (" pilot", "The pilot")
    assert new.occupations == ("clerk", "pilot")
    changed = {"prompt", "messages", "options", "occupations"}
    for name in set(vars(asked)) - changed:
        assert getattr(new, name) == getattr(asked, name)
    assert [o.side for o in new.options] == [o.side for o in asked.options]


def test_names_can_be_swapped_and_swapping_again_undoes_it():
    swapped = renamed(ASKED, SWAP)
    assert swapped.prompt == "The guard thanked the nurse. Who is he?"
    assert swapped.occupations == ("guard", "nurse")
    assert renamed(swapped, SWAP) == ASKED


def test_renaming_back_gives_the_same_choices():
    known, rng = stereotypes(TRAIN.train), random.Random(0)
    for pair in PAIRS:
        names = draw_partners(pair, known, rng)
        back = {new: old for old, new in names.items()}
        for twin in pair:
            assert can_be_renamed(twin)
            other = renamed(twin, names)
            assert not set(names) & set(other.occupations)
            assert renamed(other, back) == twin != other
            assert renamed(twin, {}) == twin


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a nurse in the nursery", "a cook in the nursery"),
        ("nurses, nurse-like, co-nurse", "nurses, nurse-like, co-nurse"),
        ('the nurse\'s "nurse".', 'the cook\'s "cook".'),
        ("Nurse, call the nurse", "Cook, call the cook"),
        ("NURSE", "NURSE"),
        ("the head nurse and the nurse", "the chief and the cook"),
        ("the nurse aide and the nurse", "the clerk and the cook"),
    ],
)
def test_only_whole_words_are_names_and_longer_ones_come_first(text, expected):
    names = {"nurse": "cook", "head nurse": "chief", "nurse aide": "clerk"}
    assert renamed(replace(ASKED, prompt=text), names).prompt == expected


def test_a_name_is_no_pattern():
    asked = replace(ASKED, prompt="The c.o met the cao and the r+d lead.")
    new = renamed(asked, {"c.o": r"\1", "r+d lead": "chief"})
    assert new.prompt == r"The \1 met the cao and the chief."


def test_options_that_would_be_the_same_are_refused():
    with pytest.raises(ValueError, match="same option twice"):
        renamed(ASKED, {"nurse": "guard"})


@pytest.mark.parametrize(
    "prompt, able",
    [
        ("The nurse thanked the guard.", True),
        ("Nurse and guard.", True),
        ("The nurse thanked him.", False),
        ("The nurses thanked the guard.", False),
        ("The nurse thanked the guard and the NURSE.", False),
        ("The nurse thanked the guard and the co-guard.", False),
        ("The nurse thanked the guard of the nursery.", True),
    ],
)
def test_a_choice_can_be_renamed_where_every_mention_is(prompt, able):
    assert can_be_renamed(replace(ASKED, prompt=prompt)) is able


def test_a_form_in_capitals_or_nobody_named_cannot_be_renamed():
    loud = (Option("nurse", (" nurse", " NURSE"), side="pro"), ASKED.options[1])
    assert not can_be_renamed(replace(ASKED, options=loud))
    quiz = replace(ASKED, kind="capability", truth=0, occupations=())
    assert not can_be_renamed(quiz)
    told = replace(ASKED, prompt="Who is he?", messages=(Message("user", ASKED.prompt),))
    assert can_be_renamed(told)
