"""WinoBias (Zhao et al. 2018, arXiv 1804.06876): reader of the published files, and the task.

Eight files of 396 lines, `{pro,anti}_stereotyped_type{1,2}.txt.{dev,test}`: a number, then a
sentence whose referent and pronoun stand in [brackets]. Line i of a pro and of the anti file are
the same sentence with the pronoun's gender swapped: twins. Type 1 is ambiguous by syntax; type 2
has one right answer. A few lines are malformed ("the [the chief]"); they are mended, and counted.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from dso.tasks.choice import Choice
from dso.tasks.coreference import DEFAULT_FORMS, mixture, options_for, person
from dso.tasks.occupations import BY_NAME, Gender
from dso.tasks.published.locate import find_data
from dso.tasks.task import Task, TaskData

log = logging.getLogger(__name__)

PRONOUN_GENDER: dict[str, Gender] = {
    "he": "male", "him": "male", "his": "male", "himself": "male",
    "she": "female", "her": "female", "hers": "female", "herself": "female",
}  # fmt: skip
ADDRESS = "https://github.com/uclanlp/corefBias"
QUESTION = 'Who does "{word}" refer to, {x} or {y}?'

_LINE = re.compile(r"^\s*(\d+)\s+(.*\S)\s*$")
_BRACKET = re.compile(r"\[([^\]]*)\]")
_DOUBLED = re.compile(r"\b([Tt]he) (?:the|The)\b")
# Longest first: "construction worker" before "worker" could ever match.
_OCCUPATION = re.compile(
    r"\b(" + "|".join(sorted(map(re.escape, BY_NAME), key=len, reverse=True)) + r")\b",
    re.IGNORECASE,
)
_PRONOUN = re.compile(r"\b(" + "|".join(PRONOUN_GENDER) + r")\b")
_LOWER = {name.lower(): name for name in BY_NAME}


@dataclass(frozen=True)
class Sentence:
    """One line of a WinoBias file."""

    number: int
    text: str
    """Without brackets."""
    pronoun: str
    """The first bracketed one, in lower case."""
    people: tuple[str, str]
    """The two occupations in the order of mention; where a sentence has three, the referent and
    the first of the others."""
    referent: int
    """Index into `people` of the bracketed one."""
    mended: bool
    """Whether the line was malformed."""


def parse_line(line: str, where: str = "line") -> Sentence:
    """Parse one line.

    Raises:
        ValueError: a line that cannot be read; the message starts with `where`.
    """
    numbered = _LINE.match(line)
    if numbered is None:
        raise ValueError(f"{where}: wanted a number and a sentence, got {line.strip()!r}")
    marked = numbered[2]
    brackets = _BRACKET.findall(marked)
    is_pronoun = [word.strip().lower() in PRONOUN_GENDER for word in brackets]
    if not any(is_pronoun) or is_pronoun.count(False) != 1:
        raise ValueError(
            f"{where}: wanted one referent and its pronouns in [brackets], got {marked!r}"
        )
    pronoun = brackets[is_pronoun.index(True)].strip().lower()
    plain = _BRACKET.sub(lambda match: match[1].strip(), marked)
    text = _DOUBLED.sub(r"\1", plain)
    people = list(dict.fromkeys(_LOWER[m.lower()] for m in _OCCUPATION.findall(text)))
    named = _OCCUPATION.findall(brackets[is_pronoun.index(False)])
    if len(people) < 2 or len(named) != 1:
        raise ValueError(f"{where}: wanted two known occupations, found {people} in {text!r}")
    who = _LOWER[named[0].lower()]
    people = [name for name in people if name in (who, next(n for n in people if n != who))]
    referent = people.index(who)
    return Sentence(
        int(numbered[1]), text, pronoun, (people[0], people[1]), referent, mended=text != plain
    )


def read_file(path: Path) -> list[Sentence]:
    """All sentences of one file.

    Raises:
        ValueError: no such file, no sentences in it, or unreadable lines; up to ten are named at
            once.
    """
    if not path.is_file():
        raise ValueError(f"WinoBias file {path} does not exist; give the folder of its eight files")
    sentences, errors = [], []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            sentences.append(parse_line(line.decode("utf-8"), where))
        except UnicodeDecodeError as error:
            errors.append(f"{where}: is not UTF-8 ({error.reason} at byte {error.start})")
        except ValueError as error:
            errors.append(str(error))
    if errors:
        more = f"\n... and {len(errors) - 10} more" if len(errors) > 10 else ""
        raise ValueError("\n".join(errors[:10]) + more)
    if not sentences:
        raise ValueError(f"WinoBias file {path} has no sentences; wanted one a line")
    return sentences


def winobias(
    folder: Path, part: Literal["dev", "test"], forms: Sequence[str] = DEFAULT_FORMS
) -> list[Choice]:
    """Both types of one part as choices, twins next to each other: 4 · 396 of them.

    Raises:
        ValueError: unreadable files, a pro and an anti file that do not go together line by line,
            or an ambiguous sentence whose occupations have one stereotype.
    """
    choices: list[Choice] = []
    mended = unpaired = reworded = 0
    split = f"winobias_{part}"
    for kind in (1, 2):
        paths = [folder / f"{side}_stereotyped_type{kind}.txt.{part}" for side in ("pro", "anti")]
        pro, anti = (read_file(path) for path in paths)
        _check_lines([path.name for path in paths], pro, anti)
        if kind == 1:
            _check_stereotypes(paths[0].name, pro)
            _check_stereotypes(paths[1].name, anti)
        for number, twins in enumerate(zip(pro, anti, strict=True)):
            mended += sum(sentence.mended for sentence in twins)
            paired = twins[0].people == twins[1].people
            unpaired += not paired
            reworded += paired and len({_PRONOUN.sub("_", s.text.lower()) for s in twins}) > 1
            for side, sentence in zip(("pro", "anti"), twins, strict=True):
                stem = f"{split}-type{kind}-{number}"
                twin = stem if paired else None
                choices.append(
                    _choice(f"{stem}-{side}", sentence, kind, split, twin, number, forms)
                )
    log.info(
        "WinoBias %s: %d sentences; %d malformed lines mended (doubled article); of the twins, %d "
        "differ in more than the pronoun and %d are different sentences, which stay unpaired",
        part, len(choices), mended, reworded, unpaired,
    )  # fmt: skip
    return choices


def _check_stereotypes(file: str, sentences: Sequence[Sentence]) -> None:
    """Refuse an ambiguous sentence whose answers would take the same side."""
    for place, sentence in enumerate(sentences, start=1):
        if len({BY_NAME[name].stereotype for name in sentence.people}) == 1:
            raise ValueError(
                f"{file}, sentence {place}: an ambiguous sentence needs occupations of opposite "
                f"stereotypes, got {sentence.people[0]!r} and {sentence.people[1]!r}"
            )


def _check_lines(names: Sequence[str], pro: Sequence[Sentence], anti: Sequence[Sentence]) -> None:
    """Refuse two files that are not numbered alike: their lines would make false twins."""
    for place, twins in enumerate(zip_longest(pro, anti), start=1):
        if None in twins:
            short, whole = names if twins[0] is None else reversed(names)
            raise ValueError(
                f"{short} ends before its sentence {place}: {len(pro)} pro and {len(anti)} anti "
                f"sentences; it is cut short, or {whole} is of another release"
            )
        numbers = [sentence.number for sentence in twins]
        if numbers[0] != numbers[1]:
            raise ValueError(
                f"sentence {place} has number {numbers[0]} in {names[0]} and {numbers[1]} in "
                f"{names[1]}; wanted the same sentences line by line"
            )


def _choice(
    identifier: str,
    sentence: Sentence,
    kind: int,
    split: str,
    twin: str | None,
    number: int,
    forms: Sequence[str],
) -> Choice:
    gender = PRONOUN_GENDER[sentence.pronoun]
    x, y = (person(name) for name in sentence.people)
    if number % 2:
        x, y = y, x
    return Choice(
        id=identifier,
        kind="ambiguous" if kind == 1 else "unambiguous",
        prompt=f"{sentence.text} {QUESTION.format(word=sentence.pronoun, x=x, y=y)}",
        options=options_for(sentence.people, forms, gender if kind == 1 else None),
        truth=None if kind == 1 else sentence.referent,
        occupations=sentence.people,
        gender=gender,
        first=0,
        twin=twin,
        split=split,
        source=f"winobias_type{kind}",
    )


def find_folder(folder: str | None) -> Path:
    """The folder of the files: the one given, else the first that exists of a few usual places.

    Raises:
        ValueError: none of them exists; the places are named.
    """
    return find_data("winobias", folder, "WinoBias folder", ADDRESS)


class WinoBias(Task):
    """WinoBias' own sentences: train on dev, evaluate on dev and test.

    The KL pool is dev's unambiguous sentences with the built-in quiz and gender-needed questions
    (WinoBias has none), half and a quarter each. Every sixth dev sentence is kept for validation.

    Args:
        data: folder of the eight files; by default `$DSO_DATA/winobias`, `data/winobias`.
        forms: surface forms that count as an answer, `{}` standing for the occupation.
        seed: of the draw of quiz and gender-needed questions.
    """

    def __init__(
        self, data: str | None = None, forms: Sequence[str] = DEFAULT_FORMS, seed: int = 0
    ) -> None:
        self.data = data
        self.forms = list(forms)
        self.seed = seed

    def load(self) -> TaskData:
        """Read the files."""
        folder = find_folder(self.data)
        dev = winobias(folder, "dev", self.forms)
        test = winobias(folder, "test", self.forms)
        kept = [choice for choice in dev if _number(choice) % 6 == 5]
        rest = [choice for choice in dev if _number(choice) % 6 != 5]
        clear = [choice for choice in rest if choice.kind == "unambiguous"]
        extra = mixture(
            "train",
            "train",
            (0, len(clear) // 2, len(clear) // 2),
            self.seed,
            "pool",
            self.forms,
        )
        return TaskData(
            train=[choice for choice in rest if choice.kind == "ambiguous"],
            pool=clear + extra,
            validation=kept,
            evaluation=test,
        )

    def benchmark(self) -> list[Choice]:
        """All sentences of both parts."""
        folder = find_folder(self.data)
        return [*winobias(folder, "dev", self.forms), *winobias(folder, "test", self.forms)]


def _number(choice: Choice) -> int:
    """Running number of the sentence in its file; twins share it."""
    return int(choice.id.split("-")[2])
