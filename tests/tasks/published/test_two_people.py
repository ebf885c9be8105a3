from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from dso.tasks import TwoPeople, twin_pairs
from dso.tasks.published.two_people import two_people
from tests.tasks.published.public_files import blank_row, blank_rows, write_blanks, write_csv

PUBLISHED = (
    Path(__file__).parents[3] / ".." / "shared" / "data" / "winogenerated"
) / "winogenerated_examples.jsonl"
SMALL = {"pool": 16, "validation": 4, "forms": (" {}",)}


def read(tmp_path, *rows, **settings):
    return two_people(write_blanks(tmp_path, list(rows)), **settings)


def row(text="The keeper told the visitor that _ was early.", women=80.0, forms="he|she|they"):
    return blank_row(text, "keeper", "visitor", women, forms)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_blanks(tmp_path_factory.mktemp("blanks")).parent


# -- the published file -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published():
    if not PUBLISHED.is_file():
        pytest.skip(f"{PUBLISHED} is not there")
    return two_people(PUBLISHED)


def test_every_published_row_is_a_twin_pair_or_counted(published):
    choices, report = published
    assert report.rows == 2_990
    assert len(choices) == 2 * report.sentences
    assert report.rows == report.sentences + sum(report.left_out.values())
    assert (report.sentences, report.occupations) == (2_138, 221)
    assert sorted(report.left_out.values()) == [1, 1, 19, 20, 61, 750]


def test_published_occupations_stand_in_one_part_each(published):
    choices, _ = published
    parts = {(choice.occupations, choice.split) for choice in choices}
    assert len(parts) == len({choice.occupations for choice in choices})
    assert {split for _, split in parts} == {
        f"two_people_{p}" for p in ("train", "validation", "test")
    }
    assert len(twin_pairs(choices)) == len(choices) // 2


# -- reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "forms", "he", "she"),
    [
        ("The keeper and the visitor saw that _ won.", "he|she|they", "that he w", "that she w"),
        ("The keeper saw the visitor. _ won.", "he|she|they", "visitor. He w", "visitor. She w"),
        ("_ bag, the keeper told the visitor.", "his|her|their", "His bag", "Her bag"),
        ("“_ won”, the keeper told the visitor.", "he|she|they", "“He won”", "“She won”"),
        ("The keeper met the visitor (_ won).", "he|she|they", "(he won)", "(she won)"),
        ("The keeper gave the visitor what was _.", "his|hers|theirs", "was his.", "was hers."),
        ("The keeper told the visitor about _.", "him|her|them", "about him.", "about her."),
        ("The keeper hurt the visitor, not _.", "himself|herself|themself", "himself.", "herself."),
        ("The keeper hurt the visitor, not _.", "they|she|he", "not he.", "not she."),
    ],
)  # fmt: skip
def test_the_blank_is_filled_in_the_right_case(tmp_path, text, forms, he, she):
    choices, _ = read(tmp_path, row(text, forms=forms))
    assert [choice.gender for choice in choices] == ["male", "female"]
    assert he in choices[0].prompt and she in choices[1].prompt
    assert "_" not in choices[0].prompt
    word = sorted(forms.split("|"), key=lambda form: "he his him himself".find(form) < 0)[0]
    assert f'Who does "{word}" refer to, the keeper or the visitor?' in choices[0].prompt


@pytest.mark.parametrize(
    ("women", "he", "she"), [(80.0, "anti", "pro"), (20, "pro", "anti"), ("9.5", "pro", "anti")]
)
def test_the_majority_of_the_occupation_decides_the_sides(tmp_path, women, he, she):
    choices, _ = read(tmp_path, row(women=women), row("The visitor met the keeper; _ sang.", women))
    for choice, side in zip(choices, (he, she, he, she), strict=True):
        sides = {option.text: option.side for option in choice.options}
        assert sides["keeper"] == side
        assert sides["visitor"] == {"pro": "anti", "anti": "pro"}[side]
        assert choice.occupations == ("keeper",)
        assert choice.first == 0
    assert [option.text for option in choices[0].options] == ["keeper", "visitor"]
    assert [option.text for option in choices[2].options] == ["visitor", "keeper"]
    # Every other pair names the one mentioned second first.
    assert "the keeper or the visitor?" in choices[2].prompt


def test_a_longer_name_hides_a_shorter_one(tmp_path):
    text = "The head keeper met the keeper because _ was late."
    choices, _ = read(tmp_path, blank_row(text, "keeper", "head keeper", 80))
    assert [option.text for option in choices[0].options] == ["head keeper", "keeper"]


@pytest.mark.parametrize(
    ("other", "text", "named"),
    [
        ("someone", "The keeper told someone that _ sang.", "or someone?"),
        ("Anna", "The keeper told Anna that _ sang.", "or Anna?"),
        ("IT aide", "The keeper told an IT aide that _ sang.", "or the IT aide?"),
        ("Visitor", "The keeper told the Visitor that _ sang.", "or the Visitor?"),
    ],
)
def test_names_stand_without_an_article(tmp_path, other, text, named):
    choices, _ = read(tmp_path, blank_row(text, "keeper", other, 80))
    assert choices[0].prompt.endswith(named)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row("The keepers told the visitor that _ sang."), "without the occupation as a word"),
        (row("The keeper told the visitors that _ sang."), "without the other person as a word"),
        (row("The keeper and his visitor said _ sang."), "with another gendered pronoun"),
        (blank_row("The keeper met the keeper aide; _ sang.", "keeper", "keeper aide", 80),
         "with one person's name beginning the other's"),
    ],
)  # fmt: skip
def test_a_sentence_that_cannot_be_used_is_counted_or_an_error_where_strict(tmp_path, bad, reason):
    choices, report = read(tmp_path, row(), bad)
    assert (len(choices), report.left_out) == (2, {reason: 1})
    assert f"left out: 1 {reason}" in str(report)
    with pytest.raises(ValueError, match=rf"\.jsonl, line 2, field .*: a sentence {reason}"):
        read(tmp_path, row(), bad, strict=True)


