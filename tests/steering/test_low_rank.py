"""The low-rank part U Vᵀ h: identities of the transform, the steered model and its folder."""

import copy

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

from dso.checkpointing import checkpointed
from dso.steering import (
    AffineSteering,
    SteeringConfig,
    Strength,
    affine,
    attach,
    find_norms,
    load_adapter,
    low_rank,
    save_adapter,
    sparsify,
)
from dso.steering.backbone import input_norms
from dso.steering.sparsity import adapter_parts
from tests.organism import adapter, organism
from tests.steering.conformance import close, each_row_alone, generate, logits
from tests.steering.steered import randomise, steer
from tests.tiny_models import ALL_FAMILIES, BLOCKS, tiny, tiny_llama, tokens

SHAPES = [(6, 8), (3, 4, 8), (3, 2, 4, 8)]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
ROWS = [0.0, 0.3, 1.0]
RANKED = SteeringConfig(rank=2)


def parts(width=8, rank=2, seed=0):
    """a, b, U, V."""
    draws = torch.Generator().manual_seed(seed)
    shapes = [(width,), (width,), (width, rank), (width, rank)]
    return [torch.randn(shape, generator=draws) for shape in shapes]


def trained(model):
    return {name: p for name, p in model.named_parameters() if "steering_" in name}


