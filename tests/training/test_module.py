import math

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import load_file

from dso.loading import Loading
from dso.sampling import Sampling
from dso.steering import sparsity
from dso.training import (
    GRPO,
    KLBudget,
    Objective,
    Optimisation,
    SaveAdapter,
    Steering,
    TrainingDiverged,
)
from dso.training import learner as learner_file
from tests.organism import Records, adapter, module, organism, small_data, trainer


def vectors(run):
    return {
        name: p.detach().clone() for name, p in run.adapted.named_parameters() if p.requires_grad
    }


def test_only_the_adapter_moves_and_only_it_is_in_the_checkpoint(tmp_path):
    run = module()
    run.configure_model()
    before = {n: p.clone() for n, p in run.adapted.named_parameters() if not p.requires_grad}
    trainer(tmp_path, 2).fit(run, small_data())
    frozen = {n: p for n, p in run.adapted.named_parameters() if not p.requires_grad}
    assert all(torch.equal(before[n], p) for n, p in frozen.items())
    assert any(bool(v.any()) for v in vectors(run).values())
    assert len(run.state_dict()) == len(vectors(run)) == 2 * 8  # two norms in each of four blocks


@pytest.mark.parametrize(
    ("estimator", "epochs"),
    [("exact", 1), ("rloo", 1), ("grpo", 1), ("grpo", 2), ("ppo", 1), ("ppo", 2)],
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, estimator, epochs):
    settings = {"estimator": estimator, "sampling": Sampling(2, 4, epochs)}
    # With two epochs step 3 stands between two uses of the same answers.
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=3, save_top_k=-1)
    whole = module(**settings)
    trainer(tmp_path, 9, keep, enable_checkpointing=True).fit(whole, small_data())
    half = next(path for path in tmp_path.iterdir() if "step=3" in path.name)
    resumed = module(**settings)
    trainer(tmp_path, 9).fit(resumed, small_data(), ckpt_path=half)
    assert all(torch.equal(v, vectors(resumed)[n]) for n, v in vectors(whole).items())
    controllers = [run.learner.controller.state_dict() for run in (resumed, whole)]
    assert controllers[0] == controllers[1]
    assert torch.equal(resumed.learner.gap.gap, whole.learner.gap.gap)
    for name, value in whole.state_dict().items():  # the baseline of ppo among them
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("estimator", ["reinforce", "rloo", "grpo", "ppo"])
def test_sampled_estimators_lower_the_bias_of_one_batch(tmp_path, estimator):
    run = module(
        estimator=estimator,
        sampling=Sampling(8, 4),
        objective=Objective(twin_prior=1, twin_consistency=0, pair_anchor=0, option_mass=0),
        optimisation=Optimisation(warmup=0),
        kl=KLBudget(budget=1.0),
    )
    records = Records()
    trainer(tmp_path, 25, records).fit(run, small_data(pairs=4, pool=8))
    gaps = records.figure("bias")
    assert gaps[0] > 0.3
    assert gaps[-1] < 0.7 * gaps[0]


def test_the_scores_of_an_objective_do_not_change_with_the_estimator(tmp_path):
    seen = []
    for estimator in ("exact", "reinforce", "rloo"):
        run = module(estimator=estimator, sampling=Sampling(4, 4))
        records = Records()
        trainer(tmp_path, 1, records).fit(run, small_data(pairs=4, pool=8))
        seen.append({name: float(v) for name, v in records.steps[0].figures.items()})
    for other in seen[1:]:
        for name in ("raw/twin_consistency", "raw/pair_anchor", "raw/option_mass", "kl"):
            assert other[name] == pytest.approx(seen[0][name], abs=1e-5)
        assert other["raw/capability"] == pytest.approx(seen[0]["raw/capability"], abs=0.1)


def test_a_checkpoint_of_another_form_is_refused(tmp_path):
    run = module()
    keep = ModelCheckpoint(dirpath=tmp_path, save_last=True)
    trainer(tmp_path, 1, keep, enable_checkpointing=True).fit(run, small_data())
    other = module(steering=Steering(final_norm=True))
    with pytest.raises(ValueError, match="2 vectors missing"):
        trainer(tmp_path, 2).fit(other, small_data(), ckpt_path=tmp_path / "last.ckpt")


