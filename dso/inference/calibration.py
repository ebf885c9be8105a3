"""What a policy loses on calibration questions over a grid of strengths.

The losses are those of `choosing`, by the probabilities of the answers over the options, as
`dso.metrics` has them for the estimate "probability".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dso.encoding import EncodedChoice
from dso.inference.bounds import Array
from dso.inference.choosing import Losses, Sample, pair_weights
from dso.inference.questions import Calibration
from dso.metrics import answer_distribution, per_occupation_bias, pro_minus_anti
from dso.policy import Policy
from dso.tasks import Choice, ChoiceTable, Kind, tabulate

Progress = Callable[[int, int], Any]
"""Takes (forward passes done, forward passes in all)."""


@dataclass(frozen=True)
class Measured:
    """What a policy did on the calibration questions."""

    losses: Losses
    """By strength."""
    per_occupation_bias: tuple[float, ...]
    """Per-Occupation Bias at each strength, which the bias loss bounds from above."""


@torch.inference_mode()
def measure_losses(
    policy: Policy,
    calibration: Calibration,
    strengths: Sequence[float],
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Measured:
    """The losses of every question at every strength.

    Args:
        policy: with an adapter.
        calibration: the questions.
        strengths: the grid, in any order.
        batch_size: choices a forward pass.
        progress: called after every forward pass.

    Raises:
        ValueError: no strengths, or a choice longer than the model has positions.
    """
    grid = sorted({float(strength) for strength in strengths})
    if not grid:
        raise ValueError("no strengths were given to choose from")
    choices = [choice for pair in calibration.pairs for choice in pair]
    choices += [choice for asked in calibration.questions.values() for choice in asked]
    pairs = [(2 * number, 2 * number + 1) for number in range(len(calibration.pairs))]
    table = tabulate(choices, pairs=pairs)
    encoded = policy.encode(choices)
    batches = _batches(encoded, batch_size)
    done = 0

    def answers(strength: float) -> Tensor:
        nonlocal done
        log_probs = torch.full(table.mask.shape, -torch.inf)
        with policy.at(strength):
            for rows in batches:
                scored = policy.option_log_probs([encoded[row] for row in rows]).float().cpu()
                log_probs[rows, : scored.shape[1]] = scored
                done += 1
                if progress is not None:
                    progress(done, len(batches) * (len(grid) + 1))
        return answer_distribution(log_probs, table.mask)

    base = answers(0.0)
    steered = [answers(strength) for strength in grid]
    drops: dict[str, Sample] = {
        kind: by_twin(
            np.stack([accuracy_losses(base, given, table, kind) for given in steered]), asked
        )
        for kind, asked in calibration.questions.items()
    }
    bias = np.stack([bias_losses(given, table) for given in steered])
    sided = slice(0, 2 * len(pairs))
    return Measured(
        Losses(tuple(grid), Sample(bias, pair_weights(_concerns(table))), drops),
        tuple(
            float(per_occupation_bias(given[sided], table.side[sided], table.occupation[sided]))
            for given in steered
        ),
    )


def bias_losses(answers: Tensor, table: ChoiceTable) -> Array:
    """|mean over the twins of (P(pro) - P(anti))| of every pair of the table.

    Args:
        answers: (N, K).
        table: of the choices.

    Returns:
        (P,) in [0, 1].
    """
    both = table.pairs.flatten()
    lean = pro_minus_anti(answers[both], table.side[both]).reshape(-1, 2)
    return np.asarray(lean.mean(1).abs().cpu())


def accuracy_losses(base: Tensor, answers: Tensor, table: ChoiceTable, kind: Kind) -> Array:
    """P_base(right) - P(right) of every question of a kind.

    Args:
        base: (N, K) answers of the base.
        answers: (N, K).
        table: of the choices.
        kind: of the questions.

    Returns:
        (n,) in [-1, 1].
    """
    rows = table.of_kind(kind)
    right = table.truth[rows].unsqueeze(1)
    lost = base[rows].gather(1, right) - answers[rows].gather(1, right)
    return np.asarray(lost.squeeze(1).cpu())


def by_twin(losses: Array, asked: Sequence[Choice]) -> Sample:
    """Losses with twins taken together, since what is lost on one is likely lost on the other.

    Args:
        losses: (S, n) of every question.
        asked: the n questions.
    """
    names = [f"twin {c.twin}" if c.twin is not None else f"alone {c.id}" for c in asked]
    _, place, size = np.unique(names, return_inverse=True, return_counts=True)
    means = np.stack([np.bincount(place, row) / size for row in losses])
    return Sample(means, size / size.sum())


def _concerns(table: ChoiceTable) -> npt.NDArray[np.bool_]:
    """(P, O) bool: which occupations each pair concerns."""
    occupation = table.occupation[table.pairs[:, 0]]
    names = torch.arange(len(table.occupation_names))
    concerns: npt.NDArray[np.bool_] = (occupation.unsqueeze(2) == names).any(1).numpy()
    return concerns[:, concerns.any(0)]


def _batches(encoded: Sequence[EncodedChoice], size: int) -> list[list[int]]:
    """Places of the choices, those of similar length together."""
    order = sorted(range(len(encoded)), key=lambda place: encoded[place].length)
    return [order[start : start + size] for start in range(0, len(order), size)]
