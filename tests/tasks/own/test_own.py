from __future__ import annotations

import json
import logging
import random
import shutil
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest

from dso.cli import main
from dso.tasks import TASKS, TaskData, WinoBias, make_task, twin_pairs
from dso.tasks.files.problems import DataError
from dso.tasks.own.reading import Source, read_choices
from dso.tasks.own.sample import Sample, rank
from dso.tasks.own.task import BUILT_IN_POOL, Own
from tests.organism import organism
from tests.tasks.own.made_up_rows import valid_rows, write_rows

EXAMPLE = "configs/own-data.csv"


def many(times: int, **changes) -> list[dict]:
    """The valid rows so many times, with names of their own."""
    rows = []
    for n in range(times):
        for row in valid_rows():
            named = {key: f"{row[key]}-{n}" for key in ("id", "twin") if key in row}
            rows.append({k: v for k, v in (row | named | changes).items() if v is not None})
    return rows


def read(path, **settings):
    return read_choices(Source((str(path),)), **settings)


def ids(choices) -> list[str]:
    return [choice.id for choice in choices]


# -- the task -----------------------------------------------------------------------------------


def test_rows_go_where_their_split_and_kind_say(tmp_path):
    data = Own(str(write_rows(tmp_path / "my.jsonl", valid_rows()))).load()
    assert isinstance(data, TaskData)
    assert {c.kind for c in data.train} == {"ambiguous"}
    assert twin_pairs(data.train) == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert sorted(ids(data.pool)) == [
        "train-capability", "train-gender_needed", "train-unambiguous"
    ]  # fmt: skip
    assert Counter(c.split for c in data.validation) == {"validation": 7}
    assert Counter(c.split for c in data.evaluation) == {"test": 5, "test_late": 2}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_order_of_the_rows_does_not_matter(tmp_path, suffix):
    rows = many(3)
    path = write_rows(tmp_path / f"a{suffix}", rows)
    one = Own(str(path), limit=4).load()
    random.Random(0).shuffle(rows)
    assert Own(str(write_rows(path, rows)), limit=4).load() == one


def test_a_format_does_not_matter_nor_do_several_files(tmp_path):
    rows = many(2)
    one = Own(str(write_rows(tmp_path / "all.csv", rows))).load()
    write_rows(tmp_path / "part-1.jsonl", rows[:13])
    write_rows(tmp_path / "part-2.csv", rows[13:])
    pattern = str(tmp_path / "part-*")
    files = [str(tmp_path / "part-1.jsonl"), str(tmp_path / "part-2.csv")]
    assert Own(pattern).load() == Own(files).load() == Own([pattern, files[0]]).load() == one


def test_rows_without_a_split_are_shared_out_with_their_twins(tmp_path):
    path = write_rows(tmp_path / "my.jsonl", many(60, split=None))
    data = read(path)
    share = {s: sum(n for (split, _), n in data.counts.items() if split == s) for s in data.splits}
    assert list(share) == ["train", "validation", "test"]
    assert [share[s] / 1500 for s in share] == pytest.approx([0.6, 0.1, 0.3], abs=0.05)
    assert data.twins.pairs == 480
    for split in data.splits:
        paired = [c for c in data.of(split) if c.twin]
        assert 2 * len(twin_pairs(paired)) == len(paired)
    task = Own(str(path), shares=(0.2, 0.2, 0.6), seed=3)
    assert len(task.load().train) == pytest.approx(0.2 * 960, abs=40)


def test_some_rows_with_and_some_without_a_split_are_refused(tmp_path):
    rows = valid_rows()
    del rows[20]["split"]
    path = write_rows(tmp_path / "my.jsonl", rows)
    with pytest.raises(DataError, match=r"line 21, field split: is missing, but .*line 1 has one"):
        read(path)
    rows = many(1, split=None)
    rows[4]["split"] = "test"
    with pytest.raises(DataError, match=r"line 5, field split: is 'test', but .*line 1 has none"):
        read(write_rows(path, rows))


