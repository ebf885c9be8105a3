"""Inside `Strength.steady` layers use again what they computed, and only the time shows it."""

import copy

import pytest
import torch
from torch import nn

from dso.steering import AffineSteering, SteeringConfig, Strength, layer
from tests.steering.conformance import generate, logits, shared
from tests.steering.steered import randomise, steer
from tests.tiny_models import tiny_gpt2, tiny_llama, tiny_opt

ROWS = [0.0, 0.3, 1.0]
ALONE = {"scale": False, "shift": False, "rank": 2}
PARTS = [{}, {"shift": False}, {"scale": False}, {"rank": 2}, ALONE]


@pytest.fixture
def computed(monkeypatch):
    """How often factors were computed."""
    calls = []
    plain = layer._factors

    def counted(*given):
        calls.append(given)
        return plain(*given)

    monkeypatch.setattr(layer, "_factors", counted)
    return calls


def one_norm(dtype=torch.float32, **parts):
    norm = AffineSteering(nn.LayerNorm(8).to(dtype), Strength(0.5))
    norm.add_adapter("default", **({"scale": True, "shift": True} | parts))
    norm.set_adapter("default")
    randomise(norm)
    return norm


@torch.no_grad()
def alike(norm, hidden):
    """Whether what comes out is what comes out with nothing kept."""
    kept, norm.strength.kept = norm.strength.kept, None
    plain = norm(hidden)
    norm.strength.kept = kept
    return torch.equal(norm(hidden), plain) and torch.equal(norm(hidden), plain)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("strength", [0.0, 0.7, ROWS])
def test_nothing_shows(dtype, parts, strength):
    norm = one_norm(dtype, **parts)
    norm.strength.set(strength)
    hidden = torch.randn(3, 4, 8).to(dtype)
    with norm.strength.steady():
        # A prompt, tokens, and rows laid side by side, as some models do, of several lengths.
        for some in (hidden, hidden[:, -1:], hidden[:, -1:], hidden.view(12, 8), hidden[:, 0]):
            assert alike(norm, some)
            assert torch.equal(norm(some), norm.base_layer(some)) == (strength == 0)


def test_factors_are_computed_once(computed):
    norm = one_norm()
    hidden = torch.randn(3, 1, 8)
    with torch.no_grad(), norm.strength.steady():
        for _ in range(5):
            norm(hidden)
        assert len(computed) == 1
        norm.strength.set(0.2)
        norm(hidden)
        assert len(computed) == 2
    with torch.no_grad():
        norm(hidden)
        norm(hidden)
    assert len(computed) == 4
    assert norm.strength.kept is None


def changes():
    """Ways to change what comes out, one after another."""
    yield "set", lambda norm: norm.strength.set(0.2)
    yield "set for rows", lambda norm: norm.strength.set(ROWS)
    yield "other rows", lambda norm: norm.strength.set(ROWS[::-1])
    yield "written in place", lambda norm: norm.strength.value.fill_(0.9)
    yield "back to a number", lambda norm: norm.strength.set(0.4)
    yield "scale in place", lambda norm: norm.steering_scale["default"].add_(1.0)
    yield "shift in place", lambda norm: norm.steering_shift["default"].mul_(2.0)
    yield "one entry", lambda norm: norm.steering_shift["default"].__setitem__(3, 7.0)
    yield (
        "loaded",
        lambda norm: norm.load_state_dict(
            {name: value + 1 for name, value in norm.state_dict().items()}
        ),
    )
    yield "optimised", optimised
    yield (
        "another parameter",
        lambda norm: norm.steering_scale.update({"default": nn.Parameter(torch.randn(8))}),
    )
    yield "another adapter", lambda norm: norm.set_adapter("other")
    yield "both", lambda norm: norm.set_adapter(["default", "other"])
    yield "disabled", lambda norm: norm.enable_adapters(False)
    yield "enabled", lambda norm: norm.enable_adapters(True)
    yield "one deleted", lambda norm: norm.delete_adapter("other")
    yield "wider", lambda norm: norm.double()


