from __future__ import annotations

import json
import logging
import sys

import accelerate
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig

from dso.checkpointing import checkpointed
from dso.loading import Loading, load_base, load_tokenizer
from dso.organisms import shipped
from dso.steering import attach, load_adapter, save_adapter
from dso.steering.backbone import find_norms, fingerprint, norm_weight
from tests.steering.steered import randomise, steer
from tests.tiny_models import FAMILIES, VOCAB, build, tiny_gpt2, tiny_llama, tiny_opt, tokens
from tests.tiny_tokenizers import tiny_tokenizer

INDEX = "model.safetensors.index.json"
SHARD = "model-00002-of-00005.safetensors"
EAGER = Loading(attention="eager")
"""As the tiny models are built."""
OFFLOADED = {
    "model.embed_tokens": "cpu",
    "model.rotary_emb": "cpu",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "lm_head": "cpu",
}


@pytest.fixture
def folder(tmp_path):
    """A tiny llama in one file."""
    tiny_llama().save_pretrained(tmp_path / "whole")
    return tmp_path / "whole"


@pytest.fixture
def sharded(tmp_path):
    """The same in five files and an index."""
    tiny_llama().save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert (tmp_path / "sharded" / SHARD).is_file()
    return tmp_path / "sharded"


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(tokens(), use_cache=False).logits


def gradients(model) -> list[torch.Tensor]:
    value = model(tokens(), use_cache=False).logits.float().log_softmax(-1)[..., 3:9].sum()
    return list(torch.autograd.grad(value, [p for p in model.parameters() if p.requires_grad]))


def change_weights(folder, change) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


# -- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "bf16"}, "dtype is 'bf16'; wanted one of auto, bfloat16, float16, float32"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"quantisation": "3bit"}, "quantisation is '3bit'; wanted one of none, 8bit, 4bit"),
        ({"device_map": "gpu"}, "device_map is 'gpu'; wanted a device such as cpu or cuda:0, or"),
        ({"device_map": "meta"}, "device_map is 'meta'"),
        ({"device_map": "disk"}, "device_map is 'disk'"),
        ({"attention": "fast"}, "attention is 'fast'; wanted one of eager, sdpa"),
    ],
)
def test_a_setting_that_does_not_exist_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Loading(**settings)


def test_every_setting_reaches_the_model(folder):
    loading = Loading(dtype="float16", device_map="cpu", attention="eager")
    model = load_base(folder, loading)
    assert {p.dtype for p in model.parameters()} == {torch.float16}
    assert model.config._attn_implementation == "eager"
    assert not model.training


def test_a_folder_has_no_revisions(folder):
    tiny_tokenizer().save_pretrained(folder)
    with pytest.raises(ValueError, match=r"revision 'v1' was given, but .*whole is a folder"):
        load_base(folder, Loading(revision="v1"))
    with pytest.raises(ValueError, match=r"revision 'v1' was given, but .*whole is a folder"):
        load_tokenizer(folder, "v1")
    assert load_tokenizer(folder).padding_side == "left"


def test_a_device_that_is_not_there_is_refused(folder):
    with pytest.raises(ValueError, match="device_map is 'cuda:77', but there is no such device"):
        load_base(folder, Loading(device_map="cuda:77"))


def test_a_package_that_is_not_there_is_named(folder, monkeypatch):
    with pytest.raises(ValueError, match=r"needs a package that is not installed .*Flash"):
        load_base(folder, Loading(attention="flash_attention_2"))
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    message = r"^quantisation 4bit needs bitsandbytes, .*: pip install 'dso\[quantised\]'$"
    with pytest.raises(ValueError, match=message):
        load_base(folder, Loading(quantisation="4bit"))


def test_the_organism_loads():
    assert load_base(shipped("organism-llm")).config.model_type == "llama"


# -- files --------------------------------------------------------------------------------------


def test_a_sharded_checkpoint_is_the_whole_one(folder, sharded):
    whole, shards = load_base(folder), load_base(sharded)
    assert torch.equal(logits(whole), logits(shards))
    assert fingerprint(whole) == fingerprint(shards) == fingerprint(tiny_llama())


@pytest.mark.parametrize("make", [tiny_gpt2, tiny_opt])
def test_tied_weights_are_not_missing(make, tmp_path):
    model = make()
    model.tie_weights()
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(load_base(tmp_path, EAGER)), logits(model))


def test_a_missing_shard_is_named(sharded):
    (sharded / SHARD).unlink()
    with pytest.raises(ValueError, match=f"lacks 1 of the 5 files that {INDEX} names: {SHARD};"):
        load_base(sharded)


@pytest.mark.parametrize("left", [0, 100, -8])
def test_a_shard_cut_short_is_named(sharded, left):
    whole = (sharded / SHARD).read_bytes()
    (sharded / SHARD).write_bytes(whole[:left])
    with pytest.raises(ValueError, match=rf"{SHARD} holds \d+ bytes and is not a whole"):
        load_base(sharded)


def test_a_file_cut_short_is_named(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"model\.safetensors holds \d+ bytes and is not a whole"):
        load_base(folder)


