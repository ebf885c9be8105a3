"""An answer as server-sent events: role, pieces of text, how it ended, `data: [DONE]`."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from dso.inference.decoding import Answer
from dso.inference.serving.errors import ApiError
from dso.inference.serving.replies import DONE, Reply, server_sent
from dso.inference.serving.ticket import Ticket


class Stream(StreamingResponse):
    """The response; however it ends, no row goes on behind it.

    Args:
        ticket: the rows.
        first: their first event.
        reply: what all chunks have in common.
        usage: whether a last chunk says how many tokens there were.
    """

    def __init__(
        self, ticket: Ticket, first: tuple[int, str | Answer], reply: Reply, *, usage: bool
    ) -> None:
        super().__init__(
            chunks(ticket, first, reply, usage=usage),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )
        self.ticket = ticket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.ticket.cancel()


async def chunks(
    ticket: Ticket, event: tuple[int, str | Answer], reply: Reply, *, usage: bool
) -> AsyncIterator[bytes]:
    """The events of all rows as they come; an error, where one comes, is the last before [DONE]."""
    rows, tokens = len(ticket), 0
    for index in range(rows):
        yield reply.piece(index, {"role": "assistant", "content": ""}, usage=usage)
    try:
        while True:
            index, said = event
            if isinstance(said, str):
                yield reply.piece(index, {"content": said}, usage=usage)
            else:
                yield reply.piece(index, {}, said.finish, usage=usage)
                tokens += len(said.tokens)
                rows -= 1
                if not rows:
                    break
            event = await ticket.next()
        if usage:
            yield reply.used(tokens)
    except ApiError as error:
        yield server_sent(error.body())
    yield DONE
