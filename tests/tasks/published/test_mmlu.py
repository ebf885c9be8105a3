from __future__ import annotations

import builtins
import logging
from collections import Counter
from pathlib import Path

import pytest

from dso.tasks import MMLU
from dso.tasks.published.mmlu import read_folder, read_hub
from tests.tasks.published.public_files import mmlu_rows, write_csv, write_mmlu

PUBLISHED = Path(__file__).parents[3] / ".." / "shared" / "data" / "mmlu"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_mmlu(tmp_path_factory.mktemp("mmlu"))


def test_the_published_questions_all_load():
    if not PUBLISHED.is_dir():
        pytest.skip(f"{PUBLISHED} is not there")
    data = MMLU(str(PUBLISHED)).load()
    assert len(data.evaluation) == 14_042
    assert len({choice.source for choice in data.evaluation}) == 57
    assert (len(data.pool), len(data.validation)) == (4 * 57, 57)
    dev = read_folder(PUBLISHED)["dev"]
    assert Counter(len(set(question.choices)) for question in dev) == {4: 284, 3: 1}
    with pytest.raises(ValueError, match="10 problem"):
        read_folder(PUBLISHED, strict=True)


def test_a_question_is_asked_with_lettered_choices(folder):
    data = MMLU(str(folder)).load()
    choice = data.evaluation[1]
    assert choice.prompt == (
        "Multiple choice questions about more sums.\n\n"
        "In more_sums test, what is 1 + 4?\nA. 8\nB. 5\nC. 6\nD. 7\n"
        "Answer with the letter A, B, C or D."
    )
    assert [option.text for option in choice.options] == list("ABCD")
    assert choice.options[2].forms == (" C", "C")
    assert (choice.kind, choice.truth, choice.source) == ("capability", 1, "more_sums")
    assert data.train == []


def test_every_fifth_dev_question_is_kept_for_validation(folder):
    data = MMLU(str(folder)).load()
    assert (len(data.pool), len(data.validation), len(data.evaluation)) == (8, 2, 14)
    assert all("dev, what is 4 + 7" in choice.prompt for choice in data.validation)
    ids = [choice.id for choice in (*data.pool, *data.validation)]
    assert all(identifier.startswith("mmlu-dev-") for identifier in ids)


@pytest.mark.parametrize("shots", range(6))
def test_shots_are_dev_questions_with_their_answers_and_never_the_question_itself(folder, shots):
    data = MMLU(str(folder), shots=shots).load()
    known = [(data.pool, 3), (data.validation, 4), (data.evaluation, 5)]
    for choice, others in ((choice, others) for part, others in known for choice in part):
        *_, asked = choice.prompt.split("\n\n")
        shown = choice.prompt.removesuffix(asked)
        assert "test," not in shown
        assert asked.splitlines()[0] not in shown
        assert shown.count("\nAnswer: ") == min(shots, others)
        subject = choice.source
        assert shown.count(f"In {subject} dev") == shown.count("what is")
    for choice in data.pool:
        assert "what is 4 + 7" not in choice.prompt


def test_shown_answers_are_right(folder):
    data = MMLU(str(folder), shots=2).load()
    assert "what is 0 + 3?\nA. 3\n" in data.evaluation[0].prompt
    first, second, *_ = data.evaluation[0].prompt.split("Answer: ")[1:]
    assert (first[0], second[0]) == ("A", "B")


def test_an_evaluation_in_part_is_drawn_evenly_over_the_subjects(tmp_path):
    folder = write_mmlu(tmp_path, ("a", "b", "c", "d"))
    write_csv(folder / "test" / "d_test.csv", mmlu_rows("d test", 1))
    data = MMLU(str(folder), evaluation=13).load()
    assert Counter(choice.source for choice in data.evaluation) == {"a": 4, "b": 4, "c": 4, "d": 1}
    again = MMLU(str(folder), evaluation=13).load()
    assert data == again
    every = MMLU(str(folder)).load().evaluation
    assert [choice for choice in every if choice in data.evaluation] == data.evaluation
    assert MMLU(str(folder), evaluation=99).load().evaluation == every


def test_what_was_read_is_logged(folder, caplog):
    with caplog.at_level(logging.INFO, "dso"):
        MMLU(str(folder)).load()
    assert "14 test and 10 dev questions in 2 subjects; 0 have two choices" in caplog.text


# -- bad files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("question", "", "is empty; wanted a text"),
        ("choice2", " ", "is empty; wanted a text"),
        ("answer", "4", "is '4'; wanted the index of the right choice, 0 to 3"),
        ("answer", "B", "is 'B'; wanted the index"),
        ("answer", "", "is ''; wanted the index"),
        ("answer", "-1", "is '-1'; wanted the index"),
    ],
)
def test_a_bad_field_is_named_with_file_and_line(tmp_path, field, value, message):
    folder = write_mmlu(tmp_path)
    rows = mmlu_rows("sums test", 7)
    rows[4] |= {field: value}
    write_csv(folder / "test" / "sums_test.csv", rows)
    with pytest.raises(ValueError, match=rf"sums_test\.csv, line 6, field {field}: {message}"):
        MMLU(str(folder)).load()