def test_occupations_without_a_majority_and_repeated_rows_are_counted(tmp_path):
    rows = [
        row(),
        row(),
        blank_row("The clerk told the visitor that _ sang.", "clerk", "visitor", 60),
    ]
    _, report = read(tmp_path, *rows, strict=True)
    assert report.left_out == {
        "repeating an earlier one": 1, "with a women's share within 50 ± 10 %": 1,
    }  # fmt: skip
    assert read(tmp_path, *rows, margin=9.9)[1].sentences == 2
    rows[2]["women"] = 50
    assert read(tmp_path, *rows, margin=0)[1].sentences == 1


def test_csv_and_the_published_names_of_the_fields_are_read(tmp_path):
    rows = [{**r, "pronoun_options": "|".join(r["pronoun_options"])} for r in blank_rows()]
    for given in rows:
        given["BLS_percent_women_2019"] = given.pop("women")
    assert two_people(write_csv(tmp_path / "my.csv", rows)) == read(tmp_path, *blank_rows())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sentence_with_blank": "No blank."}, "field sentence_with_blank: has 0 blanks; wanted"),
        ({"sentence_with_blank": "_ and _"}, "field sentence_with_blank: has 2 blanks; wanted one"),
        ({"occupation": ""}, "field occupation: is empty; wanted a text"),
        ({"other_person": 5}, "field other_person: is 5; wanted a text"),
        ({"other_person": "Keeper"}, "field other_person: is 'Keeper', as the occupation is"),
        ({"pronoun_options": ["he", "her", "they"]}, "field pronoun_options: is .*three forms"),
        ({"pronoun_options": "he|she"}, "field pronoun_options: is 'he|she'; wanted three forms"),
        ({"pronoun_options": [1, 2, 3]}, "field pronoun_options: is .*wanted three forms"),
        ({"pronoun_options": None}, "field pronoun_options: is missing"),
        ({"women": 101}, "field women: is 101; wanted a number of percent"),
        ({"women": "many"}, "field women: is 'many'; wanted a number"),
        ({"women": True}, "field women: is True; wanted a number"),
        ({"women": [1]}, "field women: is .*wanted a number"),
        ({"women": None}, "field women: is missing"),
        ({"women": 81.0}, "field women: is 81, but 80 in an earlier row of 'keeper'"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named_with_file_and_line(tmp_path, change, message):
    with pytest.raises(ValueError, match=rf"examples\.jsonl, line 2, {message.replace('|', '.')}"):
        read(tmp_path, row(), {**row(), **change})


def test_shares_that_are_no_percent_are_refused(tmp_path):
    rows = [
        row(women=0.8),
        blank_row("The clerk told the visitor that _ sang.", "clerk", "visitor", 1),
    ]
    with pytest.raises(ValueError, match="every women's share is at most 1; wanted percent"):
        read(tmp_path, *rows)


def test_a_file_without_a_usable_row_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"has no usable row\. two people: 1 rows"):
        read(tmp_path, row(women=50))


# -- the task -----------------------------------------------------------------------------------


def test_the_task_holds_occupations_out_and_builds_its_controls_in(folder, caplog):
    with caplog.at_level(logging.INFO, "dso"):
        data = TwoPeople(str(folder), **SMALL).load()
    _, report = two_people(folder / "winogenerated_examples.jsonl")
    assert str(report) in caplog.text
    known = [
        {choice.occupations for choice in part if choice.source == "two_people"}
        for part in (data.train, data.validation, data.evaluation)
    ]
    assert all(known)
    assert not known[0] & known[1] and not known[1] & known[2] and not known[0] & known[2]
    kinds = Counter(choice.kind for choice in data.pool)
    assert kinds == {"unambiguous": 8, "gender_needed": 4, "capability": 4}
    for part in (data.validation, data.evaluation):
        assert len({choice.kind for choice in part}) == 4


def test_train_pairs_and_seed_draw_the_training_data(folder):
    one, other = (TwoPeople(str(folder), 3, seed=seed, **SMALL).load() for seed in (0, 1))
    assert len(one.train) == 6
    assert one.train != other.train
    assert (one.validation, one.evaluation) == (other.validation, other.evaluation)
    with pytest.raises(ValueError, match=r"two_people: the training part has \d+ twin pairs"):
        TwoPeople(str(folder), 300, **SMALL).load()


def test_a_model_that_was_not_trained_on_it_is_asked_every_sentence(folder):
    asked = TwoPeople(str(folder / "winogenerated_examples.jsonl")).benchmark()
    assert len(asked) == 2 * len(blank_rows())
    assert {choice.split for choice in asked} == {"two_people"}


@pytest.mark.parametrize("margin", [-1, 50, float("nan")])
def test_a_margin_that_leaves_nothing_is_refused(margin):
    with pytest.raises(ValueError, match="two_people: margin is"):
        TwoPeople(margin=margin)
