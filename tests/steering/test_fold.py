"""Folding: what was folded, reloaded by transformers alone, equals the live adapter."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from transformers import GenerationConfig, LlamaForCausalLM

from dso.steering import CannotFold, SteeringConfig, attach
from tests.steering.conformance import logits
from tests.steering.folding import IN_PART, OMEGA, OWN_BIAS, WHOLE, apart, folded, steered, stock
from tests.steering.steered import randomise, steer
from tests.tiny_models import CONFIGS, build, tiny, tokens


def assert_folds(model, folder, strength=OMEGA):
    """The folded model, reloaded, is the live one within 1e-5, and not the base."""
    result = folded(model, folder, strength)
    live, base = logits(model, strength=strength), logits(model, strength=0.0)
    plain = stock(folder)
    difference = apart(logits(plain), live)
    assert difference < 1e-5
    assert apart(base, live) > 1e3 * difference
    assert result.difference < 1e-5
    assert result.effect == pytest.approx(apart(base, live), rel=1e-3)
    assert result.architecture == type(plain).__name__
    assert result.left_out == ()
    return result, plain


# -- every family -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", WHOLE)
def test_scale_and_shift_fold(family, tmp_path):
    model = steered(family, final_norm=family in OWN_BIAS)
    assert model.active_peft_config.foldable
    result, plain = assert_folds(model, tmp_path / "folded")
    if family in ("qwen2", "mistral"):
        assert type(plain) is LlamaForCausalLM
        assert "the language model is a Llama" in result.notes[0]
    if family in OWN_BIAS:
        assert result.notes == ()
    else:
        assert plain.config.attention_bias and plain.config.mlp_bias
        assert "attention_bias, mlp_bias in config.json" in result.notes[-1]


@pytest.mark.parametrize("family", [*IN_PART, "llava", "internvl", "idefics2"])
def test_what_is_trained_foldable_folds(family, tmp_path):
    model = steered(family, only_foldable=True, final_norm=True)
    config = model.active_peft_config
    assert config.foldable
    assert set(config.shift_modules) < set(config.target_modules)
    assert_folds(model, tmp_path / "folded")


@pytest.mark.parametrize(
    ("family", "form"),
    [
        ("llama", {}),
        ("gpt2", {"rank_norms": "all", "final_norm": False}),
        ("opt", {}),
        ("phi", {"rank_norms": "all"}),
        ("qwen2", {"rank_norms": "all"}),
        ("mixtral", {"rank_norms": "all", "shift": False}),
        ("gemma", {"rank_norms": "all", "shift": False}),
        # U Vᵀ before the head, which is not the embedding here.
        ("llama", {"rank_norms": "all", "shift": False, "final_norm": True}),
    ],
)
def test_a_low_rank_part_folds(family, form, tmp_path):
    model = steered(family, rank=2, **form)
    assert model.active_peft_config.foldable
    assert_folds(model, tmp_path / "folded")


@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere", "gemma"])
def test_the_scale_of_the_final_norm_folds_beside_a_tied_embedding(family, tmp_path):
    changes = {"tie_word_embeddings": True}
    model = steered(family, changes=changes, final_norm=True, shift=False)
    _, plain = assert_folds(model, tmp_path / "folded")
    assert plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
    assert "lm_head.weight" not in load_file(tmp_path / "folded" / "model.safetensors")


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2", "gemma2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_strength_is_the_base_bit_for_bit(family, dtype, tmp_path):
    # Loaded, for `.to(dtype)` rounds the rotary frequencies too, which from_pretrained does not.
    tiny(family, dtype=dtype).save_pretrained(tmp_path / "base")
    base = logits(stock(tmp_path / "base"))
    model = attach(stock(tmp_path / "base"), SteeringConfig(rank=2))
    randomise(model)
    result = folded(model, tmp_path / "folded", 0.0)
    assert result.difference == result.effect == 0
    assert torch.equal(logits(stock(tmp_path / "folded")), base)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_and_is_close(dtype, tmp_path):
    model = steered("llama", dtype, rank=2)
    result = folded(model, tmp_path / "folded")
    plain = stock(tmp_path / "folded")
    assert {p.dtype for p in plain.parameters()} == {dtype}
    assert result.difference == apart(logits(plain).float(), logits(model, strength=OMEGA).float())
    assert result.difference < 0.05 * result.effect
    assert result.kl < 1e-3 * result.effect_kl


# -- special cases ------------------------------------------------------------------------------


def test_several_active_adapters_fold_as_their_sum(tmp_path):
    model = steered("llama", rank=2)
    attach(model, SteeringConfig(rank=1, rank_norms="all"), adapter_name="other")
    randomise(model, seed=9, size=0.1, adapter="other")
    model.base_model.set_adapter(["default", "other"])
    assert_folds(model, tmp_path / "both")
    model.set_adapter("other")
    assert_folds(model, tmp_path / "other")


def test_disabled_adapters_fold_to_the_base(tmp_path):
    model = steered("llama")
    with model.disable_adapter():
        assert folded(model, tmp_path / "folded").effect == 0
    base = tiny("llama").requires_grad_(False)
    assert torch.equal(logits(stock(tmp_path / "folded")), logits(base))


def test_norms_of_queries_and_keys(tmp_path):
    assert_folds(steered("qwen3", qk_norms=True, shift=False), tmp_path / "scale")
    assert_folds(steered("phi", qk_norms=True), tmp_path / "bias")  # theirs have one
    model = steered("qwen3", qk_norms=True)
    with pytest.raises(CannotFold, match=r"q_norm, shift: attention reads it, and no weight"):
        folded(model, tmp_path / "shift")


def test_an_opt_that_norms_afterwards(tmp_path):
    changes = {"do_layer_norm_before": False}
    assert_folds(steered("opt", changes=changes), tmp_path / "folded")
    model = steered("opt", changes=changes, rank=2)
    with pytest.raises(CannotFold, match="low-rank part: its output is the residual stream"):
        folded(model, tmp_path / "ranked")


def test_a_mistral_becomes_a_llama_up_to_its_window(tmp_path):
    model = steered("mistral", changes={"sliding_window": 16})
    result, plain = assert_folds(model, tmp_path / "folded")
    assert plain.config.max_position_embeddings == 16
    assert "the last 16 tokens only" in result.notes[1]
    for length, equal in ((16, True), (24, False)):
        ids = tokens(length=length)
        difference = apart(logits(plain, ids), logits(model, ids, strength=OMEGA))
        assert (difference < 1e-5) == equal
    config = CONFIGS["mistral"]()
    config.sliding_window = 16
    config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = steer(build(config, 0, torch.float32))
    with pytest.raises(CannotFold, match=r"rotary embedding \(dynamic\) depends on the longest"):
        folded(model, tmp_path / "dynamic")


def test_a_qwen_with_windows_in_some_blocks_stays_one(tmp_path):
    config = CONFIGS["qwen2"]().to_dict() | {
        "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "layer_types": None
    }  # fmt: skip
    base = build(type(CONFIGS["qwen2"]())(**config), 0, torch.float32)
    model = steer(copy.deepcopy(base))
    assert not model.active_peft_config.foldable
    message = r"layers.0.post_attention_layernorm, shift: it would take a Llama's biases, but some"
    with pytest.raises(CannotFold, match=message):
        folded(model, tmp_path / "refused")
    model = attach(base, SteeringConfig(only_foldable=True)).eval()
    randomise(model, size=0.2)
    result, _ = assert_folds(model, tmp_path / "folded")
    assert result.architecture == "Qwen2ForCausalLM"


def test_fused_experts_are_saved_one_by_one_as_other_engines_read_them(tmp_path):
    folded(steered("mixtral", shift=False, rank=2), tmp_path / "folded")
    written = load_file(tmp_path / "folded" / "model.safetensors")
    assert "model.layers.1.block_sparse_moe.experts.3.w1.weight" in written


def test_a_generation_config_that_transformers_would_not_save_is_kept(tmp_path):
    model = steered("llama")
    kept = GenerationConfig(do_sample=False, temperature=0.5, eos_token_id=[2, 5])
    model.get_base_model().generation_config = kept
    folded(model, tmp_path / "folded")
    again = GenerationConfig.from_pretrained(tmp_path / "folded")
    assert (again.temperature, again.eos_token_id) == (0.5, [2, 5])
    assert model.get_base_model().generation_config is kept


def test_weights_that_stay_are_not_copied(tmp_path, monkeypatch):
    model = steered("llama")
    written = {}
    save = LlamaForCausalLM.save_pretrained

    def keep(self, *given, **settings):
        written.update({name: p.data_ptr() for name, p in self.named_parameters()})
        save(self, *given, **settings)

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", keep)
    folded(model, tmp_path / "folded")
    own = {n: p.data_ptr() for n, p in model.get_base_model().named_parameters()}
    shared = {name for name, place in written.items() if own.get(name) == place}
    assert {n for n in own if n.endswith("_proj.weight")} | {"lm_head.weight"} <= shared


def test_the_model_is_left_as_it_was(tmp_path):
    model = steered("qwen3")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    folded(model, tmp_path / "folded", drop=True)
    assert model.strength == 1
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
