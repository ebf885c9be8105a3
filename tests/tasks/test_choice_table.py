from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dso.tasks import KINDS, Choice, Coreference, Option, tabulate

AMBIGUOUS = Choice(
    id="a", kind="ambiguous", prompt="Who?", occupations=("guard", "nurse"), first=1,
    options=(Option("guard", side="anti"), Option("nurse", side="pro"), Option("nobody")),
)  # fmt: skip
CLEAR = Choice(
    id="b", kind="capability", prompt="What?", options=(Option("x"), Option("y")), truth=1
)


def test_a_table_says_what_the_choices_say():
    table = tabulate([AMBIGUOUS, CLEAR])
    assert len(table) == 2
    assert table.mask.tolist() == [[True, True, True], [True, True, False]]
    assert table.side.tolist() == [[-1, 1, 0], [0, 0, 0]]
    assert table.with_sides().tolist() == [True, False]
    assert table.group.tolist() == [[1, 0, -1], [-1, -1, -1]]
    assert table.group_names == ("pro", "anti")
    assert table.truth.tolist() == [-1, 1]
    assert table.first.tolist() == [1, -1]
    assert table.occupation_names == ("guard", "nurse")
    assert table.occupation.tolist() == [[0, 1], [-1, -1]]
    assert [KINDS[k] for k in table.kind] == ["ambiguous", "capability"]
    assert table.of_kind("capability").tolist() == [False, True]
    assert table.pairs.shape == (0, 2)


def test_given_names_and_pairs_are_kept():
    table = tabulate([AMBIGUOUS, AMBIGUOUS], ["nurse", "cook", "guard"], [(1, 0)])
    assert table.occupation_names == ("nurse", "cook", "guard")
    assert table.occupation.tolist() == [[2, 0], [2, 0]]
    assert table.pairs.tolist() == [[1, 0]]


def test_twins_are_found():
    choices = Coreference(pairs=4, pool=4, validation=4, evaluation=4).load().train
    assert tabulate(choices).pairs.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_a_table_moves_with_all_its_tensors():
    moved = tabulate([AMBIGUOUS, CLEAR]).to("meta")
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 8
    assert all(tensor.device.type == "meta" for tensor in tensors)


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match="no choices to tabulate"):
        tabulate([])
    with pytest.raises(ValueError, match=r"occupations \['nurse'\] are not among the known ones"):
        tabulate([AMBIGUOUS], ["guard"])
    with pytest.raises(ValueError, match=r"groups \['young'\] are not among the known ones"):
        tabulate([of_groups("c", "young", "old")], group_names=["old"])


# -- groups -------------------------------------------------------------------------------------


def of_groups(name: str, *groups: str | None) -> Choice:
    options = tuple(Option(f"{n}", group=group) for n, group in enumerate(groups))
    return Choice(id=name, kind="ambiguous", prompt="Who?", options=options, occupations=("nurse",))


def test_groups_have_places_that_neither_order_nor_sides_change():
    choices = [AMBIGUOUS, of_groups("c", "young", None, "old"), of_groups("d", "old", "young")]
    for some in (choices, choices[::-1], choices[1:], [replace(choices[1], id="x"), *choices[2:]]):
        table = tabulate(some)
        assert table.group_names == ("pro", "anti", "old", "young")
        expected = {"a": [1, 0, -1], "c": [3, -1, 2], "d": [2, 3, -1], "x": [3, -1, 2]}
        rows = [expected[choice.id] for choice in some]
        assert table.group.tolist() == rows
    given = tabulate(choices[1:], group_names=["young", "older", "old"])
    assert given.group_names == ("pro", "anti", "young", "older", "old")
    assert given.group.tolist() == [[2, -1, 4], [4, 2, -1]]


def test_among_sides_the_groups_that_options_name_do_not_count():
    informed = tuple(replace(option, group="young") for option in AMBIGUOUS.options)
    table, plain = tabulate([replace(AMBIGUOUS, options=informed)]), tabulate([AMBIGUOUS])
    assert table.group_names == plain.group_names
    assert torch.equal(table.group, plain.group)


def test_a_lead_is_a_groups_probability_less_the_mean_of_those_offered():
    table = tabulate([AMBIGUOUS, of_groups("c", "young", None, "old"), CLEAR])
    answers = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.5, 0.5, 0.0]])
    assert table.group_names == ("pro", "anti", "old", "young")
    expected = [[-0.1, 0.1, 0, 0], [0, 0, -0.25, 0.25], [0, 0, 0, 0]]
    torch.testing.assert_close(table.leads(answers), torch.tensor(expected))
    # Of two sides it is exactly half their difference, which training relies on.
    difference = (answers * table.side).sum(-1)
    assert torch.equal(2 * table.leads(answers)[:, 0], difference)
    assert torch.equal(-2 * table.leads(answers)[:, 1], difference)
