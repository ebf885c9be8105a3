from __future__ import annotations

import re

import pytest

from dso.tasks.files.rows import SUFFIXES, DataError, Problems, Row, read_rows


def read(path, limit=20):
    """The rows of a file, and what is wrong with it."""
    problems = Problems(limit)
    rows = list(read_rows(path, problems))
    return rows, problems.found


def file(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def places(rows):
    return [int(row.where.rpartition(" ")[2]) for row in rows]


# -- what is right ------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "BOM"])
def test_rows_have_the_line_they_start_on(tmp_path, end, mark):
    lines = ["a,b", "", "1,é", '2,"x', "", 'y"', " ", "3,z", ""]
    path = file(tmp_path, "my.csv", mark + end.join(lines))
    assert read(path) == (
        [
            Row(f"{path}, line 3", {"a": "1", "b": "é"}),
            Row(f"{path}, line 4", {"a": "2", "b": f"x{end}{end}y"}),
            Row(f"{path}, line 8", {"a": "3", "b": "z"}),
        ],
        [],
    )
    path = file(tmp_path, "my.jsonl", mark + end.join(['{"a": 1}', "", '{"a": "é"}']))
    rows, found = read(path)
    assert (rows, found) == (
        [Row(f"{path}, line 1", {"a": 1}), Row(f"{path}, line 3", {"a": "é"})], []
    )  # fmt: skip


def test_tabs_quotes_and_empty_cells_are_read(tmp_path):
    path = file(tmp_path, "my.TSV", 'a\tb\tc\n\t"say ""x"""\tp,q\n')
    assert read(path) == ([Row(f"{path}, line 2", {"a": "", "b": 'say "x"', "c": "p,q"})], [])
    path = file(tmp_path, "my.ndjson", '{"a": [1, {"b": null}], "c": "\\ud83d\\ude00\\u00e9"}')
    assert read(path)[0][0].values == {"a": [1, {"b": None}], "c": "😀é"}


def test_rows_come_one_at_a_time_and_say_how_far_they_are(tmp_path):
    path = file(tmp_path, "my.csv", "a\n" + "1\n" * 5000)
    shares: list[float] = []
    rows = read_rows(path, Problems(), shares.append)
    assert next(rows).where == f"{path}, line 2"
    assert not shares
    assert len(list(rows)) == 4999
    assert len(shares) == 4
    assert 0 < min(shares) <= max(shares) <= 1


def test_parquet_rows_count_from_one(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({
        "a": ["x", None] * 1500, "options": [[{"text": "p"}], []] * 1500,
        "n": [1.5, float("nan")] * 1500,
    })  # fmt: skip
    path = tmp_path / "my.parquet"
    parquet.write_table(table, path)
    rows, found = read(path)
    assert not found
    assert rows[0] == Row(
        f"{path}, row 1", {"a": "x", "options": [{"text": "p"}], "n": 1.5}
    )  # fmt: skip
    assert places(rows) == list(range(1, 3001))
    assert rows[1].values["a"] is None


# -- what is wrong ------------------------------------------------------------------------------

CSV = [
    ("", None, None, "is empty; wanted a header line and rows"),
    ("\ufeff", None, None, "is empty"),
    ("a,b\n", None, None, "has no rows"),
    ("a,b,a\n1,2,3\n", 1, None, "the header names 'a' twice (columns 1 and 3)"),
    ("a,,b\n1,2,3\n", 1, None, "column 2 of the header has no name"),
    (b"a,\xffb\n1,2\n", 1, None, "column 2 of the header is not UTF-8"),
    ('a,"b\n1,2\n', 1, None, "opens a quote that is never closed"),
    ("a;b\n1;2\n", 1, None, "one column with ';' in it; wanted columns separated by ','"),
    ("a\tb\n1\t2\n", 1, None, "a file with tabs ends in .tsv"),
    ("a,b\n1,2\n3\n", 3, None, "has 1 cell(s), but the header names 2 columns"),
    ('a,b\n1,"2\n"\n3,4,5\n', 4, None, "has 3 cell(s), but the header names 2 columns"),
    ('a,b\n1,2\n3,"4\n5,6\n', 3, None, "opens a quote that is never closed"),
    ('a,b\n1,"2\n3,"4"\n', 2, None, 'write "" for a quote'),
    ('a,b\n1,"2"x\n', 2, None, 'write "" for a quote'),
    (b"a,b\n1,caf\xe9\n", 2, "b", "is not UTF-8 (byte 0xE9 at character 4)"),
    (b"a,b\n1,x\0y\n", 2, "b", "has a NUL byte at character 2"),
    ("a,b\n1," + "x" * 131_073 + "\n", 2, None, "has a cell of more than 131,072 characters"),
    ("a,b\n1," + "x" * 1_000_001 + "\n", 2, None, "more than 1,000,000 characters"),
    ("a,b\n1,2\n".encode("utf-16"), 1, None, "starts like UTF-16"),
    ("a,b\n1,2\n".encode("utf-16-be"), 1, None, "starts like UTF-16"),
]
JSON = [
    ("", None, None, "has no rows"),
    ("\n \n", None, None, "has no rows"),
    ('{"a": 1}\n\n{"a": }\n', 3, None, "is no JSON: Expecting value at character 7"),
    ('{"a": 1\n"b": 2}\n', 1, None, "is no JSON"),
    ("[1]\n", 1, None, "is a JSON list; wanted an object"),
    ("null\n", 1, None, "is a JSON null"),
    ('{"a": 1}\n{"b": [NaN, 1, -Infinity]}\n', 2, "b", "is NaN, -Infinity; JSON has finite"),
    ('{"b": {"c": 1e999}}\n', 1, "b", "is 1e999"),
    ('{"a": 1, "b": 2, "a": 3}\n', 1, "a", "is given twice in one object"),
    (b'{"a": "caf\xe9"}\n', 1, "a", "is not UTF-8 (byte 0xE9 at character 4)"),
    (b'{"a": 1, \xff}\n', 1, None, "is not UTF-8"),
    ('{"a": 1, "b": "x\\ud800"}\n', 1, "b", "is not UTF-8 (half a character at character 2)"),
    ('{"a": {"b": ["\\u0000"]}}\n', 1, "a", "has a NUL byte"),
    ('{"a": ' + "9" * 5000 + "}\n", 1, None, "a number has too many digits"),
    ('{"a": ' + "[" * 200_000 + "\n", 1, None, "nested too deeply"),
    ('{"a": "' + "x" * 1_000_000 + '"}\n', 1, None, "has more than 1,000,000 characters"),
    ('{"a": 1}\n'.encode("utf-16-le"), 1, None, "starts like UTF-16"),
]


@pytest.mark.parametrize(
    ("name", "content", "line", "field", "message"),
    [("my.csv", *case) for case in CSV] + [("my.jsonl", *case) for case in JSON],
    ids=[f"csv-{case[3]}" for case in CSV] + [f"json-{case[3]}" for case in JSON],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, name, content, line, field, message):
    path = file(tmp_path, name, content)
    rows, found = read(path)
    place = f"{path}, line {line}" if line else str(path)
    assert found[0].startswith(place + (f", field {field}: " if field else ": "))
    assert message in found[0]
    assert line not in places(rows)
    with pytest.raises(DataError, match=re.escape(place)):
        problems = Problems()
        list(read_rows(path, problems))
        problems.check()


def test_the_rows_behind_a_bad_one_are_read(tmp_path):
    path = file(tmp_path, "my.csv", 'a,b\n1,"2\n3,4\n5,"6\n7"\n8\n9,10\n')
    rows, found = read(path)
    assert places(rows) == [3, 4, 7]
    assert [re.search(r"line \d+", text)[0] for text in found] == ["line 2", "line 6"]
    path = file(tmp_path, "my.jsonl", '{"a": 1}\n[{"a": 1, "a": 2}]\n{\n{"a": 2}\n')
    rows, found = read(path)
    assert places(rows) == [1, 4]
    assert len(found) == 2


def test_problems_are_collected_up_to_a_limit(tmp_path):
    path = file(tmp_path, "my.csv", "a,b\n" + "1\n" * 50)
    assert len(read(path, limit=100)[1]) == 50
    with pytest.raises(DataError) as caught:
        read(path, limit=3)
    said = str(caught.value).splitlines()
    assert said[0] == "3 problem(s)"
    assert said[3].startswith(f"{path}, line 4: ")
    assert said[4] == "stopped after 3 problem(s); there may be more"
    with pytest.raises(ValueError, match="limit of problems is 0"):
        Problems(0)


def test_one_problem_is_said_without_ado_and_none_not_at_all():
    problems = Problems()
    problems.check()
    problems.add("my.csv, line 17", "truth", "is missing")
    with pytest.raises(DataError, match=r"^my\.csv, line 17, field truth: is missing$"):
        problems.check()


def test_what_is_no_file_of_rows_is_named(tmp_path):
    path = file(tmp_path, "choices.csv", "a\n1\n")
    cases = {
        tmp_path: f"is a folder; wanted a file, such as {path}",
        tmp_path / "choises.csv": f"does not exist; did you mean {path}?",
        tmp_path / "other.parquet": "does not exist; the folder",
        tmp_path / "no" / "a.csv": "does not exist, nor does the folder",
        file(tmp_path, "my.xlsx", "x"): f"has the ending '.xlsx'; wanted one of {SUFFIXES}",
    }
    for given, message in cases.items():
        rows, found = read(given)
        assert not rows
        assert found[0].startswith(f"{given}: {message}"), found


@pytest.mark.parametrize("keep", [0, 3, 100, -10, -200])
def test_a_damaged_parquet_file_is_named(tmp_path, keep):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "my.parquet"
    parquet.write_table(pyarrow.table({"a": [f"text {n}" for n in range(3000)]}), path)
    path.write_bytes(path.read_bytes()[:keep])
    rows, found = read(path)
    assert not rows
    assert found[0].startswith(f"{path}: is a damaged parquet file, or none")


def test_a_parquet_file_damaged_inside_is_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "my.parquet"
    table = pyarrow.table({"a": [f"text {n}" for n in range(3000)]})
    parquet.write_table(table, path, compression="snappy", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(content)
    _, found = read(path)
    assert found
    assert found[0].startswith(f"{path}: ")


def test_a_parquet_cell_that_is_no_text_is_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    bad = pyarrow.array([b"x", b"\xff", b"y"], pyarrow.binary()).view(pyarrow.string())
    path = tmp_path / "my.parquet"
    parquet.write_table(pyarrow.table({"n": [1, 2, 3], "a": bad}), path)
    rows, found = read(path)
    assert places(rows) == [1, 3]
    assert found == [f"{path}, row 2, field a: is not UTF-8"]
