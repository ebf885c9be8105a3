"""The settings of an objective: weights, schedules, custom parts."""

from __future__ import annotations

import pytest

from dso.training import Custom, Objective, Schedule


def test_a_schedule_starts_and_ends_where_it_says_and_is_monotone_between():
    for shape in ("linear", "cosine"):
        schedule = Schedule(start=0.2, end=2.0, begin=0.25, until=0.75, shape=shape)
        factors = [schedule.factor(step / 40) for step in range(41)]
        assert factors[:11] == [0.2] * 11 and factors[30:] == [2.0] * 11
        assert factors == sorted(factors)
        assert schedule.factor(0.5) == pytest.approx(1.1)


def test_a_schedule_of_no_length_is_a_step():
    schedule = Schedule(start=0.0, end=1.0, begin=0.5, until=0.5)
    assert [schedule.factor(p) for p in (0.0, 0.49, 0.5, 1.0)] == [0.0, 0.0, 1.0, 1.0]


def test_a_weight_is_its_number_times_its_schedule():
    objective = Objective(
        parity=2.0,
        custom_rewards=(Custom("a.b.brief", weight=3.0),),
        schedules={"parity": Schedule(0.0, 1.0), "brief": Schedule(1.0, 0.0)},
    )
    assert objective.weight("parity", 0.25) == pytest.approx(0.5)
    assert objective.weight("brief", 0.25) == pytest.approx(2.25)
    assert objective.weight("capability", 0.25) == 1.0
    assert objective.weight("parity") == 2.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Schedule(start=-1.0), "start is -1.0"),
        (lambda: Schedule(begin=0.6, until=0.5), "0 <= begin <= until <= 1"),
        (lambda: Schedule(shape="steep"), "'steep'; wanted linear or cosine"),
        (lambda: Custom("a.b", weight=-1.0), "weight is -1.0"),
        (lambda: Custom("a.b", on="some"), "on is 'some'"),
        (lambda: Objective(combine="mean"), "combine is 'mean'; wanted sum or normalised"),
        (lambda: Objective(distillation=-1.0), "objective.distillation is -1.0"),
        (lambda: Objective(schedules={"parety": Schedule()}), "names parety; wanted some of"),
        (lambda: Objective(custom_rewards=(Custom("my.parity"),)), "named parity"),
        (
            lambda: Objective(custom_rewards=(Custom("a.x"),), custom_terms=(Custom("b.x"),)),
            "two rewards or terms named x",
        ),
    ],
)
def test_bad_settings_say_what_is_wanted(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_negative_abstention_punishes_it():
    assert Objective(abstention=-0.5).weight("abstention") == -0.5
