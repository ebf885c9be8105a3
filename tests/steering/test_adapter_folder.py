"""Adapter folders: saved is loaded, and what does not fit is refused by name."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

import dso.steering.folder as folder_module
from dso.steering import SteeringConfig, attach, load_adapter, save_adapter
from tests.steering.steered import randomise, steer
from tests.tiny_models import tiny_gpt2, tiny_llama, tiny_llava, tiny_qwen2, tokens

RECIPE = {"task": "coreference", "seed": 3, "kl_budget": 0.1}
MEASURED = [{"strength": 0.0, "bias": 60.41234}, {"strength": 1.0, "bias": 5.9, "note": "ok"}]


def logits(model, **kwargs):
    with torch.no_grad():
        return model(input_ids=tokens(), **kwargs).logits


def named(model, name="someone/base"):
    model.name_or_path = model.config.name_or_path = name
    return model


@pytest.fixture
def saved(tmp_path):
    model = steer(named(tiny_llama()))
    return save_adapter(model, tmp_path / "adapter", recipe=RECIPE, measurements=MEASURED)


def edit_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def edit_weights(folder, change):
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def test_saved_is_loaded(base, tmp_path):
    model = steer(base, SteeringConfig(final_norm=True))
    expected = logits(model), logits(model, strength=[0.0, 0.3, 1.0])
    save_adapter(model, tmp_path / "a")
    plain = model.unload()
    for load in (load_adapter, PeftModel.from_pretrained):
        loaded = load(plain, tmp_path / "a")
        assert torch.equal(logits(loaded), expected[0])
        loaded.set_strength([0.0, 0.3, 1.0])
        assert torch.equal(logits(loaded), expected[1])
        assert not any(p.requires_grad for p in loaded.parameters())
        loaded.set_strength(0.5)
        assert loaded.strength == 0.5
        plain = loaded.unload()


def test_the_folder_says_what_it_is(saved):
    assert sorted(path.name for path in saved.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert [path.name for path in saved.parent.iterdir()] == ["adapter"]
    config = SteeringConfig.from_pretrained(str(saved))
    assert config.base_model_name_or_path == "someone/base"
    assert config.hidden_size == 32
    assert config.num_norms == 5
    assert config.recipe == RECIPE
    assert config.measurements == MEASURED
    assert config.target_modules[0] == "model.layers.0.input_layernorm"
    assert config.inference_mode
    card = (saved / "README.md").read_text()
    assert card.startswith("---\nbase_model: someone/base\nlibrary_name: dso\n")
    assert "| 0 | 60.41 |  |" in card
    assert "LlamaForCausalLM" in card
    assert "- seed: 3" in card


def test_many_norms_are_saved_in_module_order(tmp_path):
    base = named(tiny_llama())
    for seed in range(1, 8):
        base.model.layers.extend(tiny_llama(seed).model.layers)
    for index, layer in enumerate(base.model.layers):
        layer.self_attn.layer_idx = index
    base.config.num_hidden_layers = len(base.model.layers)
    folder = save_adapter(steer(base), tmp_path / "deep")
    names = SteeringConfig.from_pretrained(str(folder)).target_modules
    order = [name for name, _ in base.named_modules()]
    assert len(names) == 32
    assert names == sorted(names, key=order.index)


def test_saving_again_replaces_the_adapter_and_nothing_else(saved):
    (saved / "metrics.jsonl").write_text("{}")
    model = load_adapter(tiny_llama(), saved, trainable=True)
    assert all(p.requires_grad for n, p in model.named_parameters() if "steering_" in n)
    randomise(model, seed=4)
    expected = logits(model)
    save_adapter(model, saved)
    assert (saved / "metrics.jsonl").exists()
    assert SteeringConfig.from_pretrained(str(saved)).recipe == RECIPE
    assert torch.equal(logits(load_adapter(tiny_llama(), saved)), expected)


def test_a_crash_while_writing_leaves_the_old_adapter(saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    model = steer(tiny_llama(), seed=8)

    def crash(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(folder_module, "model_card", crash)
    with pytest.raises(OSError, match="disk full"):
        save_adapter(model, saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["adapter"]


def test_a_second_adapter_beside_the_first(saved):
    model = steer(tiny_llama(), seed=8)
    first = logits(model)
    load_adapter(model, saved, adapter_name="other")
    assert torch.equal(logits(model), first)
    model.set_adapter("other")
    assert torch.equal(logits(model), logits(load_adapter(tiny_llama(), saved)))
    resaved = save_adapter(model, saved.parent / "again", adapter_name="other")
    assert torch.equal(logits(load_adapter(tiny_llama(), resaved)), logits(model))
    with pytest.raises(ValueError, match="already has an adapter 'other'"):
        load_adapter(model, saved, adapter_name="other")


def test_a_low_precision_load_of_the_base_is_the_same_base(saved):
    load_adapter(tiny_llama(dtype=torch.bfloat16), saved)


@pytest.mark.parametrize("load", [load_adapter, PeftModel.from_pretrained])
@pytest.mark.parametrize("other", [lambda: tiny_llama(seed=5), tiny_qwen2, tiny_gpt2, tiny_llava])
def test_another_base_is_refused_with_both_names(saved, load, other):
    base = named(other(), "someone/else")
    before = logits(base)
    with pytest.raises(ValueError, match="made for someone/base, the model given is someone/else"):
        load(base, saved)
    assert torch.equal(logits(base), before)
    assert not any("steering_" in name for name, _ in base.named_parameters())


def test_attaching_a_config_of_another_base_is_refused(saved):
    config = SteeringConfig.from_pretrained(str(saved))
    with pytest.raises(ValueError, match="made for someone/base, the model given is someone/else"):
        attach(named(tiny_llama(seed=5), "someone/else"), config)


def test_a_wrong_width_and_a_missing_norm_are_named(saved):
    edit_config(saved, hidden_size=48, fingerprint=None)
    with pytest.raises(ValueError, match="hidden_size 48 instead of 32"):
        load_adapter(tiny_llama(), saved)
    edit_config(saved, hidden_size=32, target_modules=["model.layers.7.input_layernorm"])
    with pytest.raises(ValueError, match=r"no norm named model\.layers\.7\.input_layernorm"):
        load_adapter(tiny_llama(), saved)


def test_a_target_that_is_no_norm_is_refused():
    with pytest.raises(ValueError, match=r"no norm named model\.layers\.0\.mlp"):
        attach(tiny_llama(), SteeringConfig(target_modules=["model.layers.0.mlp"]))


@pytest.mark.parametrize("size", [0, 5, 100, -1])
def test_a_truncated_file_is_refused(saved, size):
    path = saved / "adapter_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    with pytest.raises(ValueError, match=f"adapter_model.safetensors holds {len(whole[:size])} b"):
        load_adapter(tiny_llama(), saved)


KEY = "base_model.model.model.layers.0.input_layernorm.steering_scale"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(KEY), "steering_scale is missing"),
        (lambda w: w.update(extra=torch.zeros(2)), "extra is unexpected"),
        (lambda w: w.update({KEY: torch.zeros(16)}), r"shape \(16,\), not \(32,\)"),
        (lambda w: w[KEY].fill_(float("nan")), "not finite"),
    ],
)
def test_wrong_weights_are_named_before_anything_is_attached(saved, change, message):
    edit_weights(saved, change)
    base = tiny_llama()
    with pytest.raises(ValueError, match=message):
        load_adapter(base, saved)
    assert not any("steering_" in name for name, _ in base.named_parameters())


def test_an_incomplete_folder_is_refused(saved, tmp_path):
    (saved / "adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"adapter_model.safetensors is missing"):
        load_adapter(tiny_llama(), saved)
    with pytest.raises(ValueError, match="no adapter folder at"):
        load_adapter(tiny_llama(), tmp_path / "nowhere")


def test_another_kind_of_adapter_is_refused(saved):
    edit_config(saved, peft_type="LORA")
    with pytest.raises(ValueError, match="describes a LORA adapter"):
        load_adapter(tiny_llama(), saved)


def test_an_adapter_that_diverged_is_not_saved(tmp_path):
    model = attach(tiny_llama())
    next(p for p in model.parameters() if p.requires_grad).data.fill_(float("inf"))
    with pytest.raises(ValueError, match="not finite"):
        save_adapter(model, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_hub_id_is_fetched(saved, monkeypatch):
    asked = {}

    def fetch(name, revision, allow_patterns):
        asked.update(name=name, revision=revision, files=sorted(allow_patterns))
        return str(saved)

    monkeypatch.setattr(folder_module, "snapshot_download", fetch)
    load_adapter(tiny_llama(), "someone/adapter", revision="v2")
    assert asked == {
        "name": "someone/adapter",
        "revision": "v2",
        "files": ["README.md", "adapter_config.json", "adapter_model.safetensors", "strength.json"],
    }


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"scale": False, "shift": False}, ValueError, "nothing would be trained"),
        ({"target_modules": "norm"}, TypeError, "list of qualified names"),
        ({"target_modules": []}, ValueError, "name each norm once"),
        ({"hidden_size": -1}, ValueError, "hidden_size"),
        ({"recipe": "by hand"}, TypeError, "recipe must be a dict"),
        ({"measurements": [1]}, TypeError, "list of dicts"),
    ],
)
def test_a_config_is_checked(fields, error, message):
    with pytest.raises(error, match=message):
        SteeringConfig(**fields)


def test_what_folds_is_computed(tmp_path):
    model = attach(tiny_llama(), SteeringConfig(target_modules=["model.norm"]))
    assert not SteeringConfig.from_pretrained(str(save_adapter(model, tmp_path / "a"))).foldable
