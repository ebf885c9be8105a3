"""results.jsonl: what is written is what is read, and a bad line is named."""

from __future__ import annotations

import json
import math

import pytest

from dso.metrics import measure
from dso.report import Result, read_results, write_results
from tests.metrics.made_up_choices import mixture, random_model
from tests.report.made_up_results import result, sweep

FULL = result(
    model="organism-llm",
    adapter="organism-llm-dso",
    method="dso",
    estimator="exact",
    task="coreference",
    group="women",
    layer=3,
    experiment="C6",
    concept="línea\u2028two",
    attribute="career",
    p=0.01,
    p_adjusted=0.04,
)
GOOD = json.dumps(
    {
        "strength": 1,
        "split": "test",
        "metric": "kl",
        "value": 2.5,
        "low": None,
        "high": None,
        "n": 3,
        "seed": 0,
        "estimate": "probability",
    }
)


@pytest.mark.parametrize("results", [[], [FULL], [FULL, *sweep()]], ids=["none", "one", "many"])
def test_what_is_written_is_what_is_read(tmp_path, results):
    path = tmp_path / "new" / "results.jsonl"
    write_results(path, results)
    assert read_results(path) == results
    assert len(path.read_bytes().splitlines()) == len(results)
    assert [p.name for p in path.parent.iterdir()] == ["results.jsonl"]


def test_fields_that_do_not_apply_are_left_out_and_a_missing_interval_is_null(tmp_path):
    path = tmp_path / "results.jsonl"
    write_results(path, [result("kl", 0.1, low=None, high=None)])
    line = json.loads(path.read_text())
    assert set(line) == set(json.loads(GOOD))
    assert line["low"] is None and line["high"] is None


def test_a_file_that_is_there_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "results.jsonl"
    write_results(path, [FULL])

    def failing():
        yield result()
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError):
        write_results(path, failing())
    assert read_results(path) == [FULL]
    write_results(path, sweep())
    assert read_results(path) == sweep()


def test_measurements_become_results_field_by_field(tmp_path):
    table = mixture()
    results = [
        Result(strength=1.0, split="test", seed=0, **vars(measurement))
        for measurement in measure(random_model(table), table, replicates=20)
    ]
    write_results(tmp_path / "results.jsonl", results)
    assert read_results(tmp_path / "results.jsonl") == results


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('{"strength": 1', "not JSON"),
        ("", "empty"),
        ("[1, 2]", "JSON object"),
        ({"valeu": 1.0}, r"unknown field\(s\) valeu"),
        ({"seed": ...}, r"missing field\(s\) seed"),
        ({"value": "high"}, "value is 'high'; wanted a number"),
        ({"value": None}, "value is None"),
        ({"value": math.nan}, "value is nan; wanted a finite number"),
        ({"strength": math.inf}, "strength is inf"),
        ({"metric": "capability", "value": 64.5}, "not percent"),
        ({"n": 2.5}, "n is 2.5; wanted a whole number"),
        ({"n": True}, "n is True"),
        ({"n": 0}, "at least one sample"),
        ({"low": 0.1}, "both ends or neither"),
        ({"low": 0.4, "high": 0.3}, "upside down"),
        ({"split": ""}, "split is empty"),
        ({"model": 3}, "model is 3; wanted text"),
        ({"layer": 1.5}, "layer is 1.5"),
        ({"p": 1.2}, "p is 1.2; a p-value"),
    ],
)
def test_a_bad_line_is_named(tmp_path, change, message):
    path = tmp_path / "results.jsonl"
    bad = change
    if isinstance(change, dict):
        merged = {**json.loads(GOOD), **change}
        bad = json.dumps({key: value for key, value in merged.items() if value is not ...})
    path.write_text(f"{GOOD}\n{bad}\n{GOOD}\n")
    with pytest.raises(ValueError, match=f"results.jsonl, line 2: .*{message}"):
        read_results(path)


def test_a_line_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(GOOD.encode() + b"\n\xff\xfe\n")
    with pytest.raises(ValueError, match="line 2"):
        read_results(path)


def test_whole_numbers_are_fine_as_values():
    assert isinstance(result(value=0, strength=1).strength, float)


def test_a_missing_file_is_an_error_of_its_own(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_results(tmp_path / "absent.jsonl")
