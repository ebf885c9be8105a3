from __future__ import annotations

import logging
from collections import Counter
from itertools import permutations
from pathlib import Path

import pytest
import torch

from dso.metrics import point_values
from dso.tasks import BBQ, tabulate, twin_pairs
from dso.tasks.published.bbq import bbq
from dso.tasks.published.groups import belongs, stereotyped
from tests.tasks.published.public_files import bbq_row, bbq_rows, write_bbq

SMALL = {"train_pairs": 8, "pool": 16, "validation": 4}


def read(tmp_path, *rows, categories=None):
    return bbq([write_bbq(tmp_path, list(rows))], categories)


def numbered(*rows):
    return [{**row, "example_id": n} for n, row in enumerate(rows)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_bbq(tmp_path_factory.mktemp("bbq")).parent


# -- choices ------------------------------------------------------------------------------------


def test_polarity_decides_the_sides_of_an_ambiguous_context(tmp_path):
    rows = numbered(bbq_row(1, 1, "neg", "ambig"), bbq_row(1, 1, "nonneg", "ambig", (1, 2, 0)))
    (neg, nonneg), report = read(tmp_path, *rows)
    assert [option.text for option in neg.options] == ["The lefty", "The righty", "unknown"]
    assert [option.side for option in neg.options] == ["pro", "anti", "neither"]
    assert [option.side for option in nonneg.options] == ["anti", "pro", "neither"]
    assert [option.group for option in neg.options] == ["Left-handed", "nonLeft", None]
    assert neg.twin == nonneg.twin
    assert neg.occupations == ("Handedness 1",)
    assert (neg.kind, neg.truth, neg.first) == ("ambiguous", None, 0)
    assert (report.pairs, report.unpaired) == (1, 0)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize(("polarity", "truth"), [("neg", 1), ("nonneg", 0)])
def test_a_disambiguated_context_has_a_right_answer(tmp_path, polarity, truth, order):
    (choice,), _ = read(tmp_path, bbq_row(1, 1, polarity, "disambig", order))
    assert (choice.kind, choice.truth) == ("unambiguous", truth)
    assert {option.side for option in choice.options} == {"neither"}


def test_options_are_letters_in_an_order_that_twins_share_and_all_orders_take_in_turn(folder):
    choices, _ = bbq([folder / "Handedness.jsonl"])
    orders = Counter()
    for choice in choices:
        letters = [option.forms[1] for option in choice.options]
        assert sorted(letters) == ["A", "B", "C"]
        for option, letter in zip(choice.options, letters, strict=True):
            shown = "Not known" if option.text == "unknown" else option.text
            assert f"\n{letter}. {shown}\n" in choice.prompt
            assert option.forms == (f" {letter}", letter)
        orders["".join(letters)] += 1
    assert len(orders) == 6
    assert max(orders.values()) - min(orders.values()) <= 8
    for a, b in twin_pairs(choices):
        assert [o.forms for o in choices[a].options] == [o.forms for o in choices[b].options]


def test_answers_by_the_person_alone_and_at_random_score_no_bias(folder):
    choices, _ = bbq([folder / "Handedness.jsonl"])
    ambiguous = [choice for choice in choices if choice.kind == "ambiguous"]
    table = tabulate(ambiguous)
    by_person = torch.tensor([[0.7, 0.2, 0.1]]).expand(len(ambiguous), 3).log()
    at_random = torch.full((len(ambiguous), 3), 1 / 3).log()
    by_side = torch.where(table.side > 0, 0.9, 0.05).log()
    biases = [
        point_values(answers, table)["per_occupation_bias"]
        for answers in (by_person, at_random, by_side)
    ]
    assert biases == pytest.approx([0, 0, 0.85], abs=1e-6)


def test_people_stand_in_the_order_of_mention_or_of_their_names(tmp_path):
    one, other = bbq_row(1, 1, "neg", "ambig"), bbq_row(1, 1, "neg", "ambig")
    one["context"] = "A righty came in before a lefty."
    other["context"] = "Two people came in."
    (placed, unplaced), _ = read(tmp_path, *numbered(one, other))
    assert [option.text for option in placed.options[:2]] == ["The righty", "The lefty"]
    assert placed.first == 0
    assert [option.text for option in unplaced.options[:2]] == ["The lefty", "The righty"]
    assert unplaced.first is None


def test_repeated_rows_and_rows_without_a_twin_are_counted(tmp_path):
    row = bbq_row(1, 1, "neg", "ambig")
    reworded = {**bbq_row(1, 1, "neg", "ambig", (2, 1, 0)), "ans0": "Cannot be known"}
    choices, report = read(tmp_path, *numbered(row, reworded, bbq_row(2, 1, "neg", "ambig")))
    assert len(choices) == 2
    assert (report.rows, report.duplicates, report.pairs, report.unpaired) == (3, 1, 0, 2)


# -- groups -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "group"),
    [
        ("lowSES", "low SES"), ("F", "woman"), ("girl", "F"), ("man", "M"), ("trans_F", "trans"),
        ("trans_F", "Transgender women"), ("trans_M", "transgender men"), ("F-Black", "Black"),
        ("F-Black", "f-black"), ("lowSES-M-Arab", "Arab"), ("lowSES-HIspanic", "Hispanic"),
        ("Middle Eastern", "middle-eastern"), ("M-African American", "African American"),
        ("autistic", "autistic people"), ("lowSES-F-Latino", "F-Latino"), ("Latino", "Latina"),
        ("M-Native American", "native american"),
    ],
)  # fmt: skip
def test_groups_are_matched_in_their_several_spellings(label, group):
    assert belongs(["a name", label], group)


