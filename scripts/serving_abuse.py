"""What a server has to bear: each is sent, and a normal request behind it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx2
from serving_client import CHAT, Case, ServerProcess, WrongReplyError, ask

JSON = {"Content-Type": "application/json"}
LEAVERS = 64
Abuse = Callable[[ServerProcess, httpx2.AsyncClient], Awaitable[None]]
"""Raises `WrongReplyError` where the server answers other than it should."""


async def all_of(server: ServerProcess, case: Case) -> list[tuple[str, str]]:
    """Every abuse with what went wrong, "" where nothing did."""
    found = []
    for name, abuse in ABUSES.items():
        async with server.client(256) as client:
            try:
                await asyncio.wait_for(abuse(server, client), 120)
                told = await ask(client, case.body, stream=False)
                if told.text != case.expected:
                    raise WrongReplyError(f"then {told.text!r} instead of {case.expected!r}")
                problem = ""
            except (WrongReplyError, httpx2.HTTPError, TimeoutError, OSError) as error:
                problem = f"{type(error).__name__}: {error}"
        found.append((name, problem))
    return found


def talk(**fields: Any) -> dict[str, Any]:
    """A request that is answered at length, where nothing forbids it."""
    message = {"role": "user", "content": "The nurse"}
    return {"messages": [message], "temperature": 2, "max_tokens": 200} | fields


async def refused(
    client: httpx2.AsyncClient, content: Any, statuses: set[int], names: str = "", **headers: str
) -> None:
    """Post a body, which is answered with an error in OpenAI's shape."""
    response = await client.post(CHAT, content=content, headers=JSON | headers)
    if response.status_code not in statuses:
        raise WrongReplyError(f"status {response.status_code} for {str(content)[:80]}")
    error = response.json()["error"]
    if error.keys() != {"message", "type", "param", "code"} or names not in str(error["param"]):
        raise WrongReplyError(f"the error is {error}")


async def malformed(_: ServerProcess, client: httpx2.AsyncClient) -> None:
    """No JSON, or no object."""
    for content in (b"", b"{", b'{"messages":', b"[]", b"null", b"\xff\x00", b"[" * 500_000,
                    b'{"messages": [{"role": "user", "content": "\\ud800"}]}'):  # fmt: skip
        await refused(client, content, {400})


async def huge(_: ServerProcess, client: httpx2.AsyncClient) -> None:
    """64 MB, announced and in parts of unknown number."""

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * 2**20

    await refused(client, b"x" * 2**26, {413})
    await refused(client, parts(), {413})
    await refused(
        client, json.dumps(talk(messages=[{"role": "user", "content": "a " * 300}])), {400}
    )


async def absurd(_: ServerProcess, client: httpx2.AsyncClient) -> None:
    """Strengths that are none."""
    for value in ("NaN", "Infinity", "1e999", "1e9", "-1", "[0.5]", '"1"', "true", "{}"):
        content = json.dumps(talk())[:-1] + f', "strength": {value}}}'
        await refused(client, content.encode(), {400}, "strength")


async def unknown(_: ServerProcess, client: httpx2.AsyncClient) -> None:
    """Fields that are not known, or not supported."""
    for name in ("strenght", "tools", "logprobs", "__proto__", "x" * 10_000):
        await refused(client, json.dumps(talk(**{name: [1]})), {400}, name[:40])


async def wrong_values(_: ServerProcess, client: httpx2.AsyncClient) -> None:
    """Values of the wrong type or range."""
    for name, value in (("n", 10**9), ("max_tokens", 10**12), ("temperature", -1), ("seed", "a"),
                        ("stop", ["x"] * 5), ("messages", [{"role": "root"}])):  # fmt: skip
        await refused(client, json.dumps(talk(**{name: value})), {400}, name)


async def stranger(_: ServerProcess, client: httpx2.AsyncClient) -> None:
    """Wrong tokens."""
    for given in ("", "Bearer", "Bearer wrong", "Basic wrong"):
        await refused(client, b"x" * 2**24, {401}, Authorization=given)