def test_two_choices_of_one_text_are_counted_and_an_error_only_where_strict(tmp_path, caplog):
    folder = write_mmlu(tmp_path)
    rows = mmlu_rows("sums test", 7)
    rows[4] |= {"choice3": rows[4]["choice1"]}
    write_csv(folder / "test" / "sums_test.csv", rows)
    with caplog.at_level(logging.INFO, "dso"):
        assert len(MMLU(str(folder)).load().evaluation) == 14
    assert "1 have two choices of one text" in caplog.text
    with pytest.raises(ValueError, match=r"line 6, field choice3: is '\d+', as choice1 is"):
        MMLU(str(folder), strict=True).load()


def test_a_missing_column_is_named_once_and_all_files_at_once(tmp_path):
    folder = write_mmlu(tmp_path)
    for name in ("sums", "more_sums"):
        rows = [{k: v for k, v in row.items() if k != "choice1"} for row in mmlu_rows(name, 5)]
        write_csv(folder / "dev" / f"{name}_dev.csv", rows)
    with pytest.raises(ValueError, match="2 problem") as error:
        MMLU(str(folder)).load()
    assert str(error.value).count("field choice1: there is no such column") == 2


def test_a_folder_without_questions_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no MMLU file: the folder .*dev has no file \*_dev\.csv"):
        MMLU(str(tmp_path)).load()


def test_too_few_questions_to_show_are_named(tmp_path):
    folder = write_mmlu(tmp_path)
    write_csv(folder / "dev" / "sums_dev.csv", mmlu_rows("sums dev", 2))
    with pytest.raises(ValueError, match=r"shots is 3, but dev has fewer questions of \['sums'\]"):
        MMLU(str(folder), shots=3).load()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shots": 6}, "mmlu: shots is 6; wanted 0 to 5"),
        ({"evaluation": 0}, "mmlu: evaluation is 0"),
        ({"data": "here", "hub": "cais/mmlu"}, "data is 'here' and hub is 'cais/mmlu'; give one"),
    ],
)
def test_settings_that_make_no_task_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MMLU(**settings)


# -- the hub ------------------------------------------------------------------------------------


def hub_folder(folder: Path, rows_by_split: dict[str, list[dict]]) -> str:
    """A data set of the hub's shape in a local folder, which `datasets` loads offline."""
    datasets = pytest.importorskip("datasets")
    lines = [f"  - split: {s}\n    path: all/{s}.parquet\n" for s in rows_by_split]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: all\n  data_files:\n{''.join(lines)}---\n",
        encoding="utf-8",
    )
    (folder / "all").mkdir()
    for split, rows in rows_by_split.items():
        datasets.Dataset.from_list(rows).to_parquet(folder / "all" / f"{split}.parquet")
    return str(folder)


def hub_rows(split: str, count: int) -> list[dict]:
    return [
        {
            "question": row["question"], "subject": subject,
            "choices": [row[f"choice{n}"] for n in range(4)], "answer": int(row["answer"]),
        }
        for subject in ("more_sums", "sums")
        for row in mmlu_rows(f"{subject} {split}", count)
    ]  # fmt: skip


@pytest.fixture
def offline(tmp_path, monkeypatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_the_hub_has_the_same_questions_as_the_files(folder, tmp_path, offline):
    rows = {
        "test": hub_rows("test", 7),
        "validation": hub_rows("val", 1),
        "dev": hub_rows("dev", 5),
    }
    hub = hub_folder(tmp_path / "hub", rows)
    assert read_hub(hub) == read_folder(folder)
    assert MMLU(hub=hub, shots=2).load() == MMLU(str(folder), shots=2).load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": 4}, "row 3, field answer: is 4; wanted the index"),
        ({"choices": ["1", "2"]}, r"row 3, field choices: is \['1', '2'\]; wanted a list of 4"),
        ({"choices": ["1", "", "2", "3"]}, "row 3, field choice1: is empty"),
        ({"subject": ""}, "row 3, field subject: is empty"),
        ({"question": None}, "row 3, field question: is missing"),
    ],
)
def test_a_bad_row_of_the_hub_is_named(tmp_path, offline, change, message):
    test = hub_rows("test", 7)
    test[2] |= change
    hub = hub_folder(tmp_path / "hub", {"test": test, "dev": hub_rows("dev", 5)})
    with pytest.raises(ValueError, match=f"split test, {message}"):
        read_hub(hub)


def test_a_hub_data_set_of_another_shape_is_named(tmp_path, offline):
    rows = [{"question": "Why?", "label": 1}]
    hub = hub_folder(tmp_path / "hub", {"test": rows, "train": rows})
    with pytest.raises(ValueError, match="4 problem") as error:
        read_hub(hub)
    assert "has no split 'dev'; it has 'test', 'train'" in str(error.value)
    assert "split test, field choices: there is no such column" in str(error.value)
    with pytest.raises(ValueError, match=r"MMLU: the data set 'no/such-set' cannot be loaded: "):
        read_hub("no/such-set")


def test_without_datasets_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("datasets"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r'needs datasets: pip install "dso\[data\]"'):
        MMLU(hub="cais/mmlu").load()
