"""The renderer: one scene, one picture; each attribute changes its own pixels and nothing else."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from dso.scenes.attributes import (
    ACTIVITIES,
    AGES,
    ATTIRE_NAMES,
    COLOURS,
    EMOTIONS,
    GENDERS,
    HAIRS,
    MOODS,
    PLACES,
    SKINS,
    Person,
    Scene,
)
from dso.scenes.drawing import masks, render

PERSON = Person("woman", "garden", "brown", "grown", "sad", "reading", "red", "blue")
OTHER = Person("man", "airline", "light", "old", "happy", "drinking", "grey", None)
VALUES = {
    "gender": GENDERS,
    "attire": (*ATTIRE_NAMES, None),
    "skin": SKINS,
    "age": AGES,
    "emotion": (*EMOTIONS, None),
    "activity": (*ACTIVITIES, None),
    "hair": HAIRS,
    "colour": (*COLOURS, None),
    "view": ("front", "back"),
}


def pixels(scene, size=64):
    return np.asarray(render(scene, size)).astype(int)


def changed(first, second, size=64):
    """Where two scenes differ, (size, size)."""
    return (pixels(first, size) != pixels(second, size)).any(axis=-1)


def grown(mask):
    """A mask and the pixels next to it: those on its rim are a mixture."""
    wide = np.pad(mask, 1)
    size = len(mask)
    return np.any(
        [wide[y : y + size, x : x + size] for y in range(3) for x in range(3)],
        axis=0,
    )


def assert_traces(difference):
    """Of pixels (n, 3): a strip thinner than a pixel tints a few, and owns none of them."""
    assert difference.max() < 128
    assert difference.any(axis=-1).sum() <= 10


def scenes(seed, **change):
    """With the changed person alone, on the left and on the right."""
    person = replace(PERSON, **change)
    return [
        Scene((person,), "office", None, seed),
        Scene((person, OTHER), "park", "pleasant", seed),
        Scene((OTHER, person), "street", "unpleasant", seed),
    ]


def test_a_scene_gives_the_same_bytes_every_time():
    for scene in scenes(3):
        assert render(scene, 80).tobytes() == render(scene, 80).tobytes()


@pytest.mark.parametrize("size", [48, 65, 512])
def test_the_picture_has_the_size_asked_for(size):
    picture = render(scenes(0)[1], size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))


@pytest.mark.parametrize("size", [0, 47, 513])
def test_a_size_out_of_range_is_refused(size):
    for draw in (render, masks):
        with pytest.raises(ValueError, match=f"size is {size}; wanted 48 to 512"):
            draw(Scene(), size)


def test_the_seed_changes_the_picture_and_nothing_that_is_said():
    for scene in (*scenes(0), Scene((), "home")):
        seeds = [pixels(replace(scene, seed=seed)) for seed in range(4)]
        for first, second in combinations(seeds, 2):
            assert (first != second).any()


@pytest.mark.parametrize("name", VALUES)
def test_any_two_values_of_an_attribute_look_different(name):
    """By the mean absolute difference over the person's pixels, in levels of 255."""
    for seed in range(4):
        for place in range(3):
            shown = [scenes(seed, **{name: value})[place] for value in VALUES[name]]
            drawn = [(pixels(s), masks(s, 64).people[place == 2]) for s in shown]
            for (first, one), (second, two) in combinations(drawn, 2):
                seen = one.hair | one.face | one.body | two.hair | two.face | two.body
                difference = np.abs(first - second)
                assert difference[seen].mean() > 2
                assert (difference.max(axis=-1) > 60).sum() >= 12


@pytest.mark.parametrize("people", [(), (PERSON,), (PERSON, OTHER)])
def test_any_two_places_and_moods_look_different_behind_anyone(people):
    for seed in range(4):
        shown = [Scene(people, place, mood, seed) for place in PLACES for mood in (*MOODS, None)]
        ground = masks(shown[0], 64).background
        for first, second in combinations([pixels(scene) for scene in shown], 2):
            difference = np.abs(first - second)
            assert difference[ground].mean() > 10
            if people:
                assert_traces(difference[~grown(ground)])


