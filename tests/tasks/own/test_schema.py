from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest

from dso.cli import main
from dso.tasks.choice import Message, Option
from dso.tasks.coreference import DEFAULT_FORMS
from dso.tasks.files.problems import Problems, Row
from dso.tasks.own.reading import Source, read_choices
from dso.tasks.own.row_choice import parse_row
from dso.tasks.own.schema import (
    FIELDS,
    MESSAGE_FIELDS,
    OPTION_FIELDS,
    field_table,
    field_text,
    option_column,
)
from tests.tasks.own.made_up_rows import HEADER, flat, valid_rows

DOCS = Path("docs/own-data.md").read_text(encoding="utf-8")
EXAMPLE = valid_rows()[0]


def parse(values, **settings):
    problems = Problems(100)
    return parse_row(Row("my.csv, line 17", values), problems, **settings), problems.found


def changed(**changes):
    row = copy.deepcopy(EXAMPLE) | changes
    return {name: value for name, value in row.items() if value is not ...}


# -- rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", valid_rows(), ids=lambda row: row["id"])
def test_a_row_says_the_same_in_every_format(row):
    nested, found = parse(row)
    assert not found
    assert nested.id == row["id"]
    for values in (
        dict.fromkeys(HEADER, "") | flat(row),
        dict.fromkeys([*(f.name for f in FIELDS), "option_4_side"]) | row,
        {name: float("nan") for name in HEADER} | flat(row),
        row | {"occupations": "|".join(row.get("occupations", [])), "_note": 5},
    ):
        again, found = parse(values)
        assert (again, found) == (nested, [])


def test_every_field_arrives_in_the_choice():
    choice, _ = parse(EXAMPLE | {"source": "mine", "system": "Be fair."})
    assert (choice.id, choice.kind, choice.split) == ("pair-0-male", "ambiguous", "train")
    assert (choice.gender, choice.twin, choice.source) == ("male", "pair-0", "mine")
    assert (choice.first, choice.truth, choice.occupations) == (0, None, ("guard", "nurse"))
    assert choice.messages == (Message("system", "Be fair."),)
    assert [option.side for option in choice.options] == ["pro", "anti"]
    talk = [
        {"role": "system", "content": "a"}, {"role": "user", "content": "b"},
        {"role": "assistant", "content": "c"}, {"role": "user", "content": "d"},
    ]  # fmt: skip
    choice, _ = parse(changed(prompt=..., messages=talk, truth="nurse"))
    assert choice.prompt == "d"
    assert choice.messages == tuple(Message(m["role"], m["content"]) for m in talk[:3])
    assert choice.truth == 1


def test_forms_are_the_options_own_or_the_tasks_patterns():
    options = [{"text": "guard {x}", "side": "pro"}, {"text": "nurse", "side": "anti"}]
    row = changed(options=options, first=...)
    assert parse(row)[0].options[1].forms == tuple(f.format("nurse") for f in DEFAULT_FORMS)
    assert parse(row, forms=[" {}"])[0].options[0].forms == (" guard {x}",)
    options[1]["forms"] = " Nurse|The nurse"
    assert parse(row, forms=[" {}"])[0].options[1] == Option(
        "nurse", (" Nurse", "The nurse"), "anti"
    )


