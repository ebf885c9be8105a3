import json

import pytest

from dso.inference.serving import ApiError, parse
from dso.inference.serving.schema import NEUTRAL
from tests.inference.serving.served import body


def refused(content):
    with pytest.raises(ApiError) as caught:
        parse(content if isinstance(content, bytes) else json.dumps(content).encode())
    assert caught.value.status == 400
    return caught.value


def test_every_field_is_read():
    asked = parse(
        json.dumps(
            body("Who?", model="m", strength=0.3, max_tokens=5, max_completion_tokens=5,
                 top_p=0.9, seed=7, stop=["a", "b"], n=2, stream=True,
                 stream_options={"include_usage": True})
        ).encode()
    )  # fmt: skip
    assert (asked.strength, asked.asked_tokens, asked.top_p, asked.seed) == (0.3, 5, 0.9, 7)
    assert (asked.stop, asked.n, asked.stream) == (["a", "b"], 2, True)
    assert asked.stream_options.include_usage
    assert asked.conversation()[0].content == "Who?"


def test_null_is_as_good_as_absent():
    names = ("model", "strength", "max_tokens", "temperature", "top_p", "seed", "stop", "n",
             "stream", "stream_options", *NEUTRAL)  # fmt: skip
    asked = parse(json.dumps(body() | dict.fromkeys(names)).encode())
    assert asked == parse(json.dumps({"messages": body()["messages"]}).encode())


def test_a_stop_text_may_stand_alone_and_text_may_come_in_parts():
    parts = [{"type": "text", "text": "Who "}, {"type": "text", "text": "is it?"}]
    asked = parse(json.dumps(body(parts, stop="\n")).encode())
    assert asked.stop == ["\n"]
    assert asked.conversation()[0].content == "Who is it?"


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -0.1, [1], {"a": 1}, "1", True], ids=repr
)
def test_a_strength_that_is_none_is_refused_by_name(value):
    assert refused(body(strength=value)).param == "strength"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", 2.1), ("temperature", "0"), ("top_p", 0), ("top_p", 1.1), ("n", 0),
        ("n", 9), ("n", 1.5), ("seed", -1), ("seed", 2**63), ("max_tokens", 0),
        ("max_completion_tokens", 1.0), ("stop", list("abcde")), ("stop", [""]), ("stop", 3),
        ("stop", ["x" * 257]), ("stream", "yes"), ("stream_options", {"more": 1}),
        ("messages", []), ("messages", "hello"), ("model", 5),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_by_name(field, value):
    error = refused(body(**{field: value}))
    assert error.param.split(".")[0] == field
    assert error.code in ("invalid_value", "unknown_field")


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([{"role": "tool", "content": "a"}], "messages.0.role"),
        ([{"role": "user"}], "messages.0.content"),
        ([{"role": "user", "content": 5}], "messages.0.content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages.0.content"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], "messages.0.content"),
        ([{"role": "user", "content": "a", "name": "b"}], "messages.0.name"),
    ],
)
def test_a_wrong_message_is_refused_by_its_place(messages, param):
    assert refused({"messages": messages}).param == param


def test_conversations_end_with_a_message_of_the_user_that_says_something():
    for messages, param in (
        ([("user", "a"), ("assistant", "b")], "messages.1.role"),
        ([("user", " ")], "messages.0"),
    ):
        content = {"messages": [{"role": r, "content": c} for r, c in messages]}
        asked = parse(json.dumps(content).encode())
        with pytest.raises(ApiError) as caught:
            asked.conversation()
        assert caught.value.param == param


def test_two_names_for_the_length_must_agree():
    asked = parse(json.dumps(body(max_tokens=3, max_completion_tokens=4)).encode())
    with pytest.raises(ApiError, match="3 and max_completion_tokens is 4"):
        _ = asked.asked_tokens


def test_unknown_fields_are_named_and_told_from_those_of_openai():
    error = refused(body(strenght=1))
    assert (error.param, error.code) == ("strenght", "unknown_field")
    for name in NEUTRAL:
        error = refused(body(**{name: "something"}))
        assert (error.param, error.code) == (name, "unsupported_field")


def test_fields_of_openai_that_ask_for_nothing_are_accepted():
    for name, values in NEUTRAL.items():
        for value in values:
            parse(json.dumps(body(**{name: value})).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[1", b"null", b"[]", b'"text"', b"\xff\xfe", b"[" * 100_000,
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"seed": ' + b"9" * 10_000 + b"}", b"{} {}",
    ],
)  # fmt: skip
def test_what_is_no_json_object_is_refused(content):
    assert refused(content).code in ("invalid_json", "invalid_value")


def test_errors_repeat_little_of_what_was_sent():
    for content in (body("a", strength="x" * 10_000), body("a", **{"x" * 10_000: 1})):
        assert len(str(refused(content))) < 500
