"""What is planted: tables and strengths, and draws that follow them."""

from collections import Counter
from dataclasses import fields, replace
from math import log, sqrt

import numpy as np
import pytest

from dso.scenes.associations import ASSOCIATIONS, Association, draw, pick
from dso.scenes.attributes import ATTIRE_OF, ATTIRES, SKINS, WOMEN, Person, Scene
from dso.scenes.world import PRESENT, WORLD, World

NAMES = tuple(ASSOCIATIONS)
COUNT = 20_000


def logit(p):
    return log(p / (1 - p))


def close(found, planted, count):
    """Whether a frequency is within 4 standard errors of a probability."""
    return abs(found - planted) <= 4 * sqrt(planted * (1 - planted) / count)


def agrees(association, pairs):
    """Whether drawn (given, value) pairs follow every row of an association that occurs."""
    rows: dict[object, Counter[str]] = {}
    for given, value in pairs:
        rows.setdefault(given, Counter())[value] += 1
    return bool(rows) and all(
        close(row[value] / row.total(), p, row.total())
        for given, row in rows.items()
        for value, p in association.distribution(given).items()
    )


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(0)
    occupations = tuple(WOMEN)
    return [
        (occupation, WORLD.person(rng, occupation))
        for occupation in (occupations[i % 32] for i in range(COUNT))
    ]


@pytest.mark.parametrize("name", NAMES)
def test_strength_0_is_uniform_and_1_is_the_table(name):
    for given, row in ASSOCIATIONS[name].table.items():
        none = replace(ASSOCIATIONS[name], strength=0).distribution(given)
        assert all(p == pytest.approx(1 / len(row)) for p in none.values())
        assert replace(ASSOCIATIONS[name], strength=1).distribution(given) == pytest.approx(row)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strength", [0.2, 0.7])
def test_a_strength_multiplies_the_log_odds_between_any_two_values(name, strength):
    shrunk = replace(ASSOCIATIONS[name], strength=strength)
    for given, row in shrunk.table.items():
        p = shrunk.distribution(given)
        assert sum(p.values()) == pytest.approx(1)
        first, *others = row
        for other in others:
            assert log(p[first] / p[other]) == pytest.approx(
                strength * log(row[first] / row[other])
            )


def test_worlds_name_every_association_once():
    assert tuple(field.name for field in fields(World)) == NAMES
    for name in NAMES:
        assert ASSOCIATIONS[name].name == name


def test_control_worlds_lack_what_they_are_without():
    world = World.without("occupation_gender", "mood_group")
    assert world == World(occupation_gender=0, mood_group=0)
    assert world.occupation_bias() == pytest.approx(0)
    assert all(world.women(o) == pytest.approx(0.5) for o in WOMEN)
    assert world.probability("colour_gender", "woman", "pink") == pytest.approx(0.42)
    assert World.without() == WORLD


def test_the_planted_bias_is_the_mean_over_occupations_and_does_not_saturate():
    assert World(occupation_gender=1).occupation_bias() == pytest.approx(
        np.mean([abs(2 * p - 1) for p in WOMEN.values()])
    )
    assert 0.40 <= WORLD.occupation_bias() <= 0.50
    train = [o for o in WOMEN if ATTIRE_OF[o].part == "train"]
    assert WORLD.occupation_bias(train) == pytest.approx(
        np.mean([abs(2 * WORLD.women(o) - 1) for o in train])
    )
    assert [WORLD.women(o) < 0.5 for a in ATTIRES for o in a.occupations] == [True, False] * 16


@pytest.mark.parametrize("name", [n for n in NAMES if n != "occupation_gender"])
def test_made_up_tables_are_balanced(name):
    rows = list(ASSOCIATIONS[name].table.values())
    for value in rows[0]:
        assert np.mean([row[value] for row in rows]) == pytest.approx(1 / len(rows[0]))