@pytest.mark.parametrize("size", [49, 64])
def test_one_person_never_changes_the_other_half(size):
    for seed in range(3):
        for name, values in VALUES.items():
            for value in values:
                person = replace(PERSON, **{name: value})
                left = changed(
                    Scene((PERSON, OTHER), seed=seed), Scene((person, OTHER), seed=seed), size
                )
                right = changed(
                    Scene((OTHER, PERSON), seed=seed), Scene((OTHER, person), seed=seed), size
                )
                assert not left[:, size // 2 :].any()
                assert not right[:, : (size + 1) // 2].any()
                assert left.any() == right.any() == (person != PERSON)


@pytest.mark.parametrize("person", [replace(PERSON, view="back"), replace(OTHER, view="back")])
def test_from_behind_gender_skin_age_emotion_and_hair_do_not_show(person):
    for name in ("gender", "skin", "age", "emotion", "hair"):
        for value in VALUES[name]:
            for seed in range(3):
                scene = Scene((person, OTHER), "home", None, seed)
                hidden = Scene((replace(person, **{name: value}), OTHER), "home", None, seed)
                assert render(scene).tobytes() == render(hidden).tobytes()


@pytest.mark.parametrize("name", ["attire", "activity", "colour"])
def test_from_behind_attire_activity_and_colour_do_show(name):
    for place in range(3):
        drawn = [pixels(scenes(1, view="back", **{name: value})[place]) for value in VALUES[name]]
        for first, second in combinations(drawn, 2):
            assert (np.abs(first - second).max(axis=-1) > 60).sum() >= 12


@pytest.mark.parametrize("size", [64, 80])
@pytest.mark.parametrize("gender", GENDERS)
@pytest.mark.parametrize("age", AGES)
def test_emotion_changes_the_face_only(gender, age, size):
    for seed, attire in enumerate((None, *ATTIRE_NAMES)):
        place = seed % 3
        calm, *moved = (
            scenes(seed, gender=gender, age=age, attire=attire, emotion=emotion)[place]
            for emotion in (None, *EMOTIONS)
        )
        face = masks(calm, size).people[place == 2].face
        for scene in moved:
            assert np.array_equal(face, masks(scene, size).people[place == 2].face)
            assert not changed(calm, scene, size)[~face].any()


@pytest.mark.parametrize("gender", GENDERS)
def test_hair_colour_changes_the_hair_only(gender):
    for seed, attire in enumerate((None, *ATTIRE_NAMES)):
        first, second = (
            scenes(seed, gender=gender, attire=attire, hair=hair)[seed % 3]
            for hair in ("black", "blond")
        )
        difference = np.abs(pixels(first) - pixels(second))
        hair = masks(first, 64).hair
        assert_traces(difference[~grown(hair)])
        assert difference[hair].mean() > 30


@pytest.mark.parametrize(
    ("name", "first", "second", "regions"),
    [
        ("skin", "light", "dark", ("face", "body")),
        ("colour", "pink", "green", ("body",)),
        ("activity", "reading", "phoning", ("body", "background", "hair")),
    ],
)
def test_an_attribute_leaves_other_regions_alone(name, first, second, regions):
    for seed in range(3):
        for place in range(3):
            one, two = (scenes(seed, **{name: value})[place] for value in (first, second))
            own = np.any([getattr(masks(one, 64), region) for region in regions], axis=0)
            assert_traces(np.abs(pixels(one) - pixels(two))[~grown(own)])


def test_activity_and_tool_keep_to_their_sides():
    for seed in range(3):
        bare = Scene((replace(PERSON, activity=None),), seed=seed)
        for activity in ACTIVITIES:
            busy = Scene((replace(PERSON, activity=activity),), seed=seed)
            assert not changed(bare, busy)[:, 32:].any()


def test_two_people_may_exchange_their_places():
    """Each half then shows the other person: nothing of a person is tied to a side."""
    scene = Scene((PERSON, OTHER), "home", None, 4)
    swapped = replace(scene, people=(OTHER, PERSON))
    for first, second in ((scene, swapped), (swapped, scene)):
        left, right = masks(first, 80).people[0], masks(second, 80).people[1]
        for region in ("hair", "face", "body"):
            here, there = getattr(left, region).sum(), getattr(right, region).sum()
            assert abs(here - there) < 0.3 * max(here, there)