def test_one_seed_gives_one_adapter_and_two_give_two(tmp_path):
    runs = []
    for seed in (0, 0, 1):
        run = module()
        trainer(tmp_path, 2).fit(run, small_data(seed=seed))
        runs.append(vectors(run))
    assert all(torch.equal(v, runs[1][n]) for n, v in runs[0].items())
    assert not all(torch.equal(v, runs[2][n]) for n, v in runs[0].items())


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_training_stops_at_a_nan_and_keeps_the_last_good_adapter(tmp_path, monkeypatch, where):
    plain, calls, good = learner_file.step_loss, [], {}

    def poisoned(scored, *rest):
        calls.append(1)
        loss, figures = plain(scored, *rest)
        if len(calls) < 3:
            return loss, figures
        good.update(vectors(run))
        if where == "loss":
            return loss * math.nan, figures
        # sqrt has an infinite slope at 0: a finite loss whose gradient is not.
        return loss + (scored.log_probs[:, 0] * 0).sum().abs().sqrt(), figures

    monkeypatch.setattr(learner_file, "step_loss", poisoned)
    run = module()
    with pytest.raises(TrainingDiverged, match=f"{where} is"):
        trainer(tmp_path, 5, SaveAdapter()).fit(run, small_data())
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    kept = {n.replace(".default", ""): v for n, v in good.items()}
    assert len(saved) == len(kept)
    assert all(torch.equal(saved[n], v) for n, v in kept.items())


def test_the_first_step_starts_at_the_base_and_lowers_the_loss_of_its_batch(tmp_path):
    run = module(optimisation=Optimisation(learning_rate=1e-3, warmup=0))
    records = Records()
    data = small_data(pairs=4, pool=8)  # every step is the same batch
    trainer(tmp_path, 6, records).fit(run, data)
    assert abs(records.figure("kl")[0]) < 1e-6
    assert records.figure("raw/pair_anchor")[0] < 1e-9
    assert records.figure("raw/option_mass")[0] < 1e-6
    losses = records.figure("loss")
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kept", [0, 2**20])
def test_what_is_kept_of_the_base_equals_what_the_base_says(tmp_path, monkeypatch, kept):
    monkeypatch.setattr(learner_file, "KEPT_VOCABULARY", kept)
    run = module()
    run.configure_model()
    data = small_data(forms=[" the {}"])  # two tokens: answers have further positions
    trainer(tmp_path, 7).fit(run, data)
    assert bool(run.learner.base.answers) == bool(kept)
    batch = data.train_dataloader().batch(3)
    encoded = run.learner.encode(batch.choices)
    with torch.no_grad(), run.policy.base():
        plain = run.policy.score(encoded, range(batch.ambiguous, len(encoded)))
    options, answers = run.learner.base.scores(encoded, batch.ambiguous)
    torch.testing.assert_close(options, plain.options, atol=1e-4, rtol=0)
    torch.testing.assert_close(answers, plain.answers, atol=1e-4, rtol=0)


def test_l1_leaves_exact_zeros_and_without_it_there_are_none(tmp_path):
    shares = []
    for l1 in (0.0, 0.6):
        run = module(objective=Objective(l1=l1))
        trainer(tmp_path, 4).fit(run, small_data())
        shares.append(sparsity(run.adapted))
    assert shares[0] < 0.01
    assert 0.05 < shares[1] < 1


def test_validation_logs_the_figures_that_an_evaluation_has(tmp_path):
    run = module()
    data = small_data()
    data.evaluation_batch = 5  # some batches have no prompt with a right answer
    loop = trainer(tmp_path, 1, limit_val_batches=1.0)
    loop.fit(run, data)
    figures = {name for name in loop.callback_metrics if name.startswith("val/")}
    wanted = {"per_occupation_bias", "unambiguous_accuracy", "capability", "option_mass", "kl"}
    assert {f"val/{name}" for name in wanted | {"selection"}} <= figures


def test_the_saved_adapter_names_its_base_task_and_versions(tmp_path):
    from dso.steering import SteeringConfig

    run = module()
    trainer(tmp_path, 1, SaveAdapter()).fit(run, small_data())
    config = SteeringConfig.from_pretrained(str(tmp_path / "adapter"))
    assert config.base_model_name_or_path == organism()
    assert config.recipe["task"]["class_path"].endswith("Coreference")
    assert config.recipe["task"]["init_args"]["pairs"] == 24
    assert config.recipe["versions"]["torch"] == torch.__version__


