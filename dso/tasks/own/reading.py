"""Reading rows of any number: all are checked, a bounded part of each split and kind is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from rich.console import Console
from rich.progress import Progress as Bar

from dso.tasks.choice import KINDS, Choice
from dso.tasks.coreference import DEFAULT_FORMS
from dso.tasks.files.hub_rows import hub_rows
from dso.tasks.files.problems import Problems, Row
from dso.tasks.files.rows import read_rows
from dso.tasks.own.ledger import Ledger, Twins, Unpaired
from dso.tasks.own.misfits import Placed
from dso.tasks.own.row_choice import parse_row
from dso.tasks.own.row_images import open_all
from dso.tasks.own.sample import Cell, Sample, rank
from dso.tasks.own.schema import SPLITS
from dso.tasks.pictures import Picture

SHARES = (0.6, 0.1, 0.3)
"""Of train, validation and test, where no row says its split."""

WHOLE = "all"
"""The split of rows without one, where nothing is trained on them."""

LARGE = 8_000_000
"""Bytes of data from which on a progress bar is shown."""


@dataclass(frozen=True)
class Source:
    """Where rows come from."""

    data: tuple[str, ...] = ()
    """Paths and patterns of files."""
    hub: str | None = None
    hub_config: str | None = None

    def rows(self, problems: Problems) -> Iterator[Row]:
        """All rows, file by file, with a progress bar where there are many.

        Raises:
            DataError: more problems than `problems` collects.
        """
        files = self._files(problems)
        sizes = [file.stat().st_size if file.is_file() else 0 for file in files]
        console = Console(stderr=True)
        quiet = not console.is_terminal or sum(sizes) < LARGE
        with Bar(console=console, transient=True, disable=quiet) as bar:
            job = bar.add_task("reading", total=max(1, sum(sizes)))
            for number, file in enumerate(files):
                done, size = sum(sizes[:number]), sizes[number]

                def show(share: float, done: int = done, size: int = size) -> None:
                    bar.update(job, completed=done + share * size)

                yield from read_rows(file, problems, show)
        if self.hub is not None:
            yield from hub_rows(self.hub, self.hub_config, problems)

    def _files(self, problems: Problems) -> list[Path]:
        files: dict[Path, Path] = {}
        for given in self.data:
            if has_magic(given) and not Path(given).exists():
                found = sorted(glob(given, recursive=True))  # noqa: PTH207 (absolute ones too)
                if not found:
                    problems.add(given, None, "no file fits this pattern")
            else:
                found = [given]
            for path in map(Path, found):
                files.setdefault(path.resolve(), path)
        return list(files.values())


@dataclass(frozen=True)
class OwnData:
    """What was read."""

    kept: dict[Cell, list[Choice]]
    """By split and kind."""
    counts: Counter[Cell]
    """Rows that were read, by split and kind."""
    twins: Twins
    one_sided: list[tuple[str, str]]
    """(split, occupation) of ambiguous rows with sides that all have one gender."""
    occupations: int
    """Occupations of ambiguous rows with sides that have a gender."""
    images: int
    """Different images that were opened."""

    def of(self, *splits: str) -> list[Choice]:
        """The kept choices of some splits, kind by kind."""
        return [
            choice
            for split in splits
            for kind in KINDS
            for choice in self.kept.get((split, kind), [])
        ]

    @property
    def splits(self) -> list[str]:
        """The names of the splits: train and validation before the others."""
        names = {split for split, _ in self.counts}
        return [*(s for s in SPLITS if s in names), *sorted(names - set(SPLITS))]


class _Splits:
    """The split of a row: its own, or, where no row has one, a share's."""

    def __init__(self, shares: Sequence[float] | None) -> None:
        self.shares = shares
        self.first: tuple[str, bool] | None = None

    def of(self, where: str, choice: Choice, problems: Problems) -> str | None:
        """The split of a choice; None, which is noted, where some rows have one and others none."""
        given = bool(choice.split)
        if self.first is None:
            self.first = (where, given)
        elif given != self.first[1]:
            other = f"{self.first[0]} has {'one' if self.first[1] else 'none'}"
            problems.add_once(
                where, "split",
                f"is {choice.split!r}, but {other}; give it in all rows or in none"
                if given else f"is missing, but {other}; give it in all rows or in none",
                about=f"split {given}",
            )  # fmt: skip
            return None
        if given:
            return choice.split
        if self.shares is None:
            return WHOLE
        place = rank(choice.twin or choice.id, 0) / 2**64
        train, validation, _ = self.shares
        return "train" if place < train else SPLITS[1 + (place >= train + validation)]


def read_choices(
    source: Source,
    *,
    forms: Sequence[str] = DEFAULT_FORMS,
    limit: int = 20_000,
    shares: Sequence[float] = SHARES,
    unpaired: Unpaired = "refuse",
    seed: int = 0,
    training: bool = True,
    limit_errors: int = 20,
    open_images: bool = False,
) -> OwnData:
    """Read and check all rows, and keep a bounded part of them.

    Args:
        source: where the rows are.
        forms: surface forms of options that bring none.
        limit: choices kept of each split and kind.
        shares: of train, validation and test where no row has a split.
        unpaired: what happens to ambiguous rows with sides in train without a twin.
        seed: of the draw in train.
        training: False where the data are only put to a model: then no row needs a twin, and rows
            without a split are one split, `all`.
        limit_errors: problems that are collected before the error is raised.
        open_images: whether every image that a row names is opened too. Without it is only checked
            that they are there.

    Raises:
        DataError: anything wrong with the rows, all of it by file, line and field.
        ValueError: a package is missing that the source needs.
    """
    problems = Problems(limit_errors)
    patterns = tuple(forms)
    used = tuple(shares) if training else None

    def placed(problems: Problems) -> Iterator[Placed]:
        splits = _Splits(used)
        for row in source.rows(problems):
            choice = parse_row(row, problems, patterns)
            split = choice and splits.of(row.where, choice, problems)
            if choice and split:
                yield row.where, choice, split

    ledger, sample = Ledger(training, unpaired), Sample(limit, seed, training)
    images: dict[Picture, str] = {}
    for where, choice, split in placed(problems):
        if open_images:
            for picture in choice.pictures:
                images.setdefault(picture, where)
        ledger.add(where, choice, split, problems)
        sample.offer(choice, split)
    # What is wrong with single rows was said in the first reading.
    twins = ledger.check(lambda: placed(Problems(2**62)), problems)
    open_all(images, problems)
    problems.check()
    return OwnData(
        kept=sample.kept(),
        counts=sample.counts,
        twins=twins,
        one_sided=[(split, name) for split, name, _, _ in ledger.one_sided()],
        occupations=len({name for _, name in ledger.genders}),
        images=len(images),
    )