# -- the transform ------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_formula_vector_by_vector(shape):
    scale, shift, left, right = parts()
    hidden = torch.randn(shape)
    product = torch.stack([left @ (right.T @ h) for h in hidden.view(-1, 8)]).view(shape)
    assert torch.allclose(low_rank(hidden, left, right), product, atol=1e-5)
    pairs = [(left, right)]
    for a, b in ((scale, shift), (scale, None), (None, shift), (None, None)):
        term = product + (0 if a is None else a * hidden) + (0 if b is None else b)
        out = affine(hidden, a, b, torch.tensor(0.7), pairs)
        assert torch.allclose(out, hidden + 0.7 * term, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_no_strength_changes_nothing(dtype, shape):
    scale, shift, left, right = parts()
    hidden = (100 * torch.randn(shape, dtype=torch.float64)).to(dtype)
    for omega in (torch.tensor(0.0), torch.zeros(shape[0])):
        out = affine(hidden, scale, shift, omega, [(left, right)])
        assert torch.equal(out, hidden)
        assert out.dtype == dtype


def test_without_pairs_it_is_the_plain_form_bit_for_bit():
    scale, shift, _, _ = parts()
    for dtype in (torch.float32, torch.bfloat16):
        hidden, omega = torch.randn(3, 4, 8).to(dtype), torch.tensor(0.7)
        wide = hidden.float()
        both = torch.addcmul(omega * shift, wide, 1 + omega * scale)
        assert torch.equal(affine(hidden, scale, shift, omega), both.to(dtype))
        one = wide * (1 + omega * scale)
        assert torch.equal(affine(hidden, scale, None, omega), one.to(dtype))
        other = wide + omega * shift
        assert torch.equal(affine(hidden, None, shift, omega), other.to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_rounded_once_and_autocast_changes_nothing(dtype):
    scale, shift, left, right = parts()
    hidden, omega = torch.randn(3, 4, 8).to(dtype), torch.tensor(0.3)
    wide = affine(hidden.float(), scale, shift, omega, [(left, right)])
    assert torch.equal(affine(hidden, scale, shift, omega, [(left, right)]), wide.to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(affine(hidden, scale, shift, omega, [(left, right)]), wide.to(dtype))


def test_rows_are_the_rows_alone_also_in_a_flattened_batch():
    scale, shift, left, right = parts()
    hidden, strength = torch.randn(3, 4, 8), torch.tensor(ROWS)
    together = affine(hidden, scale, shift, strength, [(left, right)])
    for row in range(3):
        alone = affine(hidden[row : row + 1], scale, shift, strength[row], [(left, right)])
        assert torch.allclose(together[row : row + 1], alone, atol=1e-6)
    flat = affine(hidden.view(12, 8), scale, shift, strength, [(left, right)])
    assert torch.allclose(flat.view(3, 4, 8), together, atol=1e-6)


def test_active_adapters_add_up():
    layer = AffineSteering(nn.LayerNorm(8), Strength(0.5))
    layer.add_adapter("one", scale=True, shift=True, rank=2)
    layer.add_adapter("two", scale=False, shift=True)
    layer.add_adapter("three", scale=True, shift=False, rank=3)
    for name, parameter in layer.named_parameters():
        if "steering_" in name:
            parameter.data.normal_()
    hidden = torch.randn(2, 3, 8)
    normed = layer.base_layer(hidden)
    layer.set_adapter(["one", "two", "three"])
    term = (layer.steering_scale["one"] + layer.steering_scale["three"]) * normed
    term = term + layer.steering_shift["one"] + layer.steering_shift["two"]
    for name in ("one", "three"):
        term = term + normed @ layer.steering_right[name] @ layer.steering_left[name].T
    assert torch.allclose(layer(hidden), normed + 0.5 * term, atol=1e-5)
    layer.set_adapter("two")
    expected = affine(normed, None, layer.steering_shift["two"], torch.tensor(0.5))
    assert torch.equal(layer(hidden), expected)


# -- the steered model --------------------------------------------------------------------------


@pytest.mark.parametrize("family", ALL_FAMILIES)
def test_every_block_has_one_input_norm(family):
    model = tiny(family)
    names = input_norms(model)
    assert len(names) == BLOCKS
    assert set(names) <= set(find_norms(model, final=False, qk=False))
    ranked = [n.name for n in attach(model, RANKED).describe().norms if n.rank]
    assert ranked == names == input_norms(model)


@pytest.mark.parametrize(
    ("family", "leaf"),
    [
        ("llama", "input_layernorm"),
        ("mixtral", "input_layernorm"),
        ("gemma3", "input_layernorm"),
        ("gpt2", "ln_1"),
        ("opt", "self_attn_layer_norm"),
    ],
)
def test_the_input_norms_are_those_before_the_attention(family, leaf):
    assert {name.rpartition(".")[2] for name in input_norms(tiny(family))} == {leaf}


def test_all_norms_can_have_it():
    config = SteeringConfig(rank=3, rank_norms="all", final_norm=True, qk_norms=True)
    model = steer(tiny("qwen3"), config)
    summary = model.describe()
    assert {norm.rank for norm in summary.norms} == {3}
    assert summary.num_parameters == sum((2 + 2 * 3) * norm.width for norm in summary.norms)
    assert "‖U Vᵀ‖" in str(summary)
    assert "rank" not in str(steer(tiny("qwen3")).describe())
    first = next(m for m in model.modules() if isinstance(m, AffineSteering))
    product = first.steering_left["default"] @ first.steering_right["default"].T
    assert summary.norms[0].low_rank_norm == pytest.approx(float(product.detach().norm()), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_strength_and_a_fresh_adapter_are_the_base(base, dtype):
    base = base.to(dtype)
    expected = logits(base)
    model = attach(base, RANKED).eval()
    assert torch.equal(logits(model), expected)
    randomise(model)
    assert not torch.equal(logits(model), expected)
    for strength in (0.0, [0.0] * 3):
        assert torch.equal(logits(model, strength=strength), expected)
    with model.disable_adapter():
        assert torch.equal(logits(model), expected)


def test_without_u_it_is_the_plain_adapter_bit_for_bit(base):
    model = steer(base, RANKED)
    vectors = {}
    for name, parameter in trained(model).items():
        if "_left" in name:
            parameter.data.zero_()
        if "_scale" in name or "_shift" in name:
            vectors[name] = parameter.data
    got = logits(model, strength=ROWS)
    plain = attach(model.unload()).eval()
    assert trained(plain).keys() == vectors.keys()
    for name, parameter in trained(plain).items():
        parameter.data.copy_(vectors[name])
    assert torch.equal(logits(plain, strength=ROWS), got)


def test_a_fresh_adapter_is_the_same_every_time_and_draws_no_random_numbers():
    models = tiny_llama(), tiny_llama()
    state = torch.get_rng_state()
    one, two = (trained(attach(model, RANKED)) for model in models)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(p, two[name]) for name, p in one.items())
    rights = [p for name, p in one.items() if "_right" in name]
    assert not torch.equal(*rights)
    assert all(0.5 < float(p.std()) * p.shape[0] ** 0.5 < 2 for p in rights)
    assert not any(bool(p.any()) for name, p in one.items() if "_right" not in name)


def test_a_row_of_a_batch_is_the_row_alone(base):
    model = steer(base, RANKED)
    assert close(logits(model, strength=ROWS), each_row_alone(logits, model))
    assert torch.equal(generate(model, strength=ROWS), each_row_alone(generate, model))
    assert not torch.equal(generate(model, strength=1.0), generate(model, strength=0.0))


def test_adapters_switch_sum_and_go(base):
    model = steer(base, RANKED)
    first = logits(model)
    attach(model, SteeringConfig(rank=1, rank_norms="all"), adapter_name="other")
    assert torch.equal(logits(model), first)
    model.base_model.set_adapter(["default", "other"])
    assert close(logits(model), first)  # a fresh adapter adds nothing
    randomise(model, seed=3, adapter="other")
    both = logits(model)
    assert not close(both, first)
    model.set_adapter("other")
    assert all(p.requires_grad == n.endswith(".other") for n, p in trained(model).items())
    model.set_adapter("default")
    model.delete_adapter("other")
    assert not any(".other" in name for name in trained(model))
    assert torch.equal(logits(model), first)
    twin = copy.deepcopy(model)
    randomise(twin, seed=9)
    assert torch.equal(logits(model), first)
    assert not close(logits(twin), first)


def test_the_gradient_reaches_u_and_after_a_step_v(base):
    model = attach(base, RANKED)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for step in range(2):
        optimizer.zero_grad()
        model(input_ids=tokens(), labels=tokens()).loss.backward()
        for name, parameter in trained(model).items():
            if "_left" in name:
                assert parameter.grad.abs().max() > 1e-6
            if "_right" in name:
                assert bool(parameter.grad.any()) == (step > 0)
        optimizer.step()


def test_checkpointing_gives_the_same_gradient(base):
    model = steer(base, RANKED)
    gradients = []
    for again in (False, True):
        model.zero_grad()
        with model.strength_at(ROWS):
            if again:
                with checkpointed(model):
                    loss = model(input_ids=tokens(), labels=tokens(), use_cache=False).loss
            else:
                loss = model(input_ids=tokens(), labels=tokens(), use_cache=False).loss
        loss.backward()
        gradients.append({name: p.grad.clone() for name, p in trained(model).items()})
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 1e-6
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-6, rtol=1e-4)


def test_sparsify_leaves_it_as_it_is():
    model = steer(tiny_llama(), RANKED)
    before = {name: p.clone() for name, p in trained(model).items()}
    sparsify(model, 0.5)
    for name, parameter in trained(model).items():
        low = "_left" in name or "_right" in name
        assert torch.equal(parameter, before[name]) == low
    assert all(len(pair) == 2 for pair in adapter_parts(model))


# -- config and folder --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"rank": -1}, ValueError, "rank must not be negative"),
        ({"rank": 1.5}, TypeError, "rank must be a whole number, got 1.5"),
        ({"rank": 2, "rank_norms": "first"}, ValueError, "rank_norms must be 'input' or 'all'"),
        ({"rank": 2, "scale": False, "shift": False}, ValueError, "comes beside them"),
    ],
)
def test_bad_fields_are_named(fields, error, message):
    with pytest.raises(error, match=message):
        SteeringConfig(**fields)


