"""What the metrics are called in tables and plots, and in which unit they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Unit = Literal["%", "nats", ""]


@dataclass(frozen=True)
class Title:
    """How a metric is shown."""

    text: str
    """Plain words."""
    unit: Unit
    """`%` for a fraction in [0, 1] that is shown times 100; otherwise the value is shown as is."""
    better: Literal["lower", "higher", ""] = ""
    """Which way is better, where one is."""

    def heading(self) -> str:
        """Words and unit, as a row or axis is headed."""
        return f"{self.text} ({self.unit})" if self.unit else self.text

    def show(self, value: float) -> str:
        """The value in its unit, which the heading names."""
        return f"{100 * value:.1f}" if self.unit == "%" else f"{value:.3f}"


TITLES: dict[str, Title] = {
    "per_occupation_bias": Title("Bias per occupation", "%", "lower"),
    "total_variation": Title("Distance from equal groups", "%", "lower"),
    "stereotype_gap": Title("Stereotype gap", "%", "lower"),
    "per_sample_parity": Title("Bias per sample", "%", "lower"),
    "flip_rate": Title("Answers flipped by gender", "%", "lower"),
    "unambiguous_accuracy": Title("Accuracy, unambiguous", "%", "higher"),
    "gender_needed_accuracy": Title("Accuracy, gender needed", "%", "higher"),
    "capability": Title("Accuracy, knowledge", "%", "higher"),
    "caption_accuracy": Title("Attributes right in captions", "%", "higher"),
    "abstention": Title("Abstention", "%"),
    "option_mass": Title("Probability on the options", "%", "higher"),
    "unparsed": Title("Generated answers without meaning", "%", "lower"),
    "position_bias": Title("Position bias", "%", "lower"),
    "position_shift": Title("Shift of position preference", "%", "lower"),
    "kl": Title("KL to the base model", "nats", "lower"),
    "broken_promises": Title("Promises broken", "%", "lower"),
    "broken_promises_by_occupation": Title("Promises broken, by bias per occupation", "%", "lower"),
    "strength_found": Title("Strength found where one keeps the promise", "%", "higher"),
    "chosen_strength": Title("Strength chosen", "", "lower"),
}
"""By metric, in the order of a table's rows."""


def title_of(metric: str) -> Title:
    """Title of any metric: one that is not among `TITLES` goes by its own name, without a unit."""
    return TITLES.get(metric, Title(metric, ""))


def in_order(metrics: Iterable[str]) -> list[str]:
    """Distinct metrics in the order of `TITLES`, then the others by name."""
    distinct = set(metrics)
    known = [metric for metric in TITLES if metric in distinct]
    return known + sorted(distinct - TITLES.keys())
