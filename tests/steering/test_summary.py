"""What `describe()` prints, and that it says so where the model is the base model."""

import pytest
import torch

from dso.steering import SteeringConfig, attach
from tests.steering.steered import randomise, steer
from tests.tiny_models import tiny_llama, tiny_phi, tokens

BASE = "NO EFFECT, this is the base model: "


def zero(model, *kinds):
    for name, parameter in model.named_parameters():
        if any(f"steering_{kind}" in name for kind in kinds):
            parameter.data.zero_()


def test_a_table_of_the_norms():
    model = steer(tiny_llama())
    model.set_strength(0.5)
    summary = model.describe()
    head, columns, *rows = str(summary).splitlines()
    assert head == "adapters default at strength 0.5: 4 norms, 256 parameters"
    assert columns.split() == ["mean", "|a|", "mean", "|b|", "width", "norm"]
    assert [row.split()[-1] for row in rows] == list(summary.names)
    layer = model.get_base_model().model.layers[0].input_layernorm
    scale, shift = layer.steering_scale["default"], layer.steering_shift["default"]
    assert rows[0].split()[:3] == [f"{scale.abs().mean():.2e}", f"{shift.abs().mean():.2e}", "32"]
    assert summary.idle is None


@pytest.mark.parametrize("strength", [0.0, [0.0, 0.0], [0.0, 0.3]])
def test_no_strength_is_said(strength):
    model = steer(tiny_llama())
    model.set_strength(strength)
    off = not torch.as_tensor(strength).any()
    assert (model.describe().idle == "the strength is 0") == off
    assert (f"{BASE}the strength is 0" in str(model.describe())) == off
    assert (model.check_effect(tokens(2)) == 0) == off


def test_adapters_of_zeros_are_said():
    model = attach(tiny_llama())
    assert BASE + "all that the active adapters add is 0" in str(model.describe())
    assert model.check_effect(tokens()) == 0
    layer = model.get_base_model().model.layers[1].post_attention_layernorm
    layer.steering_shift["default"].data[3] = 1e-3
    assert model.describe().idle is None
    assert model.check_effect(tokens()) > 0


def test_a_low_rank_part_alone_has_an_effect():
    model = attach(tiny_llama(), SteeringConfig(rank=2))
    assert "add is 0" in str(model.describe())
    randomise(model)
    zero(model, "scale", "shift")
    assert model.describe().idle is None
    zero(model, "left")
    assert "add is 0" in str(model.describe())


def test_adapters_that_are_off_or_cancel_are_said():
    model = steer(tiny_phi())
    with model.disable_adapter():
        assert BASE + "the adapters are disabled" in str(model.describe())
        assert "(disabled)" in str(model.describe())
    assert BASE not in str(model.describe())
    attach(model, SteeringConfig(), adapter_name="other")
    for norm in (model.get_submodule(f"base_model.model.{n}") for n in model.describe().names):
        for parts in (norm.steering_scale, norm.steering_shift):
            parts["other"].data.copy_(-parts["default"])
    model.base_model.set_adapter(["default", "other"])
    assert BASE + "all that the active adapters add is 0" in str(model.describe())
    model.set_adapter("other")
    assert model.describe().idle is None
