"""Rows of a batch end one by one, and pieces of text join to the answer."""

from functools import cache

import pytest

from dso.inference import Decoding, Request, decode, load
from tests.organism import adapter, organism


@cache
def pipeline():
    return load(organism(), adapter())


def request(text, strength=1.0, **decoding):
    return Request(pipeline().encode(text, raw=True), strength, Decoding(**decoding))


def test_every_row_is_told_its_answer_once_and_before_longer_ones_end():
    told, heard = [], []
    lengths = (12, 3, 6)
    requests = [request("The nurse", max_new_tokens=n, temperature=1.0, seed=n) for n in lengths]
    answers = decode(
        pipeline().policy,
        requests,
        heard=lambda row, text: heard.append((row, text)),
        finished=lambda row, answer: told.append((row, answer, len(heard))),
    )
    assert sorted(row for row, _, _ in told) == [0, 1, 2]
    assert [answer for _, answer, _ in sorted(told, key=lambda t: t[0])] == answers
    short = next(heard_by_then for row, _, heard_by_then in told if row == 1)
    assert any(row != 1 for row, _ in heard[short:])
    for row, answer in enumerate(answers):
        assert "".join(text for place, text in heard if place == row) == answer.text


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_stop_text_across_tokens_ends_the_answer_and_is_not_heard(temperature):
    plain = {"max_new_tokens": 24, "temperature": temperature, "seed": 7}
    [free] = decode(pipeline().policy, [request("The guard thanked", **plain)])
    for start in range(1, len(free.text) - 4, 9):
        stop = free.text[start : start + 4]
        heard = []
        [answer] = decode(
            pipeline().policy,
            [request("The guard thanked", **plain, stop=("@@", stop))],
            heard=lambda _, text, heard=heard: heard.append(text),
        )
        assert answer.text == free.text[: free.text.find(stop)] == "".join(heard)
        assert answer.finish == "stop"


def test_a_cancelled_row_is_told_so_and_the_others_go_on():
    told = {}
    requests = [request("The nurse", max_new_tokens=8, temperature=1.0, seed=s) for s in (1, 2)]
    alone = decode(pipeline().policy, requests[1:])
    answers = decode(
        pipeline().policy,
        requests,
        finished=told.setdefault,
        cancelled=lambda row: row == 0,
    )
    assert told[0].finish == "cancelled"
    assert answers[1] == told[1] == alone[0]


@pytest.mark.parametrize("temperature", [1e-300, 1e-30, 1e-7])
def test_a_temperature_next_to_nothing_is_greedy(temperature):
    small = (0.0, temperature)
    asked = [request("The guard thanked", max_new_tokens=6, temperature=t) for t in small]
    greedy, drawn = decode(pipeline().policy, asked)
    assert drawn == greedy