def test_norms_that_would_have_none_are_refused():
    names = ["model.layers.0.post_attention_layernorm"]
    with pytest.raises(ValueError, match="none of the norms in target_modules is the input norm"):
        attach(tiny_llama(), SteeringConfig(rank=2, target_modules=names))
    attach(tiny_llama(), SteeringConfig(rank=2, rank_norms="all", target_modules=names))


@pytest.fixture
def saved(tmp_path):
    return save_adapter(steer(tiny_llama(), RANKED), tmp_path / "adapter")


def test_saved_is_loaded(base, tmp_path):
    model = steer(base, RANKED)
    expected = logits(model), logits(model, strength=ROWS)
    save_adapter(model, tmp_path / "a")
    plain = model.unload()
    for load in (load_adapter, PeftModel.from_pretrained):
        loaded = load(plain, tmp_path / "a")
        assert torch.equal(logits(loaded), expected[0])
        loaded.set_strength(ROWS)
        assert torch.equal(logits(loaded), expected[1])
        plain = loaded.unload()


def test_the_folder_says_what_it_is(saved):
    weights = load_file(saved / "adapter_model.safetensors")
    shapes = {tuple(v.shape) for k, v in weights.items() if k.endswith(("_left", "_right"))}
    assert shapes == {(32, 2)}
    assert len(weights) == BLOCKS * (2 * 2 + 2)
    config = SteeringConfig.from_pretrained(str(saved))
    assert (config.rank, config.rank_norms, config.foldable) == (2, "input", True)
    card = (saved / "README.md").read_text()
    assert "h' = h + ω (a ⊙ h + b + U Vᵀ h), with" in card
    assert "U Vᵀ, of rank 2 and behind the input norm of every block" in card


