from __future__ import annotations

import math

import pytest

from dso.report import read_results, write_results
from scripts.benchmarks.step import FLOPS_A_TOKEN, run


def test_a_step_is_measured_both_ways_and_both_learn_the_same(tmp_path, capsys):
    results = run("tiny", prompts=4, length=8, warmup=1, steps=1, device="cpu", seed=0)
    write_results(tmp_path / "results.jsonl", results)
    assert read_results(tmp_path / "results.jsonl") == results
    figures = {(result.experiment, result.metric): result.value for result in results}
    assert all(math.isfinite(value) and value != 0 for value in figures.values())
    assert figures["plain", "trained_parameters"] == 4 * 2 * 2 * 64
    assert figures["plain", "last_loss"] == figures["checkpointed", "last_loss"]
    # Queries and outputs, keys and values, the MLP and two norms of each block, and the final norm.
    inside = 4 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64) + 64
    assert figures["plain", "parameters_of_the_blocks"] == inside
    assert figures["plain", "parameters"] == inside + 2 * 1377 * 64
    rate = figures["plain", "share_of_matmul_rate"] * figures["plain", "matmul_tflops"] * 1e12
    done = FLOPS_A_TOKEN * inside * 4 * 8
    assert rate == pytest.approx(done / figures["plain", "seconds_per_step"])
    assert "tokens/s" in capsys.readouterr().out
