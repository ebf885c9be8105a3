"""Which adapter is the best: the least bias, within the capability floor."""

from __future__ import annotations

import pytest
import torch

from dso.policy import Policy
from dso.tasks import tabulate
from dso.tasks.datamodule import EvaluationBatch
from dso.training.validation import Validation, selection
from tests.organism import adapter, organism, small_task

BASE = {
    "per_occupation_bias": torch.tensor(0.5),
    "unambiguous_accuracy": torch.tensor(1.0),
    "capability": torch.tensor(0.9),
}


def after(bias, **accuracies):
    return BASE | {"per_occupation_bias": torch.tensor(bias)} | {
        name: torch.tensor(value) for name, value in accuracies.items()
    }  # fmt: skip


def test_within_the_floor_less_bias_wins_and_outside_it_never_does():
    within = selection(after(0.2, capability=0.885), BASE, 0.02)
    fairer = selection(after(0.1, capability=0.885), BASE, 0.02)
    outside = selection(after(0.0, capability=0.87), BASE, 0.02)
    further = selection(after(0.0, capability=0.5), BASE, 0.02)
    assert fairer < within < 1 < outside < further
    assert float(within) == pytest.approx(0.2)
    assert float(outside) == pytest.approx(1.01)


def test_without_ambiguous_choices_nothing_is_chosen():
    assert selection({"capability": torch.tensor(1.0)}, BASE, 0.02) is None


def test_the_base_is_measured_once_and_the_adapter_every_time():
    policy = Policy.from_pretrained(organism(), adapter())
    choices = small_task().load().validation
    validation = Validation(policy, tabulate(choices), floor=0.02)
    encoded = policy.encode(choices)
    rounds = []
    for strength in (1.0, 0.0):
        policy.model.set_strength(strength)
        validation.start()
        for rows in torch.arange(len(choices)).split(7):
            batch = EvaluationBatch([choices[r] for r in rows], rows)
            validation.update(batch, [encoded[r] for r in rows])
        rounds.append(validation.figures())
    base = validation.base_figures
    assert float(rounds[0]["val/per_occupation_bias"]) < float(base["per_occupation_bias"])
    assert float(rounds[0]["val/kl"]) > 0
    assert float(rounds[1]["val/kl"]) == pytest.approx(0, abs=1e-6)
    for name, value in base.items():
        assert float(rounds[1][f"val/{name}"]) == pytest.approx(float(value), abs=1e-6)
    assert float(rounds[1]["val/selection"]) == pytest.approx(
        float(base["per_occupation_bias"]), abs=1e-6
    )
