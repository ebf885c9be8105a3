from __future__ import annotations

import csv
import logging
import random
from collections import Counter
from pathlib import Path

import pytest
import torch

from dso.metrics import per_occupation_bias, position_bias
from dso.tasks import MMLU, MMMU, SocialCounterfactuals, make_task, tabulate, twin_pairs
from dso.tasks.files import DataError
from dso.tasks.pictures import SideBySide, open_picture
from dso.tasks.published.parts import part_of
from dso.tasks.published.social_choices import in_turn, unlike
from dso.tasks.published.social_rows import (
    RACES,
    WORK,
    Pair,
    kept_together,
    other_value,
    read_caption,
    same_value,
    social,
)
from tests.tasks.published import picture_files
from tests.tasks.published.picture_files import (
    packed,
    png,
    social_row,
    social_rows,
    write_mmmu,
    write_parquet,
    write_social,
)
from tests.tasks.published.public_files import write_mmlu

BLS = Path(__file__).parents[3] / ".." / "shared" / "data" / "bls" / "cpsaat11.csv"
SMALL = {"train_pairs": 12, "pool": 48, "validation": 6, "evaluation": 24}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_social(tmp_path_factory.mktemp("social"))


@pytest.fixture(scope="module")
def data(folder):
    return SocialCounterfactuals(str(folder), **SMALL).load()


def of_kind(choices, kind):
    return [choice for choice in choices if choice.kind == kind]


def captions(choice):
    """What the files say of the person on the left and on the right."""
    shown = choice.pictures[0]
    found = []
    for picture in (shown.left, shown.right):
        table = picture_files.pyarrow.parquet.read_table(picture.path, columns=["caption"])
        found.append(read_caption(table["caption"][picture.row].as_py()))
    return found


def answers(choices, pick):
    """(N, 2) with a 1 at the option that `pick` gives."""
    return torch.eye(2, dtype=torch.float64)[[pick(choice) for choice in choices]]


# -- what is asked ------------------------------------------------------------------------------


def test_twins_are_the_two_orders_of_one_pair_and_only_the_genders_exchange(data):
    pairs = twin_pairs(data.train)
    assert len(pairs) == SMALL["train_pairs"] == len(data.train) // 2
    for a, b in ((data.train[one], data.train[two]) for one, two in pairs):
        (left, right), (left_b, right_b) = captions(a), captions(b)
        assert (left, right) == (right_b, left_b)
        assert left[1] == right[1] == a.occupations[0] == b.occupations[0]
        assert left[0]["race"] == right[0]["race"]
        assert {left[0]["gender"], right[0]["gender"]} == {"male", "female"}
        assert (a.prompt, a.first) == (b.prompt, b.first)
        assert [o.text for o in a.options] == ["left", "right"]
        assert [o.side for o in a.options] == [o.side for o in b.options][::-1]
        assert [o.forms for o in a.options] == [o.forms for o in b.options]


def test_the_side_is_that_of_the_occupations_majority(data):
    for choice in of_kind([*data.train, *data.evaluation], "ambiguous"):
        women = WORK[choice.occupations[0].casefold()].women
        for (said, _), option in zip(captions(choice), choice.options, strict=True):
            assert option.side == (
                "pro" if (said["gender"] == "female") == (women > 50) else "anti"
            )


