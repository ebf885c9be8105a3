"""Tables in the terminal and in Markdown."""

from __future__ import annotations

import pytest
from rich.console import Console

from dso.report import TITLES, in_order, markdown_table, results_table, title_of
from tests.report.made_up_results import result, sweep

BOTH = [*sweep(), *sweep("heldout_occupations")]


def test_markdown_has_a_row_per_metric_in_order_and_a_column_per_strength():
    lines = markdown_table(list(reversed(BOTH)), "train_occupations").splitlines()
    assert lines[0] == "| Strength | 0 | 0.5 | 1 |"
    assert lines[1] == "|---|---:|---:|---:|"
    assert lines[2] == (
        "| Bias per occupation (%) | 50.0 [45.0, 55.0] | 27.5 [22.5, 32.5] | 5.0 [0.0, 10.0] |"
    )
    assert lines[-1] == "| KL to the base model (nats) | 0.000 | 0.006 | 0.012 |"
    headings = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
    shown = in_order(r.metric for r in BOTH)
    assert headings == [TITLES[metric].heading() for metric in shown]


def test_metrics_and_intervals_can_be_chosen():
    text = markdown_table(BOTH, "train_occupations", ["kl", "capability"], intervals=False)
    assert text.splitlines()[2:] == [
        "| KL to the base model (nats) | 0.000 | 0.006 | 0.012 |",
        "| Accuracy, knowledge (%) | 93.0 | 93.0 | 93.0 |",
    ]


def test_another_estimate_is_shown_where_there_is_one():
    text = markdown_table(
        BOTH, "train_occupations", ["per_occupation_bias", "flip_rate"], False, "greedy"
    )
    assert "| Bias per occupation (%) | 53.0 |" in text
    assert "| Answers flipped by gender (%) | 50.0 |" in text


def test_a_metric_without_a_title_is_shown_last_under_its_own_name():
    text = markdown_table([*BOTH, result("sceat_rho", 0.5)], "train_occupations")
    assert text.splitlines()[-1] == "| sceat_rho | 0.500 [0.450, 0.550] | - | - |"
    assert title_of("sceat_rho").heading() == "sceat_rho"


@pytest.mark.parametrize("width", [80, 140])
def test_the_terminal_table_shows_values_and_intervals(width):
    console = Console(width=width, record=True, file=None, force_terminal=False, quiet=False)
    with console.capture() as captured:
        console.print(results_table(BOTH, "train_occupations"))
    text = captured.get()
    assert "Bias per occupation (%)" in text and "27.5" in text and "[22.5, 32.5]" in text
    assert "train_occupations" in text and "sampled" not in text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: markdown_table(BOTH, "test"), "no results of split 'test'; splits: .'heldout"),
        (lambda: markdown_table(BOTH, "train_occupations", ["speed"]), "no results of .'speed'"),
        (
            lambda: markdown_table([*BOTH, result(seed=1)], "train_occupations"),
            "several results of per_occupation_bias at strength 0 .*: seed 0 and 1",
        ),
        (
            lambda: results_table([*BOTH, BOTH[0]], "train_occupations"),
            "the same figure twice",
        ),
        (
            lambda: results_table(
                [result(estimate="sampled"), result(estimate="greedy")], "train_occupations"
            ),
            "no estimate 'probability'",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused_in_words(call, message):
    with pytest.raises(ValueError, match=message):
        call()
