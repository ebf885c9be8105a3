from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from dso.tasks.occupations import (
    _POPULATION,
    BY_NAME,
    GENDERS,
    GROUPS,
    OCCUPATIONS,
    select,
    side,
)

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"
ORIGINAL = [o for o in OCCUPATIONS if o.part != "compound"]


def wanted(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def test_splits_are_balanced_by_stereotype():
    counts = Counter((o.part, o.stereotype) for o in OCCUPATIONS)
    sizes = {"train": 12, "validation": 3, "test": 5, "compound": 4}
    assert counts == {(part, g): size for part, size in sizes.items() for g in GENDERS}


def test_every_occupation_stands_once():
    assert len(BY_NAME) == len(OCCUPATIONS) == 48
    assert [o for part in ("train", "validation", "test") for o in select(part)] == sorted(
        ORIGINAL, key=lambda o: ("train", "validation", "test").index(o.part)
    )


@pytest.mark.parametrize("stereotype", GENDERS)
def test_splits_are_the_documented_positions(stereotype):
    ordered = [o for o in ORIGINAL if o.stereotype == stereotype]
    assert ordered == sorted(ordered, key=lambda o: o.women)
    places = {"test": [1, 5, 9, 13, 17], "validation": [3, 11, 18]}
    for part, positions in places.items():
        assert [ordered[p] for p in positions] == select(part, stereotype)


def test_shares_are_probabilities():
    for occupation in OCCUPATIONS:
        assert occupation.share("male") + occupation.share("female") == pytest.approx(1)
        assert 0 < occupation.share("female") < 1
        groups = occupation.group_shares()
        assert set(groups) == set(GROUPS)
        assert sum(groups.values()) == pytest.approx(1)


@pytest.mark.parametrize("gender", GENDERS)
def test_the_side_is_pro_where_the_gender_is_the_stereotype(gender):
    for occupation in OCCUPATIONS:
        expected = "pro" if occupation.stereotype == gender else "anti"
        assert side(occupation.name, gender) == expected


def test_shares_are_those_of_the_published_table():
    rows = defaultdict(list)
    with wanted(DATA / "bls" / "cpsaat11.csv").open(encoding="utf-8-sig", newline="") as file:
        for row in csv.reader(file):
            rows[row[0].strip()].append(row[2:6])
    for occupation in OCCUPATIONS:
        shares = (occupation.women, occupation.white, occupation.black, occupation.asian)
        assert [str(share) for share in shares] in rows[occupation.title], occupation.name
    ((_, *population),) = rows["Total, 16 years and over"]
    assert [float(p) for p in population] == [_POPULATION[g] for g in ("White", "Black", "Asian")]


@pytest.mark.parametrize("stereotype", GENDERS)
def test_the_forty_are_the_lists_of_winobias(stereotype):
    path = wanted(DATA / "winobias" / f"{stereotype}_occupations.txt")
    names = path.read_text(encoding="utf-8").split("\n")
    assert sorted(o.name for o in ORIGINAL if o.stereotype == stereotype) == sorted(
        name.strip() for name in names if name.strip()
    )
