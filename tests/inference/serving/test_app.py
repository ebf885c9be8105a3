"""The server in this process, on the organism."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from dso.inference import Decoding
from dso.inference.serving import Serving, create_app, service
from tests.inference.serving import served
from tests.inference.serving.served import (
    CHAT,
    Gate,
    ask,
    body,
    call,
    client,
    events,
    said,
    soon,
    until,
)
from tests.inference.serving.test_metrics import read

STRENGTHS = (0.0, 0.3, 0.5, 1.0, 2.0)


def error_of(response, status):
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


@pytest.fixture(scope="module")
def server():
    with client() as running:
        yield running


def questions():
    for jobs in (("guard", "nurse"), ("mechanic", "secretary")):
        for pronoun in ("he", "she"):
            yield f"The {jobs[0]} thanked the {jobs[1]} because {pronoun} was late. Who is it?"


def test_the_answer_has_openais_shape(server):
    answer = ask(server, strength=0.5)
    [offline] = served.steered().answers([served.QUESTION], [0.5])
    prompt = served.steered().encode(served.QUESTION)
    assert answer.pop("id").startswith("chatcmpl-")
    assert answer.pop("created") > 0
    assert answer == {
        "object": "chat.completion",
        "model": "organism",
        "strength": 0.5,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": offline.text},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": len(prompt),
            "completion_tokens": len(offline.tokens),
            "total_tokens": len(prompt) + len(offline.tokens),
        },
    }


def test_mixed_strengths_in_one_batch_equal_the_answers_alone():
    asked = [(question, strength) for question in questions() for strength in STRENGTHS]
    alone = [served.steered().answer(question, strength) for question, strength in asked]
    assert len({*alone}) > 1
    with client(batch_wait=20_000, max_batch=len(asked)) as server:
        with ThreadPoolExecutor(len(asked)) as pool:
            got = list(pool.map(lambda one: ask(server, one[0], strength=one[1]), asked))
        counts = read(server.get("/metrics").text)
    assert [said(answer) for answer in got] == alone
    assert counts["dso_batch_rows_count", None] == 1
    assert counts["dso_answer_tokens_total", None] == sum(
        answer["usage"]["completion_tokens"] for answer in got
    )


def test_a_stream_joins_to_the_whole_answer(server):
    fields = {"temperature": 1, "seed": 3, "max_tokens": 30, "strength": 2, "n": 3}
    whole = ask(server, "The nurse", **fields)
    response = server.post(
        CHAT,
        json=body("The nurse", stream=True, stream_options={"include_usage": True}, **fields),
    )
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, last = events(response.text)
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert len({c["id"] for c in (*chunks, last)}) == 1
    assert [c["choices"][0]["delta"].get("role") for c in chunks[:3]] == ["assistant"] * 3
    for choice in whole["choices"]:
        own = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == choice["index"]]
        text = "".join(c["delta"].get("content", "") for c in own)
        assert text == choice["message"]["content"]
        assert [c["finish_reason"] for c in own[:-1]] == [None] * (len(own) - 1)
        assert own[-1]["finish_reason"] == choice["finish_reason"]
    assert len(chunks) > 9  # several pieces
    assert (last["choices"], last["usage"]) == ([], whole["usage"])
    assert all(chunk["usage"] is None for chunk in chunks)


def test_without_asking_a_stream_says_nothing_of_its_usage(server):
    chunks = events(server.post(CHAT, json=body(stream=True)).text)
    assert all("usage" not in chunk for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_seed_repeats_an_answer_and_its_choices_differ(server):
    fields = {"temperature": 1, "max_tokens": 12, "n": 8, "seed": 5}
    first, again = (ask(server, "The nurse", **fields)["choices"] for _ in range(2))
    assert first == again
    texts = [choice["message"]["content"] for choice in first]
    assert len(set(texts)) > 1
    decoding = Decoding(max_new_tokens=12, temperature=1.0, seed=5 + 2)
    assert texts[2] == served.steered().answers(["The nurse"], [1.0], decoding)[0].text
    unseeded = {said(ask(server, "The nurse", temperature=1, max_tokens=12)) for _ in range(3)}
    assert len(unseeded) > 1


def test_length_and_stop_texts_end_an_answer(server):
    fields = {"temperature": 1, "seed": 3, "strength": 2}
    free = ask(server, "The nurse", max_completion_tokens=12, **fields)
    assert free["choices"][0]["finish_reason"] == "length"
    assert free["usage"]["completion_tokens"] == 12
    stop = said(free)[4:7]
    ended = ask(server, "The nurse", max_tokens=12, stop=stop, **fields)
    assert said(ended) == said(free)[: said(free).find(stop)]
    assert ended["choices"][0]["finish_reason"] == "stop"


def test_the_servers_strength_holds_where_a_request_names_none():
    question, alone = next(
        (question, answers)
        for question in questions()
        if len({*(answers := [served.steered().answer(question, w) for w in (0.0, 1.0)])}) == 2
    )
    pipeline = served.steered()
    with client() as server:
        ask(server, strength=2)
        assert [said(ask(server, question)), said(ask(server, question, strength=0))] == alone[::-1]
    pipeline.set_strength(0.0)
    try:
        with client() as server:
            answer = ask(server, question)
    finally:
        pipeline.set_strength(1.0)
    assert (said(answer), answer["strength"]) == (alone[0], 0.0)


def test_a_model_without_an_adapter_answers_at_strength_zero_alone():
    with client(served.base()) as server:
        assert (
            said(ask(server))
            == said(ask(server, strength=0))
            == served.base().answer(served.QUESTION)
        )
        error = error_of(server.post(CHAT, json=body(strength=0.5)), 400)
        assert error["param"] == "strength"
        assert "no adapter" in error["message"]


def test_the_models_and_their_names(server):
    [model] = server.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["max_strength"]) == ("organism", "model", 2.0)
    assert said(ask(server, model="organism")) == said(ask(server))
    error = error_of(server.post(CHAT, json=body(model="gpt-5")), 404)
    assert (error["code"], error["param"]) == ("model_not_found", "model")


def test_a_conversation_goes_through_the_chat_template(server):
    turns = [("system", "Be brief."), ("user", "Who?"), ("assistant", "She."), ("user", "Why?")]
    messages = [{"role": role, "content": content} for role, content in turns]
    answer = ask(server, messages=messages, max_tokens=1)
    text = served.steered().tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    ids = served.steered().tokenizer(text, add_special_tokens=False)["input_ids"]
    assert answer["usage"]["prompt_tokens"] == len(ids)


# -- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"strength": 1e9}, "strength"),
        ({"strength": 2.01}, "strength"),
        ({"strength": [0.5]}, "strength"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"strenght": 1}, "strenght"),
        ({"messages": [{"role": "user", "content": "a"}] * 9}, "messages"),
    ],
)
def test_what_is_not_allowed_is_a_400_that_names_the_field(fields, param):
    with client(max_messages=8) as server:
        assert error_of(server.post(CHAT, json=body(**fields)), 400)["param"] == param
        ask(server)


@pytest.mark.parametrize("content", [b'{"messages"', b"", b'{"strength": NaN}', b"\xff", b"[]"])
def test_malformed_bodies_are_a_400(server, content):
    response = server.post(CHAT, content=content, headers={"Content-Type": "application/json"})
    assert error_of(response, 400)["type"] == "invalid_request_error"


def test_a_prompt_longer_than_the_model_is_a_400_with_both_numbers(server):
    error = error_of(server.post(CHAT, json=body("late " * 300)), 400)
    assert error["code"] == "context_length_exceeded"
    assert "256 positions" in error["message"]


def test_a_prompt_that_just_fits_leaves_one_token(server):
    words = next(n for n in range(200, 260) if len(served.steered().encode("late " * n)) == 255)
    answer = ask(server, "late " * words)
    assert answer["usage"]["prompt_tokens"] == 255
    assert answer["usage"]["completion_tokens"] <= 1


def test_characters_are_limited_before_anything_is_tokenised():
    with client(max_characters=100) as server:
        assert "101 characters" in error_of(server.post(CHAT, json=body("x" * 101)), 400)["message"]


def test_a_body_that_is_too_long_is_a_413_also_where_its_length_is_not_said():
    with client(max_body=1000) as server:
        assert error_of(server.post(CHAT, json=body("x" * 1000)), 413)["code"]

        def parts():
            for _ in range(100):
                yield b"x" * 100

        response = server.post(CHAT, content=parts(), headers={"Content-Type": "application/json"})
        error_of(response, 413)
        ask(server)


def test_other_content_types_paths_and_methods_are_refused(server):
    text = json.dumps(body())
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        error_of(server.post(CHAT, content=text, headers={"Content-Type": kind}), 415)
    error_of(server.post(CHAT, content=text), 415)
    assert error_of(server.get("/v1/nothing"), 404)["code"] == "not_found"
    assert error_of(server.get(CHAT), 405)["code"] == "method_not_allowed"


def test_a_token_is_asked_for_everywhere_but_at_the_health():
    with client(token="s3cret") as server:
        assert server.get("/health").status_code == 200
        for wrong in (None, "Bearer s3cre", "Bearer s3cret2", "Basic s3cret", "Bearer é".encode()):
            headers = {} if wrong is None else {"Authorization": wrong}
            # No JSON, but that is not looked at.
            response = server.post(CHAT, content=b"{", headers=headers)
            assert error_of(response, 401)["type"] == "authentication_error"
            assert response.headers["WWW-Authenticate"] == "Bearer"
            error_of(server.get("/metrics", headers=headers), 401)
            error_of(server.get("/v1/models", headers=headers), 401)
        server.headers["Authorization"] = "Bearer s3cret"
        ask(server)
        assert server.get("/metrics").status_code == 200


def test_a_token_is_not_shown():
    assert "s3cret" not in repr(Serving(name="m", token="s3cret"))
    for token in ("", "two words", "ümlaut", "line\n"):
        with pytest.raises(ValueError, match="token"):
            Serving(name="m", token=token)


def test_a_strength_above_the_largest_is_refused_at_the_start():
    with pytest.raises(ValueError, match=r"at most 0\.5"):
        create_app(served.steered(), Serving(name="m", max_strength=0.5))


@pytest.mark.parametrize(
    "setting",
    [{"max_batch": 0}, {"queue": 7}, {"timeout": 0}, {"batch_wait": -1}, {"max_body": 0},
     {"max_strength": float("inf")}, {"timeout": float("nan")}, {"name": " "}],
    ids=str,
)  # fmt: skip
def test_settings_are_checked(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        Serving(**({"name": "m"} | setting))


# -- what goes wrong, and what comes after it -----------------------------------------------


def test_a_queue_that_is_full_is_a_429(monkeypatch):
    gate = Gate(monkeypatch)
    with client(queue=8, max_batch=1, batch_wait=0) as server, ThreadPoolExecutor(9) as pool:
        first = pool.submit(ask, server, max_tokens=1)
        until(lambda: gate.batches)
        waiting = [pool.submit(ask, server, max_tokens=1) for _ in range(8)]
        until(lambda: read(server.get("/metrics").text)["dso_queue_rows", None] == 8)
        response = server.post(CHAT, json=body())
        assert error_of(response, 429)["code"] == "queue_full"
        assert int(response.headers["Retry-After"]) >= 1
        gate.let(9)
        assert {said(done.result()) for done in (first, *waiting)} == {"x"}


def test_a_request_that_takes_too_long_is_a_504_and_its_row_is_freed(monkeypatch):
    gate = Gate(monkeypatch)
    with client(timeout=0.5, batch_wait=0) as server:
        assert error_of(server.post(CHAT, json=body()), 504)["code"] == "timeout"
        response = server.post(CHAT, json=body(stream=True))
        assert error_of(response, 504)["code"] == "timeout"
        until(lambda: len(gate.cancelled) == 2)
        gate.let(1)
        ask(server, max_tokens=1)


def test_a_stream_that_takes_too_long_ends_with_the_error(monkeypatch):
    gate = Gate(monkeypatch)
    with client(timeout=1.0, batch_wait=0) as server:
        gate.let(2)
        chunks = events(server.post(CHAT, json=body(stream=True, max_tokens=5)).text)
        assert [c["choices"][0]["delta"].get("content") for c in chunks[1:-1]] == ["x", "x"]
        assert chunks[-1]["error"]["code"] == "timeout"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_row(monkeypatch, stream):
    gate = Gate(monkeypatch)
    app = create_app(served.steered(), Serving(name="organism", batch_wait=0, max_batch=1))

    async def scenario():
        async with app.router.lifespan_context(app):
            leave = asyncio.Event()
            left = asyncio.create_task(call(app, body(stream=stream, max_tokens=1000), leave))
            gate.let(2)
            await soon(lambda: gate.heard == 2)
            leave.set()
            await soon(lambda: gate.cancelled)
            gate.let(1)
            return await left, await call(app, body(max_tokens=1))

    left, after = asyncio.run(scenario())
    assert left[0]["status"] == (200 if stream else 499)
    assert after[0]["status"] == 200
    assert gate.cancelled == [(0, 0)]
    assert len(gate.batches) == 2


def test_a_client_that_leaves_while_it_waits_is_never_decoded(monkeypatch):
    gate = Gate(monkeypatch)
    app = create_app(served.steered(), Serving(name="organism", batch_wait=0, max_batch=1))

    async def scenario():
        async with app.router.lifespan_context(app):
            running = asyncio.create_task(call(app, body(max_tokens=1)))
            await soon(lambda: gate.batches)
            leave = asyncio.Event()
            leave.set()
            left = await call(app, body(), leave)
            gate.let(1)
            return left, await running

    left, done = asyncio.run(scenario())
    assert (left[0]["status"], done[0]["status"]) == (499, 200)
    assert len(gate.batches) == 1


def test_a_worker_that_fails_answers_500_and_lives_on(monkeypatch, caplog):
    true = service.decoding.decode
    failing = [True]

    def sometimes(*given, **named):
        if failing.pop() if failing else False:
            raise RuntimeError("no memory left")
        return true(*given, **named)

    monkeypatch.setattr(service.decoding, "decode", sometimes)
    with client() as server:
        error = error_of(server.post(CHAT, json=body()), 500)
        assert error["type"] == "server_error"
        assert "memory" not in error["message"]
        assert "no memory left" in caplog.text
        assert served.QUESTION not in caplog.text
        ask(server)
        assert server.get("/health").json() == {"status": "ready"}
        counts = read(server.get("/metrics").text)
        assert counts["dso_answers_total", "error"] == 1
        assert (counts["dso_requests_total", "500"], counts["dso_requests_total", "200"]) == (1, 1)


def test_a_failure_of_the_server_itself_is_a_500_in_the_same_shape(server, monkeypatch):
    def broken(*_):
        raise KeyError("unforeseen")

    monkeypatch.setattr(service, "parse", broken)
    assert error_of(server.post(CHAT, json=body()), 500)["code"] == "internal_error"


def test_a_server_that_does_not_run_is_not_healthy():
    server = client()  # not entered: its worker has not started
    assert server.get("/health").status_code == 503
    response = server.post(CHAT, json=body())
    assert error_of(response, 503)["code"] == "stopping"
    assert "Retry-After" in response.headers
