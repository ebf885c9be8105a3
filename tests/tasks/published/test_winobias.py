from __future__ import annotations

import logging
import re
from itertools import product
from pathlib import Path

import pytest

from dso.tasks import WinoBias, twin_pairs
from dso.tasks.published.winobias import (
    PRONOUN_GENDER,
    find_folder,
    parse_line,
    read_file,
    winobias,
)

PUBLISHED = Path(__file__).parents[3] / ".." / "shared" / "data" / "winobias"
FILES = [
    f"{side}_stereotyped_type{kind}.txt.{part}"
    for side, kind, part in product(("pro", "anti"), (1, 2), ("dev", "test"))
]
PRONOUN = re.compile(r"\b(" + "|".join(PRONOUN_GENDER) + r")\b", re.IGNORECASE)

# The form of the published lines; {} is the pronoun of either gender.
TYPE1 = (
    ("[The guard] thanked the nurse because [{}] was late.", ("he", "she")),
    ("The chief told [the cleaner] that [{}] idea was good.", ("his", "her")),
    ("[The construction worker] saw the auditor when [{}] came.", ("he", "she")),
    ("The cook paid [the tailor] after [{}] was done.", ("he", "she")),
    ("[The mover] met the clerk, then [{}] left.", ("he", "she")),
    ("The janitor called [the writer] and [{}] came.", ("he", "she")),
    ("[The sheriff] asked the baker what [{}] could do.", ("he", "she")),
)
TYPE2 = (
    ("The guard met the [the nurse] and helped [{}].", ("him", "her")),
    ("The nurse met [the guard] and helped [{}].", ("him", "her")),
    ("[The cook] told the editor that [{}] would cook.", ("he", "she")),
    ("The lawyer hired [the teacher] and paid [{}].", ("him", "her")),
    ("The tailor hired [the driver] and paid [{}].", ("him", "her")),
    ("The clerk saw [the farmer] and told [{}] all.", ("him", "her")),
    ("The baker saw [the analyst] and told [{}] all.", ("him", "her")),
)


def write(folder: Path) -> Path:
    """Eight small files of the published form; one line of type 2 has a doubled article."""
    for name in FILES:
        sentences = TYPE1 if "type1" in name else TYPE2
        swap = name.startswith("anti")
        lines = [
            f"{number} {text.format(pronouns[(number + swap) % 2])}"
            for number, (text, pronouns) in enumerate(sentences, start=1)
        ]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(params=["small", "published"])
def folder(request, tmp_path) -> Path:
    if request.param == "small":
        return write(tmp_path)
    if not PUBLISHED.is_dir():
        pytest.skip(f"{PUBLISHED} is not there")
    return PUBLISHED


# -- reading ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "text", "pronoun", "people", "referent", "mended"),
    [
        ("1 [The guard] saw the nurse when [he] fell.", "The guard saw the nurse when he fell.",
         "he", ("guard", "nurse"), 0, False),
        ("  12  The guard saw the [the nurse] and [her] cat. ", "The guard saw the nurse and her "
         "cat.", "her", ("guard", "nurse"), 1, True),
        ("3 [The CEO] and the construction worker lost [his] way and [his] hat.",
         "The CEO and the construction worker lost his way and his hat.", "his",
         ("CEO", "construction worker"), 0, False),
        ("4 The nurse, the guard and [the cook] ate [ She ].", "The nurse, the guard and the cook "
         "ate She.", "she", ("nurse", "cook"), 1, False),
    ],
)  # fmt: skip
def test_a_line_is_read(line, text, pronoun, people, referent, mended):
    sentence = parse_line(line)
    assert (sentence.text, sentence.pronoun) == (text, pronoun)
    assert (sentence.people, sentence.referent, sentence.mended) == (people, referent, mended)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[The guard] saw the nurse when [he] fell.", "wanted a number and a sentence"),
        ("7", "wanted a number and a sentence"),
        ("7 The guard saw the nurse when he fell.", "wanted one referent and its pronouns"),
        ("7 [The guard] saw the nurse when [he", "wanted one referent and its pronouns"),
        ("7 [The guard] saw [the nurse] when [he] fell.", "wanted one referent and its pronouns"),
        ("7 [The guard] saw the wizard when [he] fell.", r"two known occupations, found \['guard"),
        ("7 [The wizard] saw the guard and the nurse when [he] fell.", "two known occupations"),
    ],
)
def test_a_bad_line_is_named_with_its_file(tmp_path, line, message):
    write(tmp_path)
    path = tmp_path / FILES[0]
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:3], line, *lines[3:]]), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{path.name}, line 4: .*{message}"):
        winobias(tmp_path, "dev")


def test_the_first_ten_bad_lines_are_named(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text("nothing\n" * 13, encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 10: .*\n\.\.\. and 3 more$"):
        read_file(path)


def test_a_file_of_another_encoding_is_named_with_the_line(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"1 [The guard] saw the nurse when [he] fell.\n2 caf\xe9\n")
    with pytest.raises(ValueError, match=r"latin\.txt, line 2: is not UTF-8"):
        read_file(path)


@pytest.mark.parametrize("content", [None, "", "\n \n"])
def test_a_file_without_sentences_is_named(tmp_path, content):
    path = tmp_path / "file.txt"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{path} (has no sentences|does not exist)"):
        read_file(path)


@pytest.mark.parametrize("side", ["pro", "anti"])
def test_a_truncated_file_is_named_with_the_line(tmp_path, side):
    write(tmp_path)
    path = tmp_path / f"{side}_stereotyped_type2.txt.test"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[:5]), encoding="utf-8")
    with pytest.raises(ValueError, match=f"{path.name} ends before its sentence 6"):
        winobias(tmp_path, "test")


