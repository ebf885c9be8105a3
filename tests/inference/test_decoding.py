"""What is decoded: transformers' greedy answer, or draws that depend on a row's own seed alone."""

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dso.inference import Answer, Decoding, Request, decode
from dso.policy import Policy
from tests.steering.steered import steer
from tests.tiny_models import VOCAB, tiny_gpt2, tiny_llama, tiny_opt, tokens
from tests.tiny_tokenizers import tiny_tokenizer

PROMPT = tuple(tokens(1, 7)[0].tolist())
OTHERS = [tuple(tokens(1, length, seed=length)[0].tolist()) for length in (3, 11)]


@pytest.fixture(scope="module")
def policy():
    return Policy(steer(tiny_llama()), tiny_tokenizer())


class Says(Policy):
    """A policy whose model is bent to say given tokens, one after another, whatever it is asked."""

    def __init__(self, tokenizer, said):
        super().__init__(tiny_llama(), tokenizer)
        self.said = said

        def bend(module, args, kwargs, output):
            place = kwargs["past_key_values"].get_seq_length() - len(PROMPT)
            output.logits[:, -1] = -1.0
            output.logits[:, -1, said[min(place, len(said) - 1)]] = 1.0

        self.model.register_forward_hook(bend, with_kwargs=True)


def say(policy, heard=None, **decoding):
    """One answer, as long as what is to be said unless told otherwise."""
    settings = Decoding(**({"max_new_tokens": len(policy.said)} | decoding))
    [answer] = decode(policy, [Request(PROMPT, 0.0, settings)], heard=heard)
    return answer


def spelling():
    """A tokenizer of letters, most of whose tokens are single bytes of longer characters."""
    letters = [f"<{n}>" for n in range(3)]
    letters += [chr(byte) for byte in range(97, 123)]
    letters += [
        pre_tokenizers.ByteLevel(False, use_regex=False).pre_tokenize_str(c)[0][0][n]
        for c in ("é", "€", "🙂")
        for n in range(len(c.encode()))
    ]
    vocabulary = {letter: n for n, letter in enumerate(dict.fromkeys(letters))}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<0>", eos_token="<2>")


@pytest.mark.parametrize("prompt", [PROMPT, *OTHERS])
@pytest.mark.parametrize("strength", [0.0, 0.6])
def test_greedy_is_what_transformers_generates(policy, prompt, strength):
    ids = torch.tensor([prompt])
    settings = {"do_sample": False, "max_new_tokens": 12, "attention_mask": torch.ones_like(ids)}
    out = policy.model.generate(input_ids=ids, strength=strength, **settings)
    said = out[0, len(prompt) :].tolist()
    ended = said[-1] in policy.end_ids
    [answer] = decode(policy, [Request(prompt, strength, Decoding(max_new_tokens=12))])
    assert list(answer.tokens) == (said[:-1] if ended else said)
    assert answer.finish == ("stop" if ended else "length")
    assert answer.text == policy.tokenizer.decode(said, skip_special_tokens=True)


def test_a_draw_depends_on_its_own_seed_and_on_nothing_beside_it(policy):
    drawing = {"max_new_tokens": 12, "temperature": 1.3, "top_p": 0.95}
    asked = Request(PROMPT, 0.4, Decoding(**drawing, seed=5))
    [alone] = decode(policy, [asked])
    state = torch.get_rng_state()
    company = [
        Request(OTHERS[0], 1.0, Decoding(**drawing, seed=5)),
        asked,
        Request(OTHERS[1], 0.0, Decoding(max_new_tokens=20)),
        Request(PROMPT, 0.4, Decoding(**drawing, seed=6)),
        asked,
    ]
    together = decode(policy, company)
    assert together[1] == together[4] == alone
    assert together[3] != alone
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.5, 0.6)])
def test_draws_have_the_distribution_asked_for(policy, temperature, top_p):
    with torch.no_grad(), policy.at(0.5):
        logits = policy.model(torch.tensor([PROMPT])).logits[0, -1]
    wanted = (logits / temperature).softmax(-1)
    order = wanted.argsort(descending=True)
    before = wanted[order].cumsum(0) - wanted[order]
    wanted[order[before >= top_p]] = 0.0
    wanted /= wanted.sum()
    draws = 600
    asked = [Request(PROMPT, 0.5, Decoding(1, temperature, top_p, seed)) for seed in range(draws)]
    ended = next(iter(policy.end_ids))
    drawn = [(answer.tokens or (ended,))[0] for answer in decode(policy, asked)]
    seen = torch.bincount(torch.tensor(drawn), minlength=VOCAB)
    assert not seen[wanted == 0].any()
    spread = (draws * wanted * (1 - wanted)).sqrt()
    assert ((seen - draws * wanted).abs() <= 4.5 * spread + 1).all()
    assert (seen > 0).sum() >= 3


