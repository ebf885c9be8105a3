"""Answers to a batch of prompts, each row with a strength, a temperature and an end of its own.

transformers' `generate` runs the model; which token a row takes next, and when it ends, is decided
here, row by row, so that an answer does not depend on what else is in the batch. A row that has a
temperature is drawn with random numbers of its own, from its own seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import (
    LogitsProcessor,
    StoppingCriteria,
    TopPLogitsWarper,
)

from dso.inference.detokenising import Detokeniser
from dso.policy import Policy
from dso.sampling import generate_tokens, own_distribution
from dso.vision import Shown

Finish = Literal["stop", "length", "cancelled"]

LOWEST = 1e-6
"""Temperatures below it draw as it does, the likeliest token; by 0 nothing can be divided."""


@dataclass(frozen=True)
class Decoding:
    """How an answer is drawn.

    Raises:
        ValueError: a number out of range, an empty stop text.
    """

    max_new_tokens: int = 256
    """Longest answer; the model's own positions may end it sooner."""
    temperature: float = 0.0
    """0 takes the likeliest token every time; 1 draws from the model's own distribution."""
    top_p: float = 1.0
    """Only the likeliest tokens that together have this probability are drawn from."""
    seed: int = 0
    """Of the random numbers, where the temperature is not 0."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer and do not belong to it."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; wanted at least 1")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature is {self.temperature}; wanted a finite number >= 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}; wanted a number above 0, at most 1")
        if not all(self.stop):
            raise ValueError("a stop text is empty; it would end every answer at once")


@dataclass(frozen=True)
class Request:
    """One prompt and how it is answered."""

    prompt: tuple[int, ...]
    """Token ids."""
    strength: float = 1.0
    """ω of this row."""
    decoding: Decoding = Decoding()
    shown: Shown | None = None
    """The prompt's text and pictures, where it has any."""


@dataclass(frozen=True)
class Answer:
    """What was said."""

    text: str
    tokens: tuple[int, ...]
    """Without the end token and, where a stop text ended it, with that text's."""
    finish: Finish
    """stop: an end token or a stop text; length: no room for more; cancelled: nobody wanted more.
    """


Heard = Callable[[int, str], None]
"""Told the row and the text that came to its answer, as it comes."""
Finished = Callable[[int, Answer], None]
"""Told the row and its answer, as soon as it has ended."""


@torch.no_grad()
def decode(
    policy: Policy,
    requests: Sequence[Request],
    *,
    heard: Heard | None = None,
    finished: Finished | None = None,
    cancelled: Callable[[int], bool] | None = None,
) -> list[Answer]:
    """Answer all requests, in one batch unless a prompt fills the model's positions, or the model
    cannot take their pictures in one pass.

    Args:
        policy: in eval mode.
        requests: at least one.
        heard: called for every piece of text of every row.
        finished: called for every row, while others may go on.
        cancelled: asked after every token whether a row is not wanted any more.

    Raises:
        ValueError: no requests, an empty prompt, one longer than the model's positions, a strength
            asked of a model without an adapter.
    """
    if not requests:
        raise ValueError("there are no prompts to answer")
    rows = [_Row(policy, request) for request in requests]
    groups = policy.passes([request.shown for request in requests])
    for places in _together(rows, policy.positions, groups):
        some = [requests[place] for place in places]
        prompts = policy.gather([r.prompt for r in some], [r.shown for r in some])
        steps = _Rows({place: rows[place] for place in places}, heard, finished, cancelled)
        settings = own_distribution(
            max(rows[place].room for place in places), frozenset(), policy.pad_id, greedy=True
        )
        strengths = torch.tensor([request.strength for request in some])
        one = bool((strengths == strengths[0]).all())
        with policy.at(float(strengths[0]) if one else strengths):
            generate_tokens(policy, prompts, settings, choosing=[_Choose(some)], stopping=[steps])
    return [row.answer() for row in rows]


