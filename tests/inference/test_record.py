import json
import os
import stat

import numpy as np
import pytest

from dso.inference.choosing import Losses, Promise, Sample, choose
from dso.inference.record import RECORD_NAME, Record, read_record, write_record


def record(bias=0.01, drop=0.0, **changes):
    equal = np.full(400, 1 / 400)
    losses = Losses(
        (0.5, 1.0),
        Sample(np.stack([np.full(400, 0.6), np.full(400, bias)]), equal),
        {"capability": Sample(np.full((2, 400), drop), equal)},
    )
    promise = Promise(0.15, 0.02)
    values = {
        "model": "base",
        "adapter": "somewhere",
        "task": {"class_path": "dso.tasks.Coreference", "init_args": {"forms": [" {}"]}},
        "split": "validation",
        "fresh": True,
        "seed": 0,
        "pairs": 400,
        "occupations": {"cook": 400, "guard": 400},
        "questions": {"capability": 400},
        "promise": promise,
        "decision": choose(losses, promise),
        "per_occupation_bias": (0.6, 0.0),
        "versions": {"dso": "0.1.0"},
    }
    return Record(**values | changes)


@pytest.mark.parametrize("found", [record(), record(bias=0.5), record(drop=0.4)])
def test_what_is_read_is_what_was_written(tmp_path, found):
    assert write_record(found, tmp_path / "new") == tmp_path / "new" / RECORD_NAME
    assert read_record(tmp_path / "new") == found


def test_other_files_are_left_alone_and_none_is_added(tmp_path):
    (tmp_path / "adapter_config.json").write_text("kept", encoding="utf-8")
    write_record(record(), tmp_path)
    first = (tmp_path / RECORD_NAME).read_bytes()
    write_record(record(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {RECORD_NAME, "adapter_config.json"}
    assert (tmp_path / "adapter_config.json").read_text(encoding="utf-8") == "kept"
    assert (tmp_path / RECORD_NAME).read_bytes() == first


def test_a_record_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    write_record(record(), tmp_path)

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_record(record(bias=0.5), tmp_path)
    assert read_record(tmp_path) == record()
    assert [path.name for path in tmp_path.iterdir()] == [RECORD_NAME]


def test_a_folder_without_a_record_has_none(tmp_path):
    assert read_record(tmp_path) is None
    assert read_record(tmp_path / "nothing") is None


def damaged(values, what):
    if what == "strength":
        values["decision"]["strength"] = 0.7
    elif what == "text":
        values["decision"]["strength"] = "1.0"
    elif what == "unknown":
        values["mood"] = "good"
    elif what == "missing":
        del values["decision"]["tested"]
    elif what == "nothing":
        values["model"] = None
    elif what == "nan":
        values["seed"] = float("nan")
    elif what == "limits":
        values["promise"]["drop"] = 7
    return json.dumps(values) if what != "cut" else json.dumps(values)[:100]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("strength", "its strength is 0.7"),
        ("text", "its strength is '1.0'"),
        ("unknown", "mood"),
        ("missing", "tested"),
        ("nothing", "model is null"),
        ("nan", "it holds NaN"),
        ("limits", "drop is 7"),
        ("cut", "line 1"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, what, message):
    file = write_record(record(), tmp_path)
    file.write_text(damaged(json.loads(file.read_text(encoding="utf-8")), what), encoding="utf-8")
    with pytest.raises(
        ValueError, match=f"{RECORD_NAME} is no record of a chosen strength.*{message}"
    ):
        read_record(tmp_path)


def test_the_sentence_says_what_came_of_it():
    assert record().sentence() == (
        "Strength 1 has a bias of at most 0.15 and no accuracy more than 0.02 below the base's, "
        "with confidence 0.9."
    )
    assert "at 1, the largest whose drops are shown" in record(bias=0.5).sentence()
    harmful = record(drop=0.4).sentence()
    assert harmful.startswith("No strength is shown")
    assert "already at 0.5 the drop on capability questions, 0.400" in harmful


def test_anyone_who_may_read_the_folder_may_read_the_record(tmp_path):
    mode = stat.S_IMODE(write_record(record(), tmp_path).stat().st_mode)
    (tmp_path / "plain").write_text("", encoding="utf-8")
    assert mode == stat.S_IMODE((tmp_path / "plain").stat().st_mode)
