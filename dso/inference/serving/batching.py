"""Rows that come one by one are answered in batches, by one thread that owns the model.

The row that came first is in the next batch always; the places beside it go to those that are most
like it in length, since a batch is as wide as its longest prompt and runs as long as its longest
answer. A row is told its answer as soon as it has ended, and is dropped once nobody wants it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from dso.inference.decoding import Answer, Finished, Heard, Request
from dso.inference.serving.metrics import Metrics
from dso.inference.serving.settings import Serving

log = logging.getLogger(__name__)

Event = str | Answer | Exception
"""A piece of text, the whole answer, or why there is none. The last two end a row."""


class Decoder(Protocol):
    """Answers a batch, as `dso.inference.decode` does."""

    def __call__(
        self,
        requests: Sequence[Request],
        *,
        heard: Heard,
        finished: Finished,
        cancelled: Callable[[int], bool],
    ) -> object:
        """See `dso.inference.decode`."""


class QueueFullError(Exception):
    """More rows wait than may."""


class ClosedError(Exception):
    """The server is stopping and takes no more rows."""


class BatchFailedError(Exception):
    """Something went wrong with the batch a row was in; the log has the traceback."""


class Job:
    """One row.

    Args:
        request: what is asked.
        deadline: on the clock of `time.monotonic`; not wanted after it.
        tell: gets the row's events, the last one exactly once; called from the worker's thread, or
            from that of `Batcher.cancel` and `Batcher.close`. It must not raise.
        pieces: whether pieces of text are told, or the answer alone.
    """

    def __init__(
        self,
        request: Request,
        deadline: float,
        tell: Callable[[Event], None],
        *,
        pieces: bool = False,
    ) -> None:
        self.request = request
        self.deadline = deadline
        self.tell = tell
        self.pieces = pieces
        self.came = time.monotonic()
        self.ended = False
        self.left = False
        """Whether whoever asked has gone."""

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for it still."""
        return not self.left and time.monotonic() < self.deadline

    def unlike(self, other: Job) -> int:
        """How far apart two rows are in length, in tokens of prompt and answer."""
        a, b = self.request, other.request
        return abs(len(a.prompt) - len(b.prompt)) + abs(
            a.decoding.max_new_tokens - b.decoding.max_new_tokens
        )


class Batcher:
    """The queue, and the thread that answers it.

    Args:
        decode: answers a batch.
        settings: how many rows go together and may wait.
        metrics: counts what happens.
    """

    def __init__(self, decode: Decoder, settings: Serving, metrics: Metrics) -> None:
        self._decode = decode
        self._settings = settings
        self._metrics = metrics
        self._waiting: list[Job] = []
        self._running: list[Job] = []
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="dso-serve", daemon=True)

    def start(self) -> None:
        """Start answering."""
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether rows are taken and answered."""
        return self._thread.is_alive() and not self._closed

    @property
    def waiting(self) -> int:
        """Rows that wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Rows that are being answered."""
        return sum(not job.ended for job in list(self._running))

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take rows, all of them or none.

        Raises:
            QueueFullError: there is no room for all of them.
            ClosedError: the server is stopping, or has not started.
        """
        with self._changed:
            if not self.alive:
                raise ClosedError
            if len(self._waiting) + len(jobs) > self._settings.queue:
                raise QueueFullError
            self._waiting.extend(jobs)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Nobody wants this row any more; one that has ended stays as it is."""
        job.left = True
        with self._changed:
            waits = job in self._waiting
            if waits:
                self._waiting.remove(job)
        if waits:
            self._end(job, Answer("", (), "cancelled"))

    def close(self, timeout: float | None = None) -> None:
        """Refuse new rows and those that wait, let the running ones end, and stop.

        Args:
            timeout: seconds to wait for the running ones.
        """
        with self._changed:
            self._closed = True
            refused, self._waiting = self._waiting, []
            self._changed.notify_all()
        for job in refused:
            self._end(job, ClosedError())
        if self._thread.is_alive():
            self._thread.join(timeout)

    # -- the worker's thread ----------------------------------------------------------------

    def _run(self) -> None:
        while batch := self._next():
            self._running = batch
            try:
                self._answer(batch)
            except Exception:
                # Whatever went wrong is this batch's; the next one may fare better.
                log.exception("a batch of %d rows failed", len(batch))
                for job in batch:
                    if not job.ended:
                        self._end(job, BatchFailedError())
            self._running = []

    def _next(self) -> list[Job]:
        """The next batch; empty when the server stops."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return []
                # What came while the last batch ran has waited long enough.
                wait = self._waiting[0].came + self._settings.batch_wait / 1000 - time.monotonic()
                self._changed.wait_for(
                    lambda: len(self._waiting) >= self._settings.max_batch or self._closed,
                    max(0.0, wait),
                )
                if self._closed:
                    return []
                fresh: list[Job] = []
                stale: list[Job] = []
                for job in self._waiting:
                    (fresh if job.wanted else stale).append(job)
                batch = sorted(fresh, key=lambda job: job.unlike(fresh[0]))
                batch = batch[: self._settings.max_batch]
                self._waiting = [job for job in fresh if job not in batch]
            for job in stale:
                self._end(job, Answer("", (), "cancelled"))
            if batch:
                return batch

    def _answer(self, batch: list[Job]) -> None:
        self._metrics.batch_rows.see(len(batch))

        def heard(row: int, text: str) -> None:
            if batch[row].pieces:
                batch[row].tell(text)

        self._decode(
            [job.request for job in batch],
            heard=heard,
            finished=lambda row, answer: self._end(batch[row], answer),
            cancelled=lambda row: not batch[row].wanted,
        )
        assert all(job.ended for job in batch)

    def _end(self, job: Job, event: Answer | Exception) -> None:
        """Tell a row its last event."""
        job.ended = True
        if isinstance(event, Answer):
            self._metrics.answers.add(value=event.finish)
            self._metrics.answer_tokens.add(len(event.tokens))
            if event.finish != "cancelled":
                self._metrics.prompt_tokens.add(len(job.request.prompt))
        else:
            self._metrics.answers.add(value="error")
        job.tell(event)
