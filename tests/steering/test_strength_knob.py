"""The knob: what it takes, what it refuses, what it survives."""

import copy

import pytest
import torch
from torch import nn

from dso.steering import Strength


def test_takes_numbers_lists_and_tensors():
    knob = Strength()
    assert knob.value == 1
    for value, shape in ((0.5, ()), (2, ()), ([0, 0.5, 1], (3,)), (torch.ones(4), (4,))):
        knob.set(value)
        assert knob.value.shape == shape
        assert knob.value.dtype == torch.float32


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, [0.1, float("nan")], [1, -1]])
def test_refuses_what_is_not_finite_or_negative(value):
    knob = Strength(0.3)
    with pytest.raises(ValueError, match="finite and at least 0"):
        knob.set(value)
    assert knob.value == torch.tensor(0.3)


@pytest.mark.parametrize("value", [[], [[0.1]], torch.ones(2, 2)])
def test_refuses_other_shapes(value):
    with pytest.raises(ValueError, match="shape"):
        Strength(value)


@pytest.mark.parametrize("value", ["strong", None, [0.1, "x"]])
def test_refuses_what_is_no_number(value):
    with pytest.raises(TypeError, match="strength must be a number"):
        Strength(value)


def test_context_restores_whatever_happens():
    knob = Strength(0.3)
    tensor = knob.value
    with knob.at([0.1, 0.2]):
        assert knob.value.tolist() == pytest.approx([0.1, 0.2])
        with knob.at(0.9):
            assert knob.value == torch.tensor(0.9)
        knob.set(0.4)
    with pytest.raises(RuntimeError, match="inside"), knob.at(0.7):
        raise RuntimeError("inside")
    with pytest.raises(ValueError, match="finite"), knob.at(-1):
        pass
    assert knob.value is tensor
    assert tensor == torch.tensor(0.3)


def test_a_number_is_written_in_place():
    knob = Strength(0.3)
    tensor = knob.value
    knob.set(0.8)
    assert knob.value is tensor
    assert tensor == torch.tensor(0.8)


def test_turned_in_inference_mode_it_still_trains():
    knob = Strength()
    with torch.inference_mode():
        knob.set([0.1, 0.2])
        knob.set(torch.ones(3))
        with knob.at(0.5):
            pass
    weight = torch.ones(3, requires_grad=True)
    (weight * knob.value).sum().backward()
    knob.set([1, 2, 3])


def test_casts_leave_it_and_moves_take_it_along():
    model = nn.Sequential(Strength(0.3), nn.Linear(2, 2)).to(torch.bfloat16)
    assert model[1].weight.dtype == torch.bfloat16
    assert model[0].value.dtype == torch.float32
    assert model[0].value == torch.tensor(0.3)
    assert model.to("meta")[0].value.device.type == "meta"


def test_is_shared_copied_together_and_not_saved():
    knob = Strength(0.3)
    model = nn.ModuleList([nn.Sequential(knob), nn.Sequential(knob)])
    twin = copy.deepcopy(model)
    twin[0][0].set(0.9)
    assert twin[1][0].value == torch.tensor(0.9)
    assert knob.value == torch.tensor(0.3)
    assert not model.state_dict()
