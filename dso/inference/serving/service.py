"""What each path of the server does, and what a request is checked for.

The event loop reads requests and writes responses, one thread tokenises, and one runs the model
(`dso.inference.serving.batching`). Nothing of a prompt or an answer is logged.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from dso.inference import decoding
from dso.inference.decoding import Decoding
from dso.inference.pipeline import SteeredPipeline
from dso.inference.serving.batching import Batcher
from dso.inference.serving.errors import ApiError, json_response
from dso.inference.serving.metrics import CONTENT_TYPE, Metrics
from dso.inference.serving.replies import Reply
from dso.inference.serving.schema import ChatRequest, parse
from dso.inference.serving.settings import Serving
from dso.inference.serving.streams import Stream
from dso.inference.serving.ticket import Ticket, gone


class Service:
    """What the paths share, and one method for each.

    Args:
        pipeline: the model, at the strength of the requests that name none.
        settings: what is allowed.

    Raises:
        ValueError: the model's strength is above the largest that can be asked for.
    """

    def __init__(self, pipeline: SteeredPipeline, settings: Serving) -> None:
        # Read now: while a batch runs, the knob stands where the batch has it.
        self.strength = pipeline.strength
        if self.strength > settings.max_strength:
            raise ValueError(
                f"the model's strength is {self.strength:g}, and requests can ask for at most "
                f"{settings.max_strength:g}; lower the one or raise the other"
            )
        self.pipeline = pipeline
        self.settings = settings
        self.metrics = Metrics()
        self.batcher = Batcher(partial(decoding.decode, pipeline.policy), settings, self.metrics)
        self.encoder = ThreadPoolExecutor(1, thread_name_prefix="dso-encode")
        self.positions = pipeline.policy.positions
        self.created = int(time.time())

    async def start(self) -> None:
        """Start answering."""
        self.batcher.start()

    async def stop(self) -> None:
        """Let the running rows end, and stop."""
        await asyncio.to_thread(self.batcher.close)
        self.encoder.shutdown(wait=False)

    # -- paths ------------------------------------------------------------------------------

    async def health(self) -> Response:
        """200 while rows are taken and answered, else 503."""
        alive = self.batcher.alive
        return json_response({"status": "ready" if alive else "stopped"}, 200 if alive else 503)

    async def counts(self) -> Response:
        """Counts for Prometheus."""
        text = self.metrics.text(self.batcher.waiting, self.batcher.running)
        return Response(text, headers={"Content-Type": CONTENT_TYPE})

    async def models(self) -> Response:
        """The one model there is."""
        model = {
            "id": self.settings.name, "object": "model", "created": self.created,
            "owned_by": "dso", "steered": self.pipeline.policy.steered,
            "strength": self.strength, "max_strength": self.max_strength,
        }  # fmt: skip
        return json_response({"object": "list", "data": [model]})

    async def chat(self, request: Request) -> Response:
        """Answer a conversation."""
        deadline = time.monotonic() + self.settings.timeout
        asked = parse(await self._body(request))
        rows = await self._rows(asked)
        reply = Reply(self.settings.name, rows[0].strength, len(rows[0].prompt))
        ticket = Ticket(self.batcher, rows, deadline, pieces=bool(asked.stream))
        ticket.submit()
        watching = asyncio.create_task(ticket.watch(request))
        try:
            if not asked.stream:
                return json_response(reply.whole(await ticket.answers()))
            # What goes wrong before the first word has a status of its own.
            first = await ticket.next()
        except BaseException:
            ticket.cancel()
            raise
        finally:
            watching.cancel()
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        return Stream(ticket, first, reply, usage=usage)

    # -- what a request is checked for ------------------------------------------------------

    @property
    def max_strength(self) -> float:
        """Largest ω there is: 0 for a model without an adapter."""
        return self.settings.max_strength if self.pipeline.policy.steered else 0.0

    async def check_token(self, request: Request) -> None:
        """Refuse who has no token, before anything of the body is read.

        Raises:
            ApiError: 401.
        """
        if self.settings.token is None:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), self.settings.token.encode())
        if scheme.lower() != "bearer" or not right:
            raise ApiError(
                401,
                "the token is missing or wrong; send it as `Authorization: Bearer ...`",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def _body(self, request: Request) -> bytes:
        """The body, counted as it comes: its announced length may be wrong or missing.

        Raises:
            ApiError: 415 for another type than JSON, 413 for too many bytes, 408 for too slow ones.
        """
        # Pages of other origins can post anything to a local server, but JSON only if it agrees.
        kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(
                415, "the body's Content-Type has to be application/json", "unsupported_type"
            )
        body = bytearray()
        try:
            async with asyncio.timeout(self.settings.timeout):
                async for part in request.stream():
                    body += part
                    if len(body) > self.settings.max_body:
                        raise ApiError(
                            413,
                            f"the body has more than {self.settings.max_body:,} bytes; send less",
                            "request_too_large",
                        )
        except TimeoutError:
            raise ApiError(408, "the body came too slowly", "timeout") from None
        except ClientDisconnect:
            raise gone() from None
        return bytes(body)

    async def _rows(self, asked: ChatRequest) -> list[decoding.Request]:
        """A request's rows, ready for the model.

        Raises:
            ApiError: what is asked for is not there or not allowed.
        """
        allowed = self.settings
        if asked.model not in (None, allowed.name):
            raise ApiError(
                404,
                f"there is no model {asked.model[:80]!r}; this server has {allowed.name!r}",
                "model_not_found",
                "model",
            )
        if len(asked.messages) > allowed.max_messages:
            raise _invalid(
                "messages", f"{len(asked.messages)} messages; wanted at most {allowed.max_messages}"
            )
        characters = sum(len(message.content) for message in asked.messages)
        if characters > allowed.max_characters:
            raise _invalid(
                "messages",
                f"the messages have {characters:,} characters; wanted at most "
                f"{allowed.max_characters:,}",
            )
        strength = self.strength if asked.strength is None else asked.strength
        if strength > self.max_strength:
            why = "" if self.pipeline.policy.steered else " (this model has no adapter)"
            raise _invalid(
                "strength", f"strength is {strength:g}; wanted 0 to {self.max_strength:g}{why}"
            )
        tokens = allowed.max_tokens if asked.asked_tokens is None else asked.asked_tokens
        if tokens > allowed.max_tokens:
            raise _invalid("max_tokens", f"{tokens} tokens; wanted at most {allowed.max_tokens}")
        conversation = asked.conversation()
        try:
            prompt = await asyncio.get_running_loop().run_in_executor(
                self.encoder, self.pipeline.encode, conversation
            )
        except ValueError as error:
            raise _invalid("messages", str(error)) from error
        if not prompt or (self.positions is not None and len(prompt) >= self.positions):
            raise ApiError(
                400,
                f"the prompt has {len(prompt)} tokens, and the model has {self.positions} "
                "positions for it and its answer; shorten it",
                "context_length_exceeded",
                "messages",
            )
        seed = secrets.randbits(62) if asked.seed is None else asked.seed
        shared: dict[str, Any] = {
            "max_new_tokens": tokens,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "top_p": 1.0 if asked.top_p is None else asked.top_p,
            "stop": tuple(asked.stop),
        }
        return [
            decoding.Request(prompt, strength, Decoding(seed=seed + row, **shared))
            for row in range(asked.n or 1)
        ]


def _invalid(param: str, message: str) -> ApiError:
    return ApiError(400, message, "invalid_value", param)
