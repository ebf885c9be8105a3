from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from dso.tasks import MMLU, Coreference, SynthBias, twin_pairs
from dso.tasks.published.parts import part_of
from dso.tasks.published.synthbias import synthbias
from tests.tasks.published.public_files import (
    synthbias_row,
    synthbias_rows,
    write_mmlu,
    write_synthbias,
)

PUBLISHED = Path(__file__).parents[3] / ".." / "shared" / "data" / "synthbias"
SMALL = {"train_pairs": 6, "pool": 16, "validation": 4, "forms": (" {}",)}
TEXT = "The guard lent the nurse a ladder before {} painted the wall."


def read(tmp_path, *rows):
    return synthbias(write_synthbias(tmp_path, list(rows)))


def ambiguous(text=TEXT, pronoun="he", one="guard", two="nurse"):
    return synthbias_row(text.format(pronoun), one, two, pronoun)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_synthbias(tmp_path_factory.mktemp("synthbias")).parent


# -- the published file -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    if not PUBLISHED.is_dir():
        pytest.skip(f"{PUBLISHED} is not there")
    return synthbias(PUBLISHED / "synthbias_data.csv")


def test_every_published_row_is_a_choice_or_counted(published):
    choices, report = published
    assert report.rows == 31_728
    assert len(choices) == report.ambiguous + report.unambiguous
    assert report.rows == len(choices) + report.duplicates + sum(report.left_out.values())
    assert (report.ambiguous, report.unambiguous) == (14_118, 17_608)
    assert (report.pairs, report.unambiguous_pairs, report.unpaired) == (7_059, 8_804, 0)
    assert (report.duplicates, report.both_types, report.disagreements) == (2, 4, 0)
    assert report.left_out == {}


def test_published_twins_differ_in_gender_alone_and_share_a_part(published):
    choices, report = published
    pairs = twin_pairs(choices)
    assert len(pairs) == report.pairs + report.unambiguous_pairs
    for a, b in pairs:
        one, other = choices[a], choices[b]
        assert {one.gender, other.gender} == {"male", "female"}
        assert (one.truth, one.split, one.occupations) == (
            other.truth,
            other.split,
            other.occupations,
        )
        for option, opposite in zip(one.options, other.options, strict=True):
            assert {option.side, opposite.side} in ({"pro", "anti"}, {"neither"})


def test_published_parts_are_of_the_sizes_asked_for(published):
    choices, _ = published
    counts = Counter(choice.split for choice in choices)
    shares = [
        counts[f"synthbias_{part}"] / len(choices) for part in ("train", "validation", "test")
    ]
    assert shares == pytest.approx([0.3, 0.1, 0.6], abs=0.01)


# -- reading ------------------------------------------------------------------------------------


def test_the_order_is_that_of_mention_and_the_truth_is_occ_1(tmp_path):
    text = "The guard missed the nurse and wrote her a letter."
    rows = (
        ambiguous(one="nurse", two="guard"),
        synthbias_row(text, "nurse", "guard", "her", "True"),
        synthbias_row(text.replace("her", "him"), "guard", "nurse", "him", "True"),
    )
    choices, report = read(tmp_path, *rows)
    for choice in choices:
        assert choice.occupations == ("guard", "nurse")
        assert [option.text for option in choice.options] == ["guard", "nurse"]
        assert choice.first == 0
    assert [choice.truth for choice in choices] == [None, 1, 0]
    assert [option.side for option in choices[0].options] == ["pro", "anti"]
    # The same sentence with another right answer is no twin.
    assert report.unambiguous_pairs == 0


