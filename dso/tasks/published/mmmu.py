"""MMMU (Yue et al. 2024, arXiv 2311.16502): reader of the published questions, and the task.

A folder for each of 30 subjects, with parquet files `dev-*`, `validation-*` and `test-*`: `id`,
`question`, `options` (a list of texts, written as Python writes it), `answer` (a letter),
`question_type` (multiple-choice or open), `image_1` to `image_7`, and more that is not read. The
answers of `test` are not public, so 900 questions of validation are asked and 150 of dev are shown.

Every multiple-choice question is a capability choice: the prompt has the options behind letters and
asks for the letter. Question and options name their images by marks such as `<image 2>`; those that
are named are the choice's pictures, in the order of their first marks, and "(image 1)" is the first
of them. Open questions, and those without an answer, are left out and counted.
"""

from __future__ import annotations

import ast
import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from dso.tasks.choice import Choice, Option
from dso.tasks.coreference import EVALUATION_SEED
from dso.tasks.files.rows import Problems, Row
from dso.tasks.published.locate import find_data, text_of
from dso.tasks.published.mmlu import KEPT, evenly
from dso.tasks.published.packed import PackedImage, packed_rows, parquet_folder
from dso.tasks.task import Task, TaskData

log = logging.getLogger(__name__)

ADDRESS = "https://huggingface.co/datasets/MMMU/MMMU"
TEXTS = ("id", "question", "options", "answer", "question_type")
IMAGES = tuple(f"image_{n}" for n in range(1, 8))
SPLITS = ("dev", "validation")
TYPES = ("multiple-choice", "open")
LETTERS = ascii_uppercase

_MARK = re.compile(r"<\s*image\s*(\d+)\s*>", re.IGNORECASE)


@dataclass(frozen=True)
class Question:
    """One question."""

    id: str
    subject: str
    text: str
    """With "(image 1)" where it names an image."""
    options: tuple[str, ...]
    """The same."""
    answer: int
    """Index of the right option."""
    images: tuple[PackedImage, ...]


@dataclass(frozen=True)
class MMMUReport:
    """What became of the rows: rows = questions + left out."""

    rows: int
    questions: int
    subjects: int
    left_out: Mapping[str, int]
    """Rows that make no choice, by the reason."""
    same_options: int
    """Questions with two options of one text; kept."""
    unnamed: int
    """Images that no mark names, which are not shown."""

    def __str__(self) -> str:
        reasons = [f"{count} {reason}" for reason, count in sorted(self.left_out.items())]
        return (
            f"MMMU: {self.rows} rows of {self.subjects} subjects; {self.questions} questions; left "
            f"out: {', '.join(reasons) or 'none'}; {self.same_options} have two options of one "
            f"text, and {self.unnamed} images are named by no mark"
        )


def read_subjects(
    folder: Path, subjects: Sequence[str] | None = None, strict: bool = False
) -> tuple[dict[str, list[Question]], MMMUReport]:
    """The multiple-choice questions of `dev` and `validation`, and what became of the other rows.

    Args:
        folder: with a folder for each subject.
        subjects: those to take; None: all.
        strict: whether two options of one text are an error; else they are counted and stay.

    Raises:
        DataError: whatever is wrong with the files, named with file, row and field.
        ValueError: no files, or a subject that has none.
    """
    known = sorted(path.name for path in folder.iterdir() if any(path.glob("*.parquet")))
    missing = sorted(set(subjects or ()) - set(known))
    if missing or not known:
        has = f"it has {known}" if known else "it has no folder with parquet files"
        wanted = f"no subject {missing}" if missing else "no subject"
        raise ValueError(f"MMMU: the folder {folder} has {wanted}; {has}. Files are at {ADDRESS}")
    problems = Problems()
    left_out: Counter[str] = Counter()
    questions: dict[str, list[Question]] = {split: [] for split in SPLITS}
    places: dict[str, str] = {}
    rows = unnamed = 0
    for subject in known if subjects is None else subjects:
        for split in SPLITS:
            paths = sorted((folder / subject).glob(f"{split}-*.parquet"))
            if not paths:
                wrong = f"has no file {split}-*.parquet; the files are at {ADDRESS}"
                problems.add(str(folder / subject), None, wrong)
            for path in paths:
                for row in packed_rows(path, TEXTS, IMAGES, problems):
                    rows += 1
                    read = _question(row, subject, strict, problems)
                    if isinstance(read, str):
                        left_out[read] += 1
                    elif read is not None:
                        first = places.setdefault(read.id, row.where)
                        if first != row.where:
                            wrong = f"is {read.id!r}, which is that of {first} too"
                            problems.add(row.where, "id", wrong)
                        questions[split].append(read)
                        given = sum(row.values[name] is not None for name in IMAGES)
                        unnamed += given - len(read.images)
    problems.check()
    every = [question for split in SPLITS for question in questions[split]]
    report = MMMUReport(
        rows=rows,
        questions=len(every),
        subjects=len({question.subject for question in every}),
        left_out=dict(left_out),
        same_options=sum(len(set(q.options)) < len(q.options) for q in every),
        unnamed=unnamed,
    )
    if not every:
        raise ValueError(f"the files have no usable row. {report}")
    return questions, report


