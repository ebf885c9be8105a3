from __future__ import annotations

import math

import pytest
import torch

from dso.report import read_results
from dso.tasks import twin_pairs
from scripts.benchmarks import qwen_vl
from scripts.benchmarks.qwen_vl import FULL, TINY, random_choices, random_policy
from scripts.benchmarks.step import FLOPS_A_TOKEN
from scripts.benchmarks.vlm import FLOPS_A_PATCH, main


def command(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["vlm", *words])
    main()


def test_the_large_size_has_as_many_weights_as_the_published_model(monkeypatch):
    monkeypatch.setattr(qwen_vl, "attach", lambda model: model)  # weights on meta have no print
    policy = random_policy(FULL, "meta", seed=0)
    # Of Qwen/Qwen2.5-VL-7B-Instruct, as its safetensors files say.
    assert sum(p.numel() for p in policy.model.parameters()) == 8_292_166_656
    assert {p.dtype for p in policy.model.parameters()} == {torch.bfloat16}


def test_a_picture_of_the_large_size_is_a_thousand_visual_tokens():
    policy = random_policy(TINY, "cpu", seed=0)
    policy.eyes.processor.image_processor.size["longest_edge"] = FULL.edge**2
    (code,) = policy.encode(random_choices(FULL, 1, seed=0))
    assert code.prompt.count(policy.model.config.image_token_id) == FULL.visual == 1024
    assert len(code.prompt) == FULL.visual + FULL.words + 2


def test_questions_are_the_same_at_every_call_and_different_from_one_another():
    one, again = (random_choices(TINY, 8, seed=3) for _ in range(2))
    assert one == again
    assert len({choice.pictures for choice in one}) == len({c.prompt for c in one}) == 8
    assert len(twin_pairs(one)) == 2
    assert [choice.kind for choice in one] == ["ambiguous"] * 4 + ["capability"] * 4


def test_steps_and_answers_of_the_tiny_one_are_measured(tmp_path, monkeypatch, capsys):
    small = ("--prompts", "4", "--answers", "2", "--steps", "2", "--device", "cpu")
    command(monkeypatch, "--tiny", "--plain", *small, "--output", str(tmp_path))
    rows = read_results(tmp_path / "results.jsonl")
    found = {(row.experiment, row.strength, row.metric): row.value for row in rows}
    assert all(math.isfinite(value) and value != 0 for value in found.values())

    def of(metric, way="plain"):
        return found[way, 1.0, metric]

    assert of("last_loss") == pytest.approx(of("last_loss", "checkpointed"), rel=1e-4)
    assert of("visual_tokens") == 4 * TINY.visual == 4 * 36
    assert of("text_tokens") == 4 * (TINY.words + 2)
    assert of("trained_parameters") == 2 * 2 * 2 * 64
    speed = of("visual_tokens_per_second") / of("visual_tokens")
    assert speed == pytest.approx(1 / of("seconds_per_step"))
    done = FLOPS_A_TOKEN * of("parameters_of_the_blocks") * 4 * (36 + TINY.words + 2)
    done += FLOPS_A_PATCH * of("parameters_of_the_tower") * 4 * 4 * 36
    rate = of("share_of_matmul_rate") * of("matmul_tflops") * 1e12
    assert rate == pytest.approx(done / of("seconds_per_step"))
    for strength in (0.0, 1.0):
        assert found["answers", strength, "new_tokens"] == 2 * TINY.new_tokens
    assert "visual and" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tiny", "--prompts", "6"], "--prompts is 6; wanted a multiple of 4"),
        (["--tiny", "--answers", "0"], "--answers is 0, --steps 3 and --warmup 1; wanted at least"),
        ([], "the 7B size needs a GPU and there is none here; --tiny needs none"),
    ],
)
def test_what_cannot_be_run_is_said(monkeypatch, capsys, words, said):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        command(monkeypatch, *words)
    assert said in capsys.readouterr().err
