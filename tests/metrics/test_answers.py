"""The three estimates of a model's answers, and the divergence from its base."""

from __future__ import annotations

import pytest
import torch

from dso.metrics import (
    answer_distribution,
    greedy_answers,
    kl_divergence,
    option_mass,
    sampled_answers,
)
from tests.metrics.made_up_choices import mixture, random_model


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_distribution_is_normalised_over_the_options_only():
    table = mixture()
    answers = answer_distribution(random_model(table, mass=0.2), table.mask)
    assert torch.allclose(answers.sum(1), torch.ones(len(table), dtype=torch.float64))
    assert (answers[~table.mask] == 0).all()


def test_what_stands_in_the_padding_does_not_matter():
    table = mixture()
    clean = random_model(table)
    dirty = clean.masked_fill(~table.mask, 3.0)
    assert torch.equal(
        answer_distribution(clean, table.mask), answer_distribution(dirty, table.mask)
    )
    assert torch.equal(greedy_answers(clean, table.mask), greedy_answers(dirty, table.mask))


def test_greedy_is_the_most_likely_option_and_the_first_of_equals():
    log_probs = torch.tensor([[0.2, 0.5, 0.0], [0.3, 0.3, 0.0]]).log()
    mask = torch.tensor([[True, True, False]] * 2)
    assert greedy_answers(log_probs, mask).tolist() == [[0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("mass", [1.0, 0.6])
def test_sampled_converges_to_the_models_own_probabilities(mass):
    draws = 20000
    probabilities = torch.tensor([0.5, 0.2, 0.3, 0.0], dtype=torch.float64) * mass
    log_probs = probabilities.log().expand(draws, -1)
    mask = torch.tensor([True, True, True, False]).expand(draws, -1)
    mean = sampled_answers(log_probs, mask, seeded()).mean(0)
    assert torch.allclose(mean, probabilities, atol=4 * 0.5 / draws**0.5)


def test_sampled_is_one_option_or_none_and_depends_on_the_seed_only():
    table = mixture()
    log_probs = random_model(table, mass=0.5)
    drawn = sampled_answers(log_probs, table.mask, seeded(1))
    assert torch.equal(drawn, sampled_answers(log_probs, table.mask, seeded(1)))
    assert set(drawn.sum(1).tolist()) == {0.0, 1.0}
    assert (drawn[~table.mask] == 0).all()


def test_option_mass_is_the_sum_over_the_options():
    table = mixture()
    mass = option_mass(random_model(table, mass=0.7))
    assert torch.allclose(mass, torch.full((len(table),), 0.7, dtype=torch.float64))
    assert option_mass(torch.tensor([[0.5, 0.5001]]).log()).tolist() == [1.0]


@pytest.mark.parametrize(
    ("log_probs", "mask", "message"),
    [
        (torch.zeros(0, 2), torch.ones(0, 2, dtype=torch.bool), "at least 1"),
        (torch.zeros(2, 3), torch.ones(2, 2, dtype=torch.bool), "wanted the same"),
        (torch.full((1, 2), torch.nan), torch.ones(1, 2, dtype=torch.bool), "choice 0"),
        (torch.full((1, 2), -torch.inf), torch.ones(1, 2, dtype=torch.bool), "probability zero"),
        (torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool), "probability zero"),
    ],
)
def test_wrong_log_probs_are_refused(log_probs, mask, message):
    with pytest.raises(ValueError, match=message):
        answer_distribution(log_probs, mask)
    with pytest.raises(ValueError, match=message):
        greedy_answers(log_probs, mask)


def test_logits_are_no_log_probabilities():
    logits, mask = torch.tensor([[3.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="total probability of 22"):
        option_mass(logits)
    with pytest.raises(ValueError, match="total probability"):
        sampled_answers(logits, mask, seeded())


def test_kl_is_zero_between_equals_and_what_torch_says_elsewhere():
    p, q = (torch.randn(5, 40, generator=seeded(s)).log_softmax(-1) for s in (0, 1))
    assert kl_divergence(p, p).tolist() == [0.0] * 5
    expected = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    assert torch.allclose(kl_divergence(p, q), expected)
    assert (kl_divergence(p, q) > 0).all()


def test_kl_of_impossible_tokens():
    p, q = torch.tensor([1.0, 0.0]).log(), torch.tensor([0.5, 0.5]).log()
    assert kl_divergence(p, q).item() == pytest.approx(torch.tensor(2.0).log().item())
    assert kl_divergence(q, p).item() == torch.inf
    scores = torch.tensor([0.3, 0.1, -torch.inf], requires_grad=True)
    target = torch.tensor([0.5, 0.5, 0.0]).log()
    kl_divergence(scores.log_softmax(-1), target).backward()
    assert scores.grad is not None and scores.grad.isfinite().all()


@pytest.mark.parametrize(
    ("p", "q", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(3), "wanted the same"),
        (torch.zeros(0, 3), torch.zeros(0, 3), "nothing to compare"),
        (torch.zeros(3), torch.zeros(3), "log_p must be log-softmax"),
        (torch.full((3,), torch.nan), torch.zeros(3), "log_p must be log-softmax"),
    ],
)
def test_kl_refuses_what_is_no_distribution(p, q, message):
    with pytest.raises(ValueError, match=message):
        kl_divergence(p, q)