def _question(row: Row, subject: str, strict: bool, problems: Problems) -> Question | str | None:
    """The row's question, the reason why it is left out, or None where it is a problem."""
    before = len(problems.found)
    name, text, kind = (
        text_of(row, field, problems) for field in ("id", "question", "question_type")
    )
    if kind is not None and kind not in TYPES:
        problems.add(row.where, "question_type", f"is {kind!r}; wanted {' or '.join(TYPES)}")
    if kind == "open" and len(problems.found) == before:
        return "open"
    options = _options(row, strict, problems)
    answer = text_of(row, "answer", problems)
    if answer == "?" and len(problems.found) == before:
        return "without an answer"
    letters = LETTERS[: len(options)]
    if answer is not None and options and answer not in tuple(letters):
        wanted = f"wanted the right option's letter, {letters[0]} to {letters[-1]}"
        problems.add(row.where, "answer", f"is {answer!r}; {wanted}")
    shown: list[str] = []
    for mark in _MARK.findall("\n".join([text or "", *options])):
        column = f"image_{int(mark)}"
        if row.values.get(column) is None:
            problems.add(row.where, column, f"is missing, but <image {mark}> names it")
        elif column not in shown:
            shown.append(column)
    if len(problems.found) > before:
        return None
    assert name and text and answer
    placed = [_MARK.sub(lambda mark: _named(mark[1], shown), t).strip() for t in (text, *options)]
    images = tuple(row.values[column] for column in shown)
    return Question(name, subject, placed[0], tuple(placed[1:]), letters.index(answer), images)


def _named(mark: str, shown: Sequence[str]) -> str:
    return f"(image {shown.index(f'image_{int(mark)}') + 1})"


def _options(row: Row, strict: bool, problems: Problems) -> list[str]:
    """The options; none, and a problem, where they cannot be read."""
    text = text_of(row, "options", problems)
    if text is None:
        return []
    try:
        options = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        options = None
    fits = isinstance(options, list) and 2 <= len(options) <= len(LETTERS)
    if not fits or not all(isinstance(option, str) and option.strip() for option in options):
        wanted = f"wanted a list of 2 to {len(LETTERS)} texts such as \"['red', 'blue']\""
        problems.add(row.where, "options", f"is {text[:80]!r}; {wanted}")
        return []
    if strict and len(set(options)) < len(options):
        problems.add(row.where, "options", f"is {text[:80]!r}, with one text twice")
    return list(options)


def _choice(question: Question) -> Choice:
    letters = LETTERS[: len(question.options)]
    about = question.subject.replace("_", " ")
    lines = [f"{letter}. {text}" for letter, text in zip(letters, question.options, strict=True)]
    asked = f"Answer with the letter {', '.join(letters[:-1])} or {letters[-1]}."
    head = f"A multiple choice question about {about}."
    return Choice(
        id=f"mmmu-{question.id}",
        kind="capability",
        prompt="\n".join([f"{head}\n\n{question.text}", *lines, asked]),
        options=tuple(Option(letter, (f" {letter}", letter)) for letter in letters),
        truth=question.answer,
        split="mmmu",
        source=question.subject,
        pictures=question.images,
    )


class MMMU(Task):
    """MMMU's multiple-choice questions, for evaluation or as the capability of another task.

    It has nothing to train on by itself. Pool: the dev questions without every fifth of a subject,
    which are the validation; evaluation: the validation questions, whose answers are public.

    Args:
        data: folder with a folder for each subject; by default `$DSO_DATA/mmmu`, `data/mmmu`.
        hub: instead of a folder a data set of the Hugging Face hub, such as MMMU/MMMU.
        subjects: those to take, such as Accounting; null: all.
        evaluation: at most so many questions, drawn evenly over the subjects; null: all.
        strict: whether two options of one text are an error.
    """

    def __init__(
        self,
        data: str | None = None,
        hub: str | None = None,
        subjects: Sequence[str] | None = None,
        evaluation: int | None = None,
        strict: bool = False,
    ) -> None:
        if data is not None and hub is not None:
            raise ValueError(f"mmmu: data is {data!r} and hub is {hub!r}; give one of them")
        if subjects is not None and not subjects:
            raise ValueError("mmmu: subjects is empty; name some, or leave it out for all")
        if evaluation is not None and evaluation < 1:
            raise ValueError(f"mmmu: evaluation is {evaluation}; wanted at least 1")
        self.data = data
        self.hub = hub
        self.subjects = None if subjects is None else list(subjects)
        self.evaluation = evaluation
        self.strict = strict

    def load(self) -> TaskData:
        """Read the questions."""
        if self.hub is not None:
            wanted = self.subjects or ["*"]
            patterns = [f"{name}/{split}-*.parquet" for name in wanted for split in SPLITS]
            folder = parquet_folder(self.hub, patterns, "MMMU")
        else:
            folder = find_data("mmmu", self.data, "MMMU folder", ADDRESS)
        questions, report = read_subjects(folder, self.subjects, self.strict)
        log.info("%s", report)
        places: Counter[str] = Counter()
        pool: list[Choice] = []
        validation: list[Choice] = []
        for question in questions["dev"]:
            kept = places[question.subject] % KEPT == KEPT - 1
            places[question.subject] += 1
            (validation if kept else pool).append(_choice(question))
        asked = [_choice(question) for question in questions["validation"]]
        return TaskData(
            train=[],
            pool=pool,
            validation=validation,
            evaluation=evenly(asked, self.evaluation, EVALUATION_SEED),
        )
