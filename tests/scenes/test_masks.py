"""Regions: a partition of the picture, drawn by the same calls, and empty where nothing is."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from dso.scenes.attributes import AGES, ATTIRE_NAMES, GENDERS, MOODS, PLACES, Person, Scene
from dso.scenes.drawing import REGIONS, masks, render

WOMAN = Person("woman", "scrubs", "light", "young", "happy", "phoning", "blond", "pink")
MAN = Person("man", "farm", "dark", "old", None, None, "grey", None)
BACK = replace(WOMAN, view="back")
GROUPS = [(), (WOMAN,), (MAN, WOMAN), (WOMAN, BACK), (BACK, BACK)]


@pytest.mark.parametrize("people", GROUPS)
@pytest.mark.parametrize("size", [48, 64, 81])
def test_every_pixel_is_in_exactly_one_region(people, size):
    for place, mood in product(PLACES, (*MOODS, None)):
        found = masks(Scene(people, place, mood, 5), size)
        regions = np.stack([getattr(found, region) for region in REGIONS])
        assert regions.dtype == bool
        assert regions.shape == (4, size, size)
        assert (regions.sum(axis=0) == 1).all()


@pytest.mark.parametrize("people", GROUPS)
def test_people_make_up_the_regions_and_never_overlap(people):
    found = masks(Scene(people, seed=1), 64)
    assert len(found.people) == len(people)
    for region in ("hair", "face", "body"):
        each = [getattr(person, region) for person in found.people]
        assert (np.sum([np.zeros((64, 64), int), *each], axis=0) == getattr(found, region)).all()
    for place, person in enumerate(found.people if len(people) == 2 else ()):
        other_half = slice(32, 64) if place == 0 else slice(0, 32)
        assert not (person.hair | person.face | person.body)[:, other_half].any()


def test_regions_are_empty_where_nothing_of_the_kind_is():
    assert masks(Scene()).background.all()
    for person in masks(Scene((BACK, BACK)), 64).people:
        assert not person.hair.any()
        assert not person.face.any()
        assert person.body.any()


@pytest.mark.parametrize("gender", GENDERS)
@pytest.mark.parametrize("age", AGES)
def test_hair_and_face_can_be_seen_under_every_hat(gender, age):
    for attire in (None, *ATTIRE_NAMES):
        person = Person(gender, attire, age=age)
        for seed in range(3):
            found = masks(Scene((person, person), seed=seed), 64)
            for each in found.people:
                assert each.hair.sum() > 20, attire
                assert each.face.sum() > 150, attire


def test_a_mask_is_where_its_colour_is():
    """Away from its rim, what is in the background's mask is the empty scene's picture."""
    for seed in range(5):
        scene = Scene((MAN, WOMAN), "office", "unpleasant", seed)
        empty = np.asarray(render(replace(scene, people=()), 64))
        same = (np.asarray(render(scene, 64)) == empty).all(axis=-1)
        background = masks(scene, 64).background
        assert (same & ~background).sum() <= 3
        assert (background & ~same).sum() < 0.15 * background.sum()


def test_masks_of_a_larger_picture_cover_the_same_share():
    scene = Scene((MAN, WOMAN), seed=2)
    small, large = masks(scene, 64), masks(scene, 256)
    for region in REGIONS:
        share = getattr(small, region).mean() - getattr(large, region).mean()
        assert abs(share) < 0.02
