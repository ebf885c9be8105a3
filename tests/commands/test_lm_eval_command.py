"""`dso lm-eval`: from names of tasks to a folder of results, several strengths side by side."""

import importlib.util
import json

import pytest

from dso.cli import main
from dso.report import read_results
from tests.lm_eval_tasks import stay_local, write_tasks
from tests.organism import adapter, organism


def test_without_lm_eval_it_says_what_to_install(monkeypatch, tmp_path, capsys):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "lm_eval" else find(name)
    )
    arguments = ["--model", organism(), "--tasks", "x", "--output", str(tmp_path / "out")]
    assert main(["lm-eval", *arguments]) == 2
    assert "pip install 'dso[lm-eval]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def own_tasks(monkeypatch, tmp_path):
    """lm-eval's task index without its own 14,000 tasks, which take seconds to read."""
    tasks = pytest.importorskip("lm_eval.tasks")
    stay_local(monkeypatch, tmp_path)
    whole = tasks.TaskManager
    monkeypatch.setattr(
        tasks,
        "TaskManager",
        lambda include_path=None, include_defaults=True: whole(
            include_path=include_path, include_defaults=False
        ),
    )
    return tasks


@pytest.fixture
def folder(own_tasks, tmp_path):
    return write_tasks(tmp_path / "tasks", pairs=4)


def run(folder, output, *arguments, names=("local",), steered=True):
    with_adapter = ["--adapter", adapter()] if steered else []
    shared = ["--model", organism(), *with_adapter, "--include-path", folder, "--output", output]
    return main([str(a) for a in ("lm-eval", *shared, "--tasks", *names, *arguments)])


def test_every_strength_equals_a_run_of_its_own(own_tasks, folder, tmp_path, capsys):
    from lm_eval import simple_evaluate

    output = tmp_path / "out"
    assert run(folder, output, "--strength", 0, 1, names=["local", "local_text"]) == 0
    said = capsys.readouterr().out
    assert "test, by strength" in said and "local_options" in said
    results = read_results(output / "results.jsonl")
    assert {r.strength for r in results} == {0.0, 1.0}
    found = {(r.task, r.metric, r.strength): r for r in results}
    for omega, model, arguments in [
        (0.0, "hf", f"pretrained={organism()}"),
        (1.0, "dso", f"pretrained={organism()},adapter={adapter()}"),
    ]:
        report = simple_evaluate(
            model=model,
            model_args=arguments,
            tasks=["local", "local_text"],
            task_manager=own_tasks.TaskManager(include_path=str(folder)),
            batch_size=8,
            device="cpu",
        )
        stored = json.loads((output / f"lm_eval-{omega:g}.json").read_text(encoding="utf-8"))
        assert stored["results"] == json.loads(json.dumps(report["results"]))
        assert stored["groups"] == json.loads(json.dumps(report["groups"]))
        assert "samples" not in stored
        options = report["results"]["local_options"]
        own = found["local_options", "acc", omega]
        assert own.value == options["acc,none"]
        assert own.high - own.value == pytest.approx(1.96 * options["acc_stderr,none"])
        assert (own.n, own.split, own.estimate) == (8, "test", "greedy")
        assert own.seed == report["config"]["fewshot_seed"]
        group = found["local", "acc", omega]
        assert (group.value, group.n) == (options["acc,none"], 8)
        answered = report["results"]["local_answers"]
        assert found["local_answers", "exact_match", omega].value == answered["exact_match,none"]
        stripped = found["local_answers", "exact_match,stripped", omega]
        assert stripped.value == answered["exact_match,stripped"]
        assert stripped.estimate == "generated"
        assert found["local_text", "word_perplexity", omega].estimate == "probability"
    assert found["local_options", "acc", 0.0].value > found["local_options", "acc", 1.0].value
    table = (output / "table.md").read_text(encoding="utf-8")
    assert "## local_options" in table and "| Strength | 0 | 1 |" in table


def test_one_strength_prints_the_table_of_lm_eval(folder, tmp_path, capsys):
    files = [folder / "local_options.yaml"]
    arguments = ("--limit", 2, "--num-fewshot", 1, "--apply-chat-template", "--log-samples")
    assert run(folder, tmp_path / "out", "--strength", 0.4, *arguments, names=files) == 0
    said = capsys.readouterr().out
    assert "|acc " in said and "n-shot" in said
    stored = json.loads((tmp_path / "out" / "lm_eval-0.4.json").read_text(encoding="utf-8"))
    assert stored["config"]["strength"] == 0.4
    assert stored["n-shot"] == {"local_options": 1}
    samples = stored["samples"]["local_options"]
    assert len(samples) == 2
    assert "</s>" in samples[0]["arguments"][0][0]  # the solved example, as a conversation


def test_a_base_alone_runs_at_zero(folder, tmp_path):
    assert run(folder, tmp_path / "out", names=["local_options"], steered=False) == 0
    results = read_results(tmp_path / "out" / "results.jsonl")
    assert {(r.strength, r.adapter) for r in results} == {(0.0, None)}


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        (["local_option"], (), "no task 'local_option'; did you mean local_options"),
        (["./nothing.yaml"], (), "there is no file ./nothing.yaml"),
        (["local_options"], ("--include-path", "./nothing"), "there is no folder nothing"),
        (["local_options"], ("--adapter", "./nothing"), "no adapter folder at ./nothing"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(
    folder, tmp_path, capsys, names, arguments, message
):
    assert run(folder, tmp_path / "out", *arguments, names=names) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_strength_without_an_adapter_is_refused(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "out", "--strength", 0, 0.5, steered=False) == 2
    assert "strength 0.5 needs an adapter" in capsys.readouterr().err


def test_what_lm_eval_refuses_is_an_error_without_a_traceback(own_tasks, tmp_path, capsys):
    folder = write_tasks(tmp_path / "tasks", pairs=1, longest=300)
    assert run(folder, tmp_path / "out", names=["local_answers"]) == 2
    assert "lm-eval refused to run local_answers" in capsys.readouterr().err


def test_patterns_and_lists_name_tasks(folder, tmp_path):
    names = ["local_o*,local_text"]
    assert run(folder, tmp_path / "out", "--limit", 1, names=names) == 0
    results = read_results(tmp_path / "out" / "results.jsonl")
    assert {r.task for r in results} == {"local_options", "local_text"}


@pytest.mark.parametrize("size", ["0", "many", "-1"])
def test_a_batch_size_that_is_none_is_refused(folder, tmp_path, capsys, size):
    with pytest.raises(SystemExit):
        run(folder, tmp_path / "out", f"--batch-size={size}")
    assert "wanted a whole number >= 1" in capsys.readouterr().err
