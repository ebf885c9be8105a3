"""Blends: what is mixed in tokens, and how the policy scores it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dso import scoring
from dso.checkpointing import checkpointed
from dso.encoding import Blend, EncodedChoice, blended
from dso.policy import Policy
from tests.steering.steered import steer
from tests.test_policy import BATCH, FAMILIES, SINGLE, TOLERANCE, gradients, loss_of, made_up, naive
from tests.tiny_models import ALL_FAMILIES, VOCAB, tiny_llama
from tests.tiny_tokenizers import tiny_tokenizer

# Scaled embeddings, positions that are learned, and the four that most identities are held on.
SOME = sorted({*FAMILIES, "gemma3_text", "opt"})
SHARES = [0.0, 0.35, 0.5, 1.0]


def policy_of(family: str, **settings) -> Policy:
    return Policy(steer(ALL_FAMILIES[family](**settings)), tiny_tokenizer())


def other_of(choice: EncodedChoice) -> EncodedChoice:
    """A choice of the same lengths: other tokens in every form, and in half of the prompt."""

    def another(token: int) -> int:
        return 3 + (token - 3 + 29) % (VOCAB - 3)

    return replace(
        choice,
        prompt=tuple(another(t) if place % 2 else t for place, t in enumerate(choice.prompt)),
        forms=tuple((i, tuple(map(another, tokens))) for i, tokens in choice.forms),
        answer=tuple(map(another, choice.answer)),
    )


def mixed(batch, *shares: float) -> list[EncodedChoice]:
    """The batch blended with other choices; where shares end, a choice stays as it is."""
    blends = [blended(c, other_of(c), share) for c, share in zip(batch, shares, strict=False)]
    assert all(blend is not None for blend in blends)
    return blends + list(batch[len(shares) :])


def by_hand(policy: Policy, choice: EncodedChoice, strength: float = 1.0) -> torch.Tensor:
    """Every form alone as one unpadded sequence of embeddings: the reference."""
    embed = policy.model.get_base_model().get_input_embeddings()
    other, share = choice.other, choice.share
    options = [[] for _ in range(choice.options)]
    for (option, form), (_, there) in zip(choice.forms, other.forms, strict=True):
        ids, others = torch.tensor([choice.prompt + form, other.prompt + there])
        embeds = (1 - share) * embed(ids) + share * embed(others)
        with policy.at(strength):
            logits = policy.model(inputs_embeds=embeds[None], use_cache=False).logits[0].float()
        places = torch.arange(len(choice.prompt) - 1, len(ids) - 1)
        log_probs = logits.log_softmax(-1)[places]
        each = [log_probs.gather(1, torch.tensor(f)[:, None]).sum() for f in (form, there)]
        options[option].append((1 - share) * each[0] + share * each[1])
    return torch.stack([torch.stack(forms).logsumexp(0) for forms in options])


# -- what can be mixed ----------------------------------------------------------------------------


def test_choices_of_the_same_lengths_can_be_mixed():
    for choice in BATCH:
        blend = blended(choice, other_of(choice), 0.25)
        assert blend == replace(choice, blend=Blend(other_of(choice), 0.25))
        assert (blend.other, blend.share) == (other_of(choice), 0.25)
        assert blend.length == choice.length
        assert (choice.other, choice.share) == (choice, 0.0)
        again = blended(blend, other_of(choice), 0.5)
        assert again == blended(choice, other_of(choice), 0.5)


BASE = made_up("a", 5, ((7, 8), (9,)), ((10,),))


@pytest.mark.parametrize(
    "other",
    [
        made_up("longer prompt", 6, ((7, 8), (9,)), ((10,),)),
        made_up("longer form", 5, ((7, 8, 9), (9,)), ((10,),)),
        made_up("same total", 5, ((7,), (9, 8)), ((10,),)),
        made_up("fewer forms", 5, ((7, 8),), ((10,),)),
        made_up("forms of other options", 5, ((7, 8),), ((9,), (10,))),
        made_up("more options", 5, ((7, 8), (9,)), ((10,),), ((11,),)),
    ],
    ids=lambda choice: choice.id,
)
def test_choices_of_other_lengths_cannot(other):
    assert blended(BASE, other, 0.5) is None
    assert blended(other, BASE, 0.5) is None


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_0_to_1_is_refused(share):
    with pytest.raises(ValueError, match=r"share of 'a' is .*; wanted 0 to 1"):
        blended(BASE, BASE, share)


def test_a_blend_of_a_blend_is_refused():
    with pytest.raises(ValueError, match="'a' is a blend already"):
        blended(BASE, blended(BASE, BASE, 0.5), 0.5)


# -- scores -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", sorted(ALL_FAMILIES))
def test_at_the_ends_a_blend_is_the_one_choice_or_the_other(family):
    policy = policy_of(family)
    others = [other_of(choice) for choice in BATCH]
    with torch.no_grad():
        own, there = policy.option_log_probs(BATCH), policy.option_log_probs(others)
        torch.testing.assert_close(
            policy.option_log_probs(mixed(BATCH, 0.0, 0.0, 0.0, 0.0)), own, **TOLERANCE
        )
        torch.testing.assert_close(
            policy.option_log_probs(mixed(BATCH, 1.0, 1.0, 1.0, 1.0)), there, **TOLERANCE
        )
    assert (own - there).nan_to_num().abs().max() > 0.1


@pytest.mark.parametrize("batch", [BATCH, SINGLE], ids=["mixed", "single"])
@pytest.mark.parametrize("family", SOME)
def test_a_blend_is_scored_as_alone_and_by_hand(family, batch):
    policy = policy_of(family)
    blends = mixed(batch, *SHARES[1 : 1 + len(batch)])
    with torch.no_grad():
        together = policy.option_log_probs(blends)
        for row, choice in enumerate(blends):
            alone = policy.option_log_probs([choice])[0]
            torch.testing.assert_close(together[row, : choice.options], alone, **TOLERANCE)
            torch.testing.assert_close(alone, by_hand(policy, choice), **TOLERANCE)
            assert together[row, choice.options :].eq(-torch.inf).all()


@pytest.mark.parametrize("family", SOME)
def test_either_part_can_be_called_the_other(family):
    policy = policy_of(family)
    turned = [blended(other_of(c), c, 1 - s) for c, s in zip(BATCH, SHARES, strict=True)]
    with torch.no_grad():
        torch.testing.assert_close(
            policy.option_log_probs(turned),
            policy.option_log_probs(mixed(BATCH, *SHARES)),
            **TOLERANCE,
        )


def test_where_the_prompts_are_the_same_an_answer_lies_between():
    policy = policy_of("llama")
    choices = [made_up("a", 4, ((7,),), ((9,),)), made_up("b", 9, ((8,),), ((6,),))]
    others = [replace(other_of(choice), prompt=choice.prompt) for choice in choices]
    with torch.no_grad():
        ends = [policy.option_log_probs(batch) for batch in (choices, others)]
        for share in SHARES:
            blends = [blended(c, o, share) for c, o in zip(choices, others, strict=True)]
            between = torch.lerp(*ends, share)
            torch.testing.assert_close(policy.option_log_probs(blends), between, **TOLERANCE)


@pytest.mark.parametrize("family", SOME)
def test_a_little_more_of_the_other_changes_little(family):
    policy = policy_of(family)
    with torch.no_grad():
        for share in (0.0, 0.4):
            here, next_ = (
                policy.option_log_probs(mixed(BATCH, *[s] * 4)) for s in (share, share + 1e-4)
            )
            torch.testing.assert_close(here, next_, rtol=1e-2, atol=1e-2)
            assert not torch.equal(here, next_)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_rows_that_are_no_blends_score_as_without_them(family):
    policy = policy_of(family)
    with torch.no_grad():
        plain = policy.score(BATCH, [1, 3])
        blends = mixed(BATCH, 0.5)
        beside = policy.score([BATCH[1], BATCH[3], *blends], [0, 1])
        torch.testing.assert_close(beside.options[:2], plain.options[[1, 3]], **TOLERANCE)
        torch.testing.assert_close(beside.options[3:], plain.options[1:], **TOLERANCE)
        assert not torch.allclose(beside.options[2], plain.options[0], atol=1e-2)
    torch.testing.assert_close(beside.answers, plain.answers, **TOLERANCE)
    assert [(0, 1)[row == 3] for row in plain.answer_rows] == beside.answer_rows.tolist()


def test_a_choice_mixed_with_itself_is_the_choice_bit_for_bit():
    policy = policy_of("llama", dtype=torch.bfloat16)
    with torch.no_grad():
        expected = policy.option_log_probs(BATCH)
        found = policy.option_log_probs([blended(choice, choice, 0.3) for choice in BATCH])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_blend_has_its_own_strength(family):
    policy = policy_of(family)
    strengths, blends = [0.0, 0.5, 1.0, 2.0], mixed(BATCH, *SHARES)
    with torch.no_grad():
        with policy.at(strengths):
            scores = policy.option_log_probs(blends)
        for row, choice in enumerate(blends):
            alone = by_hand(policy, choice, strengths[row])
            torch.testing.assert_close(scores[row, : choice.options], alone, **TOLERANCE)


@pytest.mark.parametrize("strength", [1.0, [0.0, 0.5, 1.0, 2.0]], ids=["one", "per row"])
@pytest.mark.parametrize("family", SOME)
def test_with_and_without_a_shared_cache_scores_and_gradients_are_the_same(family, strength):
    policy = policy_of(family)
    blends = mixed(BATCH, 0.35, 0.6, 0.2)
    with policy.at(strength):
        shared = policy.option_log_probs(blends)
        expected = gradients(policy, loss_of(shared))
        with checkpointed(policy.model):
            scores = policy.option_log_probs(blends)
    torch.testing.assert_close(scores, shared, **TOLERANCE)
    assert any(gradient.abs().max() > 1e-3 for gradient in expected)
    for one, other in zip(gradients(policy, loss_of(scores)), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("family", SOME)
def test_gradients_of_blends_are_those_of_full_sequences(family):
    policy = policy_of(family)
    blends = mixed(BATCH, 0.35, 0.6, 0.2)
    found = gradients(policy, loss_of(policy.option_log_probs(blends)))
    rows = [by_hand(policy, choice) for choice in blends]
    full = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-torch.inf)
    for one, other in zip(found, gradients(policy, loss_of(full)), strict=True):
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_batch_without_blends_is_put_to_the_model_as_tokens(monkeypatch):
    policy = policy_of("llama")
    monkeypatch.setattr(scoring, "_mixed", None)
    with torch.no_grad():
        found = policy.option_log_probs(BATCH)
        torch.testing.assert_close(found, naive(policy, BATCH), **TOLERANCE)


# -- what cannot be asked -------------------------------------------------------------------------


def test_distributions_of_a_blend_are_refused():
    with pytest.raises(ValueError, match="asked of 1 blends, 'mixed' the first"):
        policy_of("llama").score([BATCH[0], *mixed(BATCH[1:], 0.5)], [0, 1])


def test_tokens_of_a_blend_are_refused():
    with pytest.raises(ValueError, match="each token was asked of a batch with blends"):
        policy_of("llama").score(mixed(SINGLE, 0.5), by_token=True)


def test_a_model_that_needs_the_tokens_themselves_is_refused():
    model = tiny_llama()
    model.config.hidden_size_per_layer_input = 8
    policy = Policy(model, tiny_tokenizer())
    policy.score(BATCH)
    with pytest.raises(ValueError, match="llama looks every token up again in each block"):
        policy.score(mixed(BATCH, 0.5))