async def tiny_temperature(_: ServerProcess, client: httpx2.AsyncClient) -> None:
    """A temperature that nothing can be divided by, among other rows."""
    bodies = [talk(temperature=10.0**-n, max_tokens=4) for n in range(0, 320, 20)]
    await asyncio.gather(*(ask(client, body, stream=False) for body in bodies))


async def leave_stream(server: ServerProcess, client: httpx2.AsyncClient) -> None:
    """Many clients that hear one word of a stream and go."""

    async def one(seed: int) -> None:
        body = talk(stream=True, seed=seed, n=2)
        async with client.stream("POST", CHAT, json=body) as response:
            if response.status_code != 200:
                raise WrongReplyError(f"status {response.status_code}")
            async for _ in response.aiter_bytes():
                break

    await asyncio.gather(*(one(seed) for seed in range(LEAVERS)))
    await emptied(server)


async def leave_early(server: ServerProcess, client: httpx2.AsyncClient) -> None:
    """Many clients that do not wait for their answer."""

    async def one(seed: int) -> None:
        with suppress(httpx2.TimeoutException):
            await client.post(CHAT, json=talk(seed=seed), timeout=0.05)

    await asyncio.gather(*(one(seed) for seed in range(LEAVERS)))
    await emptied(server)


async def emptied(server: ServerProcess) -> None:
    """Nobody waits any more, and no row is left running."""
    for _ in range(200):
        counts = await asyncio.to_thread(server.counts)
        if counts["dso_queue_rows"] == counts["dso_running_rows"] == 0:
            return
        await asyncio.sleep(0.05)
    raise WrongReplyError("rows go on that nobody waits for")


async def half_a_request(server: ServerProcess, _: httpx2.AsyncClient) -> None:
    """Connections that break off in the head or in the body, or speak no HTTP."""
    head = f"POST {CHAT} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {server.token}\r\n"
    kind = "Content-Type: application/json\r\n"
    chunked = f"{head}{kind}Transfer-Encoding: chunked\r\n\r\n"
    for text in (
        "\x16\x03\x01 nothing of HTTP\r\n\r\n", head, f"{head}{kind}Content-Length: 9\r\n\r\n{{",
        f"{chunked}5\r\n{{", f"{chunked}zz\r\n", f"{head}{kind}Content-Length: -5\r\n\r\n",
        f"{head}X: {'y' * 2**20}\r\n\r\n",
    ):  # fmt: skip
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        with suppress(ConnectionError):  # the server need not listen to the end
            writer.write(text.encode("latin-1"))
            await writer.drain()
            await asyncio.sleep(0.05)
        writer.close()


async def too_many(_: ServerProcess, client: httpx2.AsyncClient) -> None:
    """More rows at once than may wait: some are answered, the others told to come back."""

    async def one(seed: int) -> int:
        response = await client.post(CHAT, json=talk(seed=seed, n=8, max_tokens=8))
        if response.status_code == 429 and "Retry-After" not in response.headers:
            raise WrongReplyError("a 429 does not say when to come back")
        return response.status_code

    statuses = set(await asyncio.gather(*(one(seed) for seed in range(128))))
    if statuses != {200, 429}:
        raise WrongReplyError(f"the statuses are {statuses}; wanted 200 and 429")


ABUSES: dict[str, Abuse] = {
    "malformed JSON": malformed,
    "huge bodies": huge,
    "absurd strengths": absurd,
    "unknown fields": unknown,
    "wrong values": wrong_values,
    "wrong tokens": stranger,
    "temperatures next to nothing": tiny_temperature,
    f"{LEAVERS} clients that leave in mid-stream": leave_stream,
    f"{LEAVERS} clients that leave before the answer": leave_early,
    "half requests": half_a_request,
    "more rows than may wait": too_many,
}
