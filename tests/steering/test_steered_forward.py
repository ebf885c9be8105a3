"""Identities of a steered model's forward pass."""

import copy

import pytest
import torch
from peft import PeftModel, get_peft_model

from dso.steering import AffineSteering, SteeringConfig, attach, find_norms, register, tuner
from tests.steering.steered import randomise, steer
from tests.tiny_models import FAMILIES, MORE_FAMILIES, tiny_llama, tiny_opt, tokens


def logits(model, ids, **kwargs):
    with torch.no_grad():
        return model(input_ids=ids, **kwargs).logits


@pytest.mark.parametrize("family", sorted(FAMILIES | MORE_FAMILIES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_strength_is_the_base_bit_for_bit(family, dtype):
    base = (FAMILIES | MORE_FAMILIES)[family](dtype=dtype)
    expected = logits(base, tokens())
    model = steer(base, SteeringConfig(final_norm=True))
    assert not torch.equal(logits(model, tokens()), expected)
    assert torch.equal(logits(model, tokens(), strength=0.0), expected)
    assert torch.equal(logits(model, tokens(), strength=[0.0] * 3), expected)
    with model.disable_adapter():
        assert torch.equal(logits(model, tokens()), expected)
        assert torch.equal(logits(model, tokens(), strength=0.5), expected)


def test_a_fresh_adapter_is_the_base(base):
    expected = logits(base, tokens())
    assert torch.equal(logits(attach(base), tokens()), expected)


@pytest.mark.parametrize("family", [*sorted(FAMILIES), "opt", "llava", "gpt_neox"])
def test_a_row_of_a_mixed_batch_is_the_row_alone(family):
    model = steer((FAMILIES | MORE_FAMILIES)[family]())
    strengths = [0.0, 0.3, 1.0]
    mixed = logits(model, tokens(), strength=strengths)
    for row, strength in enumerate(strengths):
        alone = logits(model, tokens()[row : row + 1], strength=strength)
        assert torch.allclose(mixed[row : row + 1], alone, atol=1e-5)
    assert model.strength == 1


def test_left_padded_is_unpadded(base):
    model = steer(base)
    ids = tokens()
    padded = torch.cat([torch.zeros(3, 4, dtype=torch.long), ids], dim=1)
    mask = (padded != 0).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    got = logits(
        model, padded, attention_mask=mask, position_ids=positions, strength=[0.0, 0.3, 1.0]
    )
    assert torch.allclose(got[:, 4:], logits(model, ids, strength=[0.0, 0.3, 1.0]), atol=1e-4)


def test_a_low_precision_base_keeps_a_float32_adapter():
    model = steer(tiny_llama(dtype=torch.bfloat16))
    trained = [p for p in model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    assert logits(model, tokens()).dtype == torch.bfloat16
    assert model.strength.dtype == torch.float32


def test_only_the_adapter_trains(base):
    norms = len(find_norms(base, final=False, qk=False))
    model = attach(base)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all("steering_" in name for name in trained)
    assert model.get_nb_trainable_parameters()[0] == 2 * 32 * norms
    only_scale = attach(copy.deepcopy(model.unload()), SteeringConfig(shift=False))
    assert only_scale.get_nb_trainable_parameters()[0] == 32 * norms


def test_query_and_key_norms_are_steered_too():
    model = steer(MORE_FAMILIES["qwen3"](), SteeringConfig(qk_norms=True))
    assert sum(name.endswith("_norm") for name in model.describe().names) == 4
    mixed = logits(model, tokens(), strength=[0.0, 0.3, 1.0])
    assert torch.allclose(mixed[1:2], logits(model, tokens()[1:2], strength=0.3), atol=1e-5)


def test_an_image_tower_with_the_same_names_stays_unsteered():
    model = steer(MORE_FAMILIES["llava"]())
    steered = [n for n, m in model.named_modules() if isinstance(m, AffineSteering)]
    assert len(steered) == 4
    assert not any("vision" in name for name in steered)


def test_a_name_means_that_module_and_no_other_that_ends_like_it():
    base = tiny_llama().model
    base.add_module("tower", tiny_llama(1).model)
    name = "layers.0.input_layernorm"
    model = attach(base, SteeringConfig(task_type=None, target_modules=[name]))
    assert model.describe().names == (name,)


def test_two_adapters_and_switching(base):
    model = steer(base, seed=1)
    first = logits(model, tokens())
    attach(model, SteeringConfig(final_norm=True), adapter_name="other")
    randomise(model, seed=2, adapter="other")
    assert torch.equal(logits(model, tokens()), first)
    model.set_adapter("other")
    second = logits(model, tokens())
    assert not torch.allclose(second, first)
    model.base_model.set_adapter(["default", "other"])
    assert not torch.allclose(logits(model, tokens()), second)
    model.set_adapter("default")
    assert torch.equal(logits(model, tokens()), first)
    model.delete_adapter("other")
    assert torch.equal(logits(model, tokens()), first)


def test_a_copy_has_its_own_weights_and_knob(base):
    model = steer(base)
    before = logits(model, tokens())
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin, tokens()), before)
    twin.set_strength(0.2)
    randomise(twin, seed=9)
    assert model.strength == 1
    assert torch.equal(logits(model, tokens()), before)
    assert not torch.equal(logits(twin, tokens(), strength=1.0), before)


def test_unloading_gives_the_base_back(base):
    expected = logits(base, tokens())
    model = steer(base)
    assert torch.equal(logits(model.unload(), tokens()), expected)


def test_describe_and_check_effect():
    model = steer(tiny_llama()).train()
    model.set_strength([0.5, 1.0])
    summary = model.describe()
    assert summary.num_norms == 4
    assert summary.names[0] == "model.layers.0.input_layernorm"
    assert summary.widths == (32,) * 4
    assert summary.num_parameters == 4 * 2 * 32
    assert summary.strength == (0.5, 1.0)
    assert summary.enabled
    assert all(norm.mean_abs_scale > 0 and norm.mean_abs_shift > 0 for norm in summary.norms)
    assert "post_attention_layernorm" in str(summary)
    assert model.check_effect(tokens(2)) > 0.01
    assert model.training
    model.set_strength(0)
    assert model.check_effect(tokens(2)) == 0
    with model.disable_adapter():
        assert not model.describe().enabled


def test_the_strength_of_a_call_ends_with_it():
    model = steer(tiny_llama())
    model.set_strength(0.4)
    with model.strength_at(0.1):
        assert model.strength == torch.tensor(0.1)
    with pytest.raises(ValueError, match="2 entries but the batch has 3 rows"):
        model(tokens(), strength=[0.1, 0.2])
    with pytest.raises(ValueError, match="finite"):
        model(tokens(), strength=float("nan"))
    assert model.strength == torch.tensor(0.4)


def test_a_flattened_batch_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="2 entries but the batch has 4 rows"):
        steer(tiny_opt())(tokens(4), strength=[0.1, 0.2])


