"""The transform: what it computes, and what it leaves alone."""

import pytest
import torch
from torch import nn

from dso.steering import AffineSteering, Strength, affine

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


def parts(width=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(width, generator=generator) for _ in range(2)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 8), (3, 4, 8), (3, 2, 4, 8)])
def test_no_strength_changes_nothing(dtype, shape):
    scale, shift = parts()
    hidden = (100 * torch.randn(shape, dtype=torch.float64)).to(dtype)
    for a, b in ((scale, shift), (scale, None), (None, shift)):
        out = affine(hidden, a, b, torch.tensor(0.0))
        assert torch.equal(out, hidden)
        assert out.dtype == dtype
    rows = torch.zeros(shape[0])
    assert torch.equal(affine(hidden, scale, shift, rows), hidden)


@pytest.mark.parametrize("shape", [(5, 8), (3, 4, 8), (3, 2, 4, 8)])
def test_equals_the_formula(shape):
    scale, shift = parts()
    hidden = torch.randn(shape)
    out = affine(hidden, scale, shift, torch.tensor(0.7))
    assert torch.allclose(out, hidden + 0.7 * (scale * hidden + shift), atol=1e-6)
    assert torch.allclose(
        affine(hidden, scale, None, torch.tensor(0.7)), hidden * (1 + 0.7 * scale)
    )
    assert torch.allclose(affine(hidden, None, shift, torch.tensor(0.7)), hidden + 0.7 * shift)
    assert affine(hidden, None, None, torch.tensor(0.7)) is hidden


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_rounded_once(dtype):
    scale, shift = parts()
    hidden = torch.randn(3, 4, 8).to(dtype)
    wide = affine(hidden.float(), scale, shift, torch.tensor(0.3))
    assert torch.equal(affine(hidden, scale, shift, torch.tensor(0.3)), wide.to(dtype))


def test_a_row_equals_the_row_alone():
    scale, shift = parts()
    hidden = torch.randn(3, 4, 8)
    strength = torch.tensor([0.0, 0.3, 1.0])
    together = affine(hidden, scale, shift, strength)
    for row in range(3):
        alone = affine(hidden[row : row + 1], scale, shift, strength[row])
        assert torch.equal(together[row : row + 1], alone)


def test_a_flattened_batch_keeps_its_rows():
    scale, shift = parts()
    hidden = torch.randn(3, 4, 8)
    strength = torch.tensor([0.0, 0.3, 1.0])
    flat = affine(hidden.view(12, 8), scale, shift, strength)
    assert torch.equal(flat.view(3, 4, 8), affine(hidden, scale, shift, strength))


@pytest.mark.parametrize("shape", [(3, 4, 8), (5, 8)])
def test_a_wrong_number_of_rows_is_refused(shape):
    with pytest.raises(ValueError, match=f"2 entries but the batch has {shape[0]} rows"):
        affine(torch.randn(shape), *parts(), torch.tensor([0.1, 0.2]))


def test_gradients_equal_the_formula_s():
    scale, shift = (part.requires_grad_() for part in parts())
    hidden = torch.randn(3, 4, 8)
    strength = torch.tensor([0.2, 0.3, 1.0])
    affine(hidden, scale, shift, strength).square().sum().backward()
    got = scale.grad, shift.grad
    scale.grad = shift.grad = None
    omega = strength.view(3, 1, 1)
    (hidden + omega * (scale * hidden + shift)).square().sum().backward()
    assert torch.allclose(got[0], scale.grad, rtol=1e-4)
    assert torch.allclose(got[1], shift.grad, rtol=1e-4)


def test_the_module_is_its_norm_for_modelling_code():
    norm = nn.LayerNorm(8, eps=1e-3)
    layer = AffineSteering(norm, Strength())
    assert layer.weight is norm.weight
    assert layer.bias is norm.bias
    assert layer.eps == 1e-3
    assert layer.normalized_shape == (8,)
    with pytest.raises(AttributeError):
        _ = layer.no_such_thing


def test_active_adapters_add_up():
    layer = AffineSteering(nn.LayerNorm(8), Strength(0.5))
    layer.add_adapter("one", scale=True, shift=True)
    layer.add_adapter("two", scale=False, shift=True)
    for parameter in (*layer.steering_scale.values(), *layer.steering_shift.values()):
        parameter.data.normal_()
    hidden = torch.randn(2, 3, 8)
    normed = layer.base_layer(hidden)
    layer.set_adapter(["one", "two"])
    a, b = layer.steering_scale["one"], layer.steering_shift["one"] + layer.steering_shift["two"]
    assert torch.allclose(layer(hidden), normed + 0.5 * (a * normed + b), atol=1e-6)
    layer.set_adapter("two")
    assert torch.allclose(layer(hidden), normed + 0.5 * layer.steering_shift["two"], atol=1e-6)


def test_merging_in_place_is_refused():
    with pytest.raises(NotImplementedError, match="unload"):
        AffineSteering(nn.LayerNorm(8), Strength()).merge()
