import csv
import json
import math
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import PreTrainedTokenizerFast
from transformers.models.gpt2 import GPT2Config, GPT2LMHeadModel

from dso.policy import Policy
from dso.sampling import Sampling, read_answers, sample_tokens
from dso.steering import load_adapter
from dso.tasks import ChoiceDataModule, Scenes
from dso.tasks.datamodule import TrainSteps, train_units
from dso.training import GRPO, KLBudget, Objective, Optimisation, TrainingDiverged, rollouts
from dso.training.module import SteeringModule
from dso.training.trl_backend import TRL, train_with_trl
from dso.training.trl_rewards import Rewards
from dso.training.trl_watch import STATE, Watch
from tests.organism import module, small_data, small_task, trainer
from tests.tiny_vlms import SKIPPED, tiny_vlm

pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

REWARDS = {"twin_prior": 1.0, "twin_consistency": 0.0, "pair_anchor": 0.0, "option_mass": 0.0}
ONLY_CPU = TRL(cpu=True)


def run_of(estimator="rloo", samples=3, epochs=1, **settings):
    return module(
        estimator=estimator,
        sampling=Sampling(samples, 4, epochs),
        **({"objective": Objective(**REWARDS)} | settings),
    )


def train(run, folder, steps, data=None, settings=ONLY_CPU, **more):
    data = small_data() if data is None else data
    return train_with_trl(run, data, steps, folder, settings=settings, progress=False, **more)


def ours(data, steps):
    """The batches of our own training."""
    choices = data.data.train
    pairs = train_units(choices)
    sizes = data.pairs_per_step, data.pool_per_step
    return [*TrainSteps(pairs, data.data.pool, *sizes, steps, data.seed)]


def vectors(run):
    return {n: p.detach().clone() for n, p in run.adapted.named_parameters() if p.requires_grad}


def gradients(run):
    return [p.grad.clone() for p in run.adapter_parameters]


