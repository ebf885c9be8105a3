"""One figure per line: `results.jsonl`, the file that every command writes.

Each line is a JSON object with the fields of `Result`. Optional fields that do not apply are left
out; `low` and `high` are null where a figure has no interval. Values are fractions, never percent,
and always finite.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from dso.report.titles import TITLES

_SLACK = 1e-6
"""By how much a fraction may leave [0, 1] through rounding."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One figure of one model at one strength on one split.

    Raises:
        TypeError: a field of the wrong type.
        ValueError: a field that is not finite or out of range; the message names it.
    """

    strength: float
    """Strength of the steering; 0 is the base model."""
    split: str
    """Name of the split the figure was measured on."""
    metric: str
    """Name of the metric."""
    value: float
    """The figure: a fraction, or the metric's own unit (nats for `kl`)."""
    low: float | None
    """Lower end of its 95 % interval."""
    high: float | None
    """Upper end."""
    n: int
    """Number of samples."""
    seed: int
    """Seed of the run, or of the adapter's training."""
    estimate: str
    """How the answers were read: probability, sampled, greedy or generated."""
    model: str | None = None
    """Name or folder of the model."""
    adapter: str | None = None
    """Name or folder of the adapter."""
    method: str | None = None
    """What steers, in a benchmark of several methods."""
    estimator: str | None = None
    """The estimator the adapter was trained with."""
    task: str | None = None
    """What was asked, where a file holds several tasks."""
    group: str | None = None
    """Demographic group the figure is about."""
    step: int | None = None
    """Training step at which it was measured, where it is not the last."""
    layer: int | str | None = None
    """Index or name of the layer, in an audit."""
    experiment: str | None = None
    """Name of the audit's experiment."""
    concept: str | None = None
    """What an audit's test is about."""
    attribute: str | None = None
    """What an audit's test compares it with."""
    p: float | None = None
    """p-value."""
    p_adjusted: float | None = None
    """p-value adjusted for the number of tests."""

    def __post_init__(self) -> None:
        for name in _REQUIRED_TEXT:
            _check_text(name, getattr(self, name))
        for name in _OPTIONAL_TEXT:
            if getattr(self, name) is not None:
                _check_text(name, getattr(self, name))
        if isinstance(self.layer, str):
            _check_text("layer", self.layer)
        elif self.layer is not None:
            _check_whole("layer", self.layer)
        _check_whole("seed", self.seed)
        if self.step is not None:
            _check_whole("step", self.step)
        _check_whole("n", self.n)
        if self.n < 1:
            raise ValueError(f"n is {self.n}; a figure needs at least one sample")
        for name in ("strength", "value"):
            object.__setattr__(self, name, _finite(name, getattr(self, name)))
        for name in ("low", "high", "p", "p_adjusted"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _finite(name, getattr(self, name)))
        self._check_ranges()

    def _check_ranges(self) -> None:
        for name in ("p", "p_adjusted"):
            chance = getattr(self, name)
            if chance is not None and not 0 <= chance <= 1:
                raise ValueError(f"{name} is {chance}; a p-value lies between 0 and 1")
        if (self.low is None) != (self.high is None):
            raise ValueError(
                f"low is {self.low} and high is {self.high}; give both ends or neither"
            )
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"the interval [{self.low}, {self.high}] is upside down")
        if self.metric in TITLES and TITLES[self.metric].unit == "%":
            for name in ("value", "low", "high"):
                number = getattr(self, name)
                if number is not None and not -_SLACK <= number <= 1 + _SLACK:
                    raise ValueError(
                        f"{name} of {self.metric} is {number}; it is a fraction between 0 and 1, "
                        "not percent"
                    )


_REQUIRED_TEXT = ("split", "metric", "estimate")
_OPTIONAL_TEXT = (
    "model",
    "adapter",
    "method",
    "estimator",
    "task",
    "group",
    "experiment",
    "concept",
    "attribute",
)
_REQUIRED = ("strength", "split", "metric", "value", "low", "high", "n", "seed", "estimate")
_NAMES = tuple(field.name for field in fields(Result))


def write_results(path: str | Path, results: Iterable[Result]) -> None:
    """Write results as JSON lines, all or nothing: a reader never sees half a file.

    Folders that are missing are created; a file that is there is replaced.
    """
    path = Path(path)
    text = "".join(_line(result) + "\n" for result in results)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_results(path: str | Path) -> list[Result]:
    """Read what `write_results` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line that is no result; the message names the file, the line and the field.
    """
    path = Path(path)
    results = []
    lines = path.read_bytes().split(b"\n")
    # The file ends with a newline, after which there is no further line.
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, start=1):
        try:
            results.append(_parse(line.decode()))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    return results


def _line(result: Result) -> str:
    values = {name: getattr(result, name) for name in _NAMES}
    kept = {k: v for k, v in values.items() if v is not None or k in _REQUIRED}
    return json.dumps(kept, allow_nan=False, ensure_ascii=False)


def _parse(line: str) -> Result:
    if not line.strip():
        raise ValueError("the line is empty; every line holds one result")
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"this is not JSON ({error}): {line[:80]!r}") from error
    if not isinstance(values, dict):
        raise ValueError(f"a result is a JSON object; got {line[:80]!r}")
    unknown = sorted(values.keys() - set(_NAMES))
    if unknown:
        raise ValueError(f"unknown field(s) {', '.join(unknown)}; known: {', '.join(_NAMES)}")
    missing = [name for name in _REQUIRED if name not in values]
    if missing:
        raise ValueError(f"missing field(s) {', '.join(missing)}")
    return Result(**values)


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}; wanted text")
    if not value.strip():
        raise ValueError(f"{name} is empty; wanted a name")


def _check_whole(name: str, value: object) -> None:
    # bool is an int in Python, but True is no count.
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; wanted a whole number")


def _finite(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} is {value!r}; wanted a number")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value}; wanted a finite number")
    return float(value)
