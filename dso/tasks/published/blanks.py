"""One row of a file of sentences with a blank, read: the schema of `two_people`, which see."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from dso.tasks.files.rows import Problems, Row
from dso.tasks.occupations import Gender
from dso.tasks.published.locate import text_of, value_of
from dso.tasks.published.winobias import PRONOUN_GENDER

COLUMNS = ("sentence_with_blank", "occupation", "other_person", "pronoun_options")
SHARES = ("women", "BLS_percent_women_2019")

PRONOUNS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("he", "she", ("they",)),
    ("him", "her", ("them",)),
    ("his", "her", ("their",)),
    ("his", "hers", ("theirs",)),
    ("himself", "herself", ("themselves", "themself")),
)
"""The forms that fill a blank: he's, she's, they's."""

_STARTS = re.compile(r"(?:^|[.!?…][\"'”’)\]]*\s+)[\"'“‘(\[]*$")
_GENDERED = re.compile(r"\b(" + "|".join(PRONOUN_GENDER) + r")\b", re.IGNORECASE)
_ARTICLE = re.compile(r"\b(?:the|an?)\s+$", re.IGNORECASE)
_NAMELESS = ("someone", "somebody")


@dataclass(frozen=True)
class Person:
    """One of the two, as the sentence mentions them."""

    name: str
    place: int
    """Of the first mention."""
    named: str
    """As a question names them: with the article, where the sentence gives one."""


@dataclass(frozen=True)
class Blank:
    """One usable row."""

    number: int
    """Of the row in the file, from 1."""
    text: str
    """With the blank."""
    people: tuple[Person, Person]
    """In the order of mention."""
    occupation: int
    """Index into `people`."""
    pronouns: tuple[str, str]
    """He's and she's form."""
    majority: Gender

    def fill(self, pronoun: str) -> str:
        """The sentence with the pronoun in the blank, capitalised where a sentence starts."""
        before, after = self.text.split("_")
        return before + (pronoun.capitalize() if _STARTS.search(before) else pronoun) + after


def read_blank(
    row: Row, number: int, margin: float, shares: dict[str, float], problems: Problems
) -> Blank | tuple[str, str] | None:
    """What the row says; the field and the reason it is left out for; None for a problem."""
    before = len(problems.found)
    text, occupation, other = (text_of(row, field, problems) for field in COLUMNS[:3])
    pronouns = _pronouns(row, problems)
    share = _share(row, problems)
    if text is not None and text.count("_") != 1:
        wanted = 'wanted one, written "_"'
        problems.add(row.where, COLUMNS[0], f"has {text.count('_')} blanks; {wanted}")
    if occupation is not None and other is not None and occupation.lower() == other.lower():
        problems.add(row.where, "other_person", f"is {other!r}, as the occupation is")
    if occupation is not None and share is not None:
        known = shares.setdefault(occupation, share)
        if known != share:
            wrong = f"is {share:g}, but {known:g} in an earlier row of {occupation!r}"
            problems.add(row.where, _share_field(row), wrong)
    if len(problems.found) > before:
        return None
    assert text and occupation and other and pronouns and share is not None
    if abs(share - 50) <= margin:
        return "", f"with a women's share within 50 ± {margin:g} %"
    if _GENDERED.search(text):
        return COLUMNS[0], "with another gendered pronoun"
    if occupation.lower().startswith(other.lower()) or other.lower().startswith(occupation.lower()):
        # Their probabilities as answers could not be told apart.
        return "other_person", "with one person's name beginning the other's"
    places = _mentions(text, (occupation, other))
    for field, name in (("occupation", occupation), ("other_person", other)):
        if name not in places:
            return field, f"without the {field.replace('_', ' ')} as a word"
    people = [Person(name, place, _named(name, text[:place])) for name, place in places.items()]
    people.sort(key=lambda person: person.place)
    return Blank(
        number=number,
        text=text,
        people=(people[0], people[1]),
        occupation=[person.name for person in people].index(occupation),
        pronouns=pronouns,
        majority="female" if share > 50 else "male",
    )


def _pronouns(row: Row, problems: Problems) -> tuple[str, str] | None:
    """He's and she's form, whatever the order of the three; None for a problem."""
    given = value_of(row, "pronoun_options", problems)
    if given is None:
        return None
    forms = given.split("|") if isinstance(given, str) else given
    if isinstance(forms, list) and all(isinstance(form, str) for form in forms):
        found = sorted(form.strip().lower() for form in forms)
        for he, she, they in PRONOUNS:
            if any(found == sorted((he, she, third)) for third in they):
                return he, she
    wanted = 'wanted three forms of one case, such as ["he", "she", "they"] or "his|her|their"'
    problems.add(row.where, "pronoun_options", f"is {given!r}; {wanted}")
    return None


def _share_field(row: Row) -> str:
    return next((name for name in SHARES if row.values.get(name) is not None), SHARES[0])


def _share(row: Row, problems: Problems) -> float | None:
    """The women's share in %; None for a problem."""
    field = _share_field(row)
    given = value_of(row, field, problems)
    if given is None:
        return None
    try:
        share = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        share = math.nan
    if not 0 <= share <= 100:
        problems.add(row.where, field, f"is {given!r}; wanted a number of percent, 0 to 100")
        return None
    return share


def _mentions(text: str, names: Sequence[str]) -> dict[str, int]:
    """Where the text first names each, as words of their own; a longer name hides a shorter one."""
    longest = sorted(names, key=len, reverse=True)
    pattern = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, longest))})(?!\w)", re.IGNORECASE)
    places: dict[str, int] = {}
    for found in pattern.finditer(text):
        name = next(n for n in names if n.lower() == found[0].lower())
        places.setdefault(name, found.start())
    return places


def _named(name: str, before: str) -> str:
    bare = name.istitle() or name.lower() in _NAMELESS
    return name if bare and not _ARTICLE.search(before) else f"the {name}"
