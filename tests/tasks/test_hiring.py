from __future__ import annotations

from collections import Counter

import pytest
import torch

from dso.metrics import per_occupation_bias
from dso.organisms import corpus
from dso.tasks import Choice, Hiring, TaskData, make_task, tabulate, twin_pairs
from dso.tasks.grammar import NAMES
from dso.tasks.hiring import HIRING_ANSWERS, hiring_question, questions
from dso.tasks.occupations import BY_NAME, GENDERS, select
from dso.tasks.parsing import parse_answer

SIZES = {"questions": 48, "pool": 8, "validation": 12, "evaluation": 20}
GENDER = {n: gender for part in NAMES.values() for gender in GENDERS for n in part[gender]}


@pytest.fixture(scope="module")
def data() -> TaskData:
    return Hiring(**SIZES).load()


def hiring(choices: list[Choice], split: str | None = None) -> list[Choice]:
    return [c for c in choices if c.kind == "ambiguous" and split in (None, c.split)]


def test_the_organisms_corpus_asks_and_answers_alike():
    written = [d for d in corpus(4000, seed=1) if d.kind == "hiring"]
    assert len(written) > 100
    for document in written:
        occupation, people = document.prompt[len("We need a new ") :].split(". ")[:2]
        names = people.removesuffix(" applied").split(" and ")
        assert document.prompt == hiring_question(occupation, names)
        assert document.answer in {a.format(n) for a in HIRING_ANSWERS for n in names}


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_every_occupation_has_both_orders_equally_often(part):
    whole = 2 * len(select(part))
    choices = questions(3 * whole, part, part, 0, "s", HIRING_ANSWERS)
    orders = Counter((c.occupations, GENDER[c.options[0].text]) for c in choices)
    assert len(orders) == whole
    assert set(orders.values()) == {3}
    passes = [c.occupations for c in choices[:whole]]
    assert passes != sorted(passes)  # in no order of their own


def test_applicants_are_a_man_and_a_woman_of_the_parts_names():
    for part in ("train", "validation", "test"):
        for choice in questions(60, "train", part, 0, "s", HIRING_ANSWERS):
            names = [option.text for option in choice.options]
            assert choice.prompt == hiring_question(choice.occupations[0], names)
            assert {GENDER[name] for name in names} == set(GENDERS)
            assert all(name in NAMES[part][GENDER[name]] for name in names)


def test_a_name_takes_the_side_of_its_gender(data):
    for choice in hiring([*data.train, *data.validation, *data.evaluation]):
        stereotype = BY_NAME[choice.occupations[0]].stereotype
        for option in choice.options:
            assert option.group == GENDER[option.text]
            assert option.side == ("pro" if option.group == stereotype else "anti")
        assert (choice.first, choice.twin) == (0, None)
    assert not twin_pairs(data.train)


def test_the_organisms_sentences_are_read_as_the_name_in_them(data):
    for choice in data.train:
        for place, option in enumerate(choice.options):
            assert option.forms == tuple(" " + a.format(option.text) for a in HIRING_ANSWERS)
            for form in option.forms:
                assert parse_answer(form, choice.options) == place
        first, second = (option.text for option in choice.options)
        assert parse_answer(f" {first} and {second} should get the job.", choice.options) is None
        assert parse_answer(f" Not {first}.", choice.options) is None
        assert parse_answer(" Let us hire Zoltan.", choice.options) is None


def test_a_model_that_goes_by_the_order_has_no_bias(data):
    table = tabulate(data.train)
    first = torch.zeros(table.mask.shape).index_fill(1, torch.tensor([0]), 1.0)
    assert per_occupation_bias(first, table.side, table.occupation) == 0


def test_the_splits_have_their_occupations_names_and_controls(data):
    parts = {"train_occupations": ("train", "test"), "heldout_occupations": ("test", "test")}
    for split, (occupations, names) in parts.items():
        choices = hiring(data.evaluation, split)
        allowed = {o.name for o in select(occupations)}
        assert {c.occupations[0] for c in choices} <= allowed
        known = {n for gender in GENDERS for n in NAMES[names][gender]}
        assert {o.text for c in choices for o in c.options} <= known
        kinds = Counter(c.kind for c in data.evaluation if c.split == split)
        assert set(kinds.values()) == {20} and len(kinds) == 4
    assert {c.occupations[0] for c in hiring(data.validation)} == {
        o.name for o in select("validation")
    }
    trained = {choice.prompt for choice in [*data.train, *data.pool]}
    assert not trained & {choice.prompt for choice in data.evaluation}


def test_data_depend_on_the_seed_and_evaluation_does_not():
    one, again, other = (Hiring(**SIZES, seed=seed).load() for seed in (0, 0, 1))
    assert one == again
    assert one.train != other.train
    assert one.pool != other.pool
    assert (one.validation, one.evaluation) == (other.validation, other.evaluation)


def test_the_default_sizes_are_balanced():
    data = Hiring(pool=4).load()
    for choices in (data.train, data.validation, data.evaluation):
        for split in {choice.split for choice in choices}:
            counts = Counter(
                (c.occupations, GENDER[c.options[0].text]) for c in hiring(choices, split)
            )
            assert len(set(counts.values())) == 1


def test_the_task_goes_by_its_name_and_takes_other_sentences():
    task = make_task("hiring", {"answers": ["Pick {}!"], "forms": [" {}"], **SIZES})
    assert task.settings()["class_path"] == "dso.tasks.Hiring"
    assert task.load() == make_task("dso.tasks.Hiring", task.settings()["init_args"]).load()
    option = task.load().train[0].options[0]
    assert option.forms == (f" Pick {option.text}!",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"questions": 3}, "questions is 3; wanted at least 4"),
        ({"pool": 0}, "pool is 0"),
        ({"validation": 1}, "validation is 1"),
        ({"evaluation": 3}, "evaluation is 3"),
        ({"answers": ()}, "answers need"),
        ({"answers": ("Hire.",)}, "answers need"),
        ({"forms": (" {}", "the")}, "forms need"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"hiring: {message}"):
        Hiring(**settings)
