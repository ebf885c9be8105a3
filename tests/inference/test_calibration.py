from dataclasses import replace

import numpy as np
import pytest
import torch

from dso.inference.calibration import accuracy_losses, bias_losses, by_twin, measure_losses
from dso.inference.choosing import pair_weights
from dso.inference.questions import CAPABILITIES, calibration_of
from dso.metrics import (
    accuracy,
    answer_distribution,
    per_occupation_bias,
    per_sample_parity,
)
from dso.policy import Policy
from dso.tasks import tabulate
from tests.metrics.made_up_choices import (
    gender_blind_model,
    mixture,
    questions,
    random_model,
    sentences,
)
from tests.organism import adapter, organism, small_task


@pytest.fixture(scope="module")
def policy():
    return Policy.from_pretrained(organism(), adapter())


def concerns(table):
    occupation = table.occupation[table.pairs[:, 0]]
    places = torch.arange(len(table.occupation_names))
    return (occupation.unsqueeze(2) == places).any(1).numpy()


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_loss_is_never_below_per_occupation_bias(seed):
    # Occupations with different numbers of pairs: some are left out.
    generator = torch.Generator().manual_seed(seed)
    pairs = sentences(dont_know=True)
    kept = [n for n in range(len(pairs) // 2) if torch.rand((), generator=generator) < 0.6]
    table = tabulate([choice for n in kept for choice in pairs[2 * n : 2 * n + 2]])
    answers = answer_distribution(random_model(table, seed), table.mask)
    losses = bias_losses(answers, table)
    bias = float(per_occupation_bias(answers, table.side, table.occupation))
    assert bias < losses @ pair_weights(concerns(table))
    assert losses.mean() < float(per_sample_parity(answers, table.side))
    # Where every pair leans the same way nothing cancels, and the two are one.
    swap = torch.where((answers * table.side).sum(1, keepdim=True) < 0, -1, 1)
    side = table.side * swap
    upright = replace(table, side=side)
    np.testing.assert_allclose(
        bias_losses(answers, upright) @ pair_weights(concerns(table)),
        float(per_occupation_bias(answers, side, table.occupation)),
    )


def test_a_model_blind_to_gender_loses_nothing():
    table = tabulate(sentences())
    answers = answer_distribution(gender_blind_model(table), table.mask)
    np.testing.assert_allclose(bias_losses(answers, table), 0, atol=1e-12)


def test_mean_losses_of_accuracy_are_drops_of_accuracy():
    table = mixture()
    base, steered = (answer_distribution(random_model(table, s), table.mask) for s in (0, 1))
    for kind in CAPABILITIES:
        rows = table.of_kind(kind)
        drop = accuracy(base[rows], table.truth[rows]) - accuracy(steered[rows], table.truth[rows])
        assert accuracy_losses(base, steered, table, kind).mean() == pytest.approx(float(drop))
        assert not accuracy_losses(base, base, table, kind).any()


def test_twins_count_as_one_question_and_the_mean_stays():
    asked = questions("unambiguous", 5)
    twinned = [replace(c, twin=f"t{n // 2}") if n < 4 else c for n, c in enumerate(asked)]
    losses = np.random.default_rng(0).random((3, 5))
    sample = by_twin(losses, twinned)
    assert sample.losses.shape == (3, 3)
    assert sorted(sample.weights) == pytest.approx([0.2, 0.4, 0.4])
    np.testing.assert_allclose(sample.means, losses.mean(1))
    np.testing.assert_allclose(sorted(by_twin(losses, asked).losses[0]), sorted(losses[0]))


def test_measured_losses_are_those_of_the_metrics(policy):
    calibration = calibration_of(small_task(), pairs=8)
    measured = measure_losses(policy, calibration, [1.0, 0.0], batch_size=7)
    assert measured.losses.strengths == (0.0, 1.0)
    pairs = [choice for pair in calibration.pairs for choice in pair]
    table, encoded = tabulate(pairs), policy.encode(pairs)
    with torch.inference_mode(), policy.at(1.0):
        answers = answer_distribution(policy.option_log_probs(encoded), table.mask)
    bias = float(per_occupation_bias(answers, table.side, table.occupation))
    assert measured.per_occupation_bias[1] == pytest.approx(bias, abs=1e-4)
    assert measured.losses.bias.means[1] >= measured.per_occupation_bias[1] - 1e-9
    np.testing.assert_allclose(
        measured.losses.bias.losses[1], bias_losses(answers, table), atol=1e-4
    )
    for kind in CAPABILITIES:
        assert measured.losses.drops[kind].losses.shape == (2, 8)
        assert not measured.losses.drops[kind].losses[0].any()  # strength 0 is the base
        assert measured.losses.drops[kind].losses[1].any()


def test_progress_ends_at_its_total(policy):
    seen = []
    calibration = calibration_of(small_task(), pairs=4, kinds=["capability"])
    measure_losses(policy, calibration, [1.0], 5, lambda *given: seen.append(given))
    total = seen[-1][1]
    assert seen == [(done + 1, total) for done in range(total)]
    with pytest.raises(ValueError, match="no strengths"):
        measure_losses(policy, calibration, [])
