import numpy as np
import pytest

from dso.inference.choosing import (
    Losses,
    Promise,
    Sample,
    choose,
    in_sequence,
    least,
    pair_weights,
)

STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


def sample(means, size=400, seed=0):
    """Losses around these means, a row a strength."""
    noise = np.random.default_rng(seed).uniform(-0.02, 0.02, size)
    losses = np.array(means)[:, None] + (noise - noise.mean())
    return Sample(losses, np.full(size, 1 / size))


def losses(bias, drop, strengths=STRENGTHS, size=400):
    other = [0.0] * len(strengths)
    return Losses(
        strengths,
        sample(bias, size),
        {"unambiguous": sample(drop, size, 1), "capability": sample(other, size, 2)},
    )


FALLING = (0.5, 0.4, 0.3, 0.1, 0.05)
HARMLESS = (0.0, 0.0, 0.0, 0.0, 0.0)
RISING = (0.0, 0.0, 0.0, 0.0, 0.3)


def test_the_smallest_strength_that_qualifies_is_chosen():
    for drop in (HARMLESS, RISING):  # whether or not the largest strengths do harm
        decision = choose(losses(FALLING, drop), Promise(bias=0.2, drop=0.05))
        assert decision.strength == 0.8
        assert [row.bias_shown for row in decision.tested][3]
        assert [row.drop_shown for row in decision.tested][3]


def test_sequences_stop_at_their_first_failure():
    decision = choose(losses(FALLING, RISING), Promise(bias=0.2, drop=0.05))
    assert decision.drop_order == STRENGTHS  # the last one fails
    assert decision.bias_order == (0.8, 0.6)
    assert decision.bias_level == decision.drop_level == pytest.approx(1 - 0.9**0.5)
    # Bias that passes below a strength where it does not is never tested.
    waves = choose(losses((0.1, 0.5, 0.1, 0.1, 0.1), HARMLESS), Promise(0.2, 0.05))
    assert waves.strength == 0.6
    assert waves.bias_order == (1.0, 0.8, 0.6, 0.4)
    assert not waves.tested[0].bias_shown and waves.tested[0].bias_p < 1e-6


def test_the_second_sequence_has_the_whole_level_where_no_drop_was_in_doubt():
    decision = choose(losses(FALLING, HARMLESS), Promise(bias=0.2, drop=0.05))
    assert decision.bias_level == pytest.approx(0.1)
    assert decision.drop_level == pytest.approx(1 - 0.9**0.5)


def test_the_worst_kind_decides():
    given = losses(FALLING, HARMLESS)
    worse = dict(given.drops) | {"gender_needed": sample((0.0, 0.0, 0.0, 0.1, 0.1), seed=3)}
    decision = choose(Losses(STRENGTHS, given.bias, worse), Promise(bias=0.2, drop=0.05))
    assert decision.strength is None
    assert decision.drop_order == (0.2, 0.4, 0.6, 0.8)
    assert max(decision.tested[3].drop_p, key=decision.tested[3].drop_p.get) == "gender_needed"


@pytest.mark.parametrize("test", ["betting", "hoeffding_bentkus"])
def test_none_is_found_where_none_is(test):
    harm = choose(losses(FALLING, (0.3,) * 5), Promise(0.2, 0.05, test=test))
    assert harm.strength is None and harm.bias_order == () and harm.drop_order == (0.2,)
    biased = choose(losses((0.5,) * 5, HARMLESS), Promise(0.2, 0.05, test=test))
    assert biased.strength is None and biased.bias_order == (1.0,)


def test_estimates_are_the_weighted_means():
    given = losses(FALLING, RISING)
    weights = np.linspace(1, 3, 400)
    skewed = Sample(given.bias.losses, weights / weights.sum())
    decision = choose(Losses(STRENGTHS, skewed, given.drops), Promise(0.2, 0.05))
    for place, row in enumerate(decision.tested):
        assert row.strength == STRENGTHS[place]
        assert row.bias == pytest.approx(np.average(given.bias.losses[place], weights=weights))
        assert row.drops["unambiguous"] == pytest.approx(RISING[place])


