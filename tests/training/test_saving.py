"""The adapter during and after a run: kept now and then, kept when best, kept on failure."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from dso.steering import SteeringConfig
from dso.training import Custom, Objective, RewardFailed, SaveAdapter, SaveBest
from dso.training import learner as learner_file
from tests.organism import module, small_data, trainer

CALLS: list[int] = []


def fails_at_the_third_step(choices, answers):
    CALLS.append(1)
    if len(CALLS) > 2:
        raise RuntimeError("out of luck")
    return [0.0] * len(answers)


def wrong_length_at_the_third_step(choices, answers):
    CALLS.append(1)
    return [0.0] * (len(answers) if len(CALLS) < 3 else 1)


def saved(folder):
    return load_file(folder / "adapter_model.safetensors")


def vectors(run):
    return {
        name.replace(".default", ""): p.detach().clone()
        for name, p in run.adapted.named_parameters()
        if p.requires_grad
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails_at_the_third_step", "failed on 14 answers, the first to choice .*out of luck"),
        ("wrong_length_at_the_third_step", r"returned the shape \(1,\)"),
    ],
)
def test_a_reward_that_fails_stops_the_run_and_keeps_the_last_good_adapter(
    tmp_path, monkeypatch, name, message
):
    CALLS.clear()
    good = {}
    plain = learner_file.reward

    def watch(*given):
        good.update(vectors(run))
        return plain(*given)

    monkeypatch.setattr(learner_file, "reward", watch)
    custom = Custom(f"{__name__}.{name}", on="all")
    run = module(objective=Objective(custom_rewards=(custom,)))
    data = small_data()
    data.pairs_per_step, data.pool_per_step = 3, 1
    with pytest.raises(RewardFailed, match=message):
        trainer(tmp_path, 6, SaveAdapter()).fit(run, data)
    found = saved(tmp_path / "adapter")
    assert any(bool(value.any()) for value in found.values())
    assert all(torch.equal(found[name], value) for name, value in good.items())


def test_the_adapter_is_there_long_before_the_end(tmp_path):
    seen = []

    class Look(SaveAdapter):
        def on_train_batch_end(self, *given):
            super().on_train_batch_end(*given)
            seen.append((tmp_path / "adapter").is_dir())

    trainer(tmp_path, 4, Look(every_n_steps=2)).fit(module(), small_data())
    assert seen == [False, True, True, True]
    with pytest.raises(ValueError, match="every_n_steps is 0"):
        SaveAdapter(every_n_steps=0)


def test_the_best_adapter_is_the_one_validation_likes_best(tmp_path):
    run = module()
    figures = iter([0.5, 0.3, 0.4])
    kept = []

    def figure(self):
        kept.append(vectors(run))
        return {"val/selection": torch.tensor(next(figures)), "val/kl": torch.tensor(0.125)}

    run.on_validation_epoch_end = lambda: run.log_dict(figure(run))
    best = SaveBest()
    loop = trainer(
        tmp_path, 3, best, limit_val_batches=1.0, val_check_interval=1, check_val_every_n_epoch=None
    )
    loop.fit(run, small_data(validation=4))
    found = saved(tmp_path / "best")
    assert all(torch.equal(found[name], value) for name, value in kept[1].items())
    assert not all(torch.equal(found[name], value) for name, value in kept[2].items())
    config = SteeringConfig.from_pretrained(str(tmp_path / "best"))
    assert config.measurements[0]["kl"] == 0.125
    assert best.best == pytest.approx(0.3)
    again = SaveBest()
    again.load_state_dict(best.state_dict())
    assert again.best == best.best
