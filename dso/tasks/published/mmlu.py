"""MMLU (Hendrycks et al. 2021, arXiv 2009.03300): reader of the published questions, and the task.

Either a folder with `dev/<subject>_dev.csv` and `test/<subject>_test.csv`, each with the columns
`question`, `choice0` to `choice3` and `answer` (index of the right one, from 0), or a data set of
the Hugging Face hub with splits `dev` and `test` and the columns `question`, `subject`, `choices`
(list of four) and `answer`. 57 subjects, 285 questions to show (dev) and 14,042 to ask (test).

Every question is a capability choice: the prompt has the four choices behind letters and asks for
the letter, and the options are the letters. There is no ambiguous choice in it: it measures what
a model can do, alone or as the `capability` of another task. Ten published questions have two
choices of one text; they stay, because every published figure contains them, and are counted.
"""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dso.tasks.choice import Choice, Option
from dso.tasks.coreference import EVALUATION_SEED
from dso.tasks.files.rows import Problems, Row
from dso.tasks.published.locate import files_in, find_data, index_of, rows_of, text_of, value_of
from dso.tasks.task import Task, TaskData

log = logging.getLogger(__name__)

ADDRESS = "https://huggingface.co/datasets/cais/mmlu"
LETTERS = ("A", "B", "C", "D")
CHOICES = ("choice0", "choice1", "choice2", "choice3")
COLUMNS = ("question", *CHOICES, "answer")
HUB_COLUMNS = ("question", "subject", "choices", "answer")
KEPT = 5
"""Every fifth dev question of a subject is kept for validation."""


@dataclass(frozen=True)
class Question:
    """One question."""

    subject: str
    text: str
    choices: tuple[str, ...]
    answer: int
    """Index of the right choice."""


def lettered(text: str, choices: Sequence[str]) -> str:
    """A text with its choices behind letters, one a line."""
    lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join([text, *lines])


def ask_letter(text: str, choices: Sequence[str]) -> str:
    """The same, asking for the letter of the right choice."""
    *most, last = LETTERS[: len(choices)]
    return f"{lettered(text, choices)}\nAnswer with the letter {', '.join(most)} or {last}."


def letter_forms(index: int) -> tuple[str, str]:
    """Surface forms of a letter as an answer."""
    return (f" {LETTERS[index]}", LETTERS[index])


def read_folder(folder: Path, strict: bool = False) -> dict[str, list[Question]]:
    """The questions of `dev` and `test` in a folder, in the order of subjects and rows.

    Args:
        folder: with the folders `dev` and `test`.
        strict: whether two choices of one text are an error; else they are counted and stay.

    Raises:
        DataError: whatever is wrong with the files, named with file, line and field.
        ValueError: no files.
    """
    problems = Problems()
    questions = {}
    for split in ("dev", "test"):
        rows: list[tuple[Row, str]] = []
        for path in files_in(folder / split, f"*_{split}.csv", "MMLU file", ADDRESS):
            subject = path.name.removesuffix(f"_{split}.csv")
            rows += [(row, subject) for row in rows_of(path, COLUMNS, problems)]
        questions[split] = _questions(rows, problems, strict)
    problems.check()
    return questions


def read_hub(name: str, strict: bool = False) -> dict[str, list[Question]]:
    """The questions of `dev` and `test` of a data set of the hub, or of a folder of that form.

    Raises:
        DataError: whatever is wrong with the rows, named with split, row and field.
        ValueError: `datasets` is not installed, or the data set cannot be loaded.
    """
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError
    except ImportError:
        raise ValueError('MMLU from the hub needs datasets: pip install "dso[data]"') from None
    try:
        loaded = load_dataset(name, "all")
    except (OSError, ValueError, DatasetsError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"MMLU: the data set {name!r} cannot be loaded: {first}") from error
    problems = Problems()
    questions = {}
    for split in ("dev", "test"):
        if split not in loaded:
            has = ", ".join(map(repr, loaded))
            problems.add(name, None, f"has no split {split!r}; it has {has}")
            continue
        missing = [field for field in HUB_COLUMNS if field not in loaded[split].column_names]
        for field in missing:
            has = ", ".join(map(repr, loaded[split].column_names))
            problems.add(f"{name}, split {split}", field, f"there is no such column; it has {has}")
        if not missing:
            rows = _hub_rows(f"{name}, split {split}", loaded[split], problems)
            questions[split] = _questions(rows, problems, strict)
    problems.check()
    return questions


def _hub_rows(
    where: str, records: Iterable[Mapping[str, Any]], problems: Problems
) -> Iterator[tuple[Row, str]]:
    """The hub's records in the shape of the files' rows, with their subjects."""
    for number, record in enumerate(records, start=1):
        row = Row(f"{where}, row {number}", dict(record))
        subject, choices = text_of(row, "subject", problems), record["choices"]
        if not isinstance(choices, list) or len(choices) != len(CHOICES):
            problems.add(row.where, "choices", f"is {choices!r}; wanted a list of {len(CHOICES)}")
        elif subject is not None:
            values = dict(zip(CHOICES, choices, strict=True))
            yield Row(row.where, {**record, **values}), subject


