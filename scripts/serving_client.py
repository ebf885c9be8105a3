"""A server in a process of its own, and clients of it that check what they are told."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

CHAT = "/v1/chat/completions"


class ServerProcess:
    """Context: `dso serve` runs, on a free port and with a token; on exit it is told to stop.

    Args:
        arguments: of the command.
    """

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments
        self.token = secrets.token_urlsafe(16)
        self.log: list[str] = []
        self.port = 0
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        with tempfile.NamedTemporaryFile("w", suffix=".token", delete=False) as file:
            file.write(self.token)
        self._file = Path(file.name)
        command = [
            sys.executable, "-m", "dso.cli", "serve", *self.arguments, "--port", "0",
            "--token-file", file.name,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        try:
            if not self._ready.wait(120) or not self.port:
                raise RuntimeError("the server did not start:\n" + "".join(self.log))
            self._reach()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(90)
        finally:
            self.process.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def client(self, connections: int = 64) -> httpx2.AsyncClient:
        """A client with that many connections."""
        limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
        return httpx2.AsyncClient(
            base_url=self.url, headers=self.headers, limits=limits, timeout=120
        )

    def counts(self) -> dict[str, float]:
        """What the server counts, by its name with label."""
        text = httpx2.get(f"{self.url}/metrics", headers=self.headers).text
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def memory(self) -> float:
        """MiB the process holds, where the system says."""
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except FileNotFoundError:
            return float("nan")
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(r"at http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                self._ready.set()
        self._ready.set()

    def _reach(self) -> None:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                if httpx2.get(f"{self.url}/health").status_code == 200:
                    return
            except httpx2.TransportError:
                time.sleep(0.05)
        raise RuntimeError("the server does not answer")


@dataclass(frozen=True)
class Case:
    """A request and the text that it is answered with."""

    body: dict[str, Any]
    """Without `stream`."""
    expected: str
    greedy: bool


@dataclass(frozen=True)
class Told:
    """What a request was answered with."""

    text: str
    tokens: int
    seconds: float
    """To the end of the answer."""
    first: float
    """Seconds to its first text, or to its end where it came as a whole."""


class WrongReplyError(Exception):
    """A reply that is none: its status, or what is wrong with it."""


async def ask(client: httpx2.AsyncClient, body: dict[str, Any], *, stream: bool) -> Told:
    """Ask, and check the shape of the reply.

    Raises:
        WrongReplyError: an error, or a reply of another shape.
    """
    start = time.perf_counter()
    if not stream:
        response = await client.post(CHAT, json=body)
        if response.status_code != 200:
            raise WrongReplyError(f"status {response.status_code}: {response.text[:200]}")
        reply = response.json()
        seconds = time.perf_counter() - start
        text = reply["choices"][0]["message"]["content"]
        return Told(text, reply["usage"]["completion_tokens"], seconds, seconds)
    first, pieces = None, []
    chunks: list[dict[str, Any]] = []
    streamed = body | {"stream": True, "stream_options": {"include_usage": True}}
    async with client.stream("POST", CHAT, json=streamed) as response:
        if response.status_code != 200:
            text = (await response.aread()).decode()[:200]
            raise WrongReplyError(f"status {response.status_code}: {text}")
        done = False
        async for line in response.aiter_lines():
            if done and line:
                raise WrongReplyError(f"{line!r} after [DONE]")
            if line == "data: [DONE]":
                done = True
            elif line:
                chunks.append(json.loads(line.removeprefix("data: ")))
                if said := text_of(chunks[-1]):
                    first = first or time.perf_counter() - start
                    pieces.append(said)
    seconds = time.perf_counter() - start
    _check_chunks(chunks, done)
    tokens = chunks[-1]["usage"]["completion_tokens"]
    return Told("".join(pieces), tokens, seconds, first or seconds)


def text_of(chunk: dict[str, Any]) -> str:
    """The text in a chunk."""
    choices = chunk.get("choices")
    return choices[0]["delta"].get("content", "") if choices else ""


def _check_chunks(chunks: Sequence[dict[str, Any]], done: bool) -> None:
    errors = [chunk["error"] for chunk in chunks if "error" in chunk]
    if errors or not done or len(chunks) < 3:
        raise WrongReplyError(f"the stream broke: {errors}, {len(chunks)} chunks, done: {done}")
    *_, last, usage = chunks
    if chunks[0]["choices"][0]["delta"].get("role") != "assistant":
        raise WrongReplyError("the first chunk has no role")
    if last["choices"][0]["finish_reason"] not in ("stop", "length") or usage["choices"]:
        raise WrongReplyError("the stream does not end as it should")
