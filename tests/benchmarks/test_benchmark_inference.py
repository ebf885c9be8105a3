from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from dso.report import read_results
from scripts.benchmarks.inference import bars, graph_bars, main
from scripts.benchmarks.inferring import Plan, count_graphs
from scripts.benchmarks.paired import compare, order, take_turns
from tests.steering.steered import steer
from tests.tiny_models import tiny_llama, tokens

NAMES = ("base", "again", "live", "live_rows", "folded")


def test_everybody_stands_in_every_place_of_the_order():
    rounds = [order(NAMES, number) for number in range(10)]
    assert all(sorted(one) == sorted(NAMES) for one in rounds)
    for place in range(5):
        assert {one[place] for one in rounds} == set(NAMES)
    following = Counter(pair for one in rounds for pair in pairwise(one))
    assert following["base", "again"] == following["again", "base"] > 0


def test_turns_are_counted_after_the_warmup():
    taken = []

    def contestant(name):
        def one():
            taken.append(name)
            return float(len(taken))

        return one

    found = take_turns({name: contestant(name) for name in "ab"}, rounds=3, warmup=2)
    assert len(taken) == 2 * 5
    assert sorted(cost for name in "ab" for cost in found[name]) == list(range(5, 11))
    with pytest.raises(ValueError, match="2 rounds and 0 before them; wanted at least 3"):
        take_turns({}, rounds=2, warmup=0)


def test_a_ratio_is_within_rounds_and_its_interval_holds_the_truth():
    held = 0
    for seed in range(30):
        generator = np.random.default_rng(seed)
        # The machine is the same for both in a round, and may be twice as slow in the next.
        busy = 1 + generator.random(200)
        noise = 1 + 0.01 * generator.standard_normal((2, 200))
        one, other = (1.1 * busy * noise[0]).tolist(), (busy * noise[1]).tolist()
        ratio = compare(one, other)
        held += ratio.low <= 1.1 <= ratio.high
        assert ratio.high - ratio.low < 0.01
    assert held >= 26  # of 30, where 28.5 are expected
    assert compare(one, one) == (1, 1, 1)
    # A single round that went wrong changes little.
    assert compare([*one, 99.0], [*other, 1.0]).value == pytest.approx(ratio.value, rel=0.001)
    fewer = compare(one[:20], other[:20])
    assert fewer.high - fewer.low > ratio.high - ratio.low


def test_rounds_that_are_alike_make_a_wider_interval():
    drift = torch.randn(100, generator=torch.Generator().manual_seed(0)).repeat_interleave(8)
    alike = (1 + 0.01 * drift).tolist()
    mixed = [alike[n] for n in torch.randperm(800, generator=torch.Generator().manual_seed(1))]
    ones = [1.0] * 800
    width = [ratio.high - ratio.low for ratio in (compare(alike, ones), compare(mixed, ones))]
    assert width[0] > 1.8 * width[1]


def made_up(base=0.02, **others):
    costs = {n: base * ratio for n, ratio in {"base": 1, "again": 1, **others}.items()}
    return {part: {n: [cost] * 5 for n, cost in costs.items()} for part in ("prefill", "decode")}


def test_bars_are_on_the_limits():
    said = dict(bars(made_up(live=1.04, folded=1.005), "x"))
    assert said["x, decode: a step of the base takes 20.0 ms >= 10"]
    assert said["x, decode, live 1.040 (1.040 to 1.040), upper limit <= 1.05"]
    assert not said["target: x, decode, live 1.040 (1.040 to 1.040), upper limit <= 1.03"]
    assert said["x, prefill, folded 1.005 (1.005 to 1.005) costs nothing, up to noise of 0.010"]
    said = dict(bars(made_up(base=0.002, live=1.06, folded=1.02), "x"))
    assert not any(holds for text, holds in said.items())
    counted = {"graphs": 1, "graphs_with_a_strength_a_row": 1, "graph_breaks": 0}
    assert all(holds for _, holds in graph_bars(counted))
    assert not any(holds for _, holds in graph_bars(dict.fromkeys(counted, 2)))


@pytest.mark.slow
def test_a_broken_graph_is_counted():
    model = steer(tiny_llama())
    norm = model.get_base_model().model.layers[0].input_layernorm
    norm.base_layer.register_forward_hook(lambda *_: torch._dynamo.graph_break())
    assert count_graphs(model, tokens())["graph_breaks"] > 0


@pytest.mark.parametrize("settings", [{"rows": 1}, {"prompt": 7}, {"tokens": 1}])
def test_plans_are_checked(settings):
    with pytest.raises(ValueError, match="wanted at least 2 rows, 8 tokens and 2 more"):
        Plan(**settings)


def command(monkeypatch, settings, *more):
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr("sys.argv", ["inference", *words, *more])


def test_the_whole_benchmark_on_a_tiny_model(tmp_path, monkeypatch, capsys):
    small = {"size": "tiny", "rows": 2, "prompt": 9, "tokens": 3, "prefills": 3, "steps": 4}
    command(monkeypatch, small, "--output", str(tmp_path))
    assert main() in (0, 1)
    results = read_results(tmp_path / "inference_benchmark.jsonl")
    found = {(r.method, r.metric): r for r in results}
    for name in NAMES:
        for part in ("prefill", "decode"):
            assert found[name, f"{part}_seconds"].value > 0
            ratio = found[name, f"{part}_beside_base"]
            assert 0 < ratio.low <= ratio.high
            assert (ratio.value == 1) == (name == "base")
    assert found["live", "graph_breaks"].value == 0
    text = (tmp_path / "inference_benchmark.md").read_text(encoding="utf-8")
    assert text.count("| live_rows |") == 2
    assert "random Llama tiny, decode: a step of the base takes" in text
    assert len(re.findall(r"^\* (holds|missed): torch.compile", text, flags=re.MULTILINE)) == 5
    assert "missed: torch.compile" not in text
    assert capsys.readouterr().out.strip() == text.strip()


@pytest.mark.slow
def test_compiled_models_take_turns_too(tmp_path, monkeypatch):
    # Captured only: to make the graphs quick would take a minute.
    monkeypatch.setattr("scripts.benchmarks.inferring.BACKEND", "eager")
    small = {"size": "tiny", "rows": 2, "prompt": 9, "tokens": 4, "prefills": 3, "steps": 6}
    command(monkeypatch, small, "--compile", "--output", str(tmp_path))
    main()
    text = (tmp_path / "inference_benchmark.md").read_text(encoding="utf-8")
    assert "holds: torch.compile, graphs made while it was timed: 0, wanted 0" in text
    results = read_results(tmp_path / "inference_benchmark.jsonl")
    assert {r.method for r in results if r.experiment.endswith("compiled")} == set(NAMES[:4])
