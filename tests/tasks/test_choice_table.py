from __future__ import annotations

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
    assert len(tensors) == 7
    assert all(tensor.device.type == "meta" for tensor in tensors)


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match="no choices to tabulate"):
        tabulate([])
    with pytest.raises(ValueError, match=r"occupations \['nurse'\] are not among the known ones"):
        tabulate([AMBIGUOUS], ["guard"])
