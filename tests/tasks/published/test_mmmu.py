from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from dso.tasks import MMMU, make_task
from dso.tasks.files import DataError
from dso.tasks.pictures import open_picture
from dso.tasks.published.mmmu import read_subjects
from tests.tasks.published.picture_files import (
    mmmu_row,
    packed,
    png,
    write_mmmu,
    write_parquet,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_mmmu(tmp_path_factory.mktemp("mmmu"))


def read_one(tmp_path, **changes):
    """The questions of a folder whose first validation row is changed, and the report."""
    rows = [mmmu_row(0, **changes), *(mmmu_row(n) for n in range(1, 6))]
    return read_subjects(write_mmmu(tmp_path, ("Art",), rows))


def test_a_question_is_asked_with_lettered_options_and_its_picture(folder):
    data = MMMU(str(folder)).load()
    choice = next(c for c in data.evaluation if c.id == "mmmu-validation_Art_Theory_4")
    assert choice.prompt == (
        "A multiple choice question about Art Theory.\n\n"
        "What is 4 in (image 1)?\nA. red\nB. the painter's\nC. blue\n"
        "Answer with the letter A, B or C."
    )
    assert [(o.text, o.forms) for o in choice.options] == [
        (letter, (f" {letter}", letter)) for letter in "ABC"
    ]
    assert (choice.kind, choice.truth, choice.source) == ("capability", 1, "Art_Theory")
    (picture,) = choice.pictures
    assert open_picture(picture).getpixel((0, 0)) == (4, 0, 0)
    assert "Art_Theory" in picture.name and "row 5, field image_1" in picture.name


def test_dev_is_the_pool_but_for_every_fifth_of_a_subject_and_validation_is_asked(folder):
    data = MMMU(str(folder)).load()
    assert (len(data.pool), len(data.validation), len(data.evaluation)) == (8, 2, 12)
    assert {c.id for c in data.validation} == {"mmmu-dev_Art_4", "mmmu-dev_Art_Theory_4"}
    assert all(c.id.startswith("mmmu-dev_") for c in data.pool)
    assert data.train == []
    few = MMMU(str(folder), evaluation=4).load().evaluation
    assert Counter(c.source for c in few) == {"Art": 2, "Art_Theory": 2}
    assert few == MMMU(str(folder), evaluation=4).load().evaluation


def test_pictures_stand_in_the_order_of_their_marks_and_are_called_by_it(tmp_path):
    images = {f"image_{n}": packed(png((10 * n, 0, 0))) for n in (1, 2, 3, 4)}
    questions, report = read_one(
        tmp_path, **images, question="<image 3> and < Image 1 >, then <image 3> again?",
        options="['<image 4>', 'none', 'as <image 1>']", answer="C",
    )  # fmt: skip
    question = questions["validation"][0]
    assert question.text == "(image 1) and (image 2), then (image 1) again?"
    assert question.options == ("(image 3)", "none", "as (image 2)")
    shown = [open_picture(image).getpixel((0, 0))[0] for image in question.images]
    assert shown == [30, 10, 40]
    assert report.unnamed == 1  # image 2


def test_open_questions_and_those_without_an_answer_are_left_out_and_counted(tmp_path, caplog):
    rows = [
        mmmu_row(0), mmmu_row(1, question_type="open", options="[]", answer="['4', 'four']"),
        mmmu_row(2, answer="?"), mmmu_row(3, options="['a', 'a', 'b']", answer="B"),
    ]  # fmt: skip
    folder = write_mmmu(tmp_path, ("Art",), rows)
    questions, report = read_subjects(folder)
    assert report.left_out == {"open": 1, "without an answer": 1}
    assert report.rows == report.questions + sum(report.left_out.values()) == 9
    assert (report.same_options, len(questions["validation"])) == (1, 2)
    with caplog.at_level(logging.INFO):
        MMMU(str(folder)).load()
    assert "9 rows of 1 subjects; 7 questions; left out: 1 open, 1 without an answer" in caplog.text
    with pytest.raises(DataError, match=r"row 4, field options: .*one text twice"):
        MMMU(str(folder), strict=True).load()


def test_options_that_differ_only_in_case_are_told_apart_by_their_letters(tmp_path):
    questions, report = read_one(tmp_path, options="['Red', 'red']", answer="B")
    assert questions["validation"][0].answer == 1
    assert report.same_options == 0


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"question": " "}, "field question: is empty"),
        ({"id": None}, "field id: is missing"),
        ({"id": "validation_Art_3"}, "field id: is 'validation_Art_3', which is that of"),
        ({"options": "['a', 'b'"}, r"field options: is .*wanted a list of 2 to 26 texts"),
        ({"options": "['a']"}, "field options: is"),
        ({"options": "['a', 3]"}, "field options: is"),
        ({"options": "['a', ' ']"}, "field options: is"),
        ({"options": "__import__('os').getcwd()"}, "field options: is"),
        ({"options": str(["x"] * 27)}, "field options: is"),
        ({"answer": "D"}, "field answer: is 'D'; wanted the right option's letter, A to C"),
        ({"answer": "AB"}, "field answer: is 'AB'"),
        ({"answer": ""}, "field answer: is empty"),
        ({"question_type": "essay"}, "field question_type: is 'essay'; wanted multiple-choice or"),
        ({"image_1": None}, "field image_1: is missing, but <image 1> names it"),
        ({"question": "<image 9>?"}, "field image_9: is missing"),
        ({"options": "['<image 2>', 'b', 'c']"}, "field image_2: is missing, but <image 2>"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path, change, wrong):
    row = 4 if change.get("id") else 1
    with pytest.raises(DataError, match=rf"validation-.*\.parquet, row {row}, {wrong}"):
        read_one(tmp_path, **change)


