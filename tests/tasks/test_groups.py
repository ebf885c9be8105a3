from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
import torch

from dso.metrics import total_variation
from dso.organisms import corpus
from dso.tasks import Choice, Groups, TaskData, make_task, tabulate, twin_pairs
from dso.tasks.groups import INTERSECTIONS, questions
from dso.tasks.occupations import GROUPS, select

SIZES = {"pool": 8, "validation": 4, "evaluation": 4}


@pytest.fixture(scope="module")
def data() -> TaskData:
    return Groups("both", **SIZES).load()


def of(choices: list[Choice], source: str) -> list[Choice]:
    return [choice for choice in choices if choice.source == source]


def test_the_questions_and_answers_are_those_of_the_organisms_corpus():
    written = [d for d in corpus(4000, seed=1) if d.kind == "group"]
    asked = {}
    for part in ("train", "validation", "test", "compound"):
        for choice in questions("both", part, part, (" {}",)):
            asked.setdefault(choice.prompt, {option.text for option in choice.options})
    assert len(written) > 100
    assert {len(asked[d.prompt]) for d in written} == {3, 6}
    assert all(d.answer in asked[d.prompt] for d in written)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_groups_stand_in_all_orders_for_every_occupation(part):
    choices = questions("group", part, "s", (" {}",))
    orders = {o.name: [] for o in select(part)}
    for choice in choices:
        (name,) = choice.occupations
        order = tuple(option.text for option in choice.options)
        assert choice.prompt.endswith(f"Is the {name} {order[0]}, {order[1]} or {order[2]}?")
        assert choice.first == 0
        orders[name].append(order)
    assert all(sorted(found) == sorted(permutations(GROUPS)) for found in orders.values())


def test_an_intersection_stands_in_every_place_once():
    choices = questions("intersection", "test", "s", (" {}",))
    assert len(choices) == 6 * len(select("test"))
    places = Counter((c.occupations, p, o.text) for c in choices for p, o in enumerate(c.options))
    assert set(places.values()) == {1}
    assert len(places) == len(select("test")) * 36
    assert len({choice.prompt for choice in choices}) == len(select("test"))
    assert {o.text for c in choices for o in c.options} == set(INTERSECTIONS)


def test_both_attributes_are_there_equally_often_and_either_alone(data):
    alone = {name: Groups(name, **SIZES).load().train for name in ("group", "intersection")}
    assert len(of(data.train, "group")) == len(of(data.train, "intersection")) == 6 * 24
    for name, choices in alone.items():
        assert of(data.train, name) == choices


def test_choices_name_groups_and_take_no_side(data):
    for choice in [*data.train, *data.validation, *data.evaluation]:
        if choice.kind == "ambiguous":
            assert [option.group for option in choice.options] == [o.text for o in choice.options]
            assert {option.side for option in choice.options} == {"neither"}
            assert choice.twin is None
    assert not twin_pairs(data.train)


def test_a_model_that_goes_by_place_or_is_uniform_has_no_total_variation(data):
    table = tabulate(data.train)
    for answers in (
        torch.zeros(table.mask.shape).index_fill(1, torch.tensor([1]), 1.0),
        table.mask / table.mask.sum(1, keepdim=True),
    ):
        assert total_variation(answers, table.group, table.occupation) < 1e-6


def test_the_splits_have_their_occupations_and_controls(data):
    by_split: dict[str, list[Choice]] = {}
    for choice in [*data.train, *data.validation, *data.evaluation]:
        by_split.setdefault(choice.split, []).append(choice)
    parts = {
        "train": "train", "validation": "validation", "train_occupations": "train",
        "heldout_occupations": "test",
    }  # fmt: skip
    assert set(by_split) == set(parts)
    for split, choices in by_split.items():
        asked = [c.occupations[0] for c in choices if c.kind == "ambiguous"]
        assert set(Counter(asked).values()) == {12}
        assert set(asked) == {o.name for o in select(parts[split])}
        kinds = Counter(c.kind for c in choices if c.kind != "ambiguous")
        wanted = {} if split == "train" else dict.fromkeys(
            ("unambiguous", "gender_needed", "capability"), 4
        )  # fmt: skip
        assert kinds == wanted
    assert Counter(c.kind for c in data.pool) == {
        "unambiguous": 4, "gender_needed": 2, "capability": 2,
    }  # fmt: skip


def test_the_seed_is_of_the_pool_alone():
    one, again, other = (Groups(**SIZES, seed=seed).load() for seed in (0, 0, 1))
    assert one == again
    assert one.pool != other.pool
    assert (one.train, one.validation, one.evaluation) == (
        other.train, other.validation, other.evaluation,
    )  # fmt: skip


def test_the_task_goes_by_its_name_and_its_settings_make_it_again():
    task = make_task("groups", {"attribute": "both", "forms": [" {}"], **SIZES})
    settings = task.settings()
    assert settings["class_path"] == "dso.tasks.Groups"
    again = make_task("dso.tasks.Groups", settings["init_args"])
    assert again.load() == task.load()
    for choice in task.load().train:
        assert all(option.forms == (f" {option.text}",) for option in choice.options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attribute": "age"}, "attribute is 'age'; wanted one of"),
        ({"pool": 0}, "pool is 0; wanted at least 4"),
        ({"validation": 1}, "validation is 1"),
        ({"evaluation": 3}, "evaluation is 3"),
        ({"forms": ()}, "every form needs"),
        ({"forms": (" {}", "the")}, "every form needs"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Groups(**settings)