def test_names_may_be_whole_numbers_and_an_id_is_file_and_line_by_default():
    choice, _ = parse(changed(id=7, twin=12))
    assert (choice.id, choice.twin) == ("7", "12")
    assert parse(changed(id=...))[0].id == "my-17"
    assert parse(changed(id=""))[0].id == "my-17"


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"kind": "ambigous"}, "kind", "did you mean 'ambiguous'?"),
        ({"kind": ...}, "kind", "is missing; wanted what it measures: ambiguous, unambiguous"),
        ({"prompt": 5}, "prompt", "is a number (5); wanted text"),
        ({"prompt": ...}, "prompt", "is missing; wanted what the user asks"),
        ({"gender": ["male"]}, "gender", "is a list (['male']); wanted text"),
        ({"twin": 1.5}, "twin", "is a number (1.5); wanted text or whole number"),
        ({"id": True}, "id", "is true or false (True)"),
        ({"first": {"a": 1}}, "first", "is an object ({'a': 1}); wanted the text of an option"),
        ({"truth": "nurses"}, "truth", "wanted one of 'guard', 'nurse'; did you mean 'nurse'?"),
        ({"occupations": {}}, "occupations", "wanted a list of texts, or one text with |"),
        ({"occupations": "guard||"}, "occupations", "has an item 2 that is empty"),
        ({"split": "dev"}, "split", "wanted one of 'train', 'validation', 'test' (or test_NAME)"),
        ({"promt": "x"}, "promt", "is an unknown field; did you mean 'prompt'?"),
        ({"option_01": "x"}, "option_01", "is an unknown field; did you mean 'option_1'?"),
        ({"zzz": "x"}, "zzz", "is an unknown field; known are kind, prompt"),
        ({"option_1": "x"}, "options", "is given beside option_1"),
        ({"options": ..., "option_2": "x"}, "option_1", "is missing, but option_2 is given"),
        ({"options": ..., "option_1": "x"}, "option_2", "a row needs two options or more"),
        ({"options": ...}, "options", "is missing; wanted the admissible answers, two or more"),
        ({"kind": "capability"}, "truth", "is missing; a row of kind capability needs it"),
        ({"gender": "fe\x07"}, "gender", "has a control character (U+0007 at character 3)"),
        ({"prompt": ..., "messages": "[{"}, "messages", "is no JSON list of messages"),
        ({"prompt": ..., "messages": [5]}, "messages[0]", "wanted an object with role and"),
        ({"prompt": ..., "messages": []}, "messages", "is a list ([]); wanted a list of objects"),
        ({"prompt": "  "}, "prompt", "is blank"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_row_is_said_by_field(changes, field, message):
    choice, found = parse(changed(**changes))
    assert choice is None
    assert len(found) == 1
    assert found[0].startswith(f"my.csv, line 17, field {field}: ")
    assert message in found[0]


def test_everything_wrong_with_a_row_is_said():
    _, found = parse({"kind": "x", "prompt": 1, "options": [{"side": "y"}, 5], "split": "z"})
    fields = [re.search(r"field (\S+):", text)[1] for text in found]
    assert fields == ["kind", "prompt", "options[1]", "split"]
    _, found = parse({"kind": "capability", "option_1_side": "x", "option_2_group": " g"})
    fields = [re.search(r"field (\S+):", text)[1] for text in found]
    assert fields == ["prompt", "option_1", "option_1_side", "option_2", "option_2_group", "truth"]


def test_an_unknown_column_is_said_once_for_its_file():
    problems = Problems()
    for file in ("a.csv", "b.csv"):
        for line in range(2, 30):
            assert parse_row(Row(f"{file}, line {line}", changed(promt="")), problems) is None
    assert [text.partition(":")[0] for text in problems.found] == [
        "a.csv, line 2, field promt", "b.csv, line 2, field promt",
    ]  # fmt: skip


def test_option_columns_are_read_by_number_and_field():
    assert option_column("option_2") == (2, "text")
    assert option_column("option_10_side") == (10, "side")
    for name in ("option_0", "option_01", "option_1_text", "option_", "options_1", "option_1 "):
        assert option_column(name) is None


# -- the documentation --------------------------------------------------------------------------


def block(language, number=0):
    return re.findall(rf"```{language}\n(.*?)```", DOCS, flags=re.DOTALL)[number]


def test_the_documentation_has_the_fields_of_the_code():
    written = re.search(r"<!-- fields -->\n(.*)<!-- end of fields -->", DOCS, flags=re.DOTALL)
    assert written[1] == field_table()
    for field in (*FIELDS, *OPTION_FIELDS, *MESSAGE_FIELDS):
        assert f"| `{field.name}` | {field.needed} |" in field_table()


def test_the_help_lists_the_fields(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["check", "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "usage: dso check" in said
    assert field_text() in said


def test_the_examples_are_the_same_rows(tmp_path):
    read = {}
    for suffix in ("csv", "json"):
        path = tmp_path / f"my.{suffix}{'l' * (suffix == 'json')}"
        path.write_text(block(suffix), encoding="utf-8")
        read[suffix] = read_choices(Source((str(path),))).of("train")
        assert len(read[suffix]) == 3
    for a, b in zip(read["csv"], read["json"], strict=True):
        assert (a.prompt, a.options, a.kind, a.twin) == (b.prompt, b.options, b.kind, b.twin)


def test_the_error_shown_is_a_real_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = block("csv").replace("guard,anti,nurse,pro", "guard,anti,nurse,por")
    rows = rows.replace(",blue,,,,,", ",green,,,,,") + 'capability,"What colour is snow?,w,,b,,w\n'
    Path("my.csv").write_text(rows, encoding="utf-8")
    assert main(["check", "--data", "my.csv"]) == 2
    assert capsys.readouterr().err == block("text") + "(--debug shows where)\n"
