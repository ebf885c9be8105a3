"""Soft-thresholding and sparsify."""

import pytest
import torch

from dso.steering import SteeringConfig, attach, neurons_kept, soft_threshold_, sparsify, sparsity
from dso.steering.sparsity import adapter_parts
from tests.steering.steered import steer
from tests.tiny_models import tiny_llama


def test_soft_threshold_is_the_proximal_step():
    x = torch.tensor([-2.0, -0.1, 0.0, 0.05, 0.1, 1.0], requires_grad=True)
    soft_threshold_([x], 0.1)
    assert torch.allclose(x.detach(), torch.tensor([-1.9, 0.0, 0.0, 0.0, 0.0, 0.9]))
    assert (x == 0).sum() == 4
    with pytest.raises(ValueError, match="threshold"):
        soft_threshold_([x], -0.1)


def test_it_minimises_its_objective():
    x, threshold = torch.randn(100, dtype=torch.float64), 0.3
    y = x.clone()
    soft_threshold_([y], threshold)

    def loss(z):
        return 0.5 * (z - x).square() + threshold * z.abs()

    for step in (-1e-3, 1e-3):
        assert (loss(y) <= loss(y + step)).all()


def test_a_fresh_adapter_is_all_zeros():
    assert sparsity(attach(tiny_llama())) == 1


@pytest.mark.parametrize("keep", [0.0, 0.25, 0.6, 1.0])
@pytest.mark.parametrize(
    "config", [SteeringConfig(), SteeringConfig(shift=False), SteeringConfig(scale=False)]
)
def test_sparsify_keeps_the_share_and_the_strongest(keep, config):
    model = steer(tiny_llama(), config)

    def sizes():
        squares = [sum(p.double() ** 2 for p in q if p is not None) for q in adapter_parts(model)]
        return torch.cat(squares).detach()

    before = sizes()
    kept = sparsify(model, keep)
    after = sizes()
    assert kept == round(keep * before.numel()) == (after > 0).sum()
    assert sparsity(model) == pytest.approx(1 - kept / before.numel())
    assert neurons_kept(model) == pytest.approx(kept / before.numel())
    assert torch.equal(after[after > 0], before[after > 0])
    if 0 < keep < 1:
        assert before[after > 0].min() > before[after == 0].max()


def test_bad_requests_are_refused():
    model = attach(tiny_llama())
    with pytest.raises(ValueError, match="between 0 and 1"):
        sparsify(model, 60)
    with pytest.raises(ValueError, match="no steering adapter named 'other'"):
        sparsify(model, adapter_name="other")