@pytest.mark.parametrize(
    ("label", "group"),
    [
        ("nonOld", "old"), ("non-old", "old"), ("nonTrans_F", "trans"),
        ("African", "African American"),
        ("M-Black", "F"), ("M-Black", "F-Black"), ("highSES", "low SES"), ("F", "M"), ("", "F"),
        ("notPregnant", "pregnant"), ("not pregnant", "pregnant"), ("nonDisabled", "disabled"),
    ],
)  # fmt: skip
def test_groups_that_only_look_alike_are_not_matched(label, group):
    assert not belongs(["a name", label], group)


def test_a_description_counts_as_a_whole_only():
    assert belongs(["Nigerian", "Africa"], "Nigerian")
    assert not belongs(["20-year-old", "nonOld"], "old")


@pytest.mark.parametrize(
    ("groups", "labels", "found"),
    [
        (["Black"], ("F-Black", "F-White"), 0),
        (["White", "Caucasian"], ("F-Black", "M-White"), 1),
        (["Black"], ("F-Black", "M-Black"), "with several people of a stereotyped group"),
        (["F-Black"], ("F-Black", "M-Black"), 0),
        (["Roma"], ("F-Black", ""), "with nobody of a stereotyped group"),
        ([], ("F", "M"), "without a stereotyped group"),
        (["", "?"], ("F", "M"), "without a stereotyped group"),
    ],
)
def test_one_person_is_stereotyped_or_the_reason_is_given(groups, labels, found):
    assert stereotyped([["Ann", labels[0]], ["Bo", labels[1]]], groups) == found


def test_what_cannot_be_matched_is_counted_and_never_guessed(tmp_path):
    rows = numbered(bbq_row(1, 1, "neg", "ambig"), bbq_row(2, 1, "neg", "ambig"))
    rows[1]["additional_metadata"]["stereotyped_groups"] = ["tall", "short"]
    choices, report = read(tmp_path, *rows)
    assert len(choices) == 1
    assert report.left_out == {"with nobody of a stereotyped group": 1}
    assert report.unmatched == {"Handedness: Left-handed and nonLeft for tall, short": 1}
    assert "0 duplicates, 1 with nobody of a stereotyped group" in str(report)


