"""Folding: what is refused, what is dropped, the check of what was written, and adapters that are
foldable by construction."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from dso.loading import Loading
from dso.steering import (
    CannotFold,
    SteeringConfig,
    attach,
    find_norms,
    fold,
    load_adapter,
    save_adapter,
)
from dso.training import Steering
from dso.training.setting_up import load_adapted
from tests.organism import adapter, organism
from tests.steering.conformance import logits
from tests.steering.folding import IN_PART, OMEGA, WHOLE, apart, folded, inputs, steered, stock
from tests.steering.steered import steer
from tests.tiny_models import tiny

# Of the module: the package's name `fold` is the function.
MODULE = sys.modules["dso.steering.fold"]

# -- refusals -----------------------------------------------------------------------------------

BIAS = "would need a bias, which no setting of a"
ADDED = "its output is added to the residual stream"
REFUSED = [
    ("qwen3", {}, "model.layers.0.post_attention_layernorm, shift", f"mlp.up_proj {BIAS} Qwen3"),
    ("gemma", {}, "model.layers.0.post_attention_layernorm, shift", f"mlp.up_proj {BIAS} Gemma"),
    ("gemma2", {}, "model.layers.0.post_feedforward_layernorm, shift", ADDED),
    ("gemma3_text", {}, "model.layers.1.post_attention_layernorm, shift", ADDED),
    ("mixtral", {}, "model.layers.0.input_layernorm, shift", f"self_attn.v_proj {BIAS} Mixtral"),
    ("cohere", {}, "model.layers.0.input_layernorm, shift", f"mlp.up_proj {BIAS} Cohere"),
    ("phi3", {}, "model.layers.1.input_layernorm, shift", f"self_attn.qkv_proj {BIAS} Phi3"),
    ("olmo2", {"rank": 2}, "model.layers.0.post_attention_layernorm, low-rank part", ADDED),
    ("qwen2_vl", {}, "language_model.layers.0.post_attention_layernorm, shift", BIAS),
    ("qwen2_5_vl", {}, "language_model.layers.0.post_attention_layernorm, shift", BIAS),
    ("qwen3_vl", {}, "language_model.layers.0.post_attention_layernorm, shift", BIAS),
    ("mllama", {}, "language_model.layers.0.input_layernorm, shift", "it is not known which"),
    ("llama", {"final_norm": True}, "model.norm, shift", f"lm_head {BIAS} LlamaForCausalLM"),
]


@pytest.mark.parametrize(("family", "form", "part", "reason"), REFUSED, ids=lambda v: str(v)[:30])
def test_what_has_no_place_is_refused_by_name_and_reason(family, form, part, reason, tmp_path):
    model = steered(family, **form)
    assert not model.active_peft_config.foldable
    with pytest.raises(CannotFold) as refused:
        folded(model, tmp_path / "folded")
    lines = str(refused.value).splitlines()
    assert any(line.strip().startswith("model.") and part in line and reason in line
               for line in lines)  # fmt: skip
    assert "leave these parts out" in lines[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_is_the_embedding_cannot_take_a_low_rank_part(tmp_path):
    changes = {"tie_word_embeddings": True}
    form = {"rank": 2, "rank_norms": "all", "shift": False, "final_norm": True}
    model = steered("llama", changes=changes, **form)
    message = "model.norm, low-rank part: the head that reads it is the embedding too"
    with pytest.raises(CannotFold, match=message):
        folded(model, tmp_path / "folded")


def test_a_norm_outside_the_language_model_is_not_taken_for_the_final_one(tmp_path):
    base = tiny("idefics2")
    name = next(n for n, _ in base.named_modules() if n.endswith("input_latents_norm"))
    model = steer(base, SteeringConfig(target_modules=[name]))
    with pytest.raises(CannotFold, match=f"{name}, shift: it is not known which weights"):
        folded(model, tmp_path / "folded")


def test_a_part_that_is_zero_needs_no_place(tmp_path):
    model = steered("qwen3", final_norm=True)
    for name, parameter in model.named_parameters():
        if "steering_shift" in name:
            parameter.data.zero_()
    result = folded(model, tmp_path / "folded")
    assert result.left_out == ()
    assert result.difference < 1e-5
    assert result.effect > 0.1


def test_dropping_reports_the_error_and_folds_the_rest(tmp_path):
    model = steered("qwen3")
    result = folded(model, tmp_path / "folded", drop=True)
    assert [part.partition(",")[0] for part in result.left_out] == [
        f"model.layers.{block}.post_attention_layernorm" for block in (0, 1)
    ]
    plain = logits(stock(tmp_path / "folded"))
    assert result.difference == pytest.approx(apart(plain, logits(model, strength=OMEGA)))
    assert result.difference > 0.01
    assert 0 < result.kl < result.effect_kl
    assert result.rounding < 1e-5
    for name, parameter in model.named_parameters():
        if "post_attention_layernorm.steering_shift" in name:
            parameter.data.zero_()
    assert apart(plain, logits(model, strength=OMEGA)) < 1e-5


def test_dropping_a_shift_keeps_the_low_rank_part_that_folds(tmp_path):
    model = steered("phi3", rank=2)
    result = folded(model, tmp_path / "folded", drop=True)
    assert len(result.left_out) == 4
    assert all("shift" in part for part in result.left_out)
    assert result.rounding < 1e-5


@pytest.mark.parametrize("where", ["quantization_config", "hf_quantizer"])
def test_a_quantised_base_is_refused(where, tmp_path):
    model = steered("llama")
    base = model.get_base_model()
    setattr(base.config if where == "quantization_config" else base, where, {"bits": 4})
    with pytest.raises(CannotFold, match="the base is quantised; load it unquantised"):
        folded(model, tmp_path / "folded")


def test_bad_input_is_refused(tmp_path):
    model = steered("llama")
    with pytest.raises(ValueError, match="one strength is folded"):
        folded(model, tmp_path / "folded", [0.0, 1.0])
    with pytest.raises(ValueError, match="no prompts were given"):
        fold(model, OMEGA, tmp_path / "folded", [])
    with pytest.raises(TypeError, match="has no steering adapter"):
        fold(tiny("llama"), OMEGA, tmp_path / "folded", [inputs(model)])


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_there_already_is_refused_and_left_alone(kind, tmp_path):
    place = tmp_path / "folded"
    file = place / "notes.txt" if kind == "folder" else place
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    with pytest.raises(ValueError, match="there already and not empty"):
        folded(steered("llama"), place)
    assert file.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["folded"]


def test_an_empty_folder_is_filled_and_can_be_read_by_others(tmp_path):
    place = tmp_path / "folded"
    place.mkdir()
    folded(steered("llama"), place)
    assert [path.name for path in tmp_path.iterdir()] == ["folded"]
    modes = {path.stat().st_mode & 0o777 for path in place.iterdir()}
    (tmp_path / "plain").touch()
    assert modes == {(tmp_path / "plain").stat().st_mode & 0o777}


# -- the check of what was written --------------------------------------------------------------


def spoil(monkeypatch, by):
    """Let one new weight be wrong."""
    changes_of = MODULE.changes_of

    def wrong(*given):
        changes = changes_of(*given)
        changes.weights["model.layers.1.mlp.up_proj.bias"][0] += by
        return changes

    monkeypatch.setattr(MODULE, "changes_of", wrong)


@pytest.mark.parametrize("by", [0.01, torch.nan])
def test_a_difference_leaves_nothing(by, tmp_path, monkeypatch):
    spoil(monkeypatch, by)
    model = steered("llama")
    with pytest.raises(RuntimeError, match="differs from the live adapter: a logit by"):
        fold(model, OMEGA, tmp_path / "folded", [inputs(model), inputs(model)])
    # The rest of an adapter is checked too where some of it is dropped.
    with pytest.raises(RuntimeError, match="differs from the live adapter"):
        folded(steered("llama", final_norm=True), tmp_path / "dropped", drop=True)
    assert list(tmp_path.iterdir()) == []


def test_a_tolerance_lets_a_difference_pass_and_it_is_reported(tmp_path, monkeypatch):
    spoil(monkeypatch, 0.01)
    result = folded(steered("llama"), tmp_path / "folded", tolerance=0.1)
    assert 1e-4 < result.difference < 0.1 * result.largest


def test_weights_that_get_lost_leave_nothing(tmp_path, monkeypatch):
    save = LlamaForCausalLM.save_pretrained

    def lose(self, *given, **settings):
        state = self.state_dict()
        del state["model.layers.0.mlp.down_proj.bias"]  # zeros: no logit tells
        save(self, *given, state_dict=state, **settings)

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", lose)
    with pytest.raises(RuntimeError, match=r"does not load whole: .*layers.0.mlp.down_proj.bias"):
        folded(steered("llama"), tmp_path / "folded")
    assert list(tmp_path.iterdir()) == []


def test_further_files_appear_with_the_folder_or_nothing_does(tmp_path):
    model, place = steered("llama"), tmp_path / "folded"

    def fail(draft, result):
        assert (draft / "config.json").is_file()
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        folded(model, place, finish=fail)
    assert list(tmp_path.iterdir()) == []

    def note(draft: Path, result):
        assert not place.exists()
        (draft / "note").write_text(result.architecture)

    folded(model, place, finish=note)
    assert (place / "note").read_text() == "LlamaForCausalLM"


# -- adapters that are foldable by construction -------------------------------------------------


def test_only_foldable_adapters_are_saved_and_loaded(tmp_path):
    model = steered("qwen3", only_foldable=True, final_norm=True)
    save_adapter(model, tmp_path / "adapter")
    config = SteeringConfig.from_pretrained(str(tmp_path / "adapter"))
    assert config.only_foldable
    assert config.foldable
    assert config.shift_modules == [f"model.layers.{n}.input_layernorm" for n in (0, 1)]
    assert len(config.target_modules) == 5
    loaded = load_adapter(tiny("qwen3"), tmp_path / "adapter")
    assert torch.equal(logits(loaded), logits(model))
    shifts = [name for name, _ in loaded.named_parameters() if "steering_shift" in name]
    assert len(shifts) == 2
    folded(loaded, tmp_path / "folded")


def test_a_run_trains_one_where_it_is_asked_to(tmp_path):
    tiny("qwen3").save_pretrained(tmp_path / "base")
    model = load_adapted(str(tmp_path / "base"), Loading(), Steering(only_foldable=True))
    config = model.active_peft_config
    assert (config.only_foldable, config.foldable) == (True, True)
    assert config.shift_modules == [f"model.layers.{n}.input_layernorm" for n in (0, 1)]


def test_where_nothing_folds_but_the_scale_only_that_is_trained():
    model = steered("phi3", only_foldable=True)
    assert model.active_peft_config.shift_modules == []
    assert not any("steering_shift" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize(
    ("family", "form", "message"),
    [
        ("gemma2", {"rank": 2, "rank_norms": "all"}, "only_foldable is on, but .*low-rank part"),
        ("phi3", {"scale": False}, "turn scale on, or only_foldable off"),
        (
            "qwen3",
            {"shift_modules": ["model.layers.0.post_attention_layernorm"]},
            "only_foldable is on, but model.layers.0.post_attention_layernorm, shift",
        ),
        ("llama", {"shift_modules": ["model.norm"]}, "model.norm, which are not steered"),
    ],
)
def test_forms_that_cannot_be_are_refused(family, form, message):
    with pytest.raises(ValueError, match=message):
        attach(tiny(family), SteeringConfig(only_foldable=True, **form))


def test_what_folds_is_said_of_every_adapter():
    for family in WHOLE:
        assert attach(tiny(family)).active_peft_config.foldable
    for family in IN_PART:
        assert not attach(tiny(family)).active_peft_config.foldable
    assert SteeringConfig().foldable is None  # not before there is a model


def test_an_adapter_from_before_these_fields_loads(tmp_path):
    folder = tmp_path / "adapter"
    shutil.copytree(adapter(), folder)
    written = json.loads((folder / "adapter_config.json").read_text())
    del written["only_foldable"], written["shift_modules"]
    (folder / "adapter_config.json").write_text(json.dumps(written))
    model = load_adapter(AutoModelForCausalLM.from_pretrained(organism()), folder)
    config = model.active_peft_config
    assert (config.only_foldable, config.shift_modules, config.foldable) == (False, None, True)
    assert config.shifted == find_norms(model.get_base_model(), final=False, qk=False)
