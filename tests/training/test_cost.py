"""What a step costs, counted at the model."""

from __future__ import annotations

import torch

from dso.sampling import Sampling
from dso.training.cost import Cost, counted
from tests.organism import base_policy, module, small_data, small_task, trainer


def test_passes_and_tokens_are_those_that_went_through_the_model():
    policy = base_policy()
    encoded = policy.encode(small_task().load().train[:6])
    width = max(len(choice.prompt) for choice in encoded)
    with counted(policy.model) as passes:
        with torch.no_grad():
            policy.score(encoded)
        policy.score(encoded[:2])
    assert passes.calls >= 2
    short = max(len(choice.prompt) for choice in encoded[:2])
    longest = max(len(tokens) for choice in encoded for _, tokens in choice.forms)
    if longest == 1:
        assert passes.tokens == 6 * width + 2 * short
        assert passes.trained == 2 * short
    before = passes.calls
    policy.score(encoded)
    assert passes.calls == before  # outside the context nothing is counted


def test_an_exact_step_takes_fewer_passes_than_a_sampled_one(tmp_path):
    costs = []
    for estimator in ("exact", "rloo"):
        cost = Cost()
        run = module(estimator=estimator, sampling=Sampling(4, 4))
        loop = trainer(tmp_path, 4, cost)
        loop.fit(run, small_data())
        assert len(cost.seconds) == len(cost.passes) == len(cost.tokens) == 4
        assert float(loop.callback_metrics["cost/passes"]) == cost.passes[-1]
        costs.append(cost)
    assert all(seconds > 0 for cost in costs for seconds in cost.seconds)
    assert sum(costs[0].passes) < sum(costs[1].passes)
    assert sum(costs[0].tokens) < sum(costs[1].tokens)
