"""`dso fold`: from paths to a checkpoint that anything loads."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

from dso.cli import main
from dso.organisms import shipped
from dso.policy import Policy
from dso.report import read_results
from dso.steering import attach, save_adapter
from dso.tasks.scenes import ambiguous
from tests.organism import adapter, organism
from tests.steering.steered import randomise
from tests.tiny_models import build

RELATIVE = ("kl", "position_shift")
"""Metrics that compare with the base, which the folded model is itself."""


def run(*arguments):
    return main([str(a) for a in arguments])


def fold(place, *further, model=None, steering=None, strength=0.5):
    paths = ("--model", model or organism(), "--adapter", steering or adapter())
    return run("fold", *paths, "--strength", strength, "--output", place, *further)


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    place = tmp_path_factory.mktemp("fold") / "folded"
    assert fold(place) == 0
    return place


@pytest.fixture(scope="module")
def partly(tmp_path_factory):
    """A Qwen 3 with the organism's tokenizer, and an adapter on it that folds in part."""
    folder = tmp_path_factory.mktemp("qwen3")
    shutil.copytree(organism(), folder / "base")
    tokenizer = AutoTokenizer.from_pretrained(organism())
    sizes = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    }  # fmt: skip
    config = Qwen3Config(vocab_size=len(tokenizer), **sizes)
    base = build(config, 0, torch.float32)
    base.save_pretrained(folder / "base")
    model = attach(AutoModelForCausalLM.from_pretrained(folder / "base"))
    randomise(model, size=0.2)
    save_adapter(model, folder / "adapter")
    return folder


def test_the_folder_is_whole_and_says_what_it_is(folded):
    names = {path.name for path in folded.iterdir()}
    assert names >= {
        "config.json", "model.safetensors", "generation_config.json", "tokenizer.json",
        "tokenizer_config.json", "chat_template.jinja", "README.md", "fold.json",
    }  # fmt: skip
    record = json.loads((folded / "fold.json").read_text())
    assert (record["model"], record["adapter"]) == (organism(), adapter())
    assert record["strength"] == 0.5
    assert record["difference"] < 1e-4
    assert record["effect"] > 1
    assert record["kl"] < 1e-5 * record["effect_kl"]
    assert record["versions"]["torch"] == torch.__version__
    card = (folded / "README.md").read_text()
    assert f"base_model: {organism()}" in card
    assert "at strength 0.5" in card
    assert "vllm serve" in card
    assert "attention_bias, mlp_bias in config.json" in card
    one, other = AutoTokenizer.from_pretrained(folded), AutoTokenizer.from_pretrained(organism())
    chat = [{"role": "user", "content": "Who is the nurse?"}]
    assert one.apply_chat_template(chat) == other.apply_chat_template(chat)


def test_what_is_measured_is_that_of_the_live_adapter(folded, tmp_path):
    figures = []
    for model, further in (
        (organism(), ("--adapter", adapter(), "--strength", 0.5)),
        (folded, ("--strength", 0)),
    ):
        out = tmp_path / str(len(figures))
        few = ("--task", "coreference", "--limit", 8, "--replicates", 20, "--output", out)
        assert run("evaluate", "--model", model, *further, *few) == 0
        figures.append(
            {
                (r.split, r.metric, r.estimate): (r.value, r.low, r.high)
                for r in read_results(out / "results.jsonl")
                if r.metric not in RELATIVE and r.strength == float(further[-1])
            }
        )
    live, stock = figures
    assert len(live) > 20
    assert live.keys() == stock.keys()
    for name, values in live.items():
        assert stock[name] == pytest.approx(values, abs=1e-4, nan_ok=True), name


def test_the_summary_says_how_close_it_is(tmp_path, capsys):
    assert fold(tmp_path / "folded", strength=1) == 0
    said = capsys.readouterr().out
    assert f"Written to {tmp_path / 'folded'}: a LlamaForCausalLM in float32" in said
    assert "folded, from the live adapter: largest difference" in said
    assert f"vllm serve {tmp_path / 'folded'}" in said
    assert "Nothing is steered" not in said
    assert "rounding moves" not in said


def test_no_strength_is_said(tmp_path, capsys):
    assert fold(tmp_path / "folded", strength=0) == 0
    assert "Nothing is steered: the strength is 0" in capsys.readouterr().out
    assert (
        "Nothing is steered: this is the base model"
        in (tmp_path / "folded" / "README.md").read_text()
    )
    base = AutoModelForCausalLM.from_pretrained(organism()).state_dict()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "folded").state_dict()
    assert plain.keys() == base.keys()
    assert all(torch.equal(plain[name], base[name]) for name in base)


def test_what_has_no_place_is_refused_or_dropped(partly, tmp_path, capsys):
    paths = {"model": partly / "base", "steering": partly / "adapter"}
    assert fold(tmp_path / "folded", **paths) == 2
    said = capsys.readouterr().err
    assert "model.layers.0.post_attention_layernorm, shift" in said
    assert list(tmp_path.iterdir()) == []
    assert fold(tmp_path / "folded", "--drop", **paths) == 0
    said = capsys.readouterr().out
    assert "Left out: 2 parts" in said
    assert "model.layers.1.post_attention_layernorm, shift" in said
    record = json.loads((tmp_path / "folded" / "fold.json").read_text())
    assert record["difference"] > 0.01
    assert record["kl"] > 0
    assert len(record["left_out"]) == 2
    assert "Left out, because it has no place" in (tmp_path / "folded" / "README.md").read_text()


def test_the_dtype_is_that_asked_for_and_what_it_costs_is_said(tmp_path, capsys):
    assert fold(tmp_path / "folded", "--dtype", "bfloat16", strength=0.1) == 0
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "folded")
    assert plain.dtype == torch.bfloat16
    assert "rounding moves answers by" in capsys.readouterr().out


def test_a_tolerance_that_is_not_held_leaves_nothing(tmp_path, capsys):
    assert fold(tmp_path / "folded", "--tolerance", 0) == 2
    assert "differs from the live adapter" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_refused_before_anything_is_loaded(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert fold(tmp_path, model=Path("nowhere/at/all")) == 2
    assert "there already and not empty" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["nan", "-1", "little"])
def test_a_tolerance_is_a_number(value, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        fold(tmp_path / "folded", "--tolerance", value)
    assert stopped.value.code == 2
    assert "is no tolerance" in capsys.readouterr().err


def test_a_model_that_sees_is_compared_on_pictures_and_sees_as_before(tmp_path, capsys):
    base, steering = str(shipped("organism-vlm")), str(shipped("organism-vlm-dso"))
    assert fold(tmp_path / "folded", model=base, steering=steering) == 0
    found = json.loads((tmp_path / "folded" / "fold.json").read_text())
    assert found["difference"] < 1e-4 < found["effect"] and found["tokens"] > 32 * 64
    live = Policy.from_pretrained(base, steering, strength=0.5)
    again = Policy.from_pretrained(str(tmp_path / "folded"))
    choices = ambiguous(4, "test", "test", 0, "x", forms=("{}",))
    with torch.no_grad():
        scores = [p.option_log_probs(p.encode(choices)) for p in (live, again)]
    assert torch.allclose(*scores, atol=1e-4)