def _together(
    rows: Sequence[_Row], positions: int | None, groups: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Places of the rows that can be answered in one batch, one list a batch; mostly one list.

    A row that has ended is padded, and takes one more position a token, until the last one of its
    batch ends. The model needs to have them: where it looks them up, it fails otherwise.
    """
    batches = []
    for group in groups:
        left = list(group)
        while left:
            longest = max(rows[place].room for place in left)
            fit = [n for n in left if positions is None or rows[n].start + longest <= positions]
            batches.append(fit)
            left = [place for place in left if place not in fit]
    return batches


class _Row:
    """An answer as it grows."""

    def __init__(self, policy: Policy, request: Request) -> None:
        if not request.prompt:
            raise ValueError("a prompt has no tokens")
        room = request.decoding.max_new_tokens
        if policy.positions is not None:
            room = min(room, policy.positions - len(request.prompt))
        if room < 1:
            raise ValueError(
                f"a prompt has {len(request.prompt)} tokens, and the model has {policy.positions} "
                "positions; shorten it"
            )
        self.start = len(request.prompt)
        self.room = room
        self.stops = request.decoding.stop
        self.text = ""
        self.tokens: list[int] = []
        self.finish: Finish | None = None
        self._given = 0
        self._detokeniser = Detokeniser(policy.tokenizer)
        self._ends = policy.end_ids

    def add(self, token: int) -> str:
        """Take a token; the text that can be given out now."""
        seen = len(self.text)
        if token in self._ends:
            self.finish = "stop"
        else:
            self.tokens.append(token)
            self.text += self._detokeniser.add(token)
            if len(self.tokens) >= self.room:
                self.finish = "length"
        if self.finish is not None:
            self.text += self._detokeniser.end()
        # A stop text that was not there before ends in what is new.
        places = [self.text.find(stop, max(0, seen + 1 - len(stop))) for stop in self.stops]
        if found := [place for place in places if place >= 0]:
            self.text, self.finish = self.text[: min(found)], "stop"
        return self._new()

    def cancel(self) -> None:
        """End it here."""
        self.finish = "cancelled"

    def answer(self) -> Answer:
        """The whole of it."""
        return Answer(self.text, tuple(self.tokens), self.finish or "length")

    def _new(self) -> str:
        """What was not given out yet and will not change any more."""
        end = len(self.text)
        if self.finish is None:
            # What could be the start of a stop text waits.
            end -= max((_overlap(self.text, stop) for stop in self.stops), default=0)
        new = self.text[self._given : end]
        self._given = max(self._given, end)
        return new


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text are the start of a stop text."""
    return next((n for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n])), 0)


class _Choose(LogitsProcessor):
    """Chooses each row's next token; what generate then finds the likeliest is that token."""

    def __init__(self, requests: Sequence[Request]) -> None:
        self.drawn = {
            row: (request.decoding, torch.Generator().manual_seed(request.decoding.seed))
            for row, request in enumerate(requests)
            if request.decoding.temperature > 0
        }

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """(B, V) with only the chosen token of a drawn row left."""
        if not self.drawn:
            return scores
        rows = list(self.drawn)
        own = scores[rows].float()
        heat = [max(decoding.temperature, LOWEST) for decoding, _ in self.drawn.values()]
        own = (own - own.amax(-1, keepdim=True)) / own.new_tensor(heat)[:, None]
        for place, (row, (decoding, _)) in enumerate(self.drawn.items()):
            if decoding.top_p < 1:
                warper = TopPLogitsWarper(decoding.top_p)
                own[place] = warper(input_ids[row : row + 1], own[place : place + 1])[0]
        # Drawn on the CPU, so that a seed means the same on every device; moved there at once.
        chances = own.softmax(-1).cpu()
        tokens = [
            int(torch.multinomial(chances[place], 1, generator=generator))
            for place, (_, generator) in enumerate(self.drawn.values())
        ]
        scores[rows] = -torch.inf
        scores[rows, tokens] = 0.0
        return scores


class _Rows(StoppingCriteria):
    """Tells every row its token, and generate which rows are done."""

    def __init__(
        self,
        rows: Mapping[int, _Row],
        heard: Heard | None,
        finished: Finished | None,
        cancelled: Callable[[int], bool] | None,
    ) -> None:
        self.rows = rows
        self.heard = heard
        self.finished = finished
        self.cancelled = cancelled

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        """(B,) bool: which rows are done."""
        last = input_ids[:, -1].tolist()
        for (place, row), token in zip(self.rows.items(), last, strict=True):
            if row.finish is not None:
                continue
            if self.cancelled is not None and self.cancelled(place):
                row.cancel()
            else:
                text = row.add(token)
                if text and self.heard is not None:
                    self.heard(place, text)
            if row.finish is not None and self.finished is not None:
                self.finished(place, row.answer())
        done = [row.finish is not None for row in self.rows.values()]
        return torch.tensor(done, device=input_ids.device)
