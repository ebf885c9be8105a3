"""What a client may ask: OpenAI's chat completions, and `strength`.

Every field is checked; one that is not known, or known from OpenAI but not supported, is refused by
name rather than passed over. OpenAI's defaults are the defaults here, the temperature of 1 too; the
strength is the server's where none is given.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from dso.inference.serving.errors import ApiError
from dso.inference.serving.settings import CHOICES
from dso.tasks.choice import Message

STOPS = 4
STOP_CHARACTERS = 256
SHOWN = 80
"""Characters of a wrong value, or of a field's name, that an error repeats."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "metadata": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_cache_key": (),
    "prompt_cache_retention": (),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none",),
    "tools": ([],),
    "top_logprobs": (0,),
    "user": (),
    "verbosity": (),
    "web_search_options": (),
}
"""Fields of OpenAI's that are not supported, with the values that ask for nothing: those, and null,
are accepted."""


class _Strict(BaseModel):
    """No unknown fields, no conversions, finite numbers."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _joined(content: Any) -> Any:
    """Text parts as one text."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or len(part) != 2:
            raise PydanticCustomError(
                "unsupported_content",
                "only texts can be read: wanted a string, or a list of parts of the shape "
                '{"type": "text", "text": "..."}',
            )
        text = part.get("text")
        if not isinstance(text, str):
            raise PydanticCustomError("string_type", "the text of a part is no string")
        texts.append(text)
    return "".join(texts)


def _listed(stop: Any) -> Any:
    """One stop text, or none, as a list."""
    if stop is None:
        return []
    return [stop] if isinstance(stop, str) else stop


class ChatMessage(_Strict):
    """One message."""

    role: Literal["system", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_joined)]


class StreamOptions(_Strict):
    """What a stream holds beside the answer."""

    include_usage: bool = False


class ChatRequest(_Strict):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    model: str | None = None
    strength: Annotated[float, Field(ge=0)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=STOP_CHARACTERS)]],
        Field(max_length=STOPS),
        BeforeValidator(_listed),
    ] = []
    n: Annotated[int, Field(ge=1, le=CHOICES)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_neutral(cls, data: Any) -> Any:
        """Drop what asks for nothing, refuse what asks for what there is not."""
        if not isinstance(data, dict):
            return data
        for name in data.keys() & NEUTRAL.keys():
            value = data[name]
            if value is not None and not any(value == other for other in NEUTRAL[name]):
                raise PydanticCustomError(
                    "unsupported_field",
                    "{name} is a field of OpenAI's that this server does not support; leave it out",
                    {"name": name},
                )
        return {name: value for name, value in data.items() if name not in NEUTRAL}

    @property
    def asked_tokens(self) -> int | None:
        """Longest answer asked for, by either of the two names.

        Raises:
            ApiError: both are given and differ.
        """
        old, new = self.max_tokens, self.max_completion_tokens
        if old is not None and new is not None and old != new:
            raise ApiError(
                400,
                f"max_tokens is {old} and max_completion_tokens is {new}; give one of them",
                "invalid_value",
                "max_completion_tokens",
            )
        return new if old is None else old

    def conversation(self) -> list[Message]:
        """The messages.

        Raises:
            ApiError: one is empty, or the last one is not the user's.
        """
        messages = []
        for place, message in enumerate(self.messages):
            try:
                messages.append(Message(message.role, message.content))
            except ValueError as error:
                raise ApiError(400, str(error), "invalid_value", f"messages.{place}") from error
        if messages[-1].role != "user":
            raise ApiError(
                400,
                f"the last message is of the {messages[-1].role}; wanted the user's, which is "
                "answered",
                "invalid_value",
                f"messages.{len(messages) - 1}.role",
            )
        return messages


def parse(body: bytes) -> ChatRequest:
    """A request from its JSON.

    Raises:
        ApiError: no JSON, an unknown field, a value of the wrong type or range; it names the field.
    """
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise _told(error.errors(include_url=False)) from None


def _told(errors: list[ErrorDetails]) -> ApiError:
    """The first error in our words."""
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    if first["type"] == "json_invalid":
        return ApiError(400, f"the body is no JSON: {first['ctx']['error']}", "invalid_json")
    if first["type"] == "unsupported_field":
        return ApiError(400, first["msg"], "unsupported_field", first["ctx"]["name"])
    param = _cut(".".join(str(part) for part in first["loc"])) or None
    if first["type"] == "extra_forbidden":
        known = ", ".join(ChatRequest.model_fields)
        text = f"there is no field {param}; known are {known}"
        return ApiError(400, text + more, "unknown_field", param)
    if first["type"] == "missing":
        return ApiError(400, f"{param} is missing{more}", "missing_field", param)
    text = f"{param or 'the body'}: {first['msg']}; got {_cut(repr(first['input']))}{more}"
    return ApiError(400, text, "invalid_value", param)


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
