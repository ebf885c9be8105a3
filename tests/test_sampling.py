"""Identities of sampled answers, on tiny models and on the organism."""

from dataclasses import replace

import pytest
import torch

from dso.policy import Policy
from dso.sampling import Sampling, sample_answers, sample_tokens
from dso.tasks import Choice, Option
from tests.organism import base_policy, small_task
from tests.steering.steered import steer
from tests.tiny_models import FAMILIES
from tests.tiny_tokenizers import tiny_tokenizer

CHOICES = [
    Choice(f"{n}", "capability", prompt, (Option(" nurse"), Option(" guard")), truth=0)
    for n, prompt in enumerate(["Who?", "Who is it, the nurse or the guard?", "the chief: A B C"])
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=sorted(FAMILIES))
def policy(request) -> Policy:
    return Policy(steer(FAMILIES[request.param]()), tiny_tokenizer())


def test_an_answer_s_score_is_the_sum_of_its_tokens_log_probabilities(policy):
    encoded = policy.encode(CHOICES)
    rollouts = sample_answers(policy, CHOICES, encoded, Sampling(3, 5), generator())
    with torch.no_grad():
        scores = policy.score(rollouts.encoded).options.gather(1, rollouts.column)
        for row, choice in enumerate(rollouts.encoded):
            for g in range(3):
                tokens = dict(choice.forms)[int(rollouts.column[row, g])]
                ids = torch.tensor([[*choice.prompt, *tokens]])
                logits = policy.model(ids).logits[0].log_softmax(-1)
                places = range(len(choice.prompt) - 1, ids.shape[1] - 1)
                alone = sum(logits[p, t] for p, t in zip(places, tokens, strict=True))
                torch.testing.assert_close(scores[row, g], alone, rtol=1e-4, atol=1e-4)


def test_answers_come_as_often_as_the_model_says(policy):
    encoded = policy.encode(CHOICES[:2])
    drawn = sample_tokens(policy, encoded, Sampling(4000, 1), generator())
    with torch.no_grad():
        for row, choice in enumerate(encoded):
            logits = policy.model(torch.tensor([choice.prompt])).logits[0, -1]
            counts = torch.bincount(torch.tensor(drawn[row])[:, 0], minlength=len(logits))
            # Three standard errors of a share at 4,000 draws are below 0.024.
            torch.testing.assert_close(counts / 4000, logits.softmax(-1), rtol=0, atol=0.024)


def test_later_tokens_follow_from_the_earlier_ones(policy):
    # Greedy in effect: logits scaled up leave one token to draw.
    head = policy.model.get_base_model().get_output_embeddings()
    head.weight.data = head.weight.data * 100
    if policy.model.get_base_model().config.model_type == "gemma2":
        policy.model.get_base_model().config.final_logit_softcapping = None
    encoded = policy.encode(CHOICES)
    drawn = sample_tokens(policy, encoded, Sampling(2, 4), generator())
    for choice, answers in zip(encoded, drawn, strict=True):
        ids = torch.tensor([choice.prompt])
        expected: list[int] = []
        while len(expected) < 4:
            with torch.no_grad():
                token = int(policy.model(ids).logits[0, -1].argmax())
            expected.append(token)
            if token in policy.end_ids:
                break
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
        assert answers == [tuple(expected)] * 2


def test_an_answer_ends_with_its_first_end_token(policy):
    drawn = sample_tokens(policy, policy.encode(CHOICES), Sampling(200, 6), generator())
    ended = 0
    for answer in (answer for answers in drawn for answer in answers):
        inside = [token in policy.end_ids for token in answer]
        assert not any(inside[:-1])
        assert inside[-1] or len(answer) == 6
        ended += inside[-1]
    assert ended > 0


def test_each_row_is_sampled_at_its_own_strength(policy):
    encoded = policy.encode([CHOICES[1]] * 2)
    sampling = Sampling(2000, 1)
    with policy.at([0.0, 1.0]):
        mixed = sample_tokens(policy, encoded, sampling, generator())
    for row, strength in enumerate((0.0, 1.0)):
        with policy.at(strength), torch.no_grad():
            expected = policy.model(torch.tensor([encoded[0].prompt])).logits[0, -1].softmax(-1)
        counts = torch.bincount(torch.tensor(mixed[row])[:, 0], minlength=len(expected))
        torch.testing.assert_close(counts / 2000, expected, rtol=0, atol=0.034)


def test_one_seed_gives_one_set_of_answers(policy):
    encoded = policy.encode(CHOICES)
    first, second, other = (
        sample_tokens(policy, encoded, Sampling(8, 4), generator(seed)) for seed in (0, 0, 1)
    )
    assert first == second
    assert first != other


def test_the_organism_s_texts_are_read():
    policy = base_policy()
    asked = small_task().load().evaluation[:12]
    rollouts = sample_answers(policy, asked, policy.encode(asked), Sampling(50, 6), generator())
    with torch.no_grad():
        expected = policy.option_log_probs(policy.encode(asked)).exp()
    torch.testing.assert_close(rollouts.shares(2), expected[:, :2], rtol=0, atol=0.21)
    assert rollouts.unparsed < 0.05
    assert all(len(texts) == 50 for texts in rollouts.texts)


def test_what_cannot_be_read_is_counted_and_kept():
    policy = base_policy()
    (asked, *_) = small_task().load().evaluation
    others = tuple(replace(o, text=f"x{n}", forms=(f" x{n}",)) for n, o in enumerate(asked.options))
    asked = replace(asked, options=others)
    encoded = policy.encode([asked])
    rollouts = sample_answers(policy, [asked], encoded, Sampling(20, 4), generator())
    assert float(rollouts.unparsed) == 1
    assert bool((rollouts.option == -1).all()) and bool((rollouts.shares(2) == 0).all())
    assert rollouts.column.shape == (1, 20)


@pytest.mark.parametrize("settings", [{"samples": 0}, {"max_new_tokens": 0}])
def test_settings_that_sample_nothing_are_refused(settings):
    with pytest.raises(ValueError, match=r"is 0; wanted at least 1"):
        Sampling(**settings)


def test_tokens_of_an_answer_add_up_to_its_score(policy):
    encoded = policy.encode(CHOICES)
    rollouts = sample_answers(policy, CHOICES, encoded, Sampling(6, 5), generator())
    with torch.no_grad():
        scores = policy.score(rollouts.encoded, by_token=True)
        plain = policy.score(rollouts.encoded)
    assert torch.equal(scores.options, plain.options) and plain.tokens is None
    rows = torch.arange(len(CHOICES))[:, None]
    tokens = scores.tokens[rows, rollouts.column]
    torch.testing.assert_close(tokens.sum(-1), scores.options[rows, rollouts.column])
    behind = torch.arange(tokens.shape[-1]) >= rollouts.length[..., None]
    assert bool((tokens[behind] == 0).all()) and bool((tokens[~behind] < 0).all())