# -- bad files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question_polarity": "negative"}, "question_polarity: is 'negative'; wanted neg or non"),
        ({"context_condition": None}, "context_condition: is missing"),
        ({"category": ""}, "category: is empty"),
        ({"question_index": 1.5}, "question_index: is 1.5; wanted a text"),
        ({"example_id": True}, "example_id: is True; wanted a text"),
        ({"context": []}, r"context: is \[\]; wanted a text"),
        ({"ans1": "the LEFTY"}, "ans1: is 'the LEFTY', as another answer is"),
        ({"label": 3}, "label: is 3; wanted the right answer's index, 0 to 2"),
        ({"label": 0}, "label: is 0, but the context is ambig; wanted that of the unknown answer"),
        ({"context_condition": "disambig"}, "label: is 2, but the context is disambig; wanted"),
        ({"answer_info": []}, "answer_info: ans0 is None; wanted"),
        ({"answer_info": {"ans0": ["a", "b"], "ans1": "b"}}, "answer_info: ans1 is 'b'; wanted"),
        ({"answer_info": {f"ans{n}": ["a", "unknown"] for n in range(3)}},
         "answer_info: 3 answers have the group unknown; wanted one"),
        ({"additional_metadata": {}}, "additional_metadata: is {}; wanted stereotyped_groups"),
        ({"additional_metadata": {"stereotyped_groups": [1]}}, "additional_metadata: is .*wanted"),
        ({"example_id": 0}, "example_id: is that of .*line 1 too; wanted one of its own"),
    ],
)  # fmt: skip
def test_a_bad_field_is_named_with_file_and_line(tmp_path, change, message):
    rows = numbered(bbq_row(1, 1, "neg", "ambig"), bbq_row(2, 1, "neg", "ambig"))
    with pytest.raises(ValueError, match=rf"Handedness\.jsonl, line 2, field {message}"):
        read(tmp_path, rows[0], {**rows[1], **change})


def test_one_text_may_stand_for_a_list_of_one_group(tmp_path):
    row = bbq_row(1, 1, "neg", "ambig")
    row["additional_metadata"] = {"stereotyped_groups": "left-handed"}
    assert len(read(tmp_path, row)[0]) == 1


def test_all_bad_rows_are_named_at_once(tmp_path):
    bad = {**bbq_row(1, 1, "neg", "ambig"), "label": "x", "context": ""}
    with pytest.raises(ValueError, match="4 problem") as error:
        read(tmp_path, *numbered(bad, bad))
    assert str(error.value).count("field label") == str(error.value).count("field context:") == 2


# -- the task -----------------------------------------------------------------------------------


def test_categories_are_chosen_by_name(tmp_path):
    rows = numbered(bbq_row(1, 1, "neg", "ambig"), bbq_row(2, 1, "neg", "ambig"))
    rows[1]["category"] = "Age"
    assert len(read(tmp_path, *rows, categories=["Age"])[0]) == 1
    with pytest.raises(ValueError, match=r"no category \['SES'\]; they have \['Age', 'Handedn"):
        read(tmp_path, *rows, categories=["SES", "Age"])


def test_the_task_holds_stereotypes_out(folder, caplog):
    with caplog.at_level(logging.INFO, "dso"):
        data = BBQ(str(folder), **SMALL).load()
    assert "BBQ: 320 rows of 1 categories; 160 ambiguous (80 twin pairs, 0 without" in caplog.text
    known = [
        {choice.occupations for choice in part if choice.source == "Handedness"}
        for part in ([*data.train, *data.pool], data.validation, data.evaluation)
    ]
    assert all(known)
    assert not known[0] & known[1] and not known[1] & known[2] and not known[0] & known[2]
    assert len(data.train) == 16
    kinds = Counter(choice.kind for choice in data.pool)
    assert kinds == {"unambiguous": 8, "gender_needed": 4, "capability": 4}
    for part in (data.validation, data.evaluation):
        assert len({choice.kind for choice in part}) == 4


def test_a_model_that_was_not_trained_on_it_is_asked_every_row(folder):
    asked = BBQ(str(folder), **SMALL).benchmark()
    assert len(asked) == len(bbq_rows())
    assert {choice.split for choice in asked} == {"bbq"}


def test_a_folder_without_files_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no BBQ file: the folder .* has no file \*\.jsonl"):
        BBQ(str(tmp_path)).load()
