"""Errors as OpenAI writes them: {"error": {"message", "type", "param", "code"}} with a status."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from starlette.exceptions import HTTPException

TYPES = {401: "authentication_error", 429: "rate_limit_error"}
"""By status; else invalid_request_error below 500, and server_error from there on."""


class ApiError(Exception):
    """What a client is told.

    Args:
        status: HTTP status.
        message: what was given, what was wanted, what to do.
        code: in one word.
        param: the field it is about.
        headers: further ones of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """The JSON object."""
        fallback = "invalid_request_error" if self.status < 500 else "server_error"
        kind = TYPES.get(self.status, fallback)
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> Response:
        """The response."""
        return json_response(self.body(), self.status, self.headers)


def json_response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """JSON in ASCII, so that any text can be sent, also one that is no Unicode."""
    body = json.dumps(content, allow_nan=False).encode("ascii")
    return Response(body, status, headers, media_type="application/json")


async def show_api_error(_: Request, error: Exception) -> Response:
    """Handler of `ApiError`."""
    assert isinstance(error, ApiError)
    return error.response()


async def show_http_error(request: Request, error: Exception) -> Response:
    """Handler of a path that does not exist, or has no such method."""
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    headers = dict(error.headers) if error.headers else None
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "_")
    return ApiError(error.status_code, message[:200], code, headers=headers).response()


async def show_any_error(_: Request, error: Exception) -> Response:
    """Handler of everything else; the server's log has the traceback."""
    return ApiError(500, "the server failed; its log says why", "internal_error").response()