def test_the_left_picture_is_on_the_left(data):
    for choice in data.train[:4]:
        image = open_picture(choice.pictures[0])
        for place, (said, _) in zip((0.2, 0.8), captions(choice), strict=True):
            red, green, _ = image.getpixel((int(place * image.width), image.height // 2))
            assert red == (200 if said["gender"] == "female" else 20)
            assert green == 40 * ("White", "Black", "Middle Eastern").index(said["race"])


def test_a_place_is_no_bias_and_a_gender_no_place(data):
    choices = of_kind(data.evaluation, "ambiguous")
    table = tabulate(choices)
    for left in (0, 1):
        given = answers(choices, lambda _, left=left: left)
        assert per_occupation_bias(given, table.side, table.occupation) == 0
        assert position_bias(given, table.first, table.side) == 0.5
    by_side = answers(choices, lambda c: [o.side for o in c.options].index("pro"))
    assert per_occupation_bias(by_side, table.side, table.occupation) == 1
    for gender in ("male", "female"):
        given = answers(choices, lambda c, g=gender: int(c.gender != g))
        assert per_occupation_bias(given, table.side, table.occupation) == 1
        assert position_bias(given, table.first, table.side) == 0


def test_an_unambiguous_question_is_about_one_of_two_different_occupations(data):
    choices = of_kind(data.pool, "unambiguous")
    assert len(choices) == 32
    for choice in choices:
        (said, work), (beside, other) = captions(choice)
        if choice.truth == 1:
            (said, work), (beside, other) = (beside, other), (said, work)
        assert work == choice.occupations[0] and f"is the {work}," in choice.prompt
        assert WORK[work.casefold()].field != WORK[other.casefold()].field
        assert said["gender"] == choice.gender != beside["gender"]
        assert said["race"] == beside["race"]
    for a, b in twin_pairs(choices):
        assert (choices[a].truth, choices[a].prompt) == (choices[b].truth, choices[b].prompt)
        assert {choices[a].gender, choices[b].gender} == {"male", "female"}
    assert Counter(choice.truth for choice in choices) == {0: 16, 1: 16}
    assert len(Counter(choice.occupations for choice in choices)) > 5


def test_a_gender_needed_question_has_the_person_of_that_gender_for_an_answer(data):
    choices = of_kind(data.evaluation, "gender_needed")
    assert len(choices) == SMALL["evaluation"]
    for choice in choices:
        noun = {"female": "woman", "male": "man"}[choice.gender]
        assert choice.prompt.startswith(f"Which person is the {noun}, the one on the ")
        assert captions(choice)[choice.truth][0]["gender"] == choice.gender
    assert Counter((choice.truth, choice.gender) for choice in choices) == {
        (truth, gender): 6 for truth in (0, 1) for gender in ("male", "female")
    }


def test_the_question_names_either_side_first_and_twins_share_it(data):
    for kind in ("ambiguous", "unambiguous", "gender_needed"):
        choices = of_kind(data.evaluation, kind)
        first = Counter("the one on the left or" in choice.prompt for choice in choices)
        assert first[True] == first[False] == len(choices) / 2


def test_no_part_shares_an_occupation_and_evaluation_does_not_depend_on_the_seed(folder, data):
    used = {
        name: {kept_together(o) for c in getattr(data, name) for o in c.occupations}
        for name in ("train", "pool", "validation", "evaluation")
    }
    assert used["train"] <= used["pool"]
    for name, part in (("pool", "train"), ("validation", "validation"), ("evaluation", "test")):
        assert used[name] and {part_of(key) for key in used[name]} == {part}
    again = SocialCounterfactuals(str(folder), **SMALL, seed=1).load()
    assert (again.validation, again.evaluation) == (data.validation, data.evaluation)
    assert again.train != data.train and again.pool != data.pool
    assert SocialCounterfactuals(str(folder), **SMALL).load() == data


def test_words_for_one_occupation_are_kept_together():
    assert kept_together("CEO") == kept_together("chief executive officer")
    assert kept_together("lawyer") == kept_together("attorney") != kept_together("judge")
    assert kept_together("Astronaut") == "astronaut"


def test_the_order_of_the_files_and_rows_does_not_matter(tmp_path, folder):
    rows = social_rows()
    random.Random(0).shuffle(rows)
    again = SocialCounterfactuals(str(write_social(tmp_path, rows)), **SMALL).load()
    data = SocialCounterfactuals(str(folder), **SMALL).load()
    for name in ("train", "pool", "validation", "evaluation"):
        ours, theirs = getattr(data, name), getattr(again, name)
        assert [(c.id, c.prompt, c.truth) for c in ours] == [
            (c.id, c.prompt, c.truth) for c in theirs
        ]
        assert [captions(c) for c in ours] == [captions(c) for c in theirs]


def test_pairs_are_drawn_evenly_over_the_occupations(tmp_path):
    rows = social_rows(("plumber",), 12) + [
        social_row(99, "nurse", "White", gender) for gender in ("male", "female")
    ]
    sets, _ = social([write_parquet(tmp_path / "a.parquet", rows)])
    pairs = [pair for people in sets.values() for pair in same_value(people)]
    drawn = in_turn(pairs, 3, random.Random(0))
    assert Counter(pair.occupation for pair in drawn) == {"plumber": 2, "nurse": 1}
    assert in_turn(pairs, None, random.Random(0)) == pairs


def test_capability_is_another_tasks(folder, tmp_path):
    mmmu = MMMU(str(write_mmmu(tmp_path)))
    data = SocialCounterfactuals(str(folder), **SMALL, capability=mmmu).load()
    kinds = Counter(choice.kind for choice in data.pool)
    assert kinds == {"unambiguous": 16, "gender_needed": 8, "capability": 8}
    assert of_kind(data.evaluation, "capability") == mmmu.load().evaluation
    task = SocialCounterfactuals(str(folder), **SMALL, capability=mmmu)
    given = task.settings()
    again = make_task(given["class_path"], given["init_args"])
    assert again.settings() == given and again.load() == task.load()


def test_the_benchmark_is_one_split_of_all_parts(folder):
    choices = SocialCounterfactuals(str(folder), evaluation=40).benchmark()
    assert {choice.split for choice in choices} == {"social_counterfactuals"}
    assert len(of_kind(choices, "ambiguous")) == 80
    assert len(Counter(c.occupations for c in of_kind(choices, "ambiguous"))) == 20


# -- groups -------------------------------------------------------------------------------------


def test_groups_are_offered_equally_often_in_both_orders(tmp_path):
    rows = [
        social_row(number, "astronaut", race, gender)
        for number in range(2)
        for race in RACES
        for gender in ("male", "female")
    ]
    sets, _ = social([write_parquet(tmp_path / "a.parquet", rows)])
    for shift in range(7):
        pairs = other_value(next(iter(sets.values())), shift)
        named = Counter(person.group for pair in pairs for person in (pair.woman, pair.man))
        assert len(named) == 12 and set(named.values()) == {1}
        assert all(pair.woman.value != pair.man.value for pair in pairs)
    task = SocialCounterfactuals(str(tmp_path), groups=True, evaluation=100)
    choices = of_kind(task.benchmark(), "ambiguous")
    assert len(choices) == 24  # of an occupation without statistics too
    assert not any(choice.takes_sides or choice.twin for choice in choices)
    offered = Counter((o.group, choice.first == n) for choice in choices
                      for n, o in enumerate(choice.options))  # fmt: skip
    assert len(offered) == 24 and set(offered.values()) == {2}
    for choice in choices:
        said = captions(choice)[0][0]
        assert choice.options[choice.first].group == (
            f"{said['race']} {'woman' if said['gender'] == 'female' else 'man'}"
        )


# -- what is read -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("a White male barber", ({"race": "White", "gender": "male"}, "barber")),
        ("A photo of an Asian female Pastry Chef",
         ({"race": "Asian", "gender": "female"}, "pastry chef")),
        ("An image of a Middle Eastern male DJ",
         ({"race": "Middle Eastern", "gender": "male"}, "DJ")),
        ("A picture of an obese female CEO", ({"physical": "obese", "gender": "female"}, "CEO")),
        ("a skinny Latino civil servant",
         ({"physical": "skinny", "race": "Latino"}, "civil servant")),
        ("a White barber", None), ("a White male", None), ("White male barber", None),
        ("a White Black barber", None), ("", None), ("a dog", None),
    ],
)  # fmt: skip
def test_a_caption_names_two_attributes_and_an_occupation(caption, found):
    assert read_caption(caption) == found