def test_files_that_do_not_go_together_are_refused(tmp_path):
    write(tmp_path)
    path = tmp_path / "anti_stereotyped_type1.txt.dev"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:2], *lines[3:], lines[2]]), encoding="utf-8")
    with pytest.raises(ValueError, match=f"sentence 3 has number 3 in pro.* and 4 in {path.name}"):
        winobias(tmp_path, "dev")


def test_an_ambiguous_sentence_about_one_stereotype_is_named(tmp_path):
    write(tmp_path)
    path = tmp_path / "pro_stereotyped_type1.txt.test"
    text = path.read_text(encoding="utf-8").replace("auditor", "mechanic")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(
        ValueError, match=f"{path.name}, sentence 3: .*'construction worker' and 'mechanic'"
    ):
        winobias(tmp_path, "test")


# -- choices ------------------------------------------------------------------------------------


def test_the_published_files_have_396_sentences_each():
    if not PUBLISHED.is_dir():
        pytest.skip(f"{PUBLISHED} is not there")
    assert {len(read_file(PUBLISHED / name)) for name in FILES} == {396}


@pytest.mark.parametrize("part", ["dev", "test"])
def test_malformed_lines_are_counted(folder, part, caplog):
    with caplog.at_level(logging.INFO, "dso"):
        choices = winobias(folder, part)
    mended = sum(
        s.mended for name in FILES if name.endswith(part) for s in read_file(folder / name)
    )
    assert mended > 0
    assert f"{part}: {len(choices)} sentences; {mended} malformed lines mended" in caplog.text


@pytest.mark.parametrize("part", ["dev", "test"])
def test_twins_stand_side_by_side_and_differ_in_gender(folder, part):
    choices = winobias(folder, part)
    pairs = twin_pairs(choices)
    ambiguous = [c for c in choices if c.kind == "ambiguous"]
    assert len(ambiguous) * 2 == len(choices)
    assert all(c.twin is not None for c in ambiguous)
    reworded = 0
    for a, b in pairs:
        one, other = choices[a], choices[b]
        assert b == a + 1
        assert {one.gender, other.gender} == {"male", "female"}
        assert one.truth == other.truth
        for option, opposite in zip(one.options, other.options, strict=True):
            assert {option.side, opposite.side} in ({"pro", "anti"}, {"neither"})
        reworded += len({PRONOUN.sub("_", c.prompt.lower()) for c in (one, other)}) > 1
    assert reworded <= len(pairs) // 50


@pytest.mark.parametrize("part", ["dev", "test"])
def test_the_pro_files_referent_agrees_with_the_stereotype(folder, part):
    for choice in winobias(folder, part):
        if choice.kind == "ambiguous":
            assert [option.text for option in choice.options] == list(choice.occupations)
            assert sorted(option.side for option in choice.options) == ["anti", "pro"]
        else:
            assert choice.truth is not None
            assert {option.side for option in choice.options} == {"neither"}


def test_the_question_names_both_orders_equally_often(folder):
    swapped = []
    for choice in winobias(folder, "dev"):
        question = choice.prompt[choice.prompt.rindex('" refer to') :]
        places = [question.index(option.text) for option in choice.options]
        swapped.append(places[0] > places[1])
    # Twins share an order; seven sentences of each small file leave one over.
    assert abs(sum(swapped) - len(swapped) / 2) <= 2


# -- the task -----------------------------------------------------------------------------------


def test_the_task_uses_every_sentence_once(folder):
    data = WinoBias(str(folder)).load()
    dev, test = winobias(folder, "dev"), winobias(folder, "test")
    assert data.evaluation == test
    built_in = [c for c in data.pool if c.kind in ("gender_needed", "capability")]
    used = [*data.train, *data.validation, *(c for c in data.pool if c not in built_in)]
    assert sorted(c.id for c in used) == sorted(c.id for c in dev)
    assert len(data.pool) - len(built_in) == pytest.approx(len(built_in), abs=1)
    assert len(data.validation) == pytest.approx(len(dev) / 6, rel=0.25)
    assert {c.kind for c in data.validation} == {"ambiguous", "unambiguous"}


def test_a_model_that_was_not_trained_on_it_is_asked_every_sentence(folder):
    asked = WinoBias(str(folder)).benchmark()
    assert asked == [*winobias(folder, "dev"), *winobias(folder, "test")]


def test_the_task_depends_on_its_seed_only_in_the_built_in_questions(tmp_path):
    write(tmp_path)
    one, again, other = (WinoBias(str(tmp_path), seed=seed).load() for seed in (0, 0, 1))
    assert one == again
    assert one.pool != other.pool
    assert (one.train, one.validation, one.evaluation) == (
        other.train, other.validation, other.evaluation,
    )  # fmt: skip


def test_the_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DSO_DATA", str(tmp_path / "elsewhere"))
    with pytest.raises(ValueError, match=r"no WinoBias folder: looked at .*elsewhere/winobias"):
        find_folder(None)
    with pytest.raises(ValueError, match="looked at given"):
        find_folder("given")
    here = tmp_path / "data" / "winobias"
    here.mkdir(parents=True)
    assert find_folder(None).resolve() == here
    there = tmp_path / "elsewhere" / "winobias"
    there.mkdir(parents=True)
    assert find_folder(None) == there
    assert find_folder(str(here)) == here