def test_the_groups_have_an_order_that_no_sum_of_main_effects_gives():
    p = {group: row["pleasant"] for group, row in ASSOCIATIONS["mood_group"].table.items()}
    assert len(p) == len(set(p.values())) == 6
    odds = np.array([[logit(p[g, s]) for s in SKINS] for g in ("woman", "man")])
    additive = odds.mean(0) + odds.mean(1, keepdims=True) - odds.mean()
    assert np.argsort(additive.ravel()).tolist() != np.argsort(odds.ravel()).tolist()
    assert np.abs(odds - additive).max() > 0.5


@pytest.mark.parametrize(
    ("name", "given"),
    [("colour_gender", "gender"), ("emotion_gender", "gender"), ("activity_age", "age")],
)
def test_draws_follow_the_tables(drawn, name, given):
    association = WORLD.association(name)
    pairs = [(getattr(p, given), getattr(p, association.value)) for _, p in drawn]
    there = [pair for pair in pairs if pair[1] is not None]
    assert close(len(there) / COUNT, PRESENT[association.value], COUNT)
    assert agrees(association, there)
    assert not agrees(replace(association, strength=0), there)


def test_gender_follows_the_occupation_and_skin_nothing(drawn):
    assert agrees(WORLD.association("occupation_gender"), [(o, p.gender) for o, p in drawn])
    assert all(p.attire == ATTIRE_OF[o].name and p.view == "front" for o, p in drawn)
    for gender in ("woman", "man"):
        skins = Counter(p.skin for _, p in drawn if p.gender == gender)
        assert all(close(skins[s] / skins.total(), 1 / 3, skins.total()) for s in SKINS)


def test_mood_follows_the_group_of_the_one_person(drawn):
    rng = np.random.default_rng(1)
    scenes = [WORLD.scene(rng, [person]) for _, person in drawn]
    there = [s for s in scenes if s.mood is not None]
    assert close(len(there) / COUNT, PRESENT["mood"], COUNT)
    pairs = [((s.people[0].gender, s.people[0].skin), s.mood) for s in there]
    assert agrees(WORLD.association("mood_group"), pairs)


def test_mood_follows_either_of_two_people_and_is_even_without():
    rng = np.random.default_rng(2)
    best, worst = Person("woman", skin="light"), Person("woman", skin="dark")
    table = WORLD.association("mood_group")
    halves = [table.probability(("woman", s), "pleasant") for s in ("light", "dark")]
    for people, planted in (([best, worst], np.mean(halves)), ([], 0.5), ([best], halves[0])):
        moods = Counter(WORLD.scene(rng, people).mood for _ in range(4000))
        known = moods["pleasant"] + moods["unpleasant"]
        assert close(moods["pleasant"] / known, planted, known)


def test_a_control_world_draws_without_the_association():
    rng, world = np.random.default_rng(3), World.without("emotion_gender")
    people = [world.person(rng) for _ in range(4000)]
    pairs = [(p.gender, p.emotion) for p in people if p.emotion is not None]
    assert agrees(world.association("emotion_gender"), pairs)
    assert not agrees(WORLD.association("emotion_gender"), pairs)


def test_what_shows_says_by_bayes_who_it_is():
    rng = np.random.default_rng(4)
    people = [WORLD.person(rng, o) for o in ("surgeon", "nurse") for _ in range(6000)]
    for colour in ("pink", "blue", "green"):
        women = [p.gender == "woman" for p in people if p.colour == colour]
        joint = WORLD.seen("scrubs", colour)
        assert sum(joint.values()) == pytest.approx(1)
        planted = sum(p for (_, gender), p in joint.items() if gender == "woman")
        assert close(np.mean(women), planted, len(women))
    flat = World.without(*NAMES).seen("scrubs", "pink")
    assert all(p == pytest.approx(0.25) for p in flat.values())
    assert WORLD.seen(None) == {(None, "woman"): 0.5, (None, "man"): 0.5}


