import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from dso.cli import main
from dso.report import read_results
from tests.organism import adapter, organism
from tests.tiny_models import tiny_llama


def run(*arguments):
    return main([str(a) for a in arguments])


def evaluate(tmp_path, *arguments):
    shared = ("--output", tmp_path / "out", "--limit", 8, "--replicates", 20)
    return run("evaluate", *shared, *arguments)


def test_evaluate_writes_every_file_and_the_base_equals_strength_zero(tmp_path):
    model = ("--model", organism())
    assert evaluate(tmp_path, *model, "--adapter", adapter(), "--strength", 0, 1) == 0
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"results.jsonl", "table.md", "strength.png", "evaluation.json"}
    steered = read_results(tmp_path / "out" / "results.jsonl")
    assert {r.split for r in steered} == {"train_occupations", "heldout_occupations", "kl_pool"}
    assert {r.strength for r in steered} == {0.0, 1.0}
    assert evaluate(tmp_path, *model, "--task", "coreference", "--strength", 0) == 0
    asked = read_results(tmp_path / "out" / "results.jsonl")
    assert {r.split for r in asked} == {"train_occupations", "heldout_occupations"}
    figures = {
        (r.split, r.metric, r.estimate): r.value
        for r in read_results(tmp_path / "out" / "results.jsonl")
        if r.split != "kl_pool" and r.estimate == "greedy"
    }
    assert figures
    for r in steered:
        if r.strength == 0 and (r.split, r.metric, r.estimate) in figures:
            assert r.value == figures[r.split, r.metric, r.estimate]


def broken_adapter(tmp_path, what):
    folder = tmp_path / "adapter"
    shutil.copytree(adapter(), folder)
    file = folder / "adapter_model.safetensors"
    if what == "truncated":
        file.write_bytes(file.read_bytes()[:500])
    elif what == "missing":
        file.unlink()
    elif what == "infinite":
        weights = load_file(file)
        next(iter(weights.values()))[0] = torch.inf
        save_file(weights, file)
    return folder


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("truncated", "500 bytes and is not a whole safetensors file"),
        ("missing", "adapter_model.safetensors is missing"),
        ("infinite", "numbers that are not finite"),
    ],
)
def test_a_damaged_adapter_is_named_and_nothing_is_written(tmp_path, capsys, what, message):
    folder = broken_adapter(tmp_path, what)
    assert evaluate(tmp_path, "--model", organism(), "--adapter", folder) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_base_is_refused_with_both_names(tmp_path, capsys):
    base = AutoModelForCausalLM.from_pretrained(organism())
    with torch.no_grad():
        base.model.norm.weight.add_(0.5)
    base.save_pretrained(tmp_path / "other")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(f"{organism()}/{file}", tmp_path / "other")
    assert evaluate(tmp_path, "--model", tmp_path / "other", "--adapter", adapter()) == 2
    message = capsys.readouterr().err
    assert "checkpoints/organism-llm" in message
    assert str(tmp_path / "other") in message


def test_a_model_of_another_width_is_refused(tmp_path, capsys):
    tiny_llama().save_pretrained(tmp_path / "other")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(f"{organism()}/{file}", tmp_path / "other")
    assert evaluate(tmp_path, "--model", tmp_path / "other", "--adapter", adapter()) == 2
    assert "hidden_size" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "checkpoints/nothing"), "does not exist"),
        (("--model", "{organism}", "--adapter", "./nothing"), "no adapter folder at ./nothing"),
        (("--model", "{organism}", "--strength", "1"), "need an adapter"),
        (("--model", "{organism}", "--task", "nothing"), "no task is named 'nothing'"),
        (
            ("--model", "{organism}", "--task", "coreference", "--data", "x"),
            "no setting ['data']",
        ),
        (("--model", "{organism}", "--task", "winobias", "--data", "x"), "no WinoBias folder"),
    ],
)
def test_bad_input_is_named_without_a_traceback(tmp_path, capsys, arguments, message):
    filled = [a.format(organism=organism()) for a in arguments]
    assert evaluate(tmp_path, *filled) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize("strength", ["nan", "inf", "-0.5", "much"])