def _questions(rows: Iterable[tuple[Row, str]], problems: Problems, strict: bool) -> list[Question]:
    questions = []
    for row, subject in rows:
        before = len(problems.found)
        text = text_of(row, "question", problems)
        given = [text_of(row, name, problems) for name in CHOICES]
        answer = value_of(row, "answer", problems)
        right = index_of(answer, len(CHOICES))
        if answer is not None and right is None:
            wanted = f"wanted the index of the right choice, 0 to {len(CHOICES) - 1}"
            problems.add(row.where, "answer", f"is {answer!r}; {wanted}")
        choices = [choice for choice in given if choice is not None]
        if strict:
            for number, choice in enumerate(choices):
                if choice in choices[:number]:
                    same = CHOICES[choices.index(choice)]
                    problems.add(row.where, CHOICES[number], f"is {choice!r}, as {same} is")
        if len(problems.found) == before:
            assert text is not None and right is not None
            questions.append(Question(subject, text, tuple(choices), right))
    return questions


def mmlu(questions: Mapping[str, Sequence[Question]], shots: int = 0) -> dict[str, list[Choice]]:
    """The questions as capability choices: `pool` and `validation` from dev, and `test`.

    Args:
        questions: of `dev` and `test`.
        shots: questions of the subject's dev part that a prompt shows with their answers before
            its own, 0 to 5: never a test question, never itself, and never a validation question
            but before test questions. Dev questions may have fewer.

    Raises:
        ValueError: a test subject with fewer dev questions than `shots`.
    """
    dev: dict[str, list[Question]] = defaultdict(list)
    for question in questions["dev"]:
        dev[question.subject].append(question)
    short = sorted({q.subject for q in questions["test"] if len(dev[q.subject]) < shots})
    if short:
        raise ValueError(f"MMLU: shots is {shots}, but dev has fewer questions of {short}")
    parts: dict[str, list[Choice]] = {"pool": [], "validation": [], "test": []}
    for subject, known in dev.items():
        for place, question in enumerate(known):
            kept = place % KEPT == KEPT - 1
            part = "validation" if kept else "pool"
            shown = [q for n, q in enumerate(known) if n != place and n % KEPT != KEPT - 1]
            identifier = f"mmlu-dev-{subject}-{place}"
            parts[part].append(_choice(identifier, question, shown[:shots]))
    places: dict[str, int] = defaultdict(int)
    for question in questions["test"]:
        identifier = f"mmlu-test-{question.subject}-{places[question.subject]}"
        places[question.subject] += 1
        parts["test"].append(_choice(identifier, question, dev[question.subject][:shots]))
    return parts


def _choice(identifier: str, question: Question, shown: Sequence[Question]) -> Choice:
    about = question.subject.replace("_", " ")
    examples = [f"{lettered(q.text, q.choices)}\nAnswer: {LETTERS[q.answer]}" for q in shown]
    head = f"Multiple choice questions about {about}."
    return Choice(
        id=identifier,
        kind="capability",
        prompt="\n\n".join([head, *examples, ask_letter(question.text, question.choices)]),
        options=tuple(Option(letter, letter_forms(n)) for n, letter in enumerate(LETTERS)),
        truth=question.answer,
        split="mmlu",
        source=question.subject,
    )


def evenly(choices: Sequence[Choice], count: int | None, seed: int) -> list[Choice]:
    """At most `count` choices, drawn evenly over the subjects, in their own order."""
    if count is None or count >= len(choices):
        return list(choices)
    rng = random.Random(seed)
    subjects: dict[str, list[int]] = defaultdict(list)
    for place, choice in enumerate(choices):
        subjects[choice.source].append(place)
    turns = [list(enumerate(rng.sample(places, len(places)))) for places in subjects.values()]
    # The subjects take turns; who has no question left is passed over.
    drawn = sorted((turn, rng.random(), place) for turns_ in turns for turn, place in turns_)
    return [choices[place] for place in sorted(place for _, _, place in drawn[:count])]


class MMLU(Task):
    """MMLU's questions, for evaluation or as the capability of another task.

    It has nothing to train on by itself. Pool: the dev questions without every fifth of a subject,
    which are the validation; evaluation: the test questions.

    Args:
        data: folder with `dev` and `test`; by default `$DSO_DATA/mmlu`, `data/mmlu`.
        hub: instead of a folder a data set of the Hugging Face hub, such as cais/mmlu.
        shots: answered dev questions shown before each question, 0 to 5.
        evaluation: at most so many test questions, drawn evenly over the subjects; null: all.
        strict: whether two choices of one text are an error.
    """

    def __init__(
        self,
        data: str | None = None,
        hub: str | None = None,
        shots: int = 0,
        evaluation: int | None = None,
        strict: bool = False,
    ) -> None:
        if data is not None and hub is not None:
            raise ValueError(f"mmlu: data is {data!r} and hub is {hub!r}; give one of them")
        if not 0 <= shots <= KEPT:
            raise ValueError(f"mmlu: shots is {shots}; wanted 0 to {KEPT}")
        if evaluation is not None and evaluation < 1:
            raise ValueError(f"mmlu: evaluation is {evaluation}; wanted at least 1")
        self.data = data
        self.hub = hub
        self.shots = shots
        self.evaluation = evaluation
        self.strict = strict

    def load(self) -> TaskData:
        """Read the questions."""
        if self.hub is not None:
            questions = read_hub(self.hub, self.strict)
        else:
            place = find_data("mmlu", self.data, "MMLU folder", ADDRESS)
            questions = read_folder(place, self.strict)
        parts = mmlu(questions, self.shots)
        every = [*questions["dev"], *questions["test"]]
        log.info(
            "MMLU: %d test and %d dev questions in %d subjects; %d have two choices of one text",
            len(questions["test"]), len(questions["dev"]), len({q.subject for q in every}),
            sum(len(set(q.choices)) < len(q.choices) for q in every),
        )  # fmt: skip
        return TaskData(
            train=[],
            pool=parts["pool"],
            validation=parts["validation"],
            evaluation=evenly(parts["test"], self.evaluation, EVALUATION_SEED),
        )