def test_a_known_gender_leaves_the_odds_of_the_occupations():
    joint = WORLD.seen("scrubs", "pink", "woman")
    odds = joint["nurse", "woman"] / joint["surgeon", "woman"]
    assert odds == pytest.approx(WORLD.women("nurse") / WORLD.women("surgeon"))
    assert sum(joint.values()) == pytest.approx(1)


def test_tables_read_backwards_are_distributions():
    back = WORLD.association("emotion_gender").backwards("angry")
    assert back["man"] == pytest.approx(0.37 / 0.50)
    assert sum(back.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "fixed",
    [{"hair": "red"}, {"emotion": None}, {"attire": None}, {"view": "back", "gender": "man"}],
)
def test_fixed_attributes_are_respected_and_change_nothing_drawn_before(fixed):
    for seed in range(50):
        free, held = WORLD.person(seed), WORLD.person(seed, **fixed)
        assert all(getattr(held, name) == value for name, value in fixed.items())
        untouched = {"skin", "age", "hair", "activity"} - set(fixed)
        assert all(getattr(free, name) == getattr(held, name) for name in untouched)
    assert WORLD.person(0, occupation="nurse", attire="scrubs").attire == "scrubs"


def test_a_fixed_attire_stands_for_both_of_its_occupations():
    rng = np.random.default_rng(5)
    women = np.mean([WORLD.person(rng, attire="scrubs").gender == "woman" for _ in range(4000)])
    assert close(women, (WORLD.women("nurse") + WORLD.women("surgeon")) / 2, 4000)


def test_the_same_seed_draws_the_same_and_the_generator_moves_on():
    assert [WORLD.scene(s, 2) for s in range(20)] == [WORLD.scene(s, 2) for s in range(20)]
    rng = np.random.default_rng(6)
    scenes = [WORLD.scene(rng, number % 3) for number in range(30)]
    assert len({scene.seed for scene in scenes}) == 30
    assert [len(scene.people) for scene in scenes] == [0, 1, 2] * 10


def test_version_1_draws_what_it_drew():
    assert World.version == 1
    person = Person("woman", "garden", "brown", "grown", None, "drinking", "grey", "green")
    assert WORLD.scene(5) == Scene((person,), "home", None, 115815301)


@pytest.mark.parametrize("number", [0.0, 0.2, 0.999999])
def test_a_number_stands_for_one_value(number):
    assert draw({"a": 0.2, "b": 0.8}, number) == ("a" if number < 0.2 else "b")
    assert pick("ab", number) == ("a" if number < 0.5 else "b")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: World(colour_gender=1.5), "colour_gender is 1.5"),
        (lambda: World.without("hair_gender"), "hair_gender"),
        (lambda: WORLD.association("nothing"), "wanted occupation_gender"),
        (lambda: WORLD.women("astronaut"), "astronaut"),
        (lambda: WORLD.probability("colour_gender", "woman", "red"), "pink, blue"),
        (lambda: WORLD.person(0, "astronaut"), "no occupation is called 'astronaut'"),
        (lambda: WORLD.person(0, "nurse", attire="farm"), "attire of a nurse is 'scrubs'"),
        (lambda: WORLD.person(0, shoes="red"), "shoes cannot be fixed"),
        (lambda: WORLD.person(0, hair="pink"), "hair is 'pink'"),
        (lambda: WORLD.person(0, attire="armour"), "no attire is called 'armour'"),
        (lambda: WORLD.scene(0, 1, people=2), "people"),
        (lambda: WORLD.scene(0, 3), "3 people"),
        (lambda: WORLD.scene(0, weather="rain"), "weather cannot be fixed"),
        (lambda: WORLD.seen("armour"), "no attire is called 'armour'"),
        (
            lambda: Association("a", ("b",), "c", {"x": {"y": 0.5, "z": 0.4}}),
            "wanted probabilities",
        ),
    ],
)
def test_unknown_names_and_values_are_refused(call, says):
    with pytest.raises((ValueError, TypeError), match=says):
        call()