def test_the_shipped_adapter_is_of_the_default_form():
    from dso.steering import SteeringConfig

    config = SteeringConfig.from_pretrained(adapter())
    assert config.foldable
    assert config.num_norms == 9
    assert len(config.target_modules) == 8
    assert config.measurements


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (KLBudget, {"budget": 0.0}, "budget is 0.0"),
        (KLBudget, {"smoothing": 1.0}, "smoothing is 1.0"),
        (Objective, {"parity": -1.0}, "objective.parity is -1.0"),
        (Objective, {"l1": math.nan}, "objective.l1 is nan"),
        (Optimisation, {"learning_rate": 0.0}, "learning_rate is 0.0"),
        (Optimisation, {"warmup": -1}, "warmup is -1"),
        (GRPO, {"clip_low": 0.0}, "grpo.clip_low is 0.0"),
        (GRPO, {"loss_type": "best"}, "grpo.loss_type is 'best'"),
    ],
)
def test_bad_settings_are_named(kind, settings, message):
    with pytest.raises(ValueError, match=message):
        kind(**settings)


@pytest.mark.parametrize(
    ("estimator", "sampling", "message"),
    [
        ("rloo", Sampling(samples=1), r"sampling\.samples is 1, wanted at least 2"),
        ("grpo", Sampling(samples=1), r"sampling\.samples is 1, wanted at least 2"),
        ("rloo", Sampling(epochs=2), r"sampling\.epochs is 2, but rloo has no clipped ratio"),
    ],
)
def test_sampling_that_an_estimator_cannot_use_is_refused(estimator, sampling, message):
    with pytest.raises(ValueError, match=message):
        module(estimator=estimator, sampling=sampling)


def test_answers_are_used_for_as_many_steps_as_asked(tmp_path):
    run = module(estimator="grpo", sampling=Sampling(4, 4, epochs=3))
    seen = []
    plain = run.sampler.loss

    def watch(steered, rollouts, *rest):
        loss = plain(steered, rollouts, *rest)
        held = run.sampler.held.log_probs
        ratio = steered.tokens[torch.arange(16)[:, None], rollouts.column] - held
        seen.append((rollouts.texts, float(ratio.detach().abs().max())))
        return loss

    run.sampler.loss = watch
    trainer(tmp_path, 6).fit(run, small_data())
    texts = [t for t, _ in seen]
    assert texts[0] == texts[1] == texts[2] and texts[3] == texts[4] == texts[5]
    assert texts[0] != texts[3]
    moved = [m for _, m in seen]
    assert moved[0] == moved[3] == 0
    assert all(m > 0 for m in moved[1:3] + moved[4:])


@pytest.mark.parametrize("estimator", ["exact", "rloo"])
def test_gradient_checkpointing_changes_no_gradient(tmp_path, estimator):
    runs = []
    for checkpointing in (False, True):
        run = module(
            estimator=estimator,
            sampling=Sampling(2, 4),
            gradient_checkpointing=checkpointing,
            # At the base the mass term stands at its kink, where rounding picks the slope.
            objective=Objective(option_mass=0),
        )
        seen = {}

        def keep(optimizer, run=run, seen=seen):
            seen.update(
                {n: p.grad.clone() for n, p in run.adapted.named_parameters() if p.requires_grad}
            )

        run.on_before_optimizer_step = keep
        trainer(tmp_path, 1).fit(run, small_data(forms=[" the {}"]))
        runs.append(seen)
    assert len(runs[0]) == 16
    for name, value in runs[0].items():
        torch.testing.assert_close(runs[1][name], value, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("loading", [Loading(dtype="bfloat16"), Loading(quantisation="8bit")])
def test_a_smaller_base_trains_a_float32_adapter(tmp_path, loading):
    if loading.quantisation != "none":
        pytest.importorskip("bitsandbytes")
    run = module(loading=loading)
    trainer(tmp_path, 2, SaveAdapter()).fit(run, small_data())
    assert {v.dtype for v in vectors(run).values()} == {torch.float32}
    assert all(bool(v.isfinite().all()) for v in vectors(run).values())
    assert any(bool(v.any()) for v in vectors(run).values())


def test_answers_cannot_be_used_twice_within_one_update(tmp_path):
    run = module(estimator="grpo", sampling=Sampling(2, 4, epochs=2))
    with pytest.raises(ValueError, match="would fall into one update"):
        trainer(tmp_path, 2, accumulate_grad_batches=2).fit(run, small_data())