def test_one_adapter_per_row_is_refused():
    with pytest.raises(ValueError, match="adapter_names"):
        steer(tiny_llama())(tokens(1), adapter_names=["default"])


def test_gradient_checkpointing_gives_the_same_gradient(base):
    model = steer(base).train()
    gradients = []
    for checkpointed in (False, True):
        if checkpointed:
            model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
        model.zero_grad()
        with model.strength_at([0.2, 0.5, 1.0]):
            model(tokens(), labels=tokens()).loss.backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        gradients.append(torch.cat([p.grad for p in trained]))
    assert gradients[0].abs().max() > 0
    assert torch.allclose(gradients[0], gradients[1], atol=1e-6)
    with pytest.raises(ValueError, match="strength_at"):
        model(tokens(), strength=0.5)


def test_the_knob_may_turn_between_forward_and_backward():
    model = steer(tiny_llama())
    steered = model(tokens()).logits
    base = logits(model, tokens(), strength=0.0)
    (steered - base).square().sum().backward()
    scale = next(p for n, p in model.named_parameters() if "steering_scale" in n)
    assert scale.grad.abs().max() > 0


def test_turning_the_knob_does_not_recompile():
    model = steer(tiny_llama())
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    expected = {omega: logits(model, tokens(), strength=omega) for omega in (0.0, 0.5, 1.0)}
    with torch.no_grad():
        compiled(input_ids=tokens())
        with torch._dynamo.config.patch(error_on_recompile=True):
            for omega, want in expected.items():
                model.set_strength(omega)
                assert torch.allclose(compiled(input_ids=tokens()).logits, want, atol=1e-5)
                with model.strength_at(0.3):
                    compiled(input_ids=tokens())
    torch._dynamo.reset()


def test_peft_itself_can_attach_it():
    model = get_peft_model(tiny_llama(), SteeringConfig())
    assert isinstance(model, PeftModel)
    randomise(model)
    base = logits(tiny_llama(), tokens())
    assert torch.equal(logits(model, tokens(), strength=0.0), base)
    headless = attach(tiny_llama().model, SteeringConfig(task_type=None))
    randomise(headless)
    out = headless(input_ids=tokens(), strength=0.0).last_hidden_state
    assert torch.equal(out, tiny_llama().model(input_ids=tokens()).last_hidden_state)


def test_registering_twice_is_fine_and_a_taken_name_is_refused(monkeypatch):
    register()
    monkeypatch.setitem(tuner.mapping.PEFT_TYPE_TO_TUNER_MAPPING, "DSO_STEERING", object)
    with pytest.raises(ValueError, match="already knows DSO_STEERING"):
        register()