def log(folder):
    (file,) = folder.glob("logs/*/metrics.csv")
    with file.open(encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_a_run_ends_in_a_trained_adapter_and_leaves_its_log(tmp_path, estimator):
    run = run_of(estimator)
    folder = train(run, tmp_path, 2)
    assert folder == tmp_path / "adapter"
    loaded = load_adapter(Policy.from_pretrained(run.model_name).model, folder)
    found = dict(loaded.named_parameters())
    assert all(torch.equal(found[name], value) for name, value in vectors(run).items())
    assert all(bool(value.any()) for value in vectors(run).values())
    assert not run.adapted.training
    recipe = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["recipe"]
    assert (recipe["backend"], recipe["estimator"], recipe["steps"]) == ("trl", estimator, 2)
    assert recipe["versions"]["trl"]
    rows = log(tmp_path)
    assert [row["step"] for row in rows] == ["0", "1"]
    assert float(rows[0]["kl"]) == 0 < float(rows[1]["kl"])


def test_prompts_are_our_tokens_and_batches_ours_in_their_order(tmp_path, monkeypatch):
    run, data, fed, seen = run_of(), small_data(), [], []
    run.configure_model()
    assert "bos_token" in run.policy.tokenizer.chat_template
    # As Llama's: it begins every text, and its chat template begins the conversation as well.
    plain = PreTrainedTokenizerFast.__call__

    def beginning(self, text=None, *args, add_special_tokens=True, **kwargs):
        assert not add_special_tokens, "a rendered prompt would begin twice"
        return plain(self, text, *args, add_special_tokens=add_special_tokens, **kwargs)

    monkeypatch.setattr(type(run.policy.tokenizer), "__call__", beginning)
    generate, reward = run.adapted.generate, Rewards.__call__

    def generating(input_ids, attention_mask, **kwargs):
        rows = zip(input_ids, attention_mask.bool(), strict=True)
        fed.append([tuple(ids[real].tolist()) for ids, real in rows])
        return generate(input_ids=input_ids, attention_mask=attention_mask, **kwargs)

    def rewarding(self, batch, encoded, drawn, progress):
        seen.append([choice.id for choice in batch.choices])
        assert [len(answers) for answers in drawn] == [3] * len(batch.choices)
        return reward(self, batch, encoded, drawn, progress)

    monkeypatch.setattr(run.adapted, "generate", generating)
    monkeypatch.setattr(Rewards, "__call__", rewarding)
    train(run, tmp_path, 3, data)
    batches = ours(data, 3)
    assert seen == [[choice.id for choice in batch.choices] for batch in batches]
    for batch, prompts in zip(batches, fed, strict=True):
        wanted = [code.prompt for code in run.policy.encode(batch.choices) for _ in range(3)]
        assert prompts == wanted
        assert len({len(prompt) for prompt in prompts}) > 1
        twins = [choice.twin for choice in batch.choices[: batch.ambiguous]]
        assert twins[0::2] == twins[1::2]


@pytest.mark.parametrize(
    ("estimator", "settings"),
    [
        ("rloo", GRPO()),
        *(("grpo", GRPO(kind, "none")) for kind in ("grpo", "dr_grpo", "dapo", "bnpo", "cispo")),
        ("grpo", GRPO("dapo", "group")),
        ("grpo", GRPO("grpo", "batch")),
    ],
    ids=str,
)
def test_the_same_answers_teach_what_they_do_in_our_own_training(
    tmp_path, monkeypatch, estimator, settings
):
    """Two steps, the second with a KL to the base; the populations are of different sizes."""
    drawn, found = [], {"own": [], "trl": []}
    optimisation = Optimisation(warmup=0)

    def sampling(*args, **kwargs):
        drawn.append(sample_tokens(*args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(rollouts, "sample_tokens", sampling)
    own = run_of(estimator, grpo=settings, optimisation=optimisation)
    own.on_before_optimizer_step = lambda _: found["own"].append(gradients(own))
    trainer(tmp_path, 2).fit(own, small_data())

    run = run_of(estimator, grpo=settings, optimisation=optimisation)
    run.configure_model()
    left = iter(drawn)

    def generating(input_ids, **_):
        rows = [torch.tensor(answer) for answers in next(left) for answer in answers]
        pad = run.policy.tokenizer.pad_token_id
        answers = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        return torch.cat([input_ids, answers], dim=1)

    monkeypatch.setattr(run.adapted, "generate", generating)
    plain = Watch.on_pre_optimizer_step

    def watching(self, *args, **kwargs):
        found["trl"].append(gradients(run))
        plain(self, *args, **kwargs)

    monkeypatch.setattr(Watch, "on_pre_optimizer_step", watching)
    train(run, tmp_path, 2)
    for own_step, trl_step in zip(found["own"], found["trl"], strict=True):
        largest = max(float(g.abs().max()) for g in own_step)
        assert largest > 1e-2
        for a, b in zip(own_step, trl_step, strict=True):
            torch.testing.assert_close(b, a, rtol=0, atol=2e-3 * largest)


@pytest.mark.parametrize("estimator", ["rloo", "grpo"])
def test_in_parts_the_step_is_the_same(tmp_path, monkeypatch, estimator):
    found = []
    plain = Watch.on_pre_optimizer_step

    def watching(self, *args, **kwargs):
        found.append(gradients(self.module))
        plain(self, *args, **kwargs)

    monkeypatch.setattr(Watch, "on_pre_optimizer_step", watching)
    for parts in (1, 4):
        run = run_of(
            estimator,
            samples=4,
            grpo=GRPO("dapo", "none"),
            kl=KLBudget(initial=100.0),
            optimisation=Optimisation(warmup=0),
        )
        train(run, tmp_path / str(parts), 2, settings=TRL(cpu=True, parts=parts))
    torch.testing.assert_close(found[:2], found[2:], rtol=1e-2, atol=1e-4)


def test_the_kl_as_a_reward_is_that_of_the_pool_only():
    values, batch = {}, ours(small_data(), 1)[0]
    for part in ("reward", "none"):
        run = run_of(kl=KLBudget(initial=2.0))
        run.configure_model()
        torch.manual_seed(0)
        for parameter in run.adapter_parameters:
            parameter.data.normal_(std=0.2)
        policy, encoded = run.policy, run.policy.encode(batch.choices)
        drawn = sample_tokens(policy, encoded, run.sampling, torch.Generator().manual_seed(0))
        reward = Rewards(run, batch.table, part)
        values[part] = reward(batch, encoded, drawn)
    read = read_answers(policy, batch.choices, encoded, drawn)
    with torch.no_grad():
        steered = policy.score(read.encoded).options.gather(1, read.column)
        with policy.base():
            base = policy.score(read.encoded).options.gather(1, read.column)
    rows, pool = len(encoded), len(encoded) - batch.ambiguous
    moved = reward.controller.multiplier * (steered - base) * rows / pool
    moved[: batch.ambiguous] = 0
    assert moved.abs().max() > 0.01
    torch.testing.assert_close(values["reward"], values["none"] - moved, atol=1e-4, rtol=1e-4)


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    plain = Watch.on_save

    def copying(self, args, state, control, **kwargs):
        plain(self, args, state, control, **kwargs)
        name = f"checkpoint-{state.global_step}"
        shutil.copytree(tmp_path / "whole" / "checkpoints" / name, tmp_path / name)

    whole = run_of(samples=2)
    with monkeypatch.context() as patch:
        patch.setattr(Watch, "on_save", copying)
        train(whole, tmp_path / "whole", 4, settings=TRL(cpu=True, save_every=2))
    resumed = run_of(samples=2)
    train(resumed, tmp_path / "resumed", 4, checkpoint=tmp_path / "checkpoint-2")
    assert all(torch.equal(v, vectors(resumed)[n]) for n, v in vectors(whole).items())
    assert [row["step"] for row in log(tmp_path / "resumed")] == ["2", "3"]
    states = [
        json.loads((tmp_path / run / "checkpoints" / "checkpoint-4" / STATE).read_text())
        for run in ("whole", "resumed")
    ]
    assert states[0] == states[1]


def test_answers_are_used_as_often_as_asked(tmp_path):
    run = run_of("grpo", epochs=2)
    train(run, tmp_path, 4, settings=TRL(cpu=True, save_every=1))
    read = [row["reward"] + row["kl"] for row in log(tmp_path)]
    assert read[0] == read[1] != read[2] == read[3]
    # Never between the two uses.
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["checkpoint-4"]


def test_trls_own_penalty_compares_with_the_base(tmp_path):
    run = run_of(optimisation=Optimisation(warmup=0))
    train(run, tmp_path, 2, settings=TRL(cpu=True, beta=0.1))
    rows = log(tmp_path)
    assert float(rows[0]["trl/kl"]) == pytest.approx(0, abs=1e-6)
    assert abs(float(rows[1]["trl/kl"])) > 1e-4
    assert list(run.adapted.peft_config) == ["default"]


def test_the_proximal_step_makes_entries_zero(tmp_path):
    run = run_of(objective=Objective(**REWARDS, l1=0.5), optimisation=Optimisation(warmup=0))
    train(run, tmp_path, 2)
    every = torch.cat([v.flatten() for v in vectors(run).values()])
    assert 0 < (every == 0).float().mean() < 1


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_training_stops_at_a_nan_and_keeps_the_last_good_adapter(tmp_path, monkeypatch, where):
    from dso.training import _trl

    run, good = run_of(), {}
    plain = _trl.SteeringRLOO._compute_loss

    def poisoned(self, model, inputs):
        loss = plain(self, model, inputs)
        if self.state.global_step < 2:
            return loss
        good.update(vectors(run))
        if where == "loss":
            return loss * math.nan
        # sqrt has an infinite slope at 0: a finite loss whose gradient is not.
        return loss + (loss * 0).abs().sqrt()

    monkeypatch.setattr(_trl.SteeringRLOO, "_compute_loss", poisoned)
    with pytest.raises(TrainingDiverged, match=f"{where} is n.*learning rate"):
        train(run, tmp_path, 4)
    loaded = load_adapter(Policy.from_pretrained(run.model_name).model, tmp_path / "adapter")
    found = dict(loaded.named_parameters())
    assert any(bool(v.any()) for v in good.values())
    assert all(torch.equal(found[name], value) for name, value in good.items())


def test_a_model_that_trl_scores_wrongly_is_refused(tmp_path):
    """GPT-2's positions are learnt, and trl counts the padding as positions."""
    tokenizer = run_of()
    tokenizer.configure_model()
    tokenizer = tokenizer.policy.tokenizer
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=16, n_layer=1, n_head=2,
        initializer_range=0.5, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    run = run_of()
    run.model_name = str(tmp_path / "model")
    with pytest.raises(ValueError, match=r"differs from ours by .* nats.*backend lightning"):
        train(run, tmp_path / "run", 1)


def test_what_trl_cannot_train_is_refused(tmp_path, monkeypatch):
    for estimator in ("exact", "reinforce"):
        with pytest.raises(ValueError, match=f"grpo or rloo, and the estimator is '{estimator}'"):
            train(run_of(estimator), tmp_path, 1)
    with pytest.raises(ValueError, match=r"twin_consistency, pair_anchor are on.*to 0"):
        train(run_of(objective=Objective(option_mass=0)), tmp_path, 1)
    with pytest.raises(ValueError, match="steps is 0; wanted at least 1"):
        train(run_of(), tmp_path, 0)
    with pytest.raises(ValueError, match="parts is 7, which does not divide the 48 answers"):
        train(run_of(), tmp_path, 1, settings=TRL(cpu=True, parts=7))
    with pytest.raises(ValueError, match=f"has no {STATE}; wanted a folder checkpoint-<step>"):
        train(run_of(), tmp_path, 1, checkpoint=tmp_path)
    assert not (tmp_path / "adapter").exists()


def test_without_trl_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "dso.training._trl", raising=False)
    monkeypatch.delattr("dso.training._trl", raising=False)
    with pytest.raises(ValueError, match=r'pip install "dso\[trl\]"'):
        train(run_of(), tmp_path, 1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"beta": -1}, "beta is -1"),
        ({"parts": 0}, "parts is 0"),
        ({"save_every": 0}, "every is 0"),
        ({"kl": "no"}, "kl is 'no'"),
    ],
)
def test_settings_are_checked(settings, said):
    with pytest.raises(ValueError, match=said):
        TRL(**settings)