def test_gains_do_not_hide_losses_from_hoeffding_bentkus():
    promise = Promise(0.2, 0.05, test="hoeffding_bentkus")
    swung = np.tile([0.5, -0.5], 200)
    assert promise.drop_p(swung) == 1.0
    assert promise.drop_p(swung) == promise.drop_p(np.maximum(swung, 0))
    assert Promise(0.2, 0.05).drop_p(swung * 0.1) < 0.01  # betting tests the difference itself


def test_the_family_errs_no_more_often_than_promised():
    # At 0.5 the bias is just too large, at 1 the drop is: whatever is chosen is wrong.
    rng = np.random.default_rng(0)
    promise = Promise(bias=0.3, drop=0.1, confidence=0.9)
    size, trials, wrong = 200, 600, 0
    equal = np.full(size, 1 / size)
    for _ in range(trials):
        bias = np.stack([rng.random(size) < 0.3001, rng.random(size) < 0.01]).astype(float)
        drop = np.stack([rng.random(size) < 0.001, rng.random(size) < 0.1001]).astype(float)
        given = Losses((0.5, 1.0), Sample(bias, equal), {"capability": Sample(drop, equal)})
        wrong += choose(given, promise).strength is not None
    assert 0 < wrong <= trials * 0.1 + 3 * (trials * 0.09) ** 0.5


def test_in_sequence():
    p = np.array([0.01, 0.2, 0.03])
    assert in_sequence(p, [0, 1, 2], 0.05) == ([0], [0, 1])
    assert in_sequence(p, [2, 0, 1], 0.05) == ([2, 0], [2, 0, 1])
    assert in_sequence(p, [0, 2], 0.05) == ([0, 2], [0, 2])
    assert in_sequence(p, [1, 0], 0.05) == ([], [1])
    assert in_sequence(p, [], 0.05) == ([], [])


def test_pair_weights_count_occupations_equally():
    concerns = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 0], [1, 0, 0]], dtype=bool)
    weights = pair_weights(concerns)
    given = np.array([0.1, 0.7, 0.4, 0.9])
    by_occupation = [given[concerns[:, column]].mean() for column in range(3)]
    assert weights.sum() == pytest.approx(1)
    assert weights @ given == pytest.approx(np.mean(by_occupation))
    with pytest.raises(ValueError, match="every occupation"):
        pair_weights(np.array([[True, False]]))


@pytest.mark.parametrize("test", ["betting", "hoeffding_bentkus"])
def test_fewer_questions_than_the_least_show_nothing(test):
    promise = Promise(bias=0.15, drop=0.02, test=test)
    count = least(promise.drop_p, promise.level)
    assert promise.drop_p(np.zeros(count)) <= promise.level < promise.drop_p(np.zeros(count - 1))
    # Even the exact binomial needs 147.
    assert 147 <= count < 220


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bias": 0.0}, "bias is 0.0"),
        ({"bias": 1.0}, "bias is 1.0"),
        ({"drop": -0.1}, "drop is -0.1"),
        ({"drop": float("nan")}, "drop is nan"),
        ({"drop": 1e-9}, "tens of thousands"),
        ({"confidence": 1.0}, "confidence is 1.0"),
        ({"confidence": 90.0}, "confidence is 90.0"),
        ({"test": "guess"}, "test is 'guess'"),
    ],
)
def test_promises_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Promise(**({"bias": 0.15, "drop": 0.02} | settings))


def test_losses_that_do_not_fit_are_refused():
    good = losses(FALLING, HARMLESS)
    with pytest.raises(ValueError, match="ascending"):
        Losses((0.2, 0.2), good.bias, good.drops)
    with pytest.raises(ValueError, match="of bias at 5 strengths; wanted 2"):
        Losses((0.2, 0.4), good.bias, good.drops)
    with pytest.raises(ValueError, match="one kind"):
        Losses(STRENGTHS, good.bias, {})
    with pytest.raises(ValueError, match="shape"):
        Sample(np.zeros((2, 3)), np.ones(2))
