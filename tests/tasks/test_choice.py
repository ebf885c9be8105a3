from __future__ import annotations

from dataclasses import replace

import pytest

from dso.tasks import Choice, Option, twin_pairs

PRO, ANTI = Option("nurse", side="pro"), Option("guard", side="anti")


def choice(**changes) -> Choice:
    given = {
        "id": "c", "kind": "ambiguous", "prompt": "Who?", "options": (PRO, ANTI),
        "occupations": ("nurse", "guard"),
    }  # fmt: skip
    return Choice(**(given | changes))


def test_an_option_without_forms_counts_as_its_text():
    assert Option("nurse").forms == ("nurse",)
    assert Option("nurse", (" nurse",)).forms == (" nurse",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": " "}, "empty text"),
        ({"forms": (" nurse", " ")}, "'nurse' has an empty surface form"),
        ({"side": "left"}, "'nurse' has side 'left'; wanted one of"),
        ({"group": " "}, "'nurse' has an empty group"),
    ],
)
def test_bad_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Option(**({"text": "nurse"} | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "other"}, "has kind 'other'; wanted one of"),
        ({"prompt": "\n"}, "empty prompt"),
        ({"options": (PRO,)}, r"1 option\(s\)"),
        ({"options": (PRO, PRO)}, "same option twice"),
        ({"truth": 2}, "truth is 2, but it has 2 options"),
        ({"truth": -1}, "truth is -1"),
        ({"first": 2}, "first is 2"),
        (
            {"options": (PRO, Option("x"))},
            "no option on each side; sides: .*'pro', 'neither'.*wanted",
        ),
        ({"options": (Option("x", group="a"), Option("y", group="a"))}, "each side; .* groups: "),
        ({"options": (Option("x", group="a"), Option("y"))}, "options of at least two groups"),
        (
            {"options": (Option("x", side="pro", group="a"), Option("y", group="b"))},
            "with no side at all",
        ),
        ({"occupations": ()}, "names no occupation"),
        ({"kind": "unambiguous"}, "no right answer"),
        ({"kind": "gender_needed"}, "no right answer"),
        ({"kind": "capability"}, "no right answer"),
    ],
)
def test_bad_choices_are_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=f"choice 'c'.*{message}"):
        choice(**changes)


def test_an_ambiguous_choice_has_two_sides_or_two_groups():
    groups = (Option("Ann", group="a"), Option("Bo", group="b"), Option("nobody"))
    assert choice(options=groups).options == groups
    informed = (replace(PRO, group="a"), replace(ANTI, group="a"))
    assert choice(options=informed).options == informed


def test_twins_are_paired_in_order_and_the_others_left_out():
    names = ["a", None, "b", "lonely", "b", "a"]
    choices = [choice(id=str(n), twin=twin) for n, twin in enumerate(names)]
    assert twin_pairs(choices) == [(0, 5), (2, 4)]
    assert twin_pairs([]) == []


def test_three_twins_are_refused():
    with pytest.raises(ValueError, match=r"3 choices share the twin 'a': \['0', '1', '2'\]"):
        twin_pairs([choice(id=str(n), twin="a") for n in range(3)])


def test_twins_with_other_options_are_refused():
    one = choice(id="one", twin="a")
    other = replace(one, id="other", options=(ANTI, PRO))
    with pytest.raises(ValueError, match="twins 'one' and 'other' must have the same options"):
        twin_pairs([one, other])