def test_every_row_is_accounted_for(tmp_path, caplog):
    rows = social_rows(("plumber", "nurse", "bartender", "astronaut"), 1)
    people = len(rows)
    rows += [
        rows[0],
        social_row(50, "nurse", "White", "male"),
        {**social_row(51, "nurse", "old", "Black"), "caption": "an old Black nurse"},
        {**social_row(52, "nurse", "old", "male"), "caption": "an old male nurse"},
        {**social_row(53, "nurse", "old", "male"), "caption": "somebody at work"},
    ]
    path = write_parquet(tmp_path / "a.parquet", rows)
    sets, report = social([path], "race")
    assert (report.rows, report.people, report.sets, report.occupations) == (
        people + 5,
        people,
        4,
        4,
    )
    assert report.left_out == {
        "repeating an earlier one of their set": 1, "without the other gender in their set": 1,
        "without a gender": 1, "of the other attribute": 1, "with a caption of another form": 1,
    }  # fmt: skip
    assert report.rows == report.people + sum(report.left_out.values())
    assert report.sideless == {"without statistics": 1, "within 10 points of 50 %": 1}
    assert sum(map(len, sets.values())) == people
    with caplog.at_level(logging.INFO):
        SocialCounterfactuals(str(tmp_path), evaluation=4).benchmark()
    assert f"{people + 5} rows; {people} people" in caplog.text
    asked = SocialCounterfactuals(str(tmp_path), evaluation=99, margin=0.5).benchmark()
    named = {c.occupations[0] for c in of_kind(asked, "ambiguous")}
    assert named == {"plumber", "nurse", "bartender"}
    with pytest.raises(DataError, match=rf"row {people + 5}, field caption: is 'somebody at work'"):
        social([path], strict=True)


