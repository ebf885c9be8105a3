"""A left-padded batch with a strength per row says what each of its rows says alone."""

from functools import lru_cache

import pytest
import torch

from dso.inference import Decoding, Request, decode
from dso.policy import Policy
from tests.steering.conformance import NEW, generate, logits, shared
from tests.tiny_models import tokens
from tests.tiny_tokenizers import tiny_tokenizer

SEVEN = ("llama", "qwen2", "qwen3", "gemma2", "gpt2", "opt", "mistral")
STRENGTHS = [0.0, 0.3, 1.0, 1.0, 0.7, 0.0]
LENGTHS = [3, 7, 5, 9, 4, 8]
PROMPTS = [tokens(1, length, seed=length)[0] for length in LENGTHS]
END = 2
CLOSE = 1e-4
"""Two likeliest tokens that are nearer than this may change places through rounding."""


@pytest.fixture(scope="module", params=SEVEN)
def family(request):
    return request.param


def padded():
    return torch.nn.utils.rnn.pad_sequence(PROMPTS, batch_first=True, padding_side="left")


def alone(call, model):
    """What each prompt gets without company."""
    pairs = zip(PROMPTS, STRENGTHS, strict=True)
    return [call(model, prompt[None], strength=strength)[0] for prompt, strength in pairs]


def answers(model, ids, **settings):
    """The greedy tokens of each row, its end token with them, where it has one."""
    said = generate(model, ids, min_new_tokens=0, **settings).tolist()
    return [row[: row.index(END) + 1] if END in row else row for row in said]


@lru_cache(maxsize=1)
def expected(family):
    """The answer of each row alone, and the rows of which it is beyond doubt."""
    model = shared(family)
    said = alone(answers, model)
    sure = []
    for row, (prompt, answer) in enumerate(zip(PROMPTS, said, strict=True)):
        whole = torch.cat([prompt, torch.tensor(answer[:-1], dtype=torch.long)])[None]
        steps = logits(model, whole, strength=STRENGTHS[row])[0, -len(answer) :]
        likeliest = steps.topk(2).values
        if (likeliest[:, 0] - likeliest[:, 1]).min() >= CLOSE:
            sure.append(row)
    assert len(sure) >= len(PROMPTS) - 1, "too many rows are exempt for the rest to say much"
    return said, sure


def test_generate_gives_every_row_what_it_gets_alone(family):
    said, sure = expected(family)
    mixed = answers(shared(family), padded(), strength=STRENGTHS)
    assert [row for row in sure if mixed[row] != said[row]] == []
    # The strengths matter: turned round, some row says something else.
    other = answers(shared(family), padded(), strength=STRENGTHS[::-1])
    assert any(other[row] != said[row] for row in sure)


def test_decode_gives_every_row_what_it_gets_alone(family):
    said, sure = expected(family)
    asked = [
        Request(tuple(prompt.tolist()), strength, Decoding(max_new_tokens=NEW))
        for prompt, strength in zip(PROMPTS, STRENGTHS, strict=True)
    ]
    mixed = decode(Policy(shared(family), tiny_tokenizer()), asked)
    for row in sure:
        ended = said[row][-1] == END
        assert mixed[row].tokens == tuple(said[row][:-1] if ended else said[row])
        assert mixed[row].finish == ("stop" if ended else "length")


def test_next_token_logits_are_those_of_the_row_alone(family):
    ids = padded()
    positions = ((ids != 0).long().cumsum(1) - 1).clamp(min=0)
    mixed = logits(shared(family), ids, position_ids=positions, strength=STRENGTHS)[:, -1]
    single = torch.stack([row[-1] for row in alone(logits, shared(family))])
    assert (mixed - single).abs().max() <= 1e-5
