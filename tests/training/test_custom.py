"""Rewards and terms of one's own: found by path, checked when called."""

from __future__ import annotations

import pytest
import torch

from dso.training import Custom, Objective, RewardFailed
from dso.training.custom import Answer, Customs
from dso.training.step import Sampled, reward, step_loss
from tests.training.made_up_step import scored

HERE = __name__


def brief(choices, answers, most=1):
    assert all(isinstance(answer, Answer) for answer in answers)
    return [float(len(answer.text) <= most) for answer in answers]


def raises(choices, answers):
    raise KeyError("no such key")


def too_few(choices, answers):
    return [1.0]


def not_finite(choices, answers):
    return [float("nan") if n == 2 else 0.0 for n in range(len(answers))]


def words(choices, answers):
    return ["good"] * len(answers)


def entropy(log_probs, base_log_probs, table, factor=1.0):
    p = log_probs.softmax(-1)
    return factor * (p * torch.where(p > 0, p.log(), 0.0)).sum(-1).mean()


def two_numbers(log_probs, base_log_probs, table):
    return log_probs.exp().sum(-1)[:2]


def infinite(log_probs, base_log_probs, table):
    return log_probs.sum()


not_a_function = 3


def rewarded_by(name, on="all", sampled=None, **settings):
    objective = Objective(custom_rewards=(Custom(f"{HERE}.{name}", settings=settings, on=on),))
    customs = Customs.load(objective.custom_rewards, objective.custom_terms)
    return reward(scored(), objective, customs, sampled)


def test_a_custom_reward_sees_options_or_what_was_said():
    over_options = rewarded_by("brief").values["brief"]
    assert over_options.tolist() == [[1.0, 1.0, 1.0]] * 4 + [[1.0, 1.0, 0.0]]
    texts = [["A", "the A", "well"]] * 5
    sampled = Sampled(torch.tensor([[0, 0, -1]] * 5), texts)
    assert rewarded_by("brief", sampled=sampled).values["brief"].tolist() == [[1, 0, 0]] * 5
    longer = rewarded_by("brief", sampled=sampled, most=4).values["brief"]
    assert longer.tolist() == [[1, 0, 1]] * 5


def test_a_custom_reward_adds_to_the_total_of_its_choices_only():
    plain = rewarded_by("brief").total - reward(scored(), Objective()).total
    assert plain[:4].tolist() == [[1.0] * 3] * 4
    only = rewarded_by("brief", on="known").total - reward(scored(), Objective()).total
    assert only[:4].abs().max() == 0 and only[4, :2].tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", r"raises failed on 14 answers, the first to choice '0-he': KeyError"),
        ("too_few", r"returned the shape \(1,\) for 14 answers; wanted one number for each"),
        ("not_finite", r"returned nan for the answer 'C' to choice '0-he', and 1 such values"),
        ("words", "words failed on 14 answers"),
    ],
)
def test_a_reward_that_fails_is_named_with_what_it_was_given(name, message):
    with pytest.raises(RewardFailed, match=message):
        rewarded_by(name)


def test_a_custom_term_is_added_to_the_loss():
    losses = []
    for weight in (0.0, 2.0):
        objective = Objective(
            custom_terms=(Custom(f"{HERE}.entropy", weight, settings={"factor": 0.5}),)
        )
        customs = Customs.load((), objective.custom_terms)
        step = scored()
        loss, figures = step_loss(
            step, reward(step, objective), objective, lambda *_: torch.zeros(()), customs
        )
        losses.append(float(loss))
    assert losses[1] - losses[0] == pytest.approx(float(figures.weighted["entropy"]))
    assert float(figures.weighted["entropy"]) == pytest.approx(2 * float(figures.raw["entropy"]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two_numbers", r"returned \(2,\); wanted a scalar tensor"),
        ("infinite", "returned -inf; wanted a finite number"),
        ("raises", "failed: TypeError"),
    ],
)
def test_a_term_that_fails_is_named(name, message):
    customs = Customs.load((), (Custom(f"{HERE}.{name}"),))
    step = scored()
    objective = Objective(custom_terms=(Custom(f"{HERE}.{name}"),))
    with pytest.raises(RewardFailed, match=message):
        step_loss(step, reward(step, objective), objective, lambda *_: torch.zeros(()), customs)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("brief", "is no import path"),
        ("no.such.module", "cannot be imported"),
        (f"{HERE}.nothing", "cannot be imported"),
        (f"{HERE}.not_a_function", "is a int; wanted a function"),
    ],
)
def test_a_path_that_leads_to_no_function_is_refused_before_the_run(path, message):
    with pytest.raises(ValueError, match=message):
        Customs.load((Custom(path),), ())