@pytest.mark.parametrize("lacking", ["train", "validation", "test"])
def test_a_split_that_no_row_is_in_is_named(tmp_path, lacking):
    rows = [row for row in valid_rows() if not row["split"].startswith(lacking)]
    path = write_rows(tmp_path / "my.csv", rows)
    with pytest.raises(ValueError, match=f"my.csv: no row has split {lacking}; training needs"):
        Own(str(path)).load()
    assert len(Own(str(path)).benchmark()) == len(rows)


def test_a_benchmark_takes_all_rows_and_needs_no_twins(tmp_path):
    rows = many(1, split=None, twin=None)
    choices = Own(str(write_rows(tmp_path / "my.csv", rows))).benchmark()
    assert sorted(ids(choices)) == sorted(row["id"] for row in rows)
    assert {choice.split for choice in choices} == {"all"}


def test_the_built_in_pool_stands_in_where_train_has_no_right_answers(tmp_path, caplog):
    rows = [r for r in valid_rows() if r["kind"] == "ambiguous" or r["split"] != "train"]
    path = str(write_rows(tmp_path / "my.csv", rows))
    with caplog.at_level(logging.INFO, "dso"):
        data = Own(path).load()
    assert "pool: 2400 built-in questions beside 0 of the data's own" in caplog.text
    assert len(data.pool) == BUILT_IN_POOL
    assert Counter(c.kind for c in data.pool) == {
        "unambiguous": 1200, "gender_needed": 600, "capability": 600
    }  # fmt: skip
    with pytest.raises(ValueError, match="no row with a right answer and built_in_pool is 0"):
        Own(path, built_in_pool=0).load()
    path = str(write_rows(tmp_path / "other.csv", valid_rows()))
    assert len(Own(path, built_in_pool=9).load().pool) == 3 + 9
    assert len(Own(path).load().pool) == 3


def test_ambiguous_rows_without_a_twin_are_refused_or_left_out(tmp_path, caplog):
    rows = valid_rows()
    del rows[0]["twin"], rows[1]["twin"], rows[3], rows[12]
    path = str(write_rows(tmp_path / "my.csv", rows))
    with pytest.raises(DataError) as caught:
        Own(path).load()
    assert str(caught.value).count("field twin: is missing; an ambiguous row in train") == 2
    with caplog.at_level(logging.INFO, "dso"):
        data = Own(path, unpaired="leave_out").load()
    assert "train: left out 3 ambiguous row(s) without a twin" in caplog.text
    assert sorted({c.twin for c in data.train}) == ["pair-2", "pair-3"]
    assert len(data.evaluation) == 6
    lonely = str(write_rows(tmp_path / "lonely.csv", valid_rows()[1:]))
    with pytest.raises(DataError, match="line 2, field twin: 'pair-0' stands in this row only"):
        Own(lonely).load()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "a.csv", "hub_config": "x"}, "no hub data set is given"),
        ({"data": "a.csv", "forms": ["x"]}, "every form needs '{}'"),
        ({"data": "a.csv", "forms": []}, "every form needs '{}'"),
        ({"data": "a.csv", "limit": 1}, "limit is 1; wanted at least 2"),
        ({"data": "a.csv", "shares": (0.5, 0.5)}, "wanted three fractions"),
        ({"data": "a.csv", "shares": (0.5, 0.6, -0.1)}, "wanted three fractions"),
        ({"data": "a.csv", "shares": (0.5, 0.4, 0.2)}, "add up to 1"),
        ({"data": "a.csv", "built_in_pool": -1}, "built_in_pool is -1"),
        ({"data": "a.csv", "unpaired": "keep"}, "unpaired is 'keep'; wanted 'refuse' or"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=f"own: .*{message}"):
        Own(**settings)


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(
        ValueError, match=r"own: no rows to read; give data \(files, --data\) or hub"
    ):
        Own().load()
    with pytest.raises(DataError, match="no file fits this pattern"):
        Own(str(tmp_path / "*.csv")).load()
    with pytest.raises(DataError, match="2 problem") as caught:
        Own([str(tmp_path / "a.csv"), str(tmp_path)]).load()
    assert "a.csv: does not exist" in str(caught.value)
    assert "is a folder; wanted a file" in str(caught.value)


