"""Every mutation of valid rows is named by line and field: none crashes and none passes."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dso.tasks.files.problems import DataError
from dso.tasks.own.reading import Source, read_choices
from tests.tasks.own.made_up_rows import line_of, records, valid_rows, write_rows

Rows = list[dict[str, Any]]
Mutation = Callable[[random.Random, Rows, int], str | None]
"""Changes the row of a number; returns the JSON name of the field that is wrong then."""

CASES = 10
"""Of each mutation in each format."""


def ambiguous(row) -> bool:
    return row["kind"] == "ambiguous"


def clear(row) -> bool:
    return not ambiguous(row)


def trained(row) -> bool:
    return ambiguous(row) and row["split"] == "train"


def asks(row) -> bool:
    return "prompt" in row


def talks(row) -> bool:
    return "messages" in row


def anyone(row) -> bool:
    return True


def without(field: str) -> Mutation:
    def change(rng, rows, n):
        rows[n].pop(field)
        return field

    return change


def given(field: str, *values: Any) -> Mutation:
    def change(rng, rows, n):
        rows[n][field] = rng.choice(values)
        return field

    return change


def option(field: str, *values: Any) -> Mutation:
    def change(rng, rows, n):
        place = rng.randrange(2)
        rows[n]["options"][place][field] = rng.choice(values)
        return f"options[{place}].{field}"

    return change


def same_option_twice(rng, rows, n):
    options = rows[n]["options"]
    options[1]["text"] = options[0]["text"]
    return "options[1].text"


def no_side(rng, rows, n):
    place = rng.randrange(2)
    rows[n]["options"][place].pop("side")
    return f"options[{place}].side"


def one_side(rng, rows, n):
    for o in rows[n]["options"]:
        o["side"] = "pro"
    return "options[1].side"


def one_option(rng, rows, n):
    rows[n]["options"] = rows[n]["options"][:1]
    rows[n].pop("truth", None)
    return "options"


def shared_form(rng, rows, n):
    rows[n]["options"][1]["forms"] = [rows[n]["options"][0]["text"], " x"]
    return "options[1].forms"


def control(rng, rows, n):
    field = rng.choice([f for f in ("kind", "prompt", "id", "gender", "twin") if f in rows[n]])
    mark = chr(rng.choice([0, 1, 7, 8, 11, 27, 31, 127, 0x85, 0x9F]))
    text = rows[n][field]
    place = rng.randrange(1, len(text))
    rows[n][field] = text[:place] + mark + text[place:]
    return field


def spaces(rng, rows, n):
    field = rng.choice([f for f in ("kind", "id", "gender", "twin", "split") if f in rows[n]])
    rows[n][field] = rng.choice([" {}", "{} ", "{}\t", "\n{}"]).format(rows[n][field])
    return field


def other_id(rng, rows, n):
    rows[n]["id"] = rows[n - 1 if n else 1]["id"]
    return "id"


def third_twin(rng, rows, n):
    rows[n]["twin"] = rows[(n + 2 + n % 2) % 16]["twin"]
    return "twin"


def gender_of_twin(rng, rows, n):
    rows[n]["gender"] = rows[n ^ 1]["gender"]
    return "gender"


def sides_of_twin(rng, rows, n):
    rows[n]["options"] = copy.deepcopy(rows[n ^ 1]["options"])
    return "options"


def options_swapped(rng, rows, n):
    rows[n]["options"].reverse()
    return "options"


def kind_of_its_own(rng, rows, n):
    rows[n] |= {"kind": "unambiguous", "truth": rows[n]["options"][0]["text"]}
    return "kind"


def one_sided(rng, rows, n):
    # All its rows with a gender have the other one: that row is named.
    rows[n ^ 1].pop("gender")
    return "gender"


def message(field: str, *values: Any) -> Mutation:
    def change(rng, rows, n):
        place = rng.randrange(2)
        rows[n]["messages"][place][field] = rng.choice(values)
        return f"messages[{place}].{field}"

    return change


def last_is_assistant(rng, rows, n):
    rows[n]["messages"].append({"role": "assistant", "content": "Yes."})
    return "messages"


def prompt_too(rng, rows, n):
    rows[n]["prompt"] = "Who?"
    return "messages"


BOTH: dict[str, tuple[Callable[[dict], bool], Mutation]] = {
    "no kind": (anyone, without("kind")),
    "no prompt": (asks, without("prompt")),
    "no options": (anyone, without("options")),
    "no truth": (clear, without("truth")),
    "no occupations": (ambiguous, without("occupations")),
    "no twin": (trained, without("twin")),
    "no split": (lambda row: row["id"] != "pair-0-male", without("split")),
    "blank": (asks, given("prompt", " ", "\n", " \t ")),
    "unknown kind": (anyone, given("kind", "ambigous", "AMBIGUOUS", "x", "type1", "9" * 5000)),
    "unknown split": (anyone, given("split", "dev", "Train", "test_", "valid", "test late")),
    "truth is no option": (anyone, given("truth", "nobody else", "anna", "0", "1e999")),
    "first is no option": (anyone, given("first", "somebody", "NaN", "the guard")),
    "empty occupation": (ambiguous, given("occupations", ["nurse", ""], [" ", "guard"])),
    "occupation twice": (ambiguous, given("occupations", ["nurse", "nurse"])),
    "empty option": (anyone, option("text", "")),
    "blank option": (anyone, option("text", " ", "\t")),
    "option with spaces": (anyone, option("text", " nurse", "guard ")),
    "same option twice": (anyone, same_option_twice),
    "one option": (anyone, one_option),
    "unknown side": (anyone, option("side", "PRO", "left", "1", "antipro")),
    "no side": (ambiguous, no_side),
    "one side": (ambiguous, one_side),
    "empty form": (anyone, option("forms", ["a", ""], ["", "b"], [" "])),
    "shared form": (anyone, shared_form),
    "control character": (anyone, control),
    "spaces around": (anyone, spaces),
    "id twice": (anyone, other_id),
    "three twins": (ambiguous, third_twin),
    "twin of one gender": (ambiguous, gender_of_twin),
    "twin of one side": (ambiguous, sides_of_twin),
    "twin with other order": (ambiguous, options_swapped),
    "twin of another kind": (ambiguous, kind_of_its_own),
    "twin of another split": (ambiguous, given("split", "test_other")),
    "lonely twin": (ambiguous, given("twin", "nobody", "7")),
    "one-sided occupation": (trained, one_sided),
    "unknown role": (talks, message("role", "bot", "User", "")),
    "empty message": (talks, message("content", "", "  ")),
    "ends with assistant": (talks, last_is_assistant),
    "messages and prompt": (talks, prompt_too),
}
NAN, INF = float("nan"), float("inf")
ONLY_JSON: dict[str, tuple[Callable[[dict], bool], Mutation]] = {
    "kind of wrong type": (anyone, given("kind", 1, [], {}, True, 1.5)),
    "prompt of wrong type": (asks, given("prompt", 10**400, -1.5, ["x"], {"a": 1}, False)),
    "truth of wrong type": (anyone, given("truth", 0, 1, [0], True, {})),
    "occupations of wrong type": (anyone, given("occupations", 5, {"a": 1}, True, [1], [None])),
    "gender of wrong type": (anyone, given("gender", 5, [], {}, True)),
    "id of wrong type": (anyone, given("id", 1.5, [], True, {"a": "b"})),
    "twin of wrong type": (ambiguous, given("twin", 1.5, [], True, {"a": "b"})),
    "split of wrong type": (anyone, given("split", 5, [1], {"a": 1}, True)),
    "source of wrong type": (anyone, given("source", 5, [], {}, True)),
    "options of wrong type": (anyone, given("options", 5, "nurse|guard", {"text": "a"}, True)),
    "few options": (anyone, given("options", [], [{"text": "nurse", "side": "pro"}])),
    "text of wrong type": (anyone, option("text", 5, [], True, None)),
    "forms of wrong type": (anyone, option("forms", 5, True, [5], [None], {"a": 1})),
    "side of wrong type": (anyone, option("side", 5, True, ["pro"])),
    "unknown field of an option": (anyone, option("sid", "pro")),
    "unknown field of a message": (talks, message("name", "x")),
    "unknown field": (anyone, given("ocupations", ["nurse"], None, 5)),
    "not finite": (anyone, given("gender", NAN, INF, -INF)),
    "not finite below": (anyone, given("options", [NAN, 1], [{"text": INF}])),
}


def column(field: str | None, rows: Rows, n: int) -> str | None:
    """The CSV name of a field."""
    if field is None or not field.startswith(("options", "messages")):
        return field
    if field == "options" and len(rows[n].get("options", ())) < 2:
        return f"option_{len(rows[n].get('options', ())) + 1}"
    if match := re.fullmatch(r"options\[(\d)\]\.(\w+)", field):
        number, name = int(match[1]) + 1, match[2]
        return f"option_{number}" + ("" if name == "text" else f"_{name}")
    return field


def check(path, number: int, field: str | None) -> None:
    """Reading the file names the line, and the field if there is one, in one problem."""
    with pytest.raises(DataError) as caught:
        read_choices(Source((str(path),)))
    place = re.compile(rf"{re.escape(str(path))}, line {number}\b")
    named = [line for line in str(caught.value).splitlines() if place.search(line)]
    assert named, f"line {number} is not named in: {caught.value}"
    if field is not None:
        assert any(f"field {field}:" in line for line in named), f"{field} is not named: {named}"


def cases(rng: random.Random, fits: Callable[[dict], bool]) -> Sequence[int]:
    """Numbers of rows to mutate."""
    numbers = [n for n, row in enumerate(valid_rows()) if fits(row)]
    return [rng.choice(numbers) for _ in range(CASES)]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_rows_are_valid_before(tmp_path, suffix):
    read = read_choices(Source((str(write_rows(tmp_path / f"my{suffix}", valid_rows())),)))
    assert sum(read.counts.values()) == 25


@pytest.mark.parametrize(
    ("name", "suffix"),
    [(n, s) for n in BOTH for s in (".csv", ".jsonl")] + [(n, ".jsonl") for n in ONLY_JSON],
)
def test_every_mutated_row_is_named_by_line_and_field(tmp_path, name, suffix):
    rng = random.Random(f"{name}{suffix}")
    fits, mutate = (BOTH | ONLY_JSON)[name]
    for n in cases(rng, fits):
        rows = valid_rows()
        field = mutate(rng, rows, n)
        path = write_rows(tmp_path / f"my{suffix}", rows)
        parts = records(rows, suffix)
        if suffix == ".csv":
            check(path, line_of(parts, n + 1), column(field, rows, n))
        else:
            check(path, line_of(parts, n), field)


# -- mutations of the text of a record: (its bytes) -> its bytes, and the field -------------------


def truncated_json(rng, line):
    return line[: rng.randrange(1, len(line) - 2)].decode("utf-8", "ignore").encode() + b"\n", None


def not_utf8(rng, line):
    bad = rng.choice([b"\xff", b"\xe9", b"\xc3", b"\xed\xa0\x80"])
    return re.sub(rb"Who", b"Wh" + bad + b"o", line, count=1), "prompt"


def nul(rng, line):
    return line.replace(b"Who", b"Wh\0o", 1), None if line.startswith(b"{") else "prompt"


def no_json(rng, line):
    bad = [b"tru\n", b"{\n", b"{'a': 1}\n", b"{,}\n", b"kind: x\n", b"[" * 5000 + b"\n"]
    return rng.choice([*bad, line.replace(b":", b"=", 1), line.replace(b"}\n", b",}\n")]), None


def no_object(rng, line):
    return rng.choice([b"[]\n", b"5\n", b"null\n", b'"x"\n', b"NaN\n", b"[{}]\n", b"1e999\n"]), None


def key_twice(rng, line):
    return b'{"kind": "ambiguous", ' + line[1:], "kind"


def huge_number(rng, line):
    number = rng.choice([b"1e999", b"-1e400", b"9" * 400, b"-Infinity"])
    return b'{"source": ' + number + b", " + line[1:], "source"


def too_many_digits(rng, line):
    return b'{"source": ' + b"9" * rng.randrange(4301, 9000) + b", " + line[1:], None


def half_a_character(rng, line):
    return b'{"source": "\\ud8%02x", ' % rng.randrange(256) + line[1:], "source"


def too_long(rng, line):
    return b'{"source": "' + b"x" * 1_000_000 + b'", ' + line[1:], None


def cut_cells(rng, line):
    # Cut at a comma, so that a cell is gone or a quote is open.
    commas = [m.start() for m in re.finditer(rb",", line)]
    return line[: rng.choice(commas)].replace(b"\n", b" ") + b"\n", None


def open_quote(rng, line):
    return line.replace(b",", b',"', 1), None


def quote_inside(rng, line):
    return line.replace(b'""', b'"', 1) if b'""' in line else line.replace(b",", b',"x"y', 1), None


def extra_cells(rng, line):
    return line[:-1] + rng.choice([b",", b",x", b",,", b',"a\nb"']) + b"\n", None


def long_cell(rng, line):
    return b"x" * rng.choice([131_073, 1_000_001]) + line, None


TEXTS = {
    ".jsonl": (
        truncated_json, not_utf8, nul, no_json, no_object, key_twice, huge_number, too_many_digits,
        half_a_character, too_long,
    ),
    ".csv": (not_utf8, nul, cut_cells, open_quote, quote_inside, extra_cells, long_cell),
}  # fmt: skip


@pytest.mark.parametrize(
    ("suffix", "mutate"), [(s, m) for s, mutations in TEXTS.items() for m in mutations]
)
def test_every_damaged_record_is_named_by_its_line(tmp_path, suffix, mutate):
    rng = random.Random(f"{mutate.__name__}{suffix}")
    path = tmp_path / f"my{suffix}"
    header = suffix == ".csv"
    for n in cases(rng, asks)[: 2 if "long" in mutate.__name__ else None]:
        parts = records(valid_rows(), suffix)
        parts[n + header], field = mutate(rng, parts[n + header])
        path.write_bytes(b"".join(parts))
        check(path, line_of(parts, n + header), field)


def test_more_than_a_thousand_mutations_were_tried():
    rows = CASES * (2 * len(BOTH) + len(ONLY_JSON))
    texts = CASES * sum(map(len, TEXTS.values()))
    assert rows + texts > 1000


def test_all_problems_are_said_at_once_up_to_the_limit(tmp_path):
    rows = valid_rows()
    for row in rows:
        row["kind"] = "x"
    path = write_rows(tmp_path / "my.jsonl", rows)
    with pytest.raises(DataError) as caught:
        read_choices(Source((str(path),)), limit_errors=100)
    said = str(caught.value).splitlines()
    assert said[0] == "25 problem(s)"
    assert [line.split(", field")[0] for line in said[1:]] == [
        f"{path}, line {n}" for n in range(1, 26)
    ]
    with pytest.raises(DataError, match=r"stopped after 3 problem\(s\); there may be more") as few:
        read_choices(Source((str(path),)), limit_errors=3)
    assert str(few.value).count("field kind") == 3


def test_a_mutation_is_found_wherever_it_stands_among_valid_rows(tmp_path):
    rows = [
        row | {"id": f"{row['id']}-{n}"} | ({"twin": f"{row['twin']}-{n}"} if "twin" in row else {})
        for n in range(80)
        for row in valid_rows()
    ]
    rows[1503]["gender"] = rows[1502]["gender"]
    path = tmp_path / "my.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    check(path, 1504, "gender")