@pytest.mark.parametrize(
    ("text", "pronoun"),
    [
        ("The GUARD and the Nurse waited. She sang.", "She"),
        ("The guard and the nurse waited, and his dog barked at his cat.", "his"),
        ("“Guard!” the nurse said, “she is here.”", "she"),
    ],
)
def test_case_quotes_and_repeated_pronouns_do_not_matter(tmp_path, text, pronoun):
    (choice,), _ = read(tmp_path, synthbias_row(text, "Guard", "nurse", pronoun))
    assert choice.prompt.startswith(f'{text} Who does "{pronoun.lower()}" refer to, the ')
    assert choice.occupations == ("guard", "nurse")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (ambiguous(TEXT.replace("guard", "wizard"), one="wizard"), "with an unknown occupation"),
        (ambiguous(TEXT.replace("guard", "guards")), "without their occupations in the sentence"),
        (ambiguous(one="driver"), "without their occupations in the sentence"),
        (ambiguous(TEXT.replace("{}", "they")), "without their pronoun in the sentence"),
        (ambiguous(TEXT.replace("the wall", "her wall")), "with pronouns of both genders"),
        (ambiguous(TEXT.replace("nurse", "cook"), two="cook"),
         "ambiguous between occupations of one stereotype"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_is_counted_by_reason(tmp_path, row, reason):
    choices, report = read(tmp_path, row, ambiguous())
    assert len(choices) == 1
    assert report.left_out == {reason: 1}
    assert f"0 duplicates, 1 {reason};" in str(report)


def test_an_unambiguous_sentence_may_be_about_one_stereotype(tmp_path):
    text = "The guard missed the cook and wrote him a letter."
    (choice,), report = read(tmp_path, synthbias_row(text, "cook", "guard", "him", "True"))
    assert choice.truth == 1
    assert report.disagreements == 0


def test_a_label_that_differs_from_the_stereotype_is_counted_and_kept(tmp_path):
    text = "The guard missed the nurse and wrote him a letter."
    choices, report = read(tmp_path, synthbias_row(text, "guard", "nurse", "him", "False"))
    assert (len(choices), report.disagreements) == (1, 1)


def test_twins_are_paired_one_to_one_and_the_rest_is_counted(tmp_path):
    possessive = "The guard told the nurse about {} cat."
    rows = (
        ambiguous(possessive, "his"), ambiguous(TEXT, "he"), ambiguous(possessive, "her"),
        ambiguous(TEXT, "he", "nurse", "guard"), ambiguous("So far so good. " + TEXT, "she"),
    )  # fmt: skip
    choices, report = read(tmp_path, *rows)
    assert twin_pairs(choices) == [(0, 2)]
    assert (report.pairs, report.unpaired, report.duplicates) == (1, 2, 1)
    assert [choice.id for choice in choices] == [f"synthbias-{n}" for n in (1, 2, 3, 5)]


def test_a_sentence_of_both_types_is_counted(tmp_path):
    text = TEXT.format("he")
    _, report = read(tmp_path, ambiguous(), synthbias_row(text, "guard", "nurse", "he", "True"))
    assert report.both_types == 1


def test_the_parts_do_not_depend_on_the_order_of_the_rows(tmp_path):
    rows = synthbias_rows()
    parts = [
        {choice.prompt.split(" Who does")[0]: choice.split for choice in read(tmp_path, *given)[0]}
        for given in (rows, rows[::-1])
    ]
    assert parts[0] == parts[1]


def test_the_parts_never_change():
    keys = ("the guard met the nurse.", "keeper", "Age 1", "Age 2")
    assert [part_of(key) for key in keys] == ["validation", "train", "test", "train"]


def test_the_question_names_both_orders_equally_often(folder):
    choices, _ = synthbias(folder / "synthbias_data.csv")
    swapped = []
    for choice in choices:
        question = choice.prompt[choice.prompt.rindex('" refer to') :]
        swapped.append(
            question.index(choice.options[0].text) > question.index(choice.options[1].text)
        )
    assert sum(swapped) == len(swapped) / 2
    assert all(swapped[a] == swapped[b] for a, b in twin_pairs(choices))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("type", "type3", "is 'type3'; wanted type1 or type2"),
        ("sample", "", "is empty; wanted a text"),
        ("occ_1", " ", "is empty; wanted a text"),
        ("occ_2", "Guard", "is 'Guard', as occ_1 is; wanted two people"),
        ("pronoun", "they", "is 'they'; wanted one of he, him"),
        ("is_stereotypical", "True", "is 'True'; wanted ambiguous with type1"),
    ],
)
def test_a_bad_field_is_named_with_file_and_line(tmp_path, field, value, message):
    with pytest.raises(ValueError, match=rf"synthbias_data\.csv, line 3, field {field}: {message}"):
        read(tmp_path, ambiguous(), {**ambiguous(pronoun="she"), field: value})


def test_all_bad_fields_are_named_at_once_up_to_a_limit(tmp_path):
    bad = {**ambiguous(), "type": "", "pronoun": "it"}
    with pytest.raises(ValueError, match="4 problem") as error:
        read(tmp_path, bad, ambiguous(), bad)
    assert str(error.value).count("line 2, field") == str(error.value).count("line 4, field") == 2
    with pytest.raises(ValueError, match="stopped after 20"):
        read(tmp_path, *[bad] * 30)


