from __future__ import annotations

import json
import math
import random
import re

import pytest

from dso.training.constraint import KLBudget, KLController


def simulate(budget: float, pull: float, noise: float, steps: int = 900) -> list[float]:
    """The KL a model settles at falls with the multiplier: it moves a little there every step."""
    controller = KLController(KLBudget(budget=budget))
    rng = random.Random(0)
    kl, measured = 0.0, []
    for _ in range(steps):
        kl += 0.05 * (pull / (1.0 + controller.multiplier) ** 2 - kl)
        measured.append(kl)
        controller.update(kl * math.exp(rng.gauss(0.0, noise)))
    return measured


@pytest.mark.parametrize("noise", [0.0, 0.2])
@pytest.mark.parametrize("pull", [0.5, 2.0, 8.0])
@pytest.mark.parametrize("budget", [0.02, 0.05, 0.2])
def test_the_kl_settles_at_the_budget(budget, pull, noise):
    last = simulate(budget, pull, noise)[-200:]
    assert sum(last) / len(last) == pytest.approx(budget, rel=0.1)


@pytest.mark.parametrize("budget", [0.02, 0.2])
def test_a_kl_at_the_budget_leaves_the_multiplier_alone(budget):
    controller = KLController(KLBudget(budget=budget, initial=3.0))
    for _ in range(50):
        controller.update(budget)
    assert controller.multiplier == pytest.approx(3.0)


def test_the_multiplier_starts_where_it_is_told_and_moves_the_right_way():
    high, low = (KLController(KLBudget(budget=0.1, initial=2.0)) for _ in range(2))
    assert high.multiplier == pytest.approx(2.0)
    high.update(0.3)
    low.update(0.01)
    assert high.multiplier > 2.0 > low.multiplier


@pytest.mark.parametrize("kl", [0.0, 1e9])
def test_the_multiplier_is_bounded(kl):
    settings = KLBudget(budget=0.1, maximum=50.0)
    controller = KLController(settings)
    for _ in range(2000):
        controller.update(kl)
    edge = math.log(50.0) + 2 * settings.proportional
    assert abs(math.log(controller.multiplier)) <= edge + 1e-9
    assert (controller.multiplier > 1) == (kl > 0.1)
    for _ in range(500):
        controller.update(0.0 if kl else 0.3)
    assert (controller.multiplier > 1) == (kl < 0.1)  # it comes back: nothing winds up


def test_the_average_is_smoothed():
    controller = KLController(KLBudget(budget=0.1, smoothing=0.5))
    for kl in (0.4, 0.0, 0.2):
        controller.update(kl)
    assert controller.average == pytest.approx(0.2)


def test_a_restored_controller_goes_on_alike():
    values = [random.Random(1).random() * 0.1 for _ in range(20)]
    whole, resumed = (KLController(KLBudget(initial=2.0)) for _ in range(2))
    for number, kl in enumerate(values):
        if number in (0, 7):
            state = json.loads(json.dumps(resumed.state_dict()))
            resumed = KLController(KLBudget(initial=0.5))
            resumed.load_state_dict(state)
        whole.update(kl)
        resumed.update(kl)
        assert resumed.multiplier == whole.multiplier
    assert resumed.state_dict() == whole.state_dict()


@pytest.mark.parametrize("kl", [math.nan, math.inf, -math.inf])
def test_a_kl_that_is_no_number_is_refused_and_leaves_no_trace(kl):
    controller = KLController(KLBudget())
    controller.update(0.01)
    before = controller.state_dict()
    with pytest.raises(ValueError, match=f"the KL is {kl}"):
        controller.update(kl)
    assert controller.state_dict() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("budget", 0.0), ("budget", math.nan), ("budget", math.inf), ("smoothing", 1.0),
        ("smoothing", math.nan), ("initial", 0.0), ("initial", 2e4), ("initial", 1e-5),
        ("initial", math.nan), ("proportional", -0.1), ("proportional", math.nan),
        ("integral", -1.0), ("integral", math.inf), ("maximum", 0.5), ("maximum", math.nan),
    ],
)  # fmt: skip
def test_bad_settings_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=rf"{name} is {re.escape(str(value))}; wanted"):
        KLBudget(**{name: value})
