"""Contestants that take turns, and how what one costs compares with what another does.

In every round each of them has one short turn, in the opposite order every second time, and every
other round another one begins: each stands in each place as often. What slows a machine down for a
while slows a whole round, so what is compared is the ratio within a round. The interval of its
median is a bootstrap of blocks of rounds, for rounds that follow one another are alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

REPLICATES = 2000
LEVEL = 0.95
BLOCK = 8
"""Rounds that the bootstrap keeps together."""


class Ratio(NamedTuple):
    """One beside another, with a 95 % interval."""

    value: float
    low: float
    high: float


Turn = Callable[[], float]
"""Does once what is measured, and says how many seconds it took."""


def now(device: str) -> float:
    """This moment in seconds, when all that was asked of the device is done."""
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def order(names: Sequence[str], number: int) -> list[str]:
    """Who comes when in a round."""
    shift = number // 2 % len(names)
    turned = [*names[shift:], *names[:shift]]
    return turned[::-1] if number % 2 else turned


def take_turns(contestants: Mapping[str, Turn], rounds: int, warmup: int) -> dict[str, list[float]]:
    """Let everybody have a turn in each of so many rounds, after some that do not count.

    Returns:
        By contestant, the seconds in every round.

    Raises:
        ValueError: fewer than 3 rounds, of which an interval says nothing.
    """
    if rounds < 3 or warmup < 0:
        raise ValueError(
            f"{rounds} rounds and {warmup} before them; wanted at least 3, and no fewer than 0"
        )
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(warmup + rounds):
        for name in order(list(contestants), number):
            seconds = contestants[name]()
            if number >= warmup:
                found[name].append(seconds)
    return found


def compare(one: Sequence[float], other: Sequence[float], seed: int = 0) -> Ratio:
    """The median over the rounds of one beside the other; place by place from the same round."""
    ratios = np.array(one) / np.array(other)
    # With few rounds every one is a block of its own.
    length = BLOCK if len(ratios) >= 10 * BLOCK else 1
    starts = len(ratios) - length + 1
    count = -(-len(ratios) // length)
    first = np.random.default_rng(seed).integers(starts, size=(REPLICATES, count, 1))
    draws = (first + np.arange(length)).reshape(REPLICATES, -1)[:, : len(ratios)]
    low, high = np.quantile(np.median(ratios[draws], axis=1), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Ratio(float(np.median(ratios)), float(low), float(high))