def test_every_row_has_its_own_length(policy):
    lengths = (1, 9, 4)
    asked = [Request(PROMPT, 1.0, Decoding(max_new_tokens=length)) for length in lengths]
    answers = decode(policy, asked)
    assert [len(answer.tokens) for answer in answers] == list(lengths)
    assert {answer.finish for answer in answers} == {"length"}
    assert answers[0].tokens == answers[1].tokens[:1]


@pytest.mark.parametrize("build", [tiny_llama, tiny_gpt2, tiny_opt])
def test_answers_end_with_the_positions_while_others_go_on(build):
    policy = Policy(build(), tiny_tokenizer())
    assert policy.positions == 64
    policy.model.generation_config.eos_token_id = None
    policy.tokenizer.eos_token = None
    long = tuple(tokens(1, 60)[0].tolist())
    asked = [Request(prompt, 0.0, Decoding(max_new_tokens=50)) for prompt in (long, PROMPT)]
    heard = {0: "", 1: ""}

    def hear(row, text):
        heard[row] += text

    answers = decode(policy, asked, heard=hear)
    assert [len(answer.tokens) for answer in answers] == [4, 50]
    assert answers == [decode(policy, [request])[0] for request in asked]
    assert [heard[0], heard[1]] == [answer.text for answer in answers]


def test_an_end_token_ends_an_answer_and_is_no_part_of_it():
    tokenizer = spelling()
    policy = Says(tokenizer, [*tokenizer("who")["input_ids"], tokenizer.eos_token_id, 5])
    assert say(policy) == Answer("who", tuple(policy.said[:3]), "stop")


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (("nurse",), "the"),
        (("rse",), "thenu"),
        (("x", "se", "ursx"), "thenur"),
        (("ur", "nurse"), "then"),
        (("e", "the"), ""),
        (("enurs", "n"), "the"),
        (("urseq",), "thenurse"),
    ],
)
def test_stop_texts_are_neither_kept_nor_heard(stop, text):
    """What is complete first counts and, of two at once, what starts first."""
    tokenizer = spelling()
    policy = Says(tokenizer, tokenizer("thenurse")["input_ids"])
    pieces = []
    answer = say(policy, heard=lambda _, piece: pieces.append(piece), stop=stop)
    assert "".join(pieces) == answer.text
    assert answer.finish == ("length" if text == "thenurse" else "stop")
    assert answer.text == text


def test_characters_of_several_tokens_are_heard_whole():
    tokenizer = spelling()
    said = tokenizer("aé€b🙂")["input_ids"]
    assert len(said) == 1 + 2 + 3 + 1 + 4
    pieces = []
    answer = say(Says(tokenizer, said), heard=lambda _, piece: pieces.append(piece))
    assert answer.text == "aé€b🙂"
    assert pieces == ["a", "é", "€", "b", "🙂"]
    cut = say(Says(tokenizer, said), max_new_tokens=5)
    assert cut.text == "aé\N{REPLACEMENT CHARACTER}"
    assert say(Says(tokenizer, said), stop=("€",)).text == "aé"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"temperature": -0.1}, "temperature is -0.1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"stop": ("a", "")}, "a stop text is empty"),
    ],
)
def test_settings_are_checked(settings, said):
    with pytest.raises(ValueError, match=said):
        Decoding(**settings)


def test_requests_are_checked(policy):
    plain = Policy(tiny_llama(), tiny_tokenizer())
    with pytest.raises(ValueError, match="no prompts"):
        decode(policy, [])
    with pytest.raises(ValueError, match="has no tokens"):
        decode(policy, [Request(())])
    with pytest.raises(ValueError, match="64 tokens, and the model has 64 positions"):
        decode(policy, [Request((5,) * 64)])
    with pytest.raises(ValueError, match="without an adapter"):
        decode(plain, [Request(PROMPT, 0.0), Request(PROMPT, 0.5)])
    with pytest.raises(ValueError, match="finite and at least 0"):
        decode(policy, [Request(PROMPT, float("nan"))])
    assert policy.model.strength == 1
