"""Answers in OpenAI's shapes: whole (`chat.completion`), or in chunks (`chat.completion.chunk`)."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dso.inference.decoding import Answer, Finish

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Reply:
    """What all parts of one reply have in common."""

    model: str
    """Name of the model."""
    strength: float
    """ω it was answered at; a field of ours beside OpenAI's."""
    prompt_tokens: int
    """Tokens of the prompt."""
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(16)}")
    created: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """All answers at once."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text},
                "logprobs": None,
                "finish_reason": answer.finish,
            }
            for index, answer in enumerate(answers)
        ]
        tokens = sum(len(answer.tokens) for answer in answers)
        return self._head("chat.completion") | {"choices": choices, "usage": self._usage(tokens)}

    def piece(
        self, index: int, delta: dict[str, str], finish: Finish | None = None, *, usage: bool
    ) -> bytes:
        """A chunk of one answer; with `usage` it says that the usage is still to come."""
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        content = self._head("chat.completion.chunk") | {"choices": [choice]}
        return server_sent(content | {"usage": None} if usage else content)

    def used(self, tokens: int) -> bytes:
        """The chunk behind all answers that says how many tokens they have."""
        usage = {"choices": [], "usage": self._usage(tokens)}
        return server_sent(self._head("chat.completion.chunk") | usage)

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id, "object": kind, "created": self.created, "model": self.model,
            "strength": self.strength,
        }  # fmt: skip

    def _usage(self, tokens: int) -> dict[str, int]:
        """End tokens are not counted."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": self.prompt_tokens + tokens,
        }


def server_sent(content: dict[str, Any]) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(content, allow_nan=False).encode("ascii") + b"\n\n"
