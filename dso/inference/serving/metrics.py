"""Counts of a server in the text format of Prometheus (version 0.0.4)."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counter:
    """A number that only grows, by the value of one label.

    Args:
        name: of the metric.
        says: what it counts.
        label: name of the label, where there is one.
    """

    def __init__(self, name: str, says: str, label: str | None = None) -> None:
        self.name, self.says, self.label = name, says, label
        self._values: dict[str, float] = {} if label else {"": 0}
        self._lock = threading.Lock()

    def add(self, amount: float = 1, value: str = "") -> None:
        """Count; `value` is the label's."""
        with self._lock:
            self._values[value] = self._values.get(value, 0) + amount

    def lines(self) -> list[str]:
        """As text."""
        with self._lock:
            values = sorted(self._values.items())
        return [
            *_head(self.name, self.says, "counter"),
            *(
                _sample(self.name, count, **({self.label: value} if self.label else {}))
                for value, count in values
            ),
        ]


class Histogram:
    """How often a value was at most each of some bounds.

    Args:
        name: of the metric.
        says: what is measured, with its unit.
        bounds: ascending; infinity comes by itself.
    """

    def __init__(self, name: str, says: str, bounds: Sequence[float]) -> None:
        self.name, self.says, self.bounds = name, says, tuple(bounds)
        self._counts = [0] * (len(self.bounds) + 1)
        self._sum = 0.0
        self._lock = threading.Lock()

    def see(self, value: float) -> None:
        """Count a value."""
        with self._lock:
            self._counts[bisect_left(self.bounds, value)] += 1
            self._sum += value

    def lines(self) -> list[str]:
        """As text."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        lines, seen = _head(self.name, self.says, "histogram"), 0
        for bound, count in zip((*self.bounds, "+Inf"), counts, strict=True):
            seen += count
            lines.append(_sample(f"{self.name}_bucket", seen, le=str(bound)))
        return [
            *lines, _sample(f"{self.name}_sum", total), _sample(f"{self.name}_count", seen)
        ]  # fmt: skip


class Metrics:
    """All that a server counts."""

    def __init__(self) -> None:
        self.requests = Counter(
            "dso_requests_total",
            "Chat requests by HTTP status; 499: the client left.",
            "status",
        )
        self.seconds = Histogram(
            "dso_request_seconds",
            "From a chat request to the end of its response.",
            (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
        )
        self.answers = Counter(
            "dso_answers_total", "Rows by how they ended: stop, length, cancelled, error.", "finish"
        )
        self.prompt_tokens = Counter("dso_prompt_tokens_total", "Tokens of the prompts answered.")
        self.answer_tokens = Counter("dso_answer_tokens_total", "Tokens generated.")
        self.batch_rows = Histogram(
            "dso_batch_rows", "Rows answered together.", (1, 2, 4, 8, 16, 32, 64, 128)
        )

    def text(self, waiting: int, running: int) -> str:
        """The page, with how many rows wait and are being answered now."""
        counted = (
            self.requests, self.seconds, self.answers, self.prompt_tokens, self.answer_tokens,
            self.batch_rows,
        )  # fmt: skip
        lines = [line for metric in counted for line in metric.lines()]
        lines += [*_head("dso_queue_rows", "Rows that wait.", "gauge")]
        lines += [_sample("dso_queue_rows", waiting)]
        lines += [*_head("dso_running_rows", "Rows that are being answered.", "gauge")]
        lines += [_sample("dso_running_rows", running)]
        return "\n".join(lines) + "\n"


def _head(name: str, says: str, kind: str) -> list[str]:
    return [f"# HELP {name} {says}", f"# TYPE {name} {kind}"]


def _sample(name: str, value: float, **labels: str) -> str:
    inside = ",".join(f'{label}="{text}"' for label, text in labels.items())
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"