LEFT = "base_model.model.model.layers.0.input_layernorm.steering_left"
OTHER = "base_model.model.model.layers.0.post_attention_layernorm.steering_right"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(LEFT), f"{LEFT} is missing"),
        (lambda w: w.update({LEFT: torch.zeros(32, 3)}), r"shape \(32, 3\), not \(32, 2\)"),
        (lambda w: w.update({LEFT: torch.zeros(32)}), r"shape \(32,\), not \(32, 2\)"),
        (lambda w: w.update({OTHER: torch.zeros(32, 2)}), f"{OTHER} is unexpected"),
        (lambda w: w[LEFT].fill_(float("inf")), "steering_left holds numbers that are not finite"),
    ],
)
def test_wrong_tensors_are_named(saved, change, message):
    path = saved / "adapter_model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    base = tiny_llama()
    with pytest.raises(ValueError, match=message):
        load_adapter(base, saved)
    assert not trained(base)


def test_the_shipped_adapter_loads_and_computes_as_ever():
    model = load_adapter(AutoModelForCausalLM.from_pretrained(organism()), adapter()).eval()
    config = model.peft_config["default"]
    assert (config.rank, config.foldable) == (0, True)
    weights = load_file(f"{adapter()}/adapter_model.safetensors")
    own = {name.removesuffix(".default"): p for name, p in trained(model).items()}
    assert own.keys() == weights.keys()
    assert all(torch.equal(own[name], value) for name, value in weights.items())
    layers = [m for m in model.modules() if isinstance(m, AffineSteering)]
    seen = []

    def formula(layer, inputs, output):
        normed = layer.base_layer(*inputs)
        a, b = layer.steering_scale["default"], layer.steering_shift["default"]
        omega = torch.tensor(0.7)
        seen.append(torch.equal(output, torch.addcmul(omega * b, normed, 1 + omega * a)))

    for layer in layers:
        layer.register_forward_hook(formula)
    logits(model, tokens(), strength=0.7)
    assert seen == [True] * len(layers) == [True] * 8
