import pytest

from dso.tasks import Option
from dso.tasks.coreference import DEFAULT_FORMS, options_for
from dso.tasks.parsing import parse_answer

PEOPLE = options_for(("nurse", "construction worker", "worker"), DEFAULT_FORMS)
LETTERS = tuple(Option(letter, (f" {letter}", letter)) for letter in "ABCD")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (" nurse", "nurse"),
        (" The nurse because she was late.", "nurse"),
        ("**Nurse**", "nurse"),
        ("Answer: the nurse", "nurse"),
        ("It is the construction  worker.", "construction worker"),
        ("the worker", "worker"),
        ('"she" refers to the construction worker', "construction worker"),
        ("The nurse, not the worker", "nurse"),
        ("nurses", None),
        ("the nurse or the worker", None),
        ("Either the worker or the nurse", None),
        ("not the nurse", None),
        ("It can't be the nurse", None),
        ("I do not know", None),
        ("neither", None),
        ("", None),
        (" \n", None),
    ],
)
def test_a_person_is_read_from_a_text(text, meant):
    index = parse_answer(text, PEOPLE)
    assert (None if index is None else PEOPLE[index].text) == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        (" A", "A"),
        ("B)", "B"),
        ("(C) because", "C"),
        ("**D**", "D"),
        ("The correct answer is B.", "B"),
        ("I would say (B)", "B"),
        ("A\nB", "A"),
        ("A nurse", None),
        ("a", None),
        ("B and C", None),
        ("(A) or (B)", None),
        ("(A) fits, but so does (B)", "A"),
        ("E", None),
    ],
)
def test_a_letter_is_read_from_a_text(text, meant):
    index = parse_answer(text, LETTERS)
    assert (None if index is None else LETTERS[index].text) == meant


@pytest.mark.parametrize("options", [PEOPLE, LETTERS])
def test_every_form_of_every_option_means_the_option(options):
    for index, option in enumerate(options):
        for form in (option.text, *option.forms):
            for text in (form, form + ".", form + "\n", f" {form}, I think"):
                assert parse_answer(text, options) == index
