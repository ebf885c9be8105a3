"""Training with a low-rank part U Vᵀ h on the input norms."""

import math

import pytest
import torch

from dso.steering import SteeringConfig
from dso.training import Objective, Optimisation, SaveAdapter, Steering
from dso.training.setting_up import affine_parameters
from tests.organism import Records, base_policy, module, small_data, trainer

RANKED = Steering(rank=2)


def low(run):
    named = run.adapted.named_parameters()
    return [p for n, p in named if "steering_left" in n or "steering_right" in n]


def test_a_short_run_lowers_the_loss_and_keeps_the_base_at_no_strength(tmp_path):
    run = module(steering=RANKED, optimisation=Optimisation(learning_rate=1e-3, warmup=0))
    records = Records()
    data = small_data(pairs=4, pool=8)  # every step is the same batch
    trainer(tmp_path, 6, records, SaveAdapter()).fit(run, data)
    losses = records.figure("loss")
    assert losses[-1] < losses[0]
    assert len(low(run)) == 2 * 4  # U and V in each of four blocks
    assert all(bool(p.any()) for p in low(run))
    encoded = run.learner.encode(data.train_dataloader().batch(0).choices)
    base = base_policy().score(encoded, range(len(encoded)))
    with torch.no_grad(), run.adapted.strength_at(0.0):
        scores = run.policy.score(encoded, range(len(encoded)))
    assert torch.equal(scores.options, base.options)
    assert torch.equal(scores.answers, base.answers)
    config = SteeringConfig.from_pretrained(str(tmp_path / "adapter"))
    assert (config.rank, config.foldable) == (2, True)
    assert config.recipe["steering"]["rank_rate"] == 0.3


def test_it_has_a_learning_rate_of_its_own_and_without_it_there_is_one_group(tmp_path):
    for steering, rates in ((Steering(), [1.0]), (Steering(rank=1, rank_rate=0.25), [1.0, 0.25])):
        run = module(steering=steering, optimisation=Optimisation(learning_rate=1e-2, warmup=3))
        loop = trainer(tmp_path, 3)
        seen = []
        run.on_before_optimizer_step = lambda optimizer, seen=seen: seen.append(
            [group["lr"] for group in optimizer.param_groups]
        )
        loop.fit(run, small_data(pairs=4, pool=8))
        assert len(seen) == 3
        for step, row in enumerate(seen):
            peak = 1e-2 * run.optimisation.factor(step, 3)
            assert row == pytest.approx([peak * rate for rate in rates])
        groups = loop.optimizers[0].param_groups
        if len(rates) == 1:
            wanted = [list(run.adapted.parameters())]
            wanted = [[p for p in wanted[0] if p.requires_grad]]
        else:
            wanted = [affine_parameters(run.adapted), low(run)]
        for group, parameters in zip(groups, wanted, strict=True):
            assert [id(p) for p in group["params"]] == [id(p) for p in parameters]


def test_l1_takes_scales_and_shifts_only(tmp_path):
    run = module(steering=RANKED, objective=Objective(l1=0.6))
    trainer(tmp_path, 4).fit(run, small_data())
    assert not any(bool((p == 0).any()) for p in low(run))
    assert any(bool((p == 0).any()) for p in affine_parameters(run.adapted))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": -1}, r"steering\.rank is -1"),
        ({"rank_norms": "first"}, r"steering\.rank_norms is 'first'; wanted input or all"),
        ({"rank_rate": 0.0}, r"steering\.rank_rate is 0\.0"),
        ({"rank_rate": math.inf}, r"steering\.rank_rate is inf"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Steering(**fields)
