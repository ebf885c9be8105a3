from __future__ import annotations

import json

import pytest
import yaml

from dso.cli import main
from dso.tasks import MMLU, SynthBias, Task, TaskData, make_task
from tests.organism import organism
from tests.tasks.published.public_files import write_mmlu, write_synthbias


class Inner(Task):
    def __init__(self, colour: str = "red") -> None:
        self.colour = colour

    def load(self) -> TaskData:
        return TaskData([], [], [], [])


class Outer(Inner):
    def __init__(self, inner: Task | None = None, colour: str = "red") -> None:
        super().__init__(colour)
        self.inner = inner


@pytest.mark.parametrize(
    "task",
    [
        Outer(),
        Outer(Inner("blue")),
        Outer(Outer(Inner("blue"), "green")),
        SynthBias("a", MMLU("b")),
    ],
)
def test_a_task_within_a_task_comes_back_from_its_settings(task):
    settings = json.loads(json.dumps(task.settings()))
    again = make_task(settings["class_path"], settings["init_args"])
    assert again.settings() == task.settings()
    assert type(again) is type(task)


def test_a_setting_that_describes_a_task_becomes_one():
    task = make_task("synthbias", {"capability": {"class_path": "mmlu", "init_args": {"shots": 2}}})
    assert isinstance(task.capability, MMLU)
    assert task.capability.shots == 2
    assert make_task("synthbias", {"capability": {"class_path": "mmlu"}}).capability.shots == 0


@pytest.mark.parametrize(
    ("nested", "message"),
    [
        ({"class_path": "nothing"}, "no task is named 'nothing'"),
        ({"class_path": "mmlu", "init_args": {"shot": 1}}, r"'mmlu' has no setting \['shot'\]"),
        ({"class_path": "mmlu", "args": {}}, "a class_path, a text, and init_args"),
        ({"class_path": 3}, "a class_path, a text, and init_args"),
        ({"class_path": "mmlu", "init_args": [1]}, "a class_path, a text, and init_args"),
    ],
)
def test_a_setting_that_describes_no_task_is_refused(nested, message):
    with pytest.raises(ValueError, match=message):
        make_task("synthbias", {"capability": nested})


def fit(tmp_path, task):
    config = {
        "model": {"model": organism()},
        "data": {"pairs_per_step": 2, "pool_per_step": 4, "task": task},
        "trainer": {
            "max_steps": 1, "limit_val_batches": 0, "accelerator": "cpu",
            "default_root_dir": str(tmp_path / "run"),
        },
    }  # fmt: skip
    (tmp_path / "fit.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return main(["fit", "--config", str(tmp_path / "fit.yaml")])


def test_fit_takes_a_task_within_a_task_and_the_recipe_makes_it_again(tmp_path):
    synthbias, mmlu = write_synthbias(tmp_path).parent, write_mmlu(tmp_path / "mmlu")
    capability = {"class_path": "dso.tasks.MMLU", "init_args": {"data": str(mmlu)}}
    settings = {
        "data": str(synthbias), "capability": capability, "train_pairs": 4, "pool": 8,
        "validation": 2, "evaluation": 2, "forms": [" {}"],
    }  # fmt: skip
    assert fit(tmp_path, {"class_path": "dso.tasks.SynthBias", "init_args": settings}) == 0
    adapter = tmp_path / "run" / "adapter"
    recipe = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))["recipe"]
    recorded = recipe["task"]["init_args"]["capability"]
    assert recorded["class_path"] == "dso.tasks.MMLU"
    assert recorded["init_args"]["data"] == str(mmlu)
    again = make_task(recipe["task"]["class_path"], recipe["task"]["init_args"])
    assert {choice.split for choice in again.load().evaluation} == {"synthbias_test", "mmlu"}


def test_questions_alone_are_evaluated_and_cannot_be_trained_on(tmp_path, capsys):
    mmlu = write_mmlu(tmp_path / "mmlu")
    options = ["--replicates", "10", "--output", str(tmp_path / "out")]
    task = ["--task", "mmlu", "--data", str(mmlu)]
    assert main(["evaluate", "--model", organism(), *task, *options]) == 0
    assert "capability" in (tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8")
    alone = {"class_path": "dso.tasks.MMLU", "init_args": {"data": str(mmlu)}}
    assert fit(tmp_path, alone) == 2
    message = capsys.readouterr().err
    assert "the task has 0 twin pairs and single ambiguous choices to train on" in message
    assert "and 8 prompts in its pool" in message
