from __future__ import annotations

import math

from dso.report import read_results, write_results
from scripts.benchmark_step import run


def test_a_step_is_measured_both_ways_and_both_learn_the_same(tmp_path, capsys):
    results = run("tiny", prompts=4, length=8, warmup=1, steps=1, device="cpu", seed=0)
    write_results(tmp_path / "results.jsonl", results)
    assert read_results(tmp_path / "results.jsonl") == results
    figures = {(result.experiment, result.metric): result.value for result in results}
    assert all(math.isfinite(value) and value != 0 for value in figures.values())
    assert figures["plain", "trained_parameters"] == 4 * 2 * 2 * 64
    assert figures["plain", "last_loss"] == figures["checkpointed", "last_loss"]
    assert "tokens/s" in capsys.readouterr().out
