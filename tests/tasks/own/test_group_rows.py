"""Rows with more than two groups: no sides, no twins, the total variation."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from dso.cli import main
from dso.tasks.datamodule import train_units
from dso.tasks.files.problems import DataError, Problems, Row
from dso.tasks.own.reading import Source, read_choices
from dso.tasks.own.row_choice import parse_row
from dso.tasks.own.task import Own
from tests.organism import organism
from tests.tasks.own.made_up_rows import flat, group_rows, valid_rows, write_rows


def read(path, **settings):
    return read_choices(Source((str(path),)), **settings)


def problems(tmp_path, rows, **settings):
    """What is wrong with the rows: (line, field, text) each."""
    with pytest.raises(DataError) as caught:
        read(write_rows(tmp_path / "my.jsonl", rows), **settings)
    found = re.findall(r"my\.jsonl, line (\d+), field ([^:]+): (.*)", str(caught.value))
    return [(int(line), field, text) for line, field, text in found]


def pair(rows, a, b, twin="pair"):
    """Make two rows twins, with the options of the first."""
    rows[b]["options"] = [dict(option) for option in rows[a]["options"]]
    rows[b]["first"] = rows[a]["first"]
    rows[a]["twin"] = rows[b]["twin"] = twin


# -- a row --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "in_json", "in_csv"),
    [
        (["Asian/Asian", "Black/Black", "White/White", "can't tell"], None, None),
        (["a/x", "b/y"], None, None),
        (["a/x/neither", "b/y/neither", "c/x"], None, None),
        (["a/x/pro", "b/y/anti", "c/z"], None, None),
        (["a//pro", "b//anti", "c"], None, None),
        (["a", "b"], "options[0].side", "option_1_side"),
        (["a/x/pro", "b/y", "c/z"], "options[1].side", "option_2_side"),
        (["a//anti", "b//anti"], "options[1].side", "option_2_side"),
        (["a/x", "b", "c"], "options[1].group", "option_2_group"),
        (["a/x", "b/x"], "options[1].group", "option_2_group"),
    ],
)
def test_an_ambiguous_row_has_both_sides_or_two_groups(options, in_json, in_csv):
    row = group_rows()[0] | {"options": [], "first": None}
    for given in options:
        text, group, side = [*given.split("/"), "", ""][:3]
        row["options"].append({"text": text, "group": group, "side": side})
    read_as = []
    for values, field in ((row, in_json), (flat(row | {"first": ""}), in_csv)):
        found = Problems()
        read_as.append(parse_row(Row("my.csv, line 7", values), found))
        if field is None:
            assert not found.found
            continue
        assert len(found.found) == 1
        place, _, text = found.found[0].partition(": ")
        assert place == f"my.csv, line 7, field {field}"
        assert text.startswith(
            "an ambiguous row needs one option that is pro and one that is anti or, with no side "
            "at all, options that name at least two groups; the sides are ["
        )
        assert ("the groups ['x', " in text) == options[0].startswith("a/x")
    assert read_as[0] == read_as[1]
    assert (read_as[0] is None) == (in_json is not None)


# -- all rows together --------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_rows_of_groups_are_trained_on_one_by_one(tmp_path, suffix):
    path = write_rows(tmp_path / f"my{suffix}", group_rows())
    data = Own(str(path)).load()
    assert len(data.train) == 12
    assert all(len(unit) == 1 for unit in train_units(data.train))
    assert [o.group for o in data.train[0].options][3:] == [None]
    assert [c.id for c in data.pool] == ["train-sea"]
    counts = read(path)
    assert (counts.twins.grouped, counts.twins.untwinned, counts.twins.left_out) == (24, 0, 0)
    assert len(Own(str(path), unpaired="leave_out").load().train) == 12
    assert len(Own(str(path), limit=7).load().train) == 7


def test_both_sorts_of_rows_stand_in_one_file(tmp_path):
    rows = [*group_rows(), *valid_rows()]
    path = write_rows(tmp_path / "my.csv", rows)
    units = train_units(Own(str(path)).load().train)
    assert Counter(map(len, units)) == {1: 12, 2: 4}
    lost = [row for row in rows if row["id"] not in ("pair-0-male", "pair-1-female")]
    del next(row for row in lost if row["id"] == "pair-1-male")["twin"]
    twins = read(write_rows(path, lost), unpaired="leave_out").twins
    assert (twins.grouped, twins.untwinned, twins.lonely, twins.left_out) == (24, 1, 1, 2)
    units = train_units(Own(str(path), unpaired="leave_out").load().train)
    assert Counter(map(len, units)) == {1: 12, 2: 2}


def test_a_gender_of_a_row_of_groups_needs_no_other_gender(tmp_path):
    rows = [row | {"gender": "female"} for row in group_rows()]
    data = read(write_rows(tmp_path / "my.csv", rows))
    assert (data.one_sided, data.occupations) == ([], 0)


def test_twins_of_groups_stay_together_and_take_no_sides(tmp_path):
    rows = group_rows()
    pair(rows, 0, 1)
    rows[0]["gender"], rows[1]["gender"] = "male", "female"
    path = write_rows(tmp_path / "my.csv", rows)
    assert read(path).twins.pairs == 1
    assert Counter(map(len, train_units(Own(str(path)).load().train))) == {1: 10, 2: 1}


@pytest.mark.parametrize(
    ("change", "line", "field", "message"),
    [
        (lambda a, b: b["options"].reverse(), 2, "options", "wanted the same in the same order"),
        (
            lambda a, b: b["options"][3].update(group="nobody"),
            2, "options", "name ['Asian', 'Black', 'White', 'nobody'], but those of its twin in",
        ),
        (
            lambda a, b: [b["options"][n].update(side=s) for n, s in enumerate(("pro", "anti"))],
            2, "options", "take sides, but those of its twin in",
        ),
        (lambda a, b: b.update(split="test"), 2, "split", "is 'test', but its twin in"),
        (
            lambda a, b: (a.update(gender="male"), b.update(gender="male")),
            2, "gender", "twins differ in gender",
        ),
        (
            lambda a, b: b.pop("twin"),
            1, "twin", "'pair' stands in this row only; wanted two rows, or no twin",
        ),
    ],
)  # fmt: skip
def test_a_twin_of_a_row_of_groups_has_to_fit(tmp_path, change, line, field, message):
    rows = group_rows()
    pair(rows, 0, 1)
    change(rows[0], rows[1])
    [found] = problems(tmp_path, rows)
    assert found[:2] == (line, field)
    assert message in found[2]


def test_what_lacks_to_train_names_both_sorts(tmp_path):
    rows = [row for row in group_rows() if (row["kind"], row["split"]) != ("ambiguous", "train")]
    path = write_rows(tmp_path / "my.csv", rows)
    with pytest.raises(ValueError, match="no pair of ambiguous twins and no ambiguous row of gro"):
        Own(str(path)).load()


# -- the documentation and the command line -----------------------------------------------------


def test_the_documented_example_is_right(tmp_path):
    page = Path("docs/own-data.md").read_text(encoding="utf-8")
    text = re.findall(r"```csv\n(.*?)```", page, flags=re.DOTALL)[1]
    path = tmp_path / "my.csv"
    path.write_text(text, encoding="utf-8")
    data = read(path)
    assert data.counts == {("train", "ambiguous"): 2, ("train", "capability"): 1}
    for choice in data.kept["train", "ambiguous"]:
        assert {o.group for o in choice.options} == {"Asian", "Black", "White", None}


def test_groups_are_checked_trained_on_and_measured(tmp_path, capsys):
    path = str(write_rows(tmp_path / "my.csv", group_rows()))
    assert main(["check", "--data", path]) == 0
    assert "Every row is right. Enough for dso fit." in capsys.readouterr().out
    run, out = tmp_path / "run", tmp_path / "out"
    assert main([
        "fit", "--config", "configs/own-data.yaml", f"--data.task.init_args.data={path}",
        "--data.task.init_args.built_in_pool=8", "--trainer.max_steps", "2",
        "--model.objective.twin_consistency", "0", "--model.objective.pair_anchor", "0",
        "--data.pairs_per_step=3", "--data.pool_per_step=4", "--trainer.accelerator=cpu",
        f"--trainer.default_root_dir={run}",
    ]) == 0  # fmt: skip
    assert main([
        "evaluate", "--model", str(organism()), "--adapter", str(run / "adapter"),
        "--strength", "0", "1", "--replicates=5", "--output", str(out),
    ]) == 0  # fmt: skip
    lines = (out / "results.jsonl").read_text(encoding="utf-8").splitlines()
    results = [json.loads(line) for line in lines]
    found = [r for r in results if r["metric"] == "total_variation" and r["split"] == "test"]
    assert {r["strength"] for r in found} == {0, 1}
    assert all(0 <= r["value"] <= 1 for r in found)
    # Whoever has no sides has no bias between them.
    assert not [r for r in results if r["metric"] == "per_occupation_bias"]
