"""Servers for tests: on the organism, and with a decoder that waits until it is let go."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from functools import cache

from starlette.testclient import TestClient

from dso.inference import Answer, SteeredPipeline, load
from dso.inference.serving import Serving, create_app, service
from tests.organism import adapter, organism

CHAT = "/v1/chat/completions"
QUESTION = 'The guard thanked the nurse because she was late. Who is "she", the guard or the nurse?'


@cache
def steered() -> SteeredPipeline:
    return load(organism(), adapter())


@cache
def base() -> SteeredPipeline:
    return load(organism())


def client(pipeline: SteeredPipeline | None = None, **settings) -> TestClient:
    """Use it as a context: the worker runs inside."""
    app = create_app(pipeline or steered(), Serving(name="organism", **settings))
    return TestClient(app, raise_server_exceptions=False)


def body(text: str = QUESTION, **fields) -> dict:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, **fields}


def ask(server: TestClient, text: str = QUESTION, **fields) -> dict:
    response = server.post(CHAT, json=body(text, **fields))
    assert response.status_code == 200, response.text
    return response.json()


def said(answer: dict) -> str:
    return answer["choices"][0]["message"]["content"]


def events(text: str) -> list[dict]:
    """The chunks of a stream, which ends as it should."""
    lines = text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    assert all(line.startswith("data: ") for line in lines[:-1])
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def until(condition, seconds=30.0) -> None:
    """Wait for something that happens in another thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.002)


class Gate:
    """Decodes in steps of a piece "x": as many as it is let do, until a row's length or its end."""

    def __init__(self, monkeypatch) -> None:
        self.steps = threading.Semaphore(0)
        self.batches: list[list] = []
        self.cancelled: list[tuple[int, int]] = []
        self.heard = 0
        monkeypatch.setattr(service.decoding, "decode", self.decode)

    def let(self, steps: int) -> None:
        self.steps.release(steps)

    def decode(self, policy, requests, *, heard, finished, cancelled):
        number = len(self.batches)
        self.batches.append(list(requests))
        ended = set()
        for step in range(1, 10_000):
            while not self.steps.acquire(timeout=0.005):
                if all(row in ended or cancelled(row) for row in range(len(requests))):
                    break
            for row, request in enumerate(requests):
                if row in ended:
                    continue
                if cancelled(row):
                    ended.add(row)
                    self.cancelled.append((number, row))
                    finished(row, Answer("x" * (step - 1), (9,) * (step - 1), "cancelled"))
                    continue
                heard(row, "x")
                self.heard += 1
                if step == request.decoding.max_new_tokens:
                    ended.add(row)
                    finished(row, Answer("x" * step, (9,) * step, "length"))
            if len(ended) == len(requests):
                return


async def call(app, content: dict, leave: asyncio.Event | None = None) -> list[dict]:
    """One chat request to an ASGI application; what it sent.

    leave: when it is set, the client is gone.
    """
    sent: list[dict] = []
    parts = [{"type": "http.request", "body": json.dumps(content).encode(), "more_body": False}]
    leave = leave or asyncio.Event()

    async def receive():
        if parts:
            return parts.pop()
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1",
        "method": "POST", "scheme": "http", "path": CHAT, "raw_path": CHAT.encode(),
        "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1), "server": ("test", 80),
        "headers": [(b"content-type", b"application/json")],
    }  # fmt: skip
    await asyncio.wait_for(app(scope, receive, send), 30)
    return sent


async def soon(condition) -> None:
    """Wait for something that happens in another thread, while the event loop goes on."""
    await asyncio.to_thread(until, condition)
