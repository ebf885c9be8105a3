from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig

from dso.encoding import encode
from dso.loading import load_tokenizer
from dso.policy import Policy
from dso.tasks import Choice, Coreference, twin_pairs
from dso.tasks.occupations import BY_NAME, select
from dso.tasks.virtual import renamed
from dso.virtual import interchangeable, virtual_occupations
from tests.organism import FORMS, organism
from tests.steering.steered import steer
from tests.tiny_models import SIZES, build
from tests.tiny_tokenizers import tiny_tokenizer

TOKENIZER = load_tokenizer(organism())
TRAIN = Coreference(pairs=150, pool=8, forms=FORMS).load().train
ALL = [(TRAIN[a], TRAIN[b]) for a, b in twin_pairs(TRAIN)]
PAIRS = ALL[:16]


def tokens(choices):
    """As the organism reads them: every occupation is one token."""
    return encode(choices, TOKENIZER)


def letters(choices):
    """By a tokenizer that has few words: an occupation is anything from one to a dozen tokens."""
    return encode(choices, tiny_tokenizer())


def draw(share=1.0, seed=0, encoder=tokens, pairs=PAIRS, known=None):
    known = interchangeable(TRAIN, encoder) if known is None else known
    encoded = encoder([choice for pair in pairs for choice in pair])
    return virtual_occupations(pairs, encoded, known, share, random.Random(seed), encoder)


def names_of(choice: Choice, other, encoder) -> dict[str, str]:
    """The partners that make the choice the other one, found by trying all of their stereotypes."""
    first, second = choice.occupations
    every = [
        {first: a.name, second: b.name}
        for a in select("train", BY_NAME[first].stereotype)
        for b in select("train", BY_NAME[second].stereotype)
    ]
    tried = encoder([renamed(choice, names) for names in every])
    (found,) = [names for names, code in zip(every, tried, strict=True) if code == other]
    return found


OCCUPATIONS = select("train")


# -- classes ------------------------------------------------------------------------------------


def test_where_names_have_one_token_the_classes_are_the_stereotypes():
    classes = interchangeable(TRAIN, tokens)
    assert set(classes) == {occupation.name for occupation in OCCUPATIONS}
    for one in classes:
        for other in classes:
            same = BY_NAME[one].stereotype == BY_NAME[other].stereotype
            assert (classes[one] == classes[other]) is same


def test_names_of_one_class_have_as_many_tokens():
    classes = interchangeable(TRAIN, letters)
    tokenizer = tiny_tokenizer()
    assert set(classes) == {occupation.name for occupation in OCCUPATIONS}
    sizes = {name: len(tokenizer(f" {name}")["input_ids"]) for name in classes}
    assert len(set(sizes.values())) > 3
    for one in classes:
        for other in classes:
            same = BY_NAME[one].stereotype == BY_NAME[other].stereotype
            assert (classes[one] == classes[other]) is (same and sizes[one] == sizes[other])


def test_no_ambiguous_choice_no_class():
    assert interchangeable([], tokens) == {}
    assert interchangeable([replace(TRAIN[0], prompt="Who is it?")], tokens) == {}


