from __future__ import annotations

from dataclasses import replace

import pytest

from dso.tasks import TASKS, Coreference, Task, TaskData, WinoBias, make_task

SMALL = {"pairs": 4, "pool": 4, "validation": 4, "evaluation": 4}


class NeedsFolder(Task):
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def load(self) -> TaskData:
        return Coreference(**SMALL).load()


@pytest.fixture(scope="module")
def data() -> TaskData:
    return Coreference(**SMALL).load()


def test_an_identifier_that_stands_twice_is_refused(data):
    with pytest.raises(ValueError, match=f"identifier '{data.pool[0].id}' .*in evaluation"):
        replace(data, evaluation=[data.pool[0]])


def test_a_training_choice_without_its_twin_is_refused(data):
    with pytest.raises(ValueError, match="1 of 7 training choices name a twin that is absent"):
        replace(data, train=data.train[1:])


def test_a_training_choice_that_has_no_twin_by_its_nature_is_taken(data):
    single = [replace(choice, twin=None) for choice in data.train[:3]]
    assert replace(data, train=[*single, *data.train[4:]]).train[:3] == single


def test_a_training_choice_with_a_right_answer_is_refused(data):
    with pytest.raises(ValueError, match=f"'{data.pool[0].id}' is unambiguous; only ambiguous"):
        replace(data, train=data.pool, pool=[])


def test_a_choice_of_the_pool_without_a_right_answer_is_refused(data):
    with pytest.raises(ValueError, match=f"'{data.train[0].id}' of the pool has no right answer"):
        replace(data, train=[], pool=data.train)


@pytest.mark.parametrize("name", sorted(TASKS))
def test_tasks_are_made_by_name(name):
    assert type(make_task(name)) is TASKS[name]


@pytest.mark.parametrize("task", [Coreference(**SMALL, seed=3), WinoBias("folder", (" {}",), 2)])
def test_settings_make_the_same_task_again(task):
    settings = task.settings()
    again = make_task(settings["class_path"], settings["init_args"])
    assert type(again) is type(task)
    assert again.settings() == settings


def test_a_task_of_ones_own_is_made_by_its_path():
    task = make_task(f"{__name__}.NeedsFolder", {"folder": "here"})
    assert task.settings()["init_args"] == {"folder": "here"}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("corefrence", {}, r"no task is named 'corefrence'; wanted one of \['bbq', 'coreference'"),
        ("no.such.Task", {}, "'no.such.Task' cannot be imported"),
        ("dso.tasks.Nothing", {}, "'dso.tasks.Nothing' cannot be imported"),
        ("..Nothing", {}, "'..Nothing' cannot be imported"),
        ("dso.tasks.Choice", {}, "dso.tasks.Choice is not a dso.tasks.Task"),
        ("dso.tasks.Task", {}, "dso.tasks.Task is not a dso.tasks.Task that can load"),
        ("coreference", {"pair": 3}, r"'coreference' has no setting \['pair'\]; it has \['pairs'"),
        ("coreference", {"pairs": 3}, "pairs is 3"),
        (f"{__name__}.NeedsFolder", {}, r"needs the settings \['folder'\]; got \[\]"),
    ],
)
def test_bad_names_and_settings_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        make_task(name, settings)
