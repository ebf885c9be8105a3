from __future__ import annotations

import re
import statistics

import pytest

from dso.report import read_results
from scripts.benchmarks.comparing import METHODS, Measured, Plan
from scripts.benchmarks.training import bars, in_a_table, main
from scripts.benchmarks.turns import Spent, Turns, Watched
from tests.organism import module, organism, small_data, trainer

pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def quickly(folder, module, steps):
    data = small_data()
    return lambda: trainer(folder, steps).fit(module, data)


def made_up(seconds, passes=2, halved=None):
    """Steps whose machine becomes twice as slow in the second round."""
    rounds = [[Spent(seconds * slow, 2 * seconds, passes, 10)] * 2 for slow in (1, 2, 1)]
    return Measured(rounds, Spent(0.5, 0.4, 7, 70), [0.5, 0.4], 11, halved)


def test_a_run_in_turns_learns_what_it_does_in_one_go_and_counts_its_steps_only(tmp_path):
    whole = module()
    trainer(tmp_path, 4).fit(whole, small_data())
    run = Watched(organism())
    turns = Turns(run, quickly(tmp_path, run, 4))
    turns.advance(2)
    assert len(turns.steps) == 2
    run.policy.score(run.policy.encode(small_data().data.train[:2]))  # between two turns
    turns.advance(1)
    turns.close()
    assert [step.passes for step in turns.steps] == [2] * 3
    assert all(step.seconds > 0 and step.tokens > 0 for step in turns.steps)
    for a, b in zip(run.adapter_parameters, whole.adapter_parameters, strict=True):
        assert a.equal(b)


def test_what_ends_a_run_reaches_whoever_waits_for_it(tmp_path):
    run = Watched(organism())
    turns = Turns(run, quickly(tmp_path, run, 1))
    turns.advance(0)
    with pytest.raises(RuntimeError, match="ended 5 steps before its turn; give it more steps"):
        turns.advance(5)

    def broken():
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        Turns(Watched(organism()), broken).advance(1)


def test_a_busy_machine_changes_no_ratio():
    measured = {"exact": made_up(1.0), "grpo": made_up(3.0)}
    assert measured["grpo"].beside(measured["exact"]) == [3.0] * 3
    assert measured["grpo"].beside(measured["exact"], "processor") == [3.0] * 3
    swift, slow = made_up(0.1), made_up(1.0)
    measured |= {"exact": swift, "trl_grpo": slow, "trl_grpo_beta": made_up(0.7)}
    said = dict(bars("x", measured))
    assert said["x, trl_grpo beside exact 10.0 >= 8"]
    assert not said["target: x, trl_grpo beside exact 10.0 >= 12"]
    assert not said["x, trl_grpo_beta beside exact 7.0 >= 8"]
    assert not said["target: x, grpo beside trl_grpo 3.00 <= 1"]


def test_what_was_not_reached_is_said():
    measured = {"exact": made_up(0.2, halved=6), "grpo": made_up(1.0)}
    exact, grpo = in_a_table(measured, 0.7).splitlines()[2:]
    # The preparation, and six steps of 0.2 s with two passes each.
    assert exact.endswith("| 0.5 | 6 | 1.7 | 19 |")
    assert "| not reached in 11: 40.0 % | – | – |" in grpo


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rounds": 2}, "rounds is 2; wanted at least 3"),
        ({"most": 2}, "most is 2 and block 5; wanted at least 3 turns"),
        ({"block": 0}, "block 0"),
        ({"steps": 61}, "steps is 61; wanted more than the 61 taken"),
    ],
)
def test_plans_are_checked(settings, said):
    with pytest.raises(ValueError, match=said):
        Plan(**settings)


def test_the_whole_comparison_on_tiny_models(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["training", "--quick", "--output", str(tmp_path)])
    assert main() in (0, 1)
    results = read_results(tmp_path / "training_benchmark.jsonl")
    materials = list(dict.fromkeys(result.experiment for result in results))
    assert materials == ["organism", "random Llama tiny"]
    for material in materials:
        found = {(r.estimator, r.metric): r.value for r in results if r.experiment == material}
        assert {name for name, _ in found} == set(METHODS)
        assert found["exact", "step_cost_beside_exact"] == 1
        for name in METHODS[1:]:
            for metric in ("passes_per_step", "tokens_per_step"):
                assert found[name, metric] > found["exact", metric]
        assert min(v for (_, metric), v in found.items() if metric == "seconds_per_step") > 0
    biases = {(r.strength, r.value) for r in results if r.metric == "per_occupation_bias"}
    assert len({value for strength, value in biases if strength == 0}) == 1
    assert statistics.mean(v for s, v in biases if s == 1) < max(v for s, v in biases if s == 0)
    text = (tmp_path / "training_benchmark.md").read_text(encoding="utf-8")
    assert len(re.findall(r"^\* (holds|missed): ", text, flags=re.MULTILINE)) == 2 * 6
    assert "organism, trl_grpo_beta: bias " in capsys.readouterr().out