def test_a_task_is_made_from_its_name_and_again_from_its_settings(tmp_path):
    path = str(write_rows(tmp_path / "my.csv", valid_rows()))
    task = make_task("own", {"data": [path], "limit": 6})
    assert TASKS["own"] is Own
    recorded = json.loads(json.dumps(task.settings()))
    assert recorded["class_path"] == "dso.tasks.Own"
    assert make_task(recorded["class_path"], recorded["init_args"]).load() == task.load()
    with pytest.raises(ValueError, match="'winobias' reads one folder or file; got 2"):
        make_task("winobias", {"data": ["a", "b"]})
    assert isinstance(make_task("winobias", {"data": "a"}), WinoBias)


# -- what is kept of many rows --------------------------------------------------------------------


@pytest.mark.parametrize("limit", [2, 5, 6])
def test_a_bounded_part_is_kept_in_whole_pairs(tmp_path, caplog, limit):
    path = write_rows(tmp_path / "my.csv", many(20))
    with caplog.at_level(logging.INFO, "dso"):
        data = Own(str(path), limit=limit).load()
    even = limit - limit % 2
    assert len(data.train) == even
    assert 2 * len(twin_pairs(data.train)) == even
    assert f"train: kept {even} of 160 ambiguous rows" in caplog.text
    assert Counter(c.kind for c in data.pool) == {
        "unambiguous": limit, "gender_needed": limit, "capability": limit
    }  # fmt: skip
    assert 2 * len(twin_pairs([c for c in data.validation if c.twin])) == even


def test_the_seed_changes_what_is_trained_on_and_not_what_is_reported(tmp_path):
    path = str(write_rows(tmp_path / "my.csv", many(20)))
    one, again, other = (Own(path, limit=6, seed=seed).load() for seed in (0, 0, 1))
    assert one == again
    assert ids(one.train) != ids(other.train)
    assert (one.validation, one.evaluation) == (other.validation, other.evaluation)


def test_every_pair_is_kept_equally_often(tmp_path):
    choices = [c for c in read(write_rows(tmp_path / "my.csv", many(5))).of("train") if c.twin]
    counts: Counter[str | None] = Counter()
    for seed in range(300):
        sample = Sample(10, seed, training=True)
        for choice in choices:
            sample.offer(choice, "train")
        counts.update(c.twin for c in sample.kept()["train", "ambiguous"])
    # 5 of 20 pairs each time: two rows in a quarter of 300 draws, up to four deviations.
    assert len(counts) == 20
    assert all(abs(n / 2 - 75) < 4 * 7.5 for n in counts.values())


def test_a_rank_is_the_same_on_every_machine_and_in_every_process():
    assert rank("pair-1", 0) == 1374794490145059283
    assert rank("pair-1", 7) != rank("pair-1", 0) != rank("pair-2", 0)


def test_equal_hashes_of_different_names_are_no_problem(tmp_path, monkeypatch):
    monkeypatch.setattr("dso.tasks.own.ledger.hash", lambda value: 7, raising=False)
    path = write_rows(tmp_path / "my.csv", valid_rows())
    assert sum(map(len, read(path).kept.values())) == 25
    rows = valid_rows()
    rows[1]["id"], rows[2]["twin"] = rows[0]["id"], rows[0]["twin"]
    with pytest.raises(DataError) as caught:
        read(write_rows(path, rows))
    assert [
        text.split(": ")[0].split("my.csv, ")[1] for text in caught.value.args[0].split("\n")[1:]
    ] == ["line 4, field id", "line 6, field twin"]


def test_memory_does_not_grow_with_the_rows_but_for_some_bytes_each(tmp_path):
    def peak(times: int) -> int:
        path = write_rows(tmp_path / "my.csv", many(times))
        tracemalloc.start()
        read(path, limit=10)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(4)  # caches
    few, more = peak(100), peak(400)
    assert (more - few) / (300 * 25) < 100


# -- hub data sets, as folders ------------------------------------------------------------------