# -- blends -------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [tokens, letters])
def test_twins_are_mixed_with_the_same_partners_and_share(encoder):
    virtual = draw(encoder=encoder)
    assert virtual.rows
    classes = interchangeable(TRAIN, encoder)
    for row in virtual.rows[:6:2]:
        assert row + 1 in virtual.rows
        pair, (he, she) = PAIRS[row // 2], virtual.encoded[row : row + 2]
        assert he.share == she.share
        assert 0 < he.share < 0.5
        names = names_of(pair[0], he.other, encoder)
        assert names == names_of(pair[1], she.other, encoder)
        assert all(classes[old] == classes[new] for old, new in names.items())
        assert not set(names) & set(names.values())


def test_a_blend_keeps_the_tokens_of_its_choice():
    plain = tokens([choice for pair in PAIRS for choice in pair])
    virtual = draw(0.5)
    assert [replace(code, blend=None) for code in virtual.encoded] == plain
    assert virtual.rows == [row for row, code in enumerate(virtual.encoded) if code.blend]
    assert 0 < len(virtual.rows) < len(plain)


def test_no_share_no_blend_and_the_whole_share_all():
    none, every = draw(0.0), draw(1.0)
    assert none.rows == []
    assert all(code.blend is None for code in none.encoded)
    assert every.rows == list(range(32))


def test_the_share_of_pairs_is_the_one_asked_for():
    virtual = draw(0.3, pairs=ALL)
    assert len(virtual.rows) / 2 == pytest.approx(0.3 * len(ALL), abs=4 * (0.21 * len(ALL)) ** 0.5)


def test_the_share_of_the_other_is_even_from_none_to_half():
    virtual = draw(1.0, pairs=ALL)
    shares = torch.tensor([virtual.encoded[row].share for row in virtual.rows[::2]])
    assert (shares.min(), shares.max()) == (
        pytest.approx(0, abs=0.03),
        pytest.approx(0.5, abs=0.03),
    )
    assert shares.mean() == pytest.approx(0.25, abs=4 * 0.144 / len(shares) ** 0.5)


def test_a_draw_is_a_function_of_its_generator():
    assert draw(0.5, seed=3) == draw(0.5, seed=3)
    assert draw(0.5, seed=3) != draw(0.5, seed=4)


def test_names_of_one_length_are_tokenised_in_one_call():
    calls = []

    def counting(choices):
        calls.append(len(choices))
        return tokens(choices)

    encoded = tokens([choice for pair in PAIRS for choice in pair])
    known = interchangeable(TRAIN, tokens)
    virtual_occupations(PAIRS, encoded, known, 1.0, random.Random(0), counting)
    assert calls == [32]


# -- pairs that are left alone --------------------------------------------------------------------


def test_a_pair_without_partners_of_its_lengths_is_left_as_it_is():
    by_stereotype = {o.name: o.stereotype for o in OCCUPATIONS}  # says nothing of lengths
    virtual = draw(encoder=letters, pairs=ALL, known=by_stereotype)
    plain = letters([choice for pair in ALL for choice in pair])
    left = sorted(set(range(len(plain))) - set(virtual.rows))
    assert left
    assert virtual.rows
    for row in left:
        assert virtual.encoded[row] == plain[row]
    for row in virtual.rows:
        assert len(virtual.encoded[row].other.prompt) == len(plain[row].prompt)


def test_several_draws_are_taken_where_lengths_differ():
    by_stereotype = {o.name: o.stereotype for o in OCCUPATIONS}
    calls = []

    def counting(choices):
        calls.append(len(choices))
        return letters(choices)

    encoded = letters([choice for pair in PAIRS for choice in pair])
    virtual_occupations(PAIRS, encoded, by_stereotype, 1.0, random.Random(0), counting)
    assert calls[0] == 32
    assert 2 <= len(calls) <= 5
    assert sorted(calls, reverse=True) == calls


def test_a_pair_whose_people_are_not_all_named_is_left_as_it_is():
    hidden = tuple(replace(choice, prompt="Who is it?") for choice in PAIRS[0])
    virtual = draw(pairs=[hidden, PAIRS[1]])
    assert virtual.rows == [2, 3]


def test_a_pair_whose_new_names_cannot_be_told_apart_is_left_as_it_is():
    def picky(choices):
        if any(choice.twin == PAIRS[0][0].twin for choice in choices):
            raise ValueError("options cannot be told apart")
        return tokens(choices)

    encoded = tokens([*PAIRS[0], *PAIRS[1]])
    known = interchangeable(TRAIN, tokens)
    virtual = virtual_occupations(PAIRS[:2], encoded, known, 1.0, random.Random(0), picky)
    assert virtual.rows == [2, 3]
    assert virtual.encoded[:2] == encoded[:2]


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match=r"share of virtual occupations is .*; wanted 0 to 1"):
        draw(share)


def test_tokens_of_other_choices_are_refused():
    with pytest.raises(ValueError, match="1 encoded choices were given for 32 in 16 pairs"):
        virtual_occupations(PAIRS, tokens(TRAIN[:1]), {}, 1.0, random.Random(0), tokens)


# -- scores -------------------------------------------------------------------------------------


def test_blends_score_between_texts_that_are_read():
    config = LlamaConfig(**(SIZES | {"max_position_embeddings": 512}))
    policy = Policy(steer(build(config, 0, torch.float32)), tiny_tokenizer())
    virtual = draw(encoder=policy.encode)
    blends = [virtual.encoded[row] for row in virtual.rows]
    assert any(len(form) > 1 for choice in blends for _, form in choice.forms)
    ends = [replace(b, blend=replace(b.blend, share=s)) for s in (0.0, 1.0) for b in blends]
    with torch.no_grad():
        scores = policy.option_log_probs(ends).reshape(2, len(blends), -1)
        texts = [replace(b, blend=None) for b in blends] + [b.other for b in blends]
        expected = policy.option_log_probs(texts).reshape(2, len(blends), -1)
        between = policy.option_log_probs(blends)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    assert torch.isfinite(between).all()
    assert not torch.allclose(between, expected[0], atol=1e-3)
