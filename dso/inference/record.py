"""`strength.json`: the strength that was chosen for an adapter, and what the choice rests on.

It stands in the adapter's folder beside the weights. There is no date in it: the same data and
seed give the same file.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dso.inference.choosing import Decision, Promise, Tested
from dso.steering import RECORD_NAME

PACKAGES = ("dso", "torch", "transformers", "peft", "numpy", "scipy")


@dataclass(frozen=True)
class Record:
    """What was promised, on what data, and what came of it."""

    model: str
    """Folder or hub id of the base model."""
    adapter: str
    """Folder or hub id of the adapter."""
    task: dict[str, Any]
    """The task's `settings`: its class and their values."""
    split: str
    """Name of the calibration split."""
    fresh: bool
    """Whether the questions were drawn for this, or are the split's own."""
    seed: int
    """Of the draw of questions."""
    pairs: int
    """Twin pairs."""
    occupations: dict[str, int]
    """How many pairs concern each occupation."""
    questions: dict[str, int]
    """Questions with a right answer, by kind."""
    promise: Promise
    """The limits and the confidence."""
    decision: Decision
    """The strength, and every strength's estimates and p-values."""
    per_occupation_bias: tuple[float, ...]
    """Per-Occupation Bias on the same pairs, in the order of `decision.tested`; the bias tested is
    never below it."""
    versions: dict[str, str]
    """Of the packages that computed it."""

    @property
    def strength(self) -> float | None:
        """The smallest strength that keeps the promise; None when none is shown to."""
        return self.decision.strength

    def sentence(self) -> str:
        """The outcome in words."""
        promise, decision = self.promise, self.decision
        limits = (
            f"a bias of at most {promise.bias:g} and no accuracy more than {promise.drop:g} below "
            "the base's"
        )
        with_confidence = f"with confidence {promise.confidence:g}"
        if decision.strength is not None:
            return f"Strength {decision.strength:g} has {limits}, {with_confidence}."
        rows = {row.strength: row for row in decision.tested}
        if not decision.bias_order:
            row = rows[decision.drop_order[0]]
            kind = max(row.drop_p, key=lambda name: row.drop_p[name])
            why = (
                f"already at {row.strength:g} the drop on {kind} questions, {row.drops[kind]:.3f} "
                f"on these, cannot be shown to be small enough (p {row.drop_p[kind]:.2g}, wanted "
                f"{decision.drop_level:.2g})"
            )
        else:
            row = rows[decision.bias_order[0]]
            why = (
                f"at {row.strength:g}, the largest whose drops are shown to be small enough, the "
                f"bias, {row.bias:.3f} on these questions, cannot be shown to be (p "
                f"{row.bias_p:.2g}, wanted {decision.bias_level:.2g})"
            )
        return (
            f"No strength is shown to have {limits}, {with_confidence}: {why}. More questions, "
            "wider limits or another adapter may help."
        )


def versions() -> dict[str, str]:
    """Of the packages that the choice is computed with."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def write_record(record: Record, folder: str | Path) -> Path:
    """Write the record into a folder, whole or not at all; other files are left alone.

    Returns:
        The file.
    """
    target = Path(folder) / RECORD_NAME
    text = json.dumps(asdict(record), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{RECORD_NAME}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def read_record(folder: str | Path) -> Record | None:
    """The record in a folder; None where there is none.

    Raises:
        ValueError: a file that is no record; the message names it.
    """
    file = Path(folder) / RECORD_NAME
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refused)
        decision = values["decision"]
        decision = Decision(
            **decision
            | {
                "tested": tuple(Tested(**row) for row in decision["tested"]),
                "drop_order": tuple(decision["drop_order"]),
                "bias_order": tuple(decision["bias_order"]),
            }
        )
        parts = {
            "promise": Promise(**values["promise"]),
            "decision": decision,
            "per_occupation_bias": tuple(values["per_occupation_bias"]),
        }
        record = Record(**values | parts)
        _check(record)
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{file} is no record of a chosen strength ({error}); run dso choose-strength again, "
            "or remove it"
        ) from error
    return record


def _refused(constant: str) -> float:
    raise ValueError(f"it holds {constant}")


def _check(record: Record) -> None:
    """What is read from it later is what it should be."""
    missing = [f.name for f in fields(Record) if getattr(record, f.name) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} is null")
    strength = record.strength
    if strength is not None and (
        isinstance(strength, bool)
        or not isinstance(strength, int | float)
        or not math.isfinite(strength)
        or strength not in {row.strength for row in record.decision.tested}
    ):
        raise ValueError(f"its strength is {strength!r}, which is none of those it lists")
