import json
import os
import shutil

import pytest

from dso.cli import main
from dso.inference.record import RECORD_NAME, read_record
from tests.organism import adapter, organism


@pytest.fixture
def folder(tmp_path):
    """A copy of the shipped adapter that may be written to."""
    target = tmp_path / "adapter"
    shutil.copytree(adapter(), target)
    (target / RECORD_NAME).unlink(missing_ok=True)
    return target


def choose(folder, *more, **settings):
    given = {
        "model": organism(), "adapter": folder, "bias": 0.3, "drop": 0.1, "pairs": 60,
        "confidence": 0.8, "strengths": (0.5, 1), "batch_size": 128,
    } | settings  # fmt: skip
    arguments = list(more)
    for name, value in given.items():
        values = value if isinstance(value, tuple) else (value,)
        arguments += [f"--{name.replace('_', '-')}", *values]
    return main(["choose-strength", *map(str, arguments)])


def test_a_strength_is_chosen_and_recorded_beside_the_untouched_adapter(folder, capsys):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert choose(folder) == 0
    said = capsys.readouterr().out
    record = read_record(folder)
    assert record.strength == 1.0
    assert "Strength 1 has a bias of at most 0.3" in " ".join(said.split())
    assert str(folder / RECORD_NAME) in said
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name: after[name] for name in before} == before
    assert set(after) == {*before, RECORD_NAME}
    assert record.pairs == 60 and set(record.questions.values()) == {60}
    assert record.fresh and record.split == "validation"
    assert sum(record.occupations.values()) == 120
    assert all(
        row.bias >= bias - 1e-9
        for row, bias in zip(record.decision.tested, record.per_occupation_bias, strict=True)
    )
    # The same again is the same file, and it holds no date.
    first = (folder / RECORD_NAME).read_bytes()
    assert choose(folder) == 0
    assert (folder / RECORD_NAME).read_bytes() == first
    assert set(json.loads(first)["versions"]) >= {"dso", "torch"}


def test_the_exit_status_is_one_where_none_qualifies(folder, capsys):
    with pytest.raises(SystemExit) as stop:
        choose(folder, strengths=(0.1,))
    assert stop.value.code == 1
    assert "No strength is shown" in capsys.readouterr().out
    assert read_record(folder).strength is None


def test_another_folder_is_written_where_it_is_asked_for(folder, tmp_path):
    assert choose(folder, output=tmp_path / "out") == 0
    assert read_record(folder) is None
    assert read_record(tmp_path / "out").strength == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bias": 1.5}, "bias is 1.5"),
        ({"drop": 0}, "drop is 0.0"),
        ({"confidence": 95}, "confidence is 95.0"),
        ({"drop": 0.02}, "60 unambiguous questions are too few to show anything: --drop 0.02"),
        ({"bias": 0.001}, "60 twin pairs are too few to show anything: --bias 0.001"),
        ({"split": "tests"}, "no split 'tests'"),
        ({"task": "mmlu", "data": "nothing"}, "nothing"),
        ({"adapter": "./nothing"}, "no adapter folder at ./nothing"),
        ({"adapter": "someone/adapter"}, "if it is a hub id, give --output"),
        ({"model": "./nothing"}, "does not exist"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(folder, capsys, settings, message):
    assert choose(folder, **settings) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error
    assert read_record(folder) is None


def test_an_adapter_is_needed(capsys):
    asked = ["--model", organism(), "--bias", "0.1", "--drop", "0.1"]
    assert main(["choose-strength", *asked]) == 2
    assert "give --adapter" in capsys.readouterr().err


def test_a_read_only_folder_is_refused_before_the_model_is_loaded(folder, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert choose(folder, model="./nothing") == 2
    assert "read-only; give --output" in capsys.readouterr().err


def own_rows(file):
    """60 twin pairs and 60 questions of a kind, in the split validation and no other."""
    rows = []
    for number in range(60):
        for word, sides, gender in (
            ("he", ("anti", "pro"), "male"),
            ("she", ("pro", "anti"), "female"),
        ):
            rows.append(
                {
                    "kind": "ambiguous",
                    "prompt": f'The nurse met the guard {number} times. Who is "{word}"?',
                    "options": [
                        {"text": "nurse", "side": sides[0]},
                        {"text": "guard", "side": sides[1]},
                    ],
                    "occupations": ["nurse", "guard"],
                    "gender": gender,
                    "twin": f"t{number}",
                }
            )
        rows.append(
            {
                "kind": "capability",
                "prompt": f"What colour is leaf {number}?",
                "options": [{"text": "blue"}, {"text": "green"}],
                "truth": "green",
            }
        )
    lines = [
        json.dumps(row | {"id": f"row-{n}", "split": "validation"}) for n, row in enumerate(rows)
    ]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_own_rows_need_no_training_split_and_reuse_is_warned_about(folder, caplog, tmp_path):
    file = own_rows(tmp_path / "rows.jsonl")
    settings = {"task": "own", "data": file, "bias": 0.99, "drop": 0.9, "kinds": "capability"}
    assert choose(folder, **settings) == 0
    assert "measured on split" not in caplog.text
    record = read_record(folder)
    assert record.occupations == {"guard": 60, "nurse": 60} and not record.fresh
    assert record.questions == {"capability": 60}
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    config["measurements"] = [{"strength": 1.0, "split": "validation"}]
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert choose(folder, **settings) == 0
    assert "the adapter was measured on split validation before" in caplog.text