def test_nothing_imports_trl_before_a_run_needs_it():
    code = "import sys, dso, dso.training.trl_backend; assert 'trl' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_model_keeps_its_own_generation_settings(tmp_path):
    run = run_of(samples=2)
    run.configure_model()
    base = run.adapted.get_base_model()
    before = base.generation_config
    before.top_k = 1  # the most probable token only: all answers would be the same
    data = ChoiceDataModule(small_task(), pairs_per_step=4, pool_per_step=4)
    train(run, tmp_path, 1, data)
    assert base.generation_config is before and before.top_k == 1
    assert float(log(tmp_path)[0]["trl/frac_reward_zero_std"]) < 1


@pytest.mark.slow
@pytest.mark.parametrize(("family", "estimator"), [("llava", "rloo"), ("qwen2_5_vl", "grpo")])
def test_choices_that_show_pictures_are_trained_on(tmp_path, family, estimator):
    if family in SKIPPED:
        pytest.skip(SKIPPED[family])
    model, processor = tiny_vlm(family)
    model.config.get_text_config().max_position_embeddings = 512
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    run = SteeringModule(
        str(tmp_path / "model"),
        estimator=estimator,
        sampling=Sampling(3, 4, 1),
        objective=Objective(**REWARDS),
    )
    task = Scenes(pairs=8, pool=8, validation=4, evaluation=4, size=48)
    data = ChoiceDataModule(task, pairs_per_step=2, pool_per_step=2)
    data.setup("fit")
    train(run, tmp_path / "run", 2, data)
    assert all(bool(value.any()) for value in vectors(run).values())
    assert float(log(tmp_path / "run")[1]["kl"]) > 0
