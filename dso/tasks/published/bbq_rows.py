"""One row of a BBQ file, read and checked; the format is in `bbq`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dso.tasks.files.rows import Problems, Row
from dso.tasks.published.groups import spelled
from dso.tasks.published.locate import index_of, text_of, value_of

ANSWERS = ("ans0", "ans1", "ans2")
POLARITIES = ("neg", "nonneg")
CONDITIONS = ("ambig", "disambig")

_ARTICLE = re.compile(r"^(?:the|an?)\s+", re.IGNORECASE)


@dataclass(frozen=True)
class Person:
    """One of the two people of a row."""

    text: str
    """The answer that names them."""
    labels: tuple[str, ...]
    """What the file calls them: their description and their groups."""
    group: str
    """Their groups as the file spells them; may be empty."""


@dataclass(frozen=True)
class Item:
    """One row."""

    id: str
    """bbq, category and example."""
    category: str
    index: str
    """Of the question in its category."""
    polarity: str
    """`neg` or `nonneg`."""
    context: str
    question: str
    people: tuple[Person, Person]
    """In the order of mention where `placed`, else by their text."""
    placed: bool
    """Whether the context names both."""
    unknown: str
    """How the row words that it cannot be known."""
    groups: tuple[str, ...]
    """The stereotyped ones."""
    truth: int | None
    """Index of the right person; None in an ambiguous context."""

    @property
    def stereotype(self) -> str:
        """What the question is about."""
        return f"{self.category} {self.index}"

    @property
    def twin_key(self) -> tuple[str, str, tuple[str, str]]:
        """What the neg and the nonneg question of a context share."""
        people = (self.people[0].text.lower(), self.people[1].text.lower())
        return (self.stereotype, self.context.lower(), people)


def read_item(row: Row, problems: Problems) -> Item | None:
    """The row; None, and problems, where it cannot be read."""
    before = len(problems.found)
    category = text_of(row, "category", problems)
    index = _name(row, "question_index", problems)
    example = _name(row, "example_id", problems)
    polarity = _one_of(row, "question_polarity", POLARITIES, problems)
    condition = _one_of(row, "context_condition", CONDITIONS, problems)
    context, question = (text_of(row, field, problems) for field in ("context", "question"))
    answers = [text_of(row, field, problems) for field in ANSWERS]
    labels = _labels(row, problems)
    groups = _groups(row, problems)
    label = value_of(row, "label", problems)
    right = index_of(label, len(ANSWERS))
    if label is not None and right is None:
        problems.add(row.where, "label", f"is {label!r}; wanted the right answer's index, 0 to 2")
    given = [answer.lower() for answer in answers if answer is not None]
    for place in range(1, len(given)):
        if given[place] in given[:place]:
            problems.add(row.where, ANSWERS[place], f"is {answers[place]!r}, as another answer is")
    if len(problems.found) > before:
        return None
    assert category and index and example and polarity and condition and context and question
    assert labels and groups is not None and right is not None
    blind = [n for n, (_, *own) in enumerate(labels) if any(spelled(g) == "unknown" for g in own)]
    if len(blind) != 1:
        wrong = f"{len(blind)} answers have the group unknown; wanted one"
        problems.add(row.where, "answer_info", wrong)
        return None
    if (right == blind[0]) != (condition == "ambig"):
        wanted = "that of the unknown answer" if condition == "ambig" else "that of a person"
        wrong = f"is {right}, but the context is {condition}; wanted {wanted}"
        problems.add(row.where, "label", wrong)
        return None
    people = [
        (Person(str(answers[n]), labels[n], ", ".join(labels[n][1:])), n)
        for n in range(len(ANSWERS))
        if n != blind[0]
    ]
    places = [_place(person, context) for person, _ in people]
    placed = None not in places and places[0] != places[1]
    if placed:
        swap = (places[0] or 0) > (places[1] or 0)
    else:
        swap = people[0][0].text.lower() > people[1][0].text.lower()
    (one, first), (two, second) = reversed(people) if swap else people
    return Item(
        id=f"bbq-{category}-{example}",
        category=category,
        index=index,
        polarity=polarity,
        context=context,
        question=question,
        people=(one, two),
        placed=placed,
        unknown=str(answers[blind[0]]),
        groups=groups,
        truth=None if condition == "ambig" else (first, second).index(right),
    )


def _name(row: Row, field: str, problems: Problems) -> str | None:
    """A whole number or a text, as a text."""
    value = row.values.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text_of(row, field, problems)


def _one_of(row: Row, field: str, wanted: Sequence[str], problems: Problems) -> str | None:
    value = text_of(row, field, problems)
    if value is not None and value not in wanted:
        problems.add(row.where, field, f"is {value!r}; wanted {' or '.join(wanted)}")
        return None
    return value


def _labels(row: Row, problems: Problems) -> list[tuple[str, ...]] | None:
    """For each answer its description and its groups."""
    info = value_of(row, "answer_info", problems)
    if info is None:
        return None
    labels = []
    for answer in ANSWERS:
        given = info.get(answer) if isinstance(info, dict) else None
        texts = [text.strip() for text in _texts(given)]
        if len(texts) < 2:
            wanted = 'wanted {"ans0": [text, group], "ans1": ..., "ans2": ...}'
            problems.add(row.where, "answer_info", f"{answer} is {given!r}; {wanted}")
            return None
        labels.append(tuple(texts))
    return labels


def _texts(value: object) -> list[str]:
    """A list of texts as it is; nothing for anything else."""
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    return []


def _groups(row: Row, problems: Problems) -> tuple[str, ...] | None:
    """The stereotyped groups; one text stands for a list of it."""
    metadata = value_of(row, "additional_metadata", problems)
    if metadata is None:
        return None
    groups = metadata.get("stereotyped_groups") if isinstance(metadata, dict) else None
    groups = [groups] if isinstance(groups, str) else groups
    if isinstance(groups, list) and all(isinstance(group, str) for group in groups):
        return tuple(group.strip() for group in groups)
    wanted = "wanted stereotyped_groups in it, a list of texts"
    problems.add(row.where, "additional_metadata", f"is {metadata!r}; {wanted}")
    return None


def _place(person: Person, context: str) -> int | None:
    """Where the context first names the person, by the answer or by its description."""
    for name in (_ARTICLE.sub("", person.text), person.labels[0]):
        if name:
            found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", context, re.IGNORECASE)
            if found:
                return found.start()
    return None