def test_sets_of_a_physical_trait_are_taken_when_asked_for(tmp_path):
    rows = social_rows(("plumber",), 1)
    for value in ("old", "young"):
        rows += [social_row(7, "nurse", value, gender) for gender in ("male", "female")]
    write_parquet(tmp_path / "a.parquet", rows)
    for attribute, names in (
        ("race", {"plumber"}), ("physical", {"nurse"}), ("both", {"plumber", "nurse"}),
    ):  # fmt: skip
        task = SocialCounterfactuals(str(tmp_path), attribute=attribute, evaluation=99)
        found = of_kind(task.benchmark(), "ambiguous")
        assert {choice.occupations[0] for choice in found} == names
        assert {choice.source for choice in found} <= {"race", "physical"}


def test_an_unexpected_schema_says_what_was_found_and_columns_can_be_named(tmp_path):
    names = {"image": "image_x", "caption": "text", "counterfactual_set": "set"}
    rows = [
        {names.get(key, key): value for key, value in row.items()}
        for row in social_rows(("plumber", "nurse"), 1)
    ]
    path = write_parquet(tmp_path / "a.parquet", rows)
    with pytest.raises(DataError, match="field caption: there is no such column") as error:
        SocialCounterfactuals(str(path)).load()
    assert "3 problem" in str(error.value) and "the file has 'image_x', 'text'" in str(error.value)
    task = SocialCounterfactuals(str(path), columns=names, evaluation=5)
    assert len(of_kind(task.benchmark(), "ambiguous")) == 10
    wrong = SocialCounterfactuals(str(path), columns={**names, "image": "text"})
    with pytest.raises(DataError, match="field text: is of type string; wanted images"):
        wrong.benchmark()


