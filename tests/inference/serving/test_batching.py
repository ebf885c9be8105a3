"""The queue without HTTP and without a model."""

import threading
import time

import pytest

from dso.inference import Answer, Decoding, Request
from dso.inference.serving import Batcher, Job, Metrics, Serving
from dso.inference.serving.batching import BatchFailedError, ClosedError, QueueFullError
from tests.inference.serving.served import until


class Recorder:
    """A decoder that answers at once, or after `gate`."""

    def __init__(self, gate=None, fail=()):
        self.gate, self.fail, self.batches = gate, set(fail), []

    def __call__(self, requests, *, heard, finished, cancelled):
        self.batches.append([len(request.prompt) for request in requests])
        if self.gate is not None:
            assert self.gate.wait(30)
        if len(self.batches) in self.fail:
            raise RuntimeError("out of memory")
        for row in range(len(requests)):
            gone = cancelled(row)
            if not gone:
                heard(row, "x")
            finished(row, Answer("x", (1,), "cancelled" if gone else "stop"))


def batcher(decoder, **settings):
    made = Batcher(decoder, Serving(name="m", **({"batch_wait": 0} | settings)), Metrics())
    made.start()
    return made


def job(told, length=1, answer=1, seconds=60.0, pieces=False):
    request = Request((5,) * length, 1.0, Decoding(max_new_tokens=answer))
    return Job(request, time.monotonic() + seconds, told.append, pieces=pieces)


def test_rows_that_come_together_are_answered_together():
    decoder, told = Recorder(), []
    made = batcher(decoder, batch_wait=10_000, max_batch=4)
    for _ in range(4):
        made.submit([job(told)])
    until(lambda: len(told) == 4)
    assert decoder.batches == [[1, 1, 1, 1]]
    assert all(event.finish == "stop" for event in told)
    made.close()


def test_a_batch_holds_the_oldest_row_and_those_most_like_it():
    gate, told = threading.Event(), []
    decoder = Recorder(gate)
    made = batcher(decoder, max_batch=3)
    made.submit([job(told)])
    until(lambda: made.running == 1)
    made.submit([job(told, length) for length in (9, 1, 8, 2, 10)])
    made.submit([job(told, 2, answer=100)])
    gate.set()
    until(lambda: len(told) == 7)
    assert decoder.batches == [[1], [9, 8, 10], [1, 2, 2]]
    made.close()


def test_pieces_are_told_to_those_that_want_them():
    one, other = [], []
    made = batcher(Recorder(), batch_wait=10_000, max_batch=2)
    made.submit([job(one, pieces=True), job(other)])
    until(lambda: other)
    assert one == ["x", Answer("x", (1,), "stop")]
    assert other == [Answer("x", (1,), "stop")]
    made.close()


def test_the_queue_takes_all_rows_of_a_request_or_none():
    gate, told = threading.Event(), []
    made = batcher(Recorder(gate), queue=8, max_batch=1)
    made.submit([job(told)])
    until(lambda: made.running == 1)
    made.submit([job(told) for _ in range(6)])
    with pytest.raises(QueueFullError):
        made.submit([job(told) for _ in range(3)])
    assert made.waiting == 6
    made.submit([job(told) for _ in range(2)])
    gate.set()
    until(lambda: len(told) == 9)
    made.close()


def test_a_row_that_is_cancelled_while_it_waits_frees_its_place_at_once():
    gate, told, other = threading.Event(), [], []
    decoder = Recorder(gate)
    made = batcher(decoder, queue=8, max_batch=1)
    made.submit([job(told)])
    until(lambda: made.running == 1)
    jobs = [job(other) for _ in range(8)]
    made.submit(jobs)
    made.cancel(jobs[0])
    assert [event.finish for event in other] == ["cancelled"]
    made.submit([job(told)])
    gate.set()
    until(lambda: len(told) == 2 and len(other) == 8)
    assert len(decoder.batches) == 9
    made.cancel(jobs[1])  # has ended: told once, and once only
    assert len(other) == 8
    made.close()


def test_a_row_whose_time_is_over_is_not_decoded():
    gate, told, late = threading.Event(), [], []
    decoder = Recorder(gate)
    made = batcher(decoder)
    made.submit([job(told)])
    until(lambda: made.running == 1)
    made.submit([job(late, seconds=0.02)])
    time.sleep(0.03)
    gate.set()
    until(lambda: late)
    assert late[0].finish == "cancelled"
    assert decoder.batches == [[1]]
    made.close()


def test_a_batch_that_fails_is_told_so_and_the_next_one_is_answered(caplog):
    decoder, told = Recorder(fail=[1]), []
    made = batcher(decoder, batch_wait=10_000, max_batch=2)
    made.submit([job(told), job(told)])
    until(lambda: len(told) == 2)
    assert all(isinstance(event, BatchFailedError) for event in told)
    assert made.alive
    assert "a batch of 2 rows failed" in caplog.text
    assert "out of memory" in caplog.text
    made.submit([job(told), job(told)])
    until(lambda: len(told) == 4)
    assert told[2].finish == "stop"
    made.close()


def test_a_decoder_that_forgets_a_row_is_an_error_and_no_wait():
    told = []
    made = batcher(lambda requests, **_: None)
    made.submit([job(told)])
    until(lambda: told)
    assert isinstance(told[0], BatchFailedError)
    made.close()


def test_closing_ends_what_runs_and_refuses_what_waits_and_what_comes():
    gate, runs, waits = threading.Event(), [], []
    made = batcher(Recorder(gate), max_batch=1)
    made.submit([job(runs)])
    until(lambda: made.running == 1)
    made.submit([job(waits)])
    closing = threading.Thread(target=made.close)
    closing.start()
    until(lambda: waits)
    assert isinstance(waits[0], ClosedError)
    assert not made.alive
    with pytest.raises(ClosedError):
        made.submit([job(waits)])
    assert not runs
    gate.set()
    closing.join(30)
    assert runs[0].finish == "stop"
