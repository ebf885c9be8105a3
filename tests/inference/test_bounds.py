import math

import numpy as np
import pytest

from dso.inference.bounds import betting, hoeffding_bentkus

TESTS = [betting, hoeffding_bentkus]
TRIALS = 2000


def hoeffding(losses, bound):
    """The plain inequality: exp(-2 n (bound - mean)^2)."""
    size = losses.shape[-1]
    return np.exp(-2 * size * np.maximum(bound - losses.mean(-1), 0) ** 2)


def unequal(size):
    weights = np.arange(1, size + 1.0)
    return weights / weights.sum()


def binary(means, rng):
    return (rng.random((TRIALS, len(means))) < means).astype(float)


def spread(means, rng):
    return rng.beta(5 * means, 5 * (1 - means), (TRIALS, len(means)))


@pytest.mark.parametrize("p_value", TESTS)
@pytest.mark.parametrize("draw", [binary, spread])
@pytest.mark.parametrize("bound", [0.02, 0.15])
@pytest.mark.parametrize("shape", ["alike", "different means", "weighted"])
def test_p_values_are_valid_where_the_mean_is_exactly_the_bound(p_value, draw, bound, shape):
    rng = np.random.default_rng(0)
    size = 150
    weights = unequal(size) if shape == "weighted" else np.full(size, 1 / size)
    means = np.full(size, bound)
    if shape != "alike":
        means = np.linspace(0.5, 1.5, size) * bound
        means += bound - weights @ means
    p = p_value(draw(means, rng), bound, weights)
    for level in (0.01, 0.05, 0.1, 0.3):
        slack = 3 * math.sqrt(level * (1 - level) / TRIALS)
        assert (p <= level).mean() <= level + slack


def test_betting_is_valid_for_differences_that_go_both_ways():
    rng = np.random.default_rng(1)
    bound = 0.05
    lost, gained = 0.15, 0.1  # the mean is the bound
    drawn = rng.random((TRIALS, 200))
    losses = np.where(drawn < lost, 1.0, np.where(drawn < lost + gained, -1.0, 0.0))
    p = betting(losses, bound)
    for level in (0.01, 0.1, 0.3):
        assert (p <= level).mean() <= level + 3 * math.sqrt(level * (1 - level) / TRIALS)


@pytest.mark.parametrize("draw", [binary, spread])
def test_hoeffding_bentkus_is_never_above_hoeffding(draw):
    for mean in (0.01, 0.05, 0.1, 0.2):
        losses = draw(np.full(120, mean), np.random.default_rng(2))[:200]
        assert bool((hoeffding_bentkus(losses, 0.15) <= hoeffding(losses, 0.15) + 1e-12).all())


def test_betting_needs_less_where_losses_vary_little():
    losses = np.full((1, 120), 0.1)
    assert betting(losses, 0.15)[0] < 0.01
    assert hoeffding_bentkus(losses, 0.15)[0] > 0.1


@pytest.mark.parametrize("p_value", TESTS)
def test_p_values_fall_with_the_losses_and_with_the_bound_and_with_the_size(p_value):
    losses = np.random.default_rng(3).beta(1, 9, 100)
    rising = p_value(np.stack([losses * share for share in (0, 0.25, 0.5, 0.75, 1.0, 2.0)]), 0.2)
    assert bool((np.diff(rising) >= 0).all()) and rising[0] < rising[3] < rising[5] == 1.0
    bounds = [float(p_value(losses, bound)) for bound in (0.05, 0.1, 0.15, 0.2, 0.3)]
    assert bounds == sorted(bounds, reverse=True)
    assert float(p_value(np.tile(losses, 4), 0.15)) < float(p_value(losses, 0.15))


@pytest.mark.parametrize("p_value", TESTS)
def test_rows_alone_equal_rows_together_and_order_does_not_matter(p_value):
    rng = np.random.default_rng(4)
    losses, weights = rng.random((5, 40)) * 0.3, unequal(40)
    together = p_value(losses, 0.3, weights)
    alone = [float(p_value(row, 0.3, weights)) for row in losses]
    np.testing.assert_allclose(together, alone)
    shuffle = rng.permutation(40)
    np.testing.assert_allclose(p_value(losses[:, shuffle], 0.3, weights[shuffle]), together)


def test_equal_weights_are_no_weights_and_half_the_pairs_without_weight_count_as_half():
    losses = np.random.default_rng(5).random((3, 40)) * 0.3
    for p_value in TESTS:
        equal = p_value(losses, 0.3, np.full(40, 1 / 40))
        np.testing.assert_allclose(equal, p_value(losses, 0.3))
        weights = np.repeat([1 / 20, 0], 20)
        np.testing.assert_allclose(p_value(losses, 0.3, weights), p_value(losses[:, :20], 0.3))


def test_without_any_loss_betting_comes_close_to_the_exact_binomial():
    # Of 400 questions none is lost: the exact p-value is (1 - bound)^400.
    exact = 0.98**400
    assert exact <= betting(np.zeros(400), 0.02) <= 4 * exact
    assert betting(np.array([1.0, *np.zeros(399)]), 0.02) > betting(np.zeros(400), 0.02)


@pytest.mark.parametrize(
    ("losses", "bound", "weights", "message"),
    [
        ([], 0.1, None, r"shape \(\.\.\., N\)"),
        ([0.1, 1.2], 0.1, None, "the largest is 1.2"),
        ([0.1, math.nan], 0.1, None, "the largest is nan"),
        ([0.1, 0.2], 1.0, None, "bound is 1.0"),
        ([0.1, 0.2], 0.1, [0.5], "2 numbers"),
        ([0.1, 0.2], 0.1, [0.9, 0.9], "sum 1.8"),
    ],
)
def test_what_cannot_be_tested_is_refused(losses, bound, weights, message):
    given = None if weights is None else np.array(weights)
    for p_value in TESTS:
        with pytest.raises(ValueError, match=message):
            p_value(np.array(losses), bound, given)
    with pytest.raises(ValueError, match="wants 0 to 1"):
        hoeffding_bentkus(np.array([-0.1, 0.2]), 0.1)