def test_a_hub_data_set_is_streamed(tmp_path):
    pytest.importorskip("datasets")
    rows = valid_rows()
    for split in ("train", "validation", "test"):
        part = [{k: v for k, v in r.items() if k != "split"} for r in rows if r["split"] == split]
        write_rows(tmp_path / f"{split}.jsonl", part)
    data = Own(hub=str(tmp_path)).load()
    assert Counter(c.split for c in [*data.train, *data.validation, *data.evaluation]) == {
        "train": 8, "validation": 7, "test": 5
    }  # fmt: skip
    part[2]["kind"] = "x"
    write_rows(tmp_path / "test.jsonl", part)
    with pytest.raises(DataError, match=r"\(test\), row 3, field kind: is 'x'"):
        Own(hub=str(tmp_path)).load()


def test_a_hub_data_set_that_is_none_is_named(tmp_path):
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match="cannot be loaded as a data set"):
        Own(hub=str(tmp_path / "nothing")).load()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r'needs the package datasets: pip install "dso\[data\]"'):
        Own(hub="owner/name").load()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "my.parquet"
    path.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r'need pyarrow: pip install "dso\[data\]"'):
        Own(str(path)).load()


# -- the command line and the example -----------------------------------------------------------


def test_check_says_what_is_in_the_rows(tmp_path, capsys):
    path = write_rows(tmp_path / "my.csv", [r for r in valid_rows() if r["split"] != "test"])
    assert main(["check", "--data", EXAMPLE, str(path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "train │ ambiguous │ 28 │ 28 │ 0" in said
    assert "24 twin pairs; 0 rows whose twin is nowhere" in said
    assert "with one gender only: none" in said
    assert "Every row is right. Enough for dso fit." in said
    rows = valid_rows()
    del rows[12]
    write_rows(path, [r for r in rows if r["split"] not in ("test_late", "validation")])
    assert main(["check", "--unpaired", "leave_out", "--data", str(path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 rows whose twin is nowhere" in said
    assert "with one gender only: farmer (test), tailor (test)" in said
    assert "not enough for dso fit: no row has split validation" in said


def test_check_says_what_is_wrong_up_to_the_limit(tmp_path, capsys):
    rows = valid_rows()
    for row in rows:
        row["kind"] = "x"
    path = write_rows(tmp_path / "my.jsonl", rows)
    assert main(["check", "--data", str(path), "--limit-errors", "3"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dso check: 3 problem(s)\n")
    assert f"{path}, line 3, field kind: is 'x'" in error
    assert "stopped after 3 problem(s)" in error
    assert main(["check"]) == 2
    assert "nothing to check; give --data FILE or --hub NAME" in capsys.readouterr().err


def test_the_example_trains_and_is_measured(tmp_path):
    shutil.copy(EXAMPLE, tmp_path / "my.csv")
    more = [r for r in valid_rows() if r["split"] == "test"]
    write_rows(tmp_path / "more.jsonl", more)
    assert main([
        "fit", "--config", "configs/own-data.yaml", "--trainer.max_steps=1",
        "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu",
        "--data.pool_per_step=8", f"--trainer.default_root_dir={tmp_path / 'run'}",
    ]) == 0  # fmt: skip
    shared = ["--model", str(organism()), "--strength=0", "--replicates=5", "--limit=4"]
    files = [str(tmp_path / "my.csv"), str(tmp_path / "more.jsonl")]
    output = f"--output={tmp_path / 'out'}"
    assert main(["evaluate", *shared, output, "--task=own", "--data", *files]) == 0
    run = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert run["task"]["init_args"]["data"] == files
    again = [*shared[:2], "--strength=1", *shared[3:], output]
    assert main(["evaluate", *again, "--adapter", str(tmp_path / "run" / "adapter")]) == 0
    run = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert run["task"]["init_args"]["data"] == EXAMPLE


def test_the_example_has_all_kinds_in_all_splits():
    data = read(Path(EXAMPLE))
    assert sum(data.counts.values()) == 48
    assert len(data.counts) == 12
    assert data.twins.pairs == 17
    assert not data.one_sided
