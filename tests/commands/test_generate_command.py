"""`dso generate`: prompts from anywhere, answers as JSON lines, strengths side by side."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

import dso
from dso.cli import main
from dso.commands.generate import generate, read_prompts
from dso.inference import Decoding
from tests.organism import adapter, organism

QUESTION = (
    'The mechanic called the secretary because he was late. Who is "he", the mechanic or the '
    "secretary?"
)
MODEL = ["--model", organism(), "--adapter", adapter()]


@pytest.fixture(scope="module")
def pipeline():
    return dso.load(organism(), adapter())


def answered(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_prompt_is_answered_at_every_strength(tmp_path, pipeline, capsys):
    prompts = tmp_path / "prompts.jsonl"
    rows = [{"prompt": QUESTION}, {"messages": [{"role": "user", "content": "Who are you?"}]}]
    prompts.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    output = tmp_path / "deep" / "answers.jsonl"
    arguments = ["--file", str(prompts), "--strength", "0", "0.5", "1", "--output", str(output)]
    assert main(["generate", *MODEL, *arguments, "--max-new-tokens", "8"]) == 0
    lines = answered(output)
    asked = [(QUESTION, w) for w in (0.0, 0.5, 1.0)] + [("Who are you?", w) for w in (0, 0.5, 1)]
    assert [(line["prompt"], line["strength"]) for line in lines] == asked
    for line in lines:
        alone = pipeline.answer(line["prompt"], line["strength"], max_new_tokens=8)
        assert line["answer"] == alone
    shown = capsys.readouterr().out
    assert "ω = 0: mechanic" in shown and "ω = 1: secretary" in shown


def test_an_output_file_is_never_written_over(tmp_path, capsys):
    output = tmp_path / "answers.jsonl"
    output.write_text("mine\n")
    assert main(["generate", *MODEL, "--prompt", QUESTION, "--output", str(output)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert output.read_text() == "mine\n"


def test_without_an_adapter_the_base_answers(tmp_path):
    output = tmp_path / "answers.jsonl"
    given = ["--prompt", QUESTION, "--output", str(output)]
    assert main(["generate", "--model", organism(), *given]) == 0
    assert [(line["strength"], line["answer"]) for line in answered(output)] == [(0, " mechanic")]
    assert main(["generate", "--model", organism(), "--prompt", QUESTION, "--strength", "1"]) == 2


@pytest.mark.parametrize("strengths", [[1.0], [0.0, 1.0]])
def test_on_a_terminal_answers_are_shown_as_they_grow(pipeline, strengths):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    asked = read_prompts([QUESTION], None, None)
    answers = generate(pipeline, asked, strengths, Decoding(max_new_tokens=8), console=console)
    for answer in answers[0]:
        assert answer.text.strip() in screen.getvalue()


def test_prompts_come_from_the_line_and_from_files(tmp_path, monkeypatch):
    lines = tmp_path / "prompts.txt"
    lines.write_text("One?\n\nTwo?\n", encoding="utf-8")
    found = read_prompts(["Zero?"], lines, "Be brief.")
    assert [one.text for one in found] == ["Zero?", "One?", "Two?"]
    assert all(one.messages[0].role == "system" for one in found)
    monkeypatch.setattr("sys.stdin", io.StringIO("Three?\n"))
    assert [one.text for one in read_prompts([], Path("-"), None)] == ["Three?"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2"),
        ('{"question": "a"}', "not exactly one"),
        ('{"prompt": 3}', "its prompt is 3"),
        ('{"messages": []}', "are empty"),
        ('{"messages": [{"role": "king", "content": "a"}]}', "king"),
        ('{"messages": [{"role": "user"}]}', "content"),
        ("[1]", "not exactly one"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, said):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(f'{{"prompt": "a"}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"prompts\.jsonl, line 2") as error:
        read_prompts([], prompts, None)
    assert said in str(error.value)


def test_nothing_to_answer_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="nothing to answer"):
        read_prompts([], None, None)
    with pytest.raises(OSError):
        read_prompts([], tmp_path / "absent.txt", None)