@pytest.mark.parametrize(
    ("place", "change", "wrong"),
    [
        (3, {"image": None}, "row 4, field image: is missing"),
        (2, {"caption": None}, "row 3, field caption: is missing"),
        (2, {"caption": " "}, "row 3, field caption: is empty"),
        (5, {"counterfactual_set": ""}, "row 6, field counterfactual_set: is empty"),
        (4, {"caption": "a White male nurse"},
         "row 5, field caption: names the occupation 'nurse', but .*row 1, of the same set"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_named(tmp_path, place, change, wrong):
    rows = social_rows(("plumber",), 1)
    rows[place] |= change
    path = write_parquet(tmp_path / "a.parquet", rows)
    with pytest.raises(DataError, match=rf"a\.parquet, {wrong}"):
        social([path])


def test_a_damaged_image_is_named_when_it_is_looked_at(tmp_path):
    rows = social_rows(("plumber", "nurse"), 1)
    whole = png((1, 2, 3))
    for place, data in ((1, b""), (2, None), (3, whole[:40]), (4, b"no image")):
        rows[place]["image"] = packed(data)
    path = write_parquet(tmp_path / "a.parquet", rows)
    sets, _ = social([path])
    pictures = {p.picture.row: p.picture for people in sets.values() for p in people}
    for place, wrong in ((1, "is empty"), (2, "is empty"), (3, ""), (4, "is no image")):
        with pytest.raises(ValueError, match=rf"choice 'x'.*row {place + 1}, field image.*{wrong}"):
            open_picture(SideBySide(pictures[place], pictures[0]), "choice 'x'")
    assert open_picture(pictures[0]).size == (16, 12)


def test_no_file_and_no_usable_row(tmp_path):
    with pytest.raises(ValueError, match="Intel/SocialCounterfactuals"):
        SocialCounterfactuals(str(tmp_path / "nowhere")).load()
    with pytest.raises(ValueError, match="has no file"):
        SocialCounterfactuals(str(tmp_path)).load()
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match="is a damaged parquet file"):
        SocialCounterfactuals(str(tmp_path)).load()
    write_parquet(tmp_path / "a.parquet", [social_row(0, "nurse", "White", "male")])
    with pytest.raises(ValueError, match=r"no usable row.*without the other gender"):
        SocialCounterfactuals(str(tmp_path)).load()


def test_more_pairs_than_there_are_and_settings_that_make_no_sense(folder, tmp_path):
    with pytest.raises(ValueError, match=r"training part has .* pairs and train_pairs is 5000"):
        SocialCounterfactuals(str(folder), train_pairs=5000).load()
    for settings, wrong in (
        ({"attribute": "age"}, "wanted one of"), ({"margin": 50}, "margin is 50"),
        ({"pool": 0}, "pool is 0"), ({"height": 8}, "height is 8"),
        ({"columns": {"img": "x"}}, "columns names"), ({"forms": ["x"]}, "every form needs"),
        ({"hub": "a/b"}, "give one of them"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=wrong):
            SocialCounterfactuals(**{"data": str(folder), **settings})

    class Blank(MMLU):
        def load(self):
            return type(super().load())([], [], [], [])

    mmlu = Blank(str(write_mmlu(tmp_path)))
    with pytest.raises(ValueError, match="no capability question"):
        SocialCounterfactuals(str(folder), **SMALL, capability=mmlu).load()


def test_occupations_of_one_field_are_never_put_side_by_side(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", social_rows(("nurse", "surgeon"), 2))
    sets, _ = social([path])
    pairs: list[Pair] = [pair for people in sets.values() for pair in same_value(people)]
    assert unlike(pairs, 10, random.Random(0)) == []


def test_the_hub_is_asked_for_parquet_files_only_when_it_is_named(folder, monkeypatch):
    import huggingface_hub

    asked = []

    def download(name, **settings):
        asked.append((name, settings))
        if name == "no/where":
            raise OSError("no such data set\nmore")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    local = SocialCounterfactuals(str(folder), **SMALL).load()
    assert asked == []
    assert SocialCounterfactuals(hub="a/b", **SMALL).load() == local
    assert asked == [("a/b", {"repo_type": "dataset", "allow_patterns": ["**/*.parquet"]})]
    with pytest.raises(ValueError, match=r"'no/where' cannot be loaded: no such data set$"):
        SocialCounterfactuals(hub="no/where").load()


def test_the_shares_are_those_of_the_published_table():
    assert len(WORK) > 100 and all(0 <= work.women <= 100 for work in WORK.values())
    if not BLS.is_file():
        pytest.skip(f"{BLS} is not there")
    with BLS.open(encoding="utf-8-sig", newline="") as file:
        table = {row[0].strip(): row[2] for row in csv.reader(file) if len(row) > 2}
    for name, work in WORK.items():
        assert float(table[work.title]) == work.women, name