def test_a_damaged_image_is_named_when_it_is_looked_at(tmp_path):
    questions, _ = read_one(tmp_path, image_1=packed(png((1, 2, 3))[:30]))
    with pytest.raises(ValueError, match=r"validation-.*row 1, field image_1"):
        open_picture(questions["validation"][0].images[0])


def test_subjects_can_be_chosen_and_an_unknown_one_is_named(folder, tmp_path):
    data = MMMU(str(folder), subjects=["Art_Theory"]).load()
    assert {c.source for c in data.evaluation} == {"Art_Theory"}
    with pytest.raises(ValueError, match=r"no subject \['Maths'\]; it has \['Art', 'Art_Theory'\]"):
        MMMU(str(folder), subjects=["Maths"]).load()
    with pytest.raises(ValueError, match="no folder with parquet files"):
        MMMU(str(tmp_path)).load()
    with pytest.raises(ValueError, match="no MMMU folder"):
        MMMU(str(tmp_path / "nowhere")).load()
    write_parquet(tmp_path / "Art" / "dev-00000-of-00001.parquet", [mmmu_row(0, "dev")])
    with pytest.raises(DataError, match=r"has no file validation-\*\.parquet"):
        MMMU(str(tmp_path)).load()
    write_parquet(tmp_path / "Art" / "validation-00000-of-00001.parquet", [{"id": "1", "q": "x"}])
    with pytest.raises(DataError, match=r"field question: there is no such column.*'id', 'q'"):
        MMMU(str(tmp_path)).load()


def test_settings_that_make_no_sense(folder):
    for settings, wrong in (
        ({"hub": "a/b"}, "give one of them"), ({"evaluation": 0}, "evaluation is 0"),
        ({"subjects": []}, "subjects is empty"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=wrong):
            MMMU(str(folder), **settings)


def test_only_what_is_needed_is_downloaded(folder, monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, **settings):
        asked.append(settings["allow_patterns"])
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    task = make_task("mmmu", {"hub": "MMMU/MMMU"})
    assert task.load() == MMMU(str(folder)).load()
    MMMU(hub="MMMU/MMMU", subjects=["Art"]).load()
    assert asked == [
        ["*/dev-*.parquet", "*/validation-*.parquet"],
        ["Art/dev-*.parquet", "Art/validation-*.parquet"],
    ]
