"""The server as an ASGI application: its paths, its errors, what is counted of every request.

POST /v1/chat/completions, GET /v1/models, GET /metrics (with the token, where there is one), and
GET /health.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dso.inference.pipeline import SteeredPipeline
from dso.inference.serving.errors import (
    ApiError,
    show_any_error,
    show_api_error,
    show_http_error,
)
from dso.inference.serving.metrics import Metrics
from dso.inference.serving.service import Service
from dso.inference.serving.settings import Serving

CHAT = "/v1/chat/completions"


def create_app(pipeline: SteeredPipeline, settings: Serving) -> FastAPI:
    """The application, for any ASGI server; its worker starts and stops with it.

    Args: as `Service`. Raises: as `Service`.
    """
    service = Service(pipeline, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(
        title="dso",
        lifespan=lifespan,
        openapi_url=None,  # bodies are read and checked here, so FastAPI knows no schema of them
        exception_handlers={
            ApiError: show_api_error,
            HTTPException: show_http_error,
            Exception: show_any_error,
        },
    )
    allowed = [Depends(service.check_token)]
    app.add_api_route(CHAT, service.chat, methods=["POST"], dependencies=allowed)
    app.add_api_route("/v1/models", service.models, methods=["GET"], dependencies=allowed)
    app.add_api_route("/metrics", service.counts, methods=["GET"], dependencies=allowed)
    app.add_api_route("/health", service.health, methods=["GET"])
    app.add_middleware(Measured, metrics=service.metrics)
    return app


class Measured:
    """Counts chat requests by status, and how long they take to the end of their response."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or scope["path"] != CHAT:
            await self.app(scope, receive, send)
            return
        start, status = time.monotonic(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noting)
        finally:
            self.metrics.requests.add(value=str(status))
            self.metrics.seconds.see(time.monotonic() - start)