def test_a_strength_that_is_none_is_refused(tmp_path, capsys, strength):
    with pytest.raises(SystemExit):
        evaluate(tmp_path, "--model", organism(), "--adapter", adapter(), f"--strength={strength}")
    assert "finite number >= 0" in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        run("--debug", "evaluate", "--model", "./nothing", "--output", tmp_path)


@pytest.mark.parametrize("arguments", [("--help",), ("evaluate", "--help"), ("demo", "--help")])
def test_help_answers(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 0
    assert "usage: dso" in capsys.readouterr().out


def fit(tmp_path, config, *more):
    settings = ("--trainer.max_steps", 2, "--trainer.default_root_dir", tmp_path / "run")
    quick = ("--trainer.limit_val_batches", 1, "--trainer.accelerator", "cpu")
    return run("fit", "--config", config, *settings, *quick, *more)


@pytest.mark.parametrize("name", ["organism-llm", "organism-llm-paper"])
def test_fit_runs_a_shipped_configuration_and_its_adapter_can_be_evaluated(tmp_path, name):
    assert fit(tmp_path, f"configs/{name}.yaml") == 0
    folder = tmp_path / "run" / "adapter"
    assert evaluate(tmp_path, "--model", organism(), "--adapter", folder, "--strength", 1) == 0


def test_fit_help_lists_the_fields_with_their_sentences(capsys):
    with pytest.raises(SystemExit):
        run("fit", "--help")
    text = capsys.readouterr().out
    assert "--model.kl.budget" in text
    assert "Epsilon" in text
    assert "--model.objective.pair_anchor" in text


def test_fit_names_an_unknown_field(tmp_path, capsys):
    config = tmp_path / "bad.yaml"
    settings = yaml.safe_load(Path("configs/organism-llm.yaml").read_text(encoding="utf-8"))
    settings["model"]["objectives"] = {"parity": 2.0}
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with pytest.raises(SystemExit):
        fit(tmp_path, config)
    assert "objectives" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model.estimator", "rlo"), "Got value: rlo"),
        (("--model.objective.schedules", '{"x": {}}'), "schedules names x; wanted some of"),
        (("--model.objective.custom_rewards", '[{"function": "nope.f"}]'), "nope.f cannot be"),
        (("--model.virtual", "0.5", "--model.estimator", "rloo"), "virtual is 0.5 and the"),
        (("--ckpt_path", "nowhere.ckpt"), "Checkpoint file not found: nowhere.ckpt"),
        (("--trainer.accelerator", "nothing"), "nothing"),
    ],
)
def test_fit_names_a_bad_value_in_few_lines(tmp_path, capsys, arguments, message):
    try:
        assert fit(tmp_path, "configs/organism-llm.yaml", *arguments) == 2
    except SystemExit as stop:
        assert stop.code == 2
    error = capsys.readouterr().err
    said = [line for line in error.splitlines() if not line.startswith("Seed set")]
    assert message in error
    assert "Traceback" not in error and "usage:" not in error
    assert len(said) <= 6, error


def test_fit_needs_a_model_that_exists(tmp_path, capsys):
    assert fit(tmp_path, "configs/organism-llm.yaml", "--model.model", "./nothing") == 2
    assert "does not exist" in capsys.readouterr().err


def test_generated_answers_are_written_with_what_they_were_read_as(tmp_path):
    arguments = ("--model", organism(), "--limit", 4, "--replicates", 5, "--output", tmp_path)
    assert run("evaluate", *arguments, "--samples", 3) == 0
    lines = (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert all(len(r["answers"]) == len(r["read_as"]) == 3 for r in records)
    assert any(option for r in records for option in r["read_as"])
    results = (tmp_path / "results.jsonl").read_text(encoding="utf-8")
    assert '"unparsed"' in results and '"generated"' in results
    assert run("evaluate", *arguments) == 0  # without answers there is no file of them either
    assert not (tmp_path / "answers.jsonl").exists()