def optimised(norm):
    for parameter in norm.steering_shift.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.AdamW(norm.steering_shift.parameters(), lr=0.1).step()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_every_change_is_noticed(mode):
    norm = one_norm()
    norm.add_adapter("other", scale=True, shift=True)
    randomise(norm, seed=3, adapter="other")
    hidden = torch.randn(3, 2, 8)
    with mode(), norm.strength.steady():
        before = norm(hidden)
        for name, change in changes():
            change(norm)
            hidden = hidden.to(norm.weight.dtype)
            after = norm(hidden)
            assert not torch.equal(after, before), name
            assert alike(norm, hidden), name
            before = after


def test_a_context_inside_turns_the_knob_and_back():
    norm = one_norm()
    hidden = torch.randn(3, 1, 8)
    with torch.no_grad(), norm.strength.steady():
        outside = norm(hidden)
        with norm.strength.at(0.0):
            assert torch.equal(norm(hidden), norm.base_layer(hidden))
        with norm.strength.at(ROWS), norm.strength.steady():
            assert not torch.equal(norm(hidden), outside)
            assert alike(norm, hidden)
        assert torch.equal(norm(hidden), outside)
        with pytest.raises(RuntimeError, match="inside"), norm.strength.steady():
            raise RuntimeError("inside")
        assert norm.strength.kept is not None
    assert norm.strength.kept is None


def test_gradients_are_those_of_now():
    norm = one_norm()
    hidden = torch.randn(3, 2, 8)

    def gradient():
        norm.zero_grad()
        norm(hidden).square().sum().backward()
        return norm.steering_scale["default"].grad.clone()

    expected = gradient()
    with norm.strength.steady():
        with torch.no_grad():
            norm(hidden)
        assert torch.equal(gradient(), expected)
        norm.steering_scale["default"].data.mul_(2.0)
        assert not torch.equal(gradient(), expected)


def test_tensors_that_do_not_count_their_changes_are_not_kept():
    with torch.inference_mode():
        norm = one_norm()
        hidden = torch.randn(3, 1, 8)
        with norm.strength.steady():
            before = norm(hidden)
            norm.steering_scale["default"].add_(1.0)
            assert not torch.equal(norm(hidden), before)
            assert alike(norm, hidden)


def test_a_copy_made_meanwhile_is_its_own():
    norm = one_norm()
    hidden = torch.randn(3, 1, 8)
    with torch.no_grad(), norm.strength.steady():
        before = norm(hidden)
        twin = copy.deepcopy(norm)
        assert torch.equal(twin(hidden), before)
        twin.strength.set(0.1)
        twin.steering_scale["default"].add_(1.0)
        assert alike(twin, hidden)
        assert torch.equal(norm(hidden), before)


@pytest.mark.parametrize("family", ["llama", "opt", "gemma2"])
def test_a_generation_is_what_it_is_without(family):
    model = shared(family)
    knob = model.base_model.knob
    for strength in (0.7, ROWS):
        expected = generate(model, strength=strength, num_beams=2)
        with knob.steady():
            assert torch.equal(generate(model, strength=strength, num_beams=2), expected)


@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2, tiny_opt])
def test_no_strength_is_the_base_bit_for_bit(build):
    for dtype in (torch.float32, torch.bfloat16):
        expected = logits(build(dtype=dtype))
        model = steer(build(dtype=dtype), SteeringConfig(rank=2))
        with model.base_model.knob.steady():
            logits(model)
            for strength in (0.0, [0.0] * 3):
                assert torch.equal(logits(model, strength=strength), expected)
            assert torch.equal(logits(model, strength=strength), expected)


@torch.no_grad()
def test_a_compiled_layer_keeps_nothing():
    norm, hidden = one_norm(), torch.randn(3, 1, 8)
    compiled = torch.compile(norm, backend="eager", fullgraph=True)
    with norm.strength.steady():
        for strength in (1.0, 0.3):
            norm.strength.set(strength)
            assert torch.allclose(compiled(hidden), norm(hidden))
            norm.strength.kept.clear()
            compiled(hidden)
            assert not norm.strength.kept
    torch._dynamo.reset()
