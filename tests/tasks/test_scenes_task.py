from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from dso.scenes.attributes import ATTIRE_OF, stereotype
from dso.tasks import Scenes, make_task
from dso.tasks.choice import twin_pairs
from dso.tasks.scenes import (
    CLOSED,
    Drawn,
    ambiguous,
    closed,
    gender_needed,
    mirrored,
    unambiguous,
)


def scene(choice):
    [picture] = choice.pictures
    return picture.scene


def test_twins_differ_in_who_has_which_gender_and_in_nothing_else():
    choices = ambiguous(40, "train", "train", 0, "x")
    pairs = twin_pairs(choices)
    assert len(pairs) == 40
    for a, b in ((choices[i], choices[j]) for i, j in pairs):
        assert a.prompt == b.prompt
        assert [o.text for o in a.options] == ["left", "right"]
        assert [o.side for o in a.options] == [o.side for o in b.options][::-1]
        assert {o.side for o in a.options} == {"pro", "anti"}
        for one, other in zip(scene(a).people, scene(b).people, strict=True):
            assert one.gender != other.gender
            changed = {k for k in vars(one) if getattr(one, k) != getattr(other, k)}
            assert changed == {"gender"}
        assert scene(a).seed == scene(b).seed


def test_sides_are_those_of_the_stereotype_and_both_may_be_right():
    for choice in ambiguous(64, "test", "test", 0, "x"):
        [occupation] = choice.occupations
        people = scene(choice).people
        assert all(person.attire == ATTIRE_OF[occupation].name for person in people)
        for option, person in zip(choice.options, people, strict=True):
            assert (option.side == "pro") == (person.gender == stereotype(occupation))
            assert option.group == person.gender


def test_occupations_orders_and_places_are_counterbalanced():
    choices = ambiguous(80, "train", "train", 3, "x")
    jobs = Counter(c.occupations[0] for c in choices)
    assert len(set(jobs.values())) == 1 and len(jobs) == 20
    order = Counter(
        (c.occupations[0], c.prompt.index("left") < c.prompt.index("right")) for c in choices
    )
    assert len(set(order.values())) == 1 and len(order) == 40
    for kind in (unambiguous, gender_needed):
        found = kind(160, "train", "train", 3, "x")
        assert Counter(c.truth for c in found)[0] / 160 == pytest.approx(0.5, abs=0.12)
    clear = unambiguous(160, "train", "train", 3, "x")
    counts = Counter((c.occupations[0], c.truth, c.source) for c in clear)
    assert set(counts.values()) == {2} and len(counts) == 20 * 2 * 2


def test_the_right_answer_is_the_one_that_shows():
    for choice in unambiguous(60, "test", "test", 0, "x"):
        [occupation] = choice.occupations
        wearing = [p.attire == ATTIRE_OF[occupation].name for p in scene(choice).people]
        assert wearing.count(True) == 1 and wearing.index(True) == choice.truth
    for choice in gender_needed(60, "train", "train", 0, "x"):
        gender = "woman" if "woman" in choice.prompt else "man"
        assert scene(choice).people[choice.truth].gender == gender
    for choice in closed(60, "train", "train", 0, "x"):
        [person] = scene(choice).people
        right = choice.options[choice.truth].text
        if choice.source == "occupation":
            assert ATTIRE_OF[right].name == person.attire
        else:
            assert right == getattr(person, choice.source)
    assert {c.source for c in closed(10, "train", "train", 0, "x")} == set(CLOSED)


def test_splits_share_no_scene_and_no_held_out_occupation():
    task = Scenes(pairs=40, pool=40, validation=16, evaluation=24)
    data = task.load()
    parts = {
        "train": {"train"}, "pool": {"train"}, "validation": {"validation"},
        "train_occupations": {"train"}, "heldout_occupations": {"test"},
    }  # fmt: skip
    scenes = []
    for choice in (*data.train, *data.pool, *data.validation, *data.evaluation):
        people = scene(choice).people
        assert {ATTIRE_OF[o].part for o in choice.occupations} <= parts[choice.split]
        assert len(people) in (1, 2)
        scenes.append(scene(choice))
    assert len(set(scenes)) == len(scenes)
    again = Scenes(pairs=40, pool=40, validation=16, evaluation=24).load()
    assert again == data
    other = Scenes(pairs=40, pool=40, validation=16, evaluation=24, seed=1).load()
    assert other.train != data.train and other.evaluation == data.evaluation
    assert make_task(task.settings()["class_path"], task.settings()["init_args"]).load() == data


def test_a_mirrored_choice_is_about_the_same_people():
    choices = [*ambiguous(4, "test", "test", 0, "x"), *gender_needed(4, "test", "test", 0, "x")]
    changed = [mirrored(choice) for choice in choices]
    for choice, other in zip(choices, changed, strict=True):
        assert scene(other).people == scene(choice).people[::-1]
        assert scene(other).seed == scene(choice).seed and other.prompt == choice.prompt
        assert [o.text for o in other.options] == ["left", "right"]
        for option, person in zip(other.options, scene(other).people, strict=True):
            assert option.group in (None, person.gender)
            if choice.kind == "ambiguous":
                [occupation] = choice.occupations
                assert (option.side == "pro") == (person.gender == stereotype(occupation))
        if choice.truth is not None:
            assert scene(choice).people[choice.truth] == scene(other).people[other.truth]
    assert twin_pairs(changed) == twin_pairs(choices)
    back = [
        replace(mirrored(c), id=o.id, twin=o.twin) for c, o in zip(changed, choices, strict=True)
    ]
    assert back == choices
    with pytest.raises(ValueError, match="two people"):
        mirrored(closed(1, "test", "test", 0, "x")[0])


def test_a_drawing_opens_at_its_size():
    [choice, _] = ambiguous(1, "train", "train", 0, "x", size=64)
    [picture] = choice.pictures
    assert picture.open().size == (64, 64)
    assert picture == Drawn(scene(choice), 64) and hash(picture) == hash(Drawn(scene(choice), 64))
    assert np.asarray(picture.open()).std() > 10
    assert "a woman" in picture.name


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"pairs": 3}, "pairs is 3; wanted at least 4"), ({"forms": ["x"]}, "every form needs")],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        Scenes(**settings)
