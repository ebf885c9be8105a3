"""Anyone's own choices: files or a hub data set with the fields of `schema.py`, as a task.

Every row is read and checked; of each split and kind a bounded part is kept, so that a file of
millions of rows needs no more memory than one of thousands, but for some bytes a row (`ledger.py`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from dso.tasks.choice import Choice
from dso.tasks.coreference import DEFAULT_FORMS, kl_pool
from dso.tasks.own.ledger import Unpaired
from dso.tasks.own.reading import SHARES, OwnData, Source, read_choices
from dso.tasks.own.schema import SPLITS
from dso.tasks.task import Task, TaskData

log = logging.getLogger(__name__)

BUILT_IN_POOL = 2400
"""Built-in questions in the pool of data that bring none with a right answer."""


class Own(Task):
    """Anyone's own choices, from CSV, JSON lines or parquet files or a hub data set.

    Ambiguous rows of the split train are trained on, its rows with a right answer are the pool;
    validation is for choosing, test and test_NAME are for reporting. docs/own-data.md says how to
    write the rows. They take sides and come as twins, or name groups, two or more.

    Args:
        data: a file, a pattern such as `rows/*.csv`, or a list of them.
        hub: id of a data set on the hub, or a folder that `datasets` can load.
        hub_config: the data set's configuration, where it has several.
        forms: surface forms of options that bring none, `{}` standing for the option's text.
        limit: choices that are kept of each split and kind; all are read and checked.
        shares: of train, validation and test, where no row has a split; twins go together.
        built_in_pool: built-in questions that are added to the pool. By default 2400 where train
            has no question with a right answer, and 0 where it has.
        unpaired: what happens to ambiguous rows with sides in train without a twin: `refuse` or
            `leave_out`.
        seed: of the draws in train.
    """

    def __init__(
        self,
        data: str | list[str] | None = None,
        hub: str | None = None,
        hub_config: str | None = None,
        forms: Sequence[str] = DEFAULT_FORMS,
        limit: int = 20_000,
        shares: Sequence[float] = SHARES,
        built_in_pool: int | None = None,
        unpaired: Unpaired = "refuse",
        seed: int = 0,
    ) -> None:
        if hub_config and not hub:
            raise ValueError(f"own: hub_config is {hub_config!r}, but no hub data set is given")
        if not forms or any("{}" not in form for form in forms):
            raise ValueError(f"own: every form needs '{{}}' for the answer; got {forms}")
        if limit < 2:
            raise ValueError(f"own: limit is {limit}; wanted at least 2, for a pair of twins")
        fair = len(shares) == 3 and all(0 <= s <= 1 for s in shares)
        if not fair or not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise ValueError(
                f"own: shares are {list(shares)}; wanted three fractions (train, validation, test) "
                "that add up to 1"
            )
        if built_in_pool is not None and built_in_pool < 0:
            raise ValueError(f"own: built_in_pool is {built_in_pool}; wanted 0 or more")
        if unpaired not in ("refuse", "leave_out"):
            raise ValueError(f"own: unpaired is {unpaired!r}; wanted 'refuse' or 'leave_out'")
        self.data = data
        self.hub = hub
        self.hub_config = hub_config
        self.forms = list(forms)
        self.limit = limit
        self.shares = list(shares)
        self.built_in_pool = built_in_pool
        self.unpaired = unpaired
        self.seed = seed

    def load(self) -> TaskData:
        """Read and check the rows.

        Raises:
            ValueError: anything wrong with the rows, all of it by file, line and field, or a split
                that no row is in.
        """
        read = self._read(training=True)
        tests = [split for split in read.splits if split.startswith("test")]
        lacking = missing_splits(read)
        if lacking:
            raise ValueError(f"{self._name()}: {'; '.join(lacking)}")
        pool = [choice for choice in read.of("train") if choice.kind != "ambiguous"]
        count = self.built_in_pool
        if count is None:
            count = 0 if pool else BUILT_IN_POOL
        if not pool and not count:
            raise ValueError(
                f"{self._name()}: train has no row with a right answer and built_in_pool is 0; the "
                "KL budget needs a pool, so give such rows or let built_in_pool be 2400"
            )
        if count:
            log.info(
                "pool: %d built-in questions beside %d of the data's own (built_in_pool)",
                count, len(pool),
            )  # fmt: skip
        elif not any(choice.kind == "gender_needed" for choice in pool):
            log.warning(
                "pool: no gender_needed row in train, so that nothing keeps the model from "
                "forgetting gender altogether; add such rows, or built-in ones (built_in_pool)"
            )
        built_in = kl_pool(count, self.seed, self.forms, split="built_in_pool")
        return TaskData(
            train=read.kept["train", "ambiguous"],
            pool=pool + built_in,
            validation=read.of("validation"),
            evaluation=read.of(*tests),
        )

    def benchmark(self) -> list[Choice]:
        """The rows of all splits; no row needs a twin."""
        read = self._read(training=False)
        return read.of(*read.splits)

    def _read(self, training: bool) -> OwnData:
        if not self.data and not self.hub:
            raise ValueError("own: no rows to read; give data (files, --data) or hub")
        data = (self.data,) if isinstance(self.data, str) else tuple(self.data or ())
        read = read_choices(
            Source(data, self.hub, self.hub_config),
            forms=self.forms,
            limit=self.limit,
            shares=self.shares,
            unpaired=self.unpaired,
            seed=self.seed,
            training=training,
        )
        report(read, training)
        return read

    def _name(self) -> str:
        given = self.hub if self.data is None else self.data
        return given if isinstance(given, str) else ", ".join(given or ())


def missing_splits(read: OwnData) -> list[str]:
    """What the data lack to be trained on, in sentences."""
    names = {split for split, _ in read.counts}
    has_test = any(split.startswith("test") for split in names)
    lacking = [
        f"no row has split {split}; training needs train, validation and test"
        for split in SPLITS
        if not (has_test if split == "test" else split in names)
    ]
    if "train" in names and not read.kept.get(("train", "ambiguous")):
        lacking.append(
            "train has no pair of ambiguous twins and no ambiguous row of groups, which are what "
            "is trained on"
        )
    return lacking


def report(read: OwnData, training: bool) -> None:
    """Log what was left out."""
    for (split, kind), count in sorted(read.counts.items()):
        kept = len(read.kept[split, kind])
        if kept < count:
            log.info("%s: kept %s of %s %s rows", split, f"{kept:,}", f"{count:,}", kind)
    if training and read.twins.left_out:
        log.info("train: left out %d ambiguous row(s) without a twin", read.twins.left_out)
