from __future__ import annotations

import pytest

from dso.tasks.files.rows import Problems, Row
from dso.tasks.published.locate import files_in, find_data, index_of, rows_of, text_of


def find(given=None, file=False):
    return find_data("things", given, "Things file", "https://example.org/things", file=file)


def test_the_usual_places_are_looked_at_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DSO_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(
        ValueError, match=r"no Things file: looked at .*elsewhere/things, data/thin"
    ):
        find()
    (tmp_path / "data" / "things").mkdir(parents=True)
    assert find().resolve() == tmp_path / "data" / "things"
    (tmp_path / "elsewhere" / "things").mkdir(parents=True)
    assert find() == tmp_path / "elsewhere" / "things"


def test_what_is_not_there_is_named_with_its_public_address(tmp_path):
    with pytest.raises(ValueError, match=r"looked at given\. .* https://example\.org/things$"):
        find("given")


def test_a_file_will_do_only_where_one_is_wanted(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("a\n1\n", encoding="utf-8")
    assert find(str(path), file=True) == path
    with pytest.raises(ValueError, match="no Things file"):
        find(str(path))


def test_a_folder_without_the_files_is_named(tmp_path):
    with pytest.raises(ValueError, match=rf"the folder {tmp_path} has no file x\.csv; the files"):
        files_in(tmp_path, "x.csv", "Things file", "https://example.org")
    for name in ("b.csv", "a.csv", "c.txt"):
        (tmp_path / name).write_text("", encoding="utf-8")
    files = files_in(tmp_path, "*.csv", "Things file", "https://example.org")
    assert [path.name for path in files] == ["a.csv", "b.csv"]
    assert files_in(files[0], "b.csv", "Things file", "https://example.org") == files[:1]


def test_a_table_without_a_column_is_one_problem_and_no_rows(tmp_path):
    path = tmp_path / "my.csv"
    path.write_text("a,b\n1,2\n3,4\n", encoding="utf-8")
    problems = Problems()
    assert list(rows_of(path, ("a", "c", "d"), problems)) == []
    assert problems.found == [
        f"{path}, field {name}: there is no such column; the file has 'a', 'b'" for name in "cd"
    ]
    assert len(list(rows_of(path, ("a", "b"), Problems()))) == 2


@pytest.mark.parametrize(
    ("value", "message"),
    [(None, "is missing"), ("", "is empty"), (" \t", "is empty"), (3, "is 3; wanted a text")],
)
def test_a_field_without_a_text_is_a_problem(value, message):
    problems = Problems()
    assert text_of(Row("my.csv, line 7", {"a": value}), "a", problems) is None
    assert problems.found[0].startswith(f"my.csv, line 7, field a: {message}")


@pytest.mark.parametrize(
    ("value", "index"),
    [(0, 0), (3, 3), ("2", 2), (" 1 ", 1), (4, None), (-1, None), ("4", None), ("-1", None),
     (True, None), (1.0, None), ("1.0", None), ("b", None), ("", None), (None, None), ("²", None)],
)  # fmt: skip
def test_an_index_is_a_whole_number_below_the_count(value, index):
    assert index_of(value, 4) == index