def test_a_file_without_a_column_or_a_usable_row_is_refused(tmp_path):
    rows = [{k: v for k, v in ambiguous().items() if k not in ("occ_2", "pronoun")}]
    with pytest.raises(
        ValueError, match=r"field occ_2: there is no such column(.|\n)*field pronou"
    ):
        read(tmp_path, *rows)
    with pytest.raises(ValueError, match=r"has no usable row\. SynthBias: 1 rows"):
        read(tmp_path, ambiguous(one="driver"))


# -- the task -----------------------------------------------------------------------------------


def kinds(choices):
    return dict(Counter(choice.kind for choice in choices))


def test_the_task_mixes_pool_and_controls(folder, caplog):
    with caplog.at_level(logging.INFO, "dso"):
        data = SynthBias(str(folder), **SMALL).load()
    assert kinds(data.train) == {"ambiguous": 12}
    assert kinds(data.pool) == {"unambiguous": 8, "gender_needed": 4, "capability": 4}
    assert kinds(data.validation) == {
        "ambiguous": 8, "unambiguous": 4, "gender_needed": 4, "capability": 4,
    }  # fmt: skip
    choices, report = synthbias(folder / "synthbias_data.csv", SMALL["forms"])
    test = [choice for choice in choices if choice.split == "synthbias_test"]
    assert data.evaluation[: len(test)] == sorted(test, key=lambda c: c.kind)
    assert set(kinds(data.evaluation)) == {
        "ambiguous",
        "unambiguous",
        "gender_needed",
        "capability",
    }
    assert str(report) in caplog.text


def test_the_parts_of_the_task_share_no_sentence(folder):
    data = SynthBias(str(folder), **SMALL).load()
    texts = [
        {choice.prompt.split(" Who")[0] for choice in choices if choice.source.startswith("synthb")}
        for choices in ([*data.train, *data.pool], data.validation, data.evaluation)
    ]
    assert not texts[0] & texts[1] and not texts[1] & texts[2] and not texts[0] & texts[2]


def test_the_seed_draws_training_data_and_pool_alone(folder):
    one, again, other = (SynthBias(str(folder), **SMALL, seed=seed).load() for seed in (0, 0, 1))
    assert one == again
    assert one.train != other.train and one.pool != other.pool
    assert (one.validation, one.evaluation) == (other.validation, other.evaluation)


def test_a_capability_task_takes_the_place_of_the_quiz(folder, tmp_path):
    mmlu = MMLU(str(write_mmlu(tmp_path)), evaluation=9)
    data = SynthBias(str(folder), mmlu, **SMALL, evaluation=5).load()
    assert kinds(data.evaluation) == {
        "ambiguous": 10, "unambiguous": 5, "gender_needed": 5, "capability": 9,
    }  # fmt: skip
    for choices, count in ((data.pool, 4), (data.validation, 2), (data.evaluation, 9)):
        asked = [choice for choice in choices if choice.kind == "capability"]
        assert {choice.split for choice in asked} == {"mmlu"}
        assert len(asked) == count


def test_a_small_capability_task_shrinks_the_pool_in_proportion(folder, tmp_path):
    mmlu = MMLU(str(write_mmlu(tmp_path, ("sums",))))
    data = SynthBias(str(folder), mmlu, **{**SMALL, "pool": 40}).load()
    assert kinds(data.pool) == {"unambiguous": 8, "gender_needed": 4, "capability": 4}


class Blind(Coreference):
    def load(self):
        data = super().load()
        pool = [choice for choice in data.pool if choice.kind != "capability"]
        return type(data)(data.train, pool, data.validation, data.evaluation)


def test_a_capability_task_without_questions_is_refused(folder):
    blind = Blind(pairs=4, pool=8, validation=4, evaluation=4)
    with pytest.raises(ValueError, match="no capability question in its pool"):
        SynthBias(str(folder), blind, **SMALL).load()


def test_a_model_that_was_not_trained_on_it_is_asked_every_sentence(folder):
    asked = SynthBias(str(folder), **SMALL).benchmark()
    assert {choice.split for choice in asked} == {"synthbias"}
    assert len(asked) == len(synthbias_rows())


def test_more_pairs_than_there_are_is_an_error(folder):
    with pytest.raises(
        ValueError, match=r"the training part has \d+ twin pairs and train_pairs is"
    ):
        SynthBias(str(folder)).load()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_pairs": 0}, "synthbias: train_pairs is 0; wanted at least 1"),
        ({"evaluation": -1}, "synthbias: evaluation is -1"),
        ({"forms": ()}, "synthbias: every form needs '{}' for the answer"),
        ({"forms": ("the answer",)}, "synthbias: every form needs '{}' for the answer"),
    ],
)
def test_settings_that_make_no_task_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        SynthBias(**settings)
