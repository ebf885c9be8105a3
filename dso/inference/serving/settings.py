"""What a server allows, and how it fills its batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

CHOICES = 8
"""Most answers that one request can ask for."""


@dataclass(frozen=True)
class Serving:
    """Settings of a server.

    Raises:
        ValueError: a number out of range, a name or token that cannot be sent.
    """

    name: str
    """The model's name in requests and answers."""
    max_batch: int = 16
    """Rows that are answered together."""
    batch_wait: float = 5.0
    """Milliseconds after which a row waits no more for others to fill the batch."""
    queue: int = 256
    """Rows that may wait; who comes then is told to come back later (429)."""
    timeout: float = 60.0
    """Seconds a request may take, waiting included."""
    max_tokens: int = 1024
    """Longest answer that can be asked for, and the longest where a request names none."""
    max_strength: float = 2.0
    """Largest ω that can be asked for."""
    max_body: int = 2**21
    """Bytes of a request."""
    max_messages: int = 256
    """Messages of a conversation."""
    max_characters: int = 400_000
    """Characters of all its messages together."""
    token: str | None = field(default=None, repr=False)
    """What a client has to send as `Authorization: Bearer ...`; None: nothing."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("the model's name is empty; requests and answers carry it")
        for name in ("max_batch", "max_tokens", "max_body", "max_messages", "max_characters"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; wanted at least 1")
        if self.queue < CHOICES:
            raise ValueError(
                f"queue is {self.queue}; wanted at least {CHOICES}, the most rows one request has"
            )
        for name, least in (("batch_wait", 0.0), ("max_strength", 0.0), ("timeout", 1e-3)):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= least):
                raise ValueError(
                    f"{name} is {getattr(self, name)}; wanted a finite number, at least {least:g}"
                )
        if self.token is not None and not (
            self.token.isascii() and self.token.isprintable() and self.token.split() == [self.token]
        ):
            raise ValueError(
                "the token is empty or has characters that a header cannot carry; wanted printable "
                "ASCII without spaces"
            )