def test_an_index_that_names_a_file_that_is_not_there_is_refused(sharded):
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"]["lm_head.weight"] = "other.safetensors"
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"lacks 1 of the 5 files .* names: other\.safetensors"):
        load_base(sharded)


def test_an_index_of_another_checkpoint_is_refused(sharded):
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"]["model.layers.2.mlp.up_proj.weight"] = SHARD
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(ValueError, match=rf"{SHARD} does not hold model\.layers\.2\.mlp"):
        load_base(sharded)


@pytest.mark.parametrize("text", ['{"weight_map": {"a"', "[]", '{"weight_map": 3}', "{}"])
def test_an_index_that_is_none_is_named(sharded, text):
    (sharded / INDEX).write_text(text)
    with pytest.raises(ValueError, match=f"{INDEX} is no index of a sharded checkpoint"):
        load_base(sharded)


def test_shards_without_their_index_are_refused(sharded):
    (sharded / INDEX).unlink()
    with pytest.raises(ValueError, match=f"has model-00001-.*and 2 more but not .*{INDEX}"):
        load_base(sharded)


def test_weights_in_torchs_own_format_load_and_their_missing_shards_are_named(folder):
    state = tiny_llama().state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "one.bin")
    index = {"metadata": {}, "weight_map": dict.fromkeys(state, "one.bin")}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert torch.equal(logits(load_base(folder, EAGER)), logits(tiny_llama()))
    (folder / "one.bin").write_bytes((folder / "one.bin").read_bytes()[:500])
    with pytest.raises(ValueError, match="has no causal language model that can be read"):
        load_base(folder)
    (folder / "one.bin").unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of the 1 files .*: one\.bin"):
        load_base(folder)


def test_weights_that_are_missing_are_named_and_not_made_up(folder):
    def drop(weights):
        for name in [n for n in weights if "layers.1." in n]:
            del weights[name]

    change_weights(folder, drop)
    message = r"lacks 9 weights that a LlamaForCausalLM has: model\.layers\.1\..* and 6 more;"
    with pytest.raises(ValueError, match=message):
        load_base(folder)


def test_weights_of_another_shape_are_named(folder):
    def cut(weights):
        weights["lm_head.weight"] = weights["lm_head.weight"][:10].contiguous()

    change_weights(folder, cut)
    with pytest.raises(ValueError, match=r"lm_head\.weight \(10, 32\) instead of \(64, 32\)"):
        load_base(folder)


