"""A warning, once a run, when the answers to most ambiguous prompts earn the same reward."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import Tensor

log = logging.getLogger(__name__)

STEPS = 20
"""Steps over which the share of prompts without a signal is averaged."""
SHARE = 0.75
"""The share that is warned of. Half is usual where two people's rewards cancel out near parity."""


class SignalWatch:
    """Averages the share of ambiguous prompts whose answers all earn the same."""

    def __init__(self) -> None:
        self.average = 0.0
        self.warned = False

    def update(self, no_signal: Mapping[str, Tensor]) -> None:
        """Take in one step's shares by population, and warn where it is time to."""
        if "ambiguous" not in no_signal or self.warned:
            return
        self.average += (float(no_signal["ambiguous"]) - self.average) / STEPS
        if self.average > SHARE:
            self.warned = True
            log.warning(
                "the answers to most ambiguous prompts of the last %d steps earn the same reward, "
                "so there is nothing to learn from them: sample more answers a prompt, or look at "
                "the rewards (raw/ and spread/ in the log)",
                STEPS,
            )
