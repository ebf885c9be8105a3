"""A request's rows, seen from the event loop: their events, and the end of the waiting for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from fastapi import Request as HttpRequest

from dso.inference.decoding import Answer, Request
from dso.inference.serving.batching import Batcher, ClosedError, Event, Job, QueueFullError
from dso.inference.serving.errors import ApiError


class Ticket:
    """The rows of one request.

    Args:
        batcher: takes the rows.
        rows: of one request.
        deadline: on the clock of `time.monotonic`.
        pieces: whether pieces of text are wanted, or whole answers alone.
    """

    def __init__(
        self, batcher: Batcher, rows: Sequence[Request], deadline: float, *, pieces: bool
    ) -> None:
        self._batcher = batcher
        self._deadline = deadline
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._jobs = [
            Job(row, deadline, partial(self._tell, index), pieces=pieces)
            for index, row in enumerate(rows)
        ]

    def submit(self) -> None:
        """Put the rows into the queue.

        Raises:
            ApiError: 429, there is no room for them; 503, the server is stopping.
        """
        try:
            self._batcher.submit(self._jobs)
        except QueueFullError:
            raise ApiError(
                429,
                "too many requests wait already; come back later",
                "queue_full",
                headers={"Retry-After": "1"},
            ) from None
        except ClosedError:
            raise closing() from None

    def cancel(self) -> None:
        """The rows that have not ended are not wanted any more."""
        for job in self._jobs:
            if not job.ended:
                self._batcher.cancel(job)

    def __len__(self) -> int:
        return len(self._jobs)

    async def next(self) -> tuple[int, str | Answer]:
        """The next event, with its row.

        Raises:
            ApiError: 504 after the deadline, 503 when the server stops, 500 when the batch failed,
                499 when the client has left.
        """
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                index, event = await self._events.get()
        except TimeoutError:
            raise late() from None
        if isinstance(event, ApiError):
            raise event
        if isinstance(event, ClosedError):
            raise closing()
        if isinstance(event, Exception):
            raise ApiError(500, "the model failed on this batch; try again", "internal_error")
        if isinstance(event, Answer) and event.finish == "cancelled":
            raise late()  # by the worker's clock, which may be a moment ahead
        return index, event

    async def answers(self) -> list[Answer]:
        """All answers. Raises: as `next`."""
        ended: dict[int, Answer] = {}
        while len(ended) < len(self):
            index, event = await self.next()
            if isinstance(event, Answer):
                ended[index] = event
        return [ended[index] for index in range(len(self))]

    async def watch(self, request: HttpRequest) -> None:
        """Wait until the client has left; `next` raises then."""
        while (await request.receive())["type"] != "http.disconnect":
            pass
        self._events.put_nowait((0, gone()))

    def _tell(self, index: int, event: Event) -> None:
        # A loop that is closed has nobody left to tell.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._events.put_nowait, (index, event))


def late() -> ApiError:
    """The deadline is over."""
    return ApiError(504, "the answer took longer than this server allows", "timeout")


def gone() -> ApiError:
    """Nobody is there to answer to; for the counts alone."""
    return ApiError(499, "the client left", "client_left")


def closing() -> ApiError:
    """The server stops."""
    return ApiError(503, "the server is stopping", "stopping", headers={"Retry-After": "10"})