# -- dtypes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_bfloat16_base_keeps_a_float32_adapter(family, tmp_path):
    FAMILIES[family]().save_pretrained(tmp_path / "base")
    loading = Loading(dtype="bfloat16")
    plain = logits(load_base(tmp_path / "base", loading))
    assert plain.dtype == torch.bfloat16
    model = attach(load_base(tmp_path / "base", loading))
    assert torch.equal(logits(model), plain)
    randomise(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    with model.strength_at(0.0):
        assert torch.equal(logits(model), plain)
    assert not torch.equal(logits(model), plain)
    save_adapter(model, tmp_path / "adapter")
    loaded = load_adapter(load_base(tmp_path / "base", loading), tmp_path / "adapter")
    assert torch.equal(logits(loaded), logits(model))
    load_adapter(load_base(tmp_path / "base"), tmp_path / "adapter")  # on the float32 base too


# -- devices ------------------------------------------------------------------------------------


@pytest.mark.parametrize("device_map", ["auto", "cpu", "sequential"])
def test_a_device_map_changes_no_number(folder, device_map):
    plain, mapped = load_base(folder), load_base(folder, Loading(device_map=device_map))
    assert torch.equal(logits(mapped), logits(plain))
    pairs = zip(gradients(steer(mapped)), gradients(steer(plain)), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_model_spread_with_hooks_is_steered_alike(folder):
    """As on several GPUs: accelerate puts a hook on every block and on the model."""
    plain, mapped = load_base(folder), load_base(folder)
    devices = dict.fromkeys(OFFLOADED, "cpu")
    accelerate.dispatch_model(mapped, devices, main_device="cpu", force_hooks=True)
    assert hasattr(mapped.model.layers[0], "_hf_hook")
    assert torch.equal(logits(mapped), logits(plain))
    mapped, plain = steer(mapped), steer(plain)
    assert torch.equal(logits(mapped), logits(plain))
    expected = gradients(plain)
    with checkpointed(mapped):
        found = gradients(mapped)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_weights_left_off_the_devices_are_refused(folder, monkeypatch):
    from_pretrained = AutoModelForCausalLM.from_pretrained
    model = from_pretrained(folder, device_map=OFFLOADED)

    def crowded(*args, **settings):
        """As "auto" does where the devices are too small."""
        return from_pretrained(*args, **(settings | {"device_map": OFFLOADED}))

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", crowded)
    with pytest.raises(ValueError, match=r"9 of its weights were left on the CPU or the disk"):
        load_base(folder, Loading(device_map="auto"))
    assert logits(model).isfinite().all()  # it runs, but
    with pytest.raises(ValueError, match="load the weights before attaching"):
        attach(model)
    with torch.device("meta"):
        bare = AutoModelForCausalLM.from_config(model.config)
    with pytest.raises(ValueError, match="meta device"):
        attach(bare)


# -- quantised bases ----------------------------------------------------------------------------


def tiny_64(dtype: torch.dtype = torch.float32):
    """Wide enough for a block of 64 weights that share a scale."""
    config = LlamaConfig(
        vocab_size=VOCAB, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    return build(config, 0, dtype)


@pytest.fixture
def quantised():
    """Loads a folder quantised, where bitsandbytes can do so on this machine."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")

    def load(folder, bits, **settings):
        return load_base(folder, Loading(quantisation=bits, **settings))

    try:
        torch.ops.bitsandbytes.int8_vectorwise_quant(torch.ones(2, 64, dtype=torch.float16))
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        pytest.skip(f"bitsandbytes has no kernels for this machine: {error}")
    return load


BITS = pytest.mark.parametrize("bits", ["8bit", "4bit"])


@BITS
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_a_quantised_base_is_steered_by_its_norms(quantised, bits, dtype, tmp_path):
    tiny_64().save_pretrained(tmp_path)
    base = quantised(tmp_path, bits, dtype=dtype)
    packed = base.model.layers[0].mlp.up_proj.weight
    assert packed.dtype == (torch.uint8 if bits == "4bit" else torch.int8)
    plain = logits(base)
    norms = find_norms(base, final=True, qk=False)
    assert norms == find_norms(tiny_64(), final=True, qk=False)
    assert {tuple(norm_weight(base.get_submodule(n)).shape) for n in norms} == {(64,)}

    model = attach(base)
    assert {tuple(p.shape) for p in model.parameters() if p.requires_grad} == {(64,)}
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert torch.equal(logits(model), plain)
    randomise(model)
    with model.strength_at(0.0):
        assert torch.equal(logits(model), plain)
    assert not torch.equal(logits(model), plain)


@BITS
def test_gradients_reach_the_adapter_of_a_quantised_base(quantised, bits, tmp_path):
    tiny_64().save_pretrained(tmp_path)
    base = quantised(tmp_path, bits)
    logits(base)  # must not cut the gradients off
    model = steer(base)
    plain = gradients(model)
    assert all(torch.isfinite(gradient).all() for gradient in plain)
    assert all(gradient.abs().max() > 1e-4 for gradient in plain)
    with checkpointed(model):
        again = gradients(model)
    for one, other in zip(again, plain, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_through_a_four_bit_base_are_those_of_its_weights_unpacked(quantised, tmp_path):
    tiny_64().save_pretrained(tmp_path)
    model = quantised(tmp_path, "4bit", dtype="float32")
    full = quantised(tmp_path, "4bit", dtype="float32").dequantize(dtype=torch.float32)
    torch.testing.assert_close(logits(model), logits(full), rtol=1e-4, atol=1e-4)
    for one, other in zip(gradients(steer(model)), gradients(steer(full)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


@BITS
def test_an_adapter_goes_from_a_quantised_to_the_full_base_and_back(quantised, bits, tmp_path):
    tiny_64(torch.bfloat16).save_pretrained(tmp_path / "base")
    small = steer(quantised(tmp_path / "base", bits), seed=1)
    full = steer(load_base(tmp_path / "base"), seed=2)
    save_adapter(small, tmp_path / "small")
    save_adapter(full, tmp_path / "full")
    reload = load_adapter(quantised(tmp_path / "base", bits), tmp_path / "small")
    assert torch.equal(logits(reload), logits(small))  # saved = loaded
    crossed = load_adapter(quantised(tmp_path / "base", bits), tmp_path / "full")
    back = load_adapter(load_base(tmp_path / "base"), tmp_path / "small")
    for here, there in ((crossed, full), (back, small)):
        ours, theirs = here.state_dict(), there.state_dict()
        names = [name for name in ours if "steering_" in name]
        assert names and all(torch.equal(ours[name], theirs[name]) for name in names)


@BITS
def test_a_checkpoint_that_is_quantised_already_loads_as_it_is(quantised, bits, tmp_path):
    tiny_64().save_pretrained(tmp_path / "base")
    base = quantised(tmp_path / "base", bits)
    base.save_pretrained(tmp_path / "packed")
    packed = load_base(tmp_path / "packed")
    assert packed.is_quantized
    torch.testing.assert_close(logits(packed), logits(base))
    other = {"8bit": "4bit", "4bit": "8bit"}[bits]
    with pytest.raises(ValueError, match=f"cannot be loaded in {other}: .* quantised already"):
        quantised(tmp_path / "packed", other)


def test_an_eight_bit_base_does_not_complain_at_every_call(quantised, tmp_path, caplog):
    tiny_64().save_pretrained(tmp_path)
    base = quantised(tmp_path, "8bit")
    with caplog.at_level(logging.WARNING):
        logits(base)
    assert "MatMul8bitLt" not in caplog.text
