"""What the base model says of the choices of a run: it never changes, so what returns is kept.

The base is the policy's own weights at strength 0. What is kept was computed before the first step
(`keep`), in batches that do not depend on where a run was resumed, so that a resumed run sees the
same numbers to the last bit; everything else is computed when asked for, in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dso.encoding import EncodedChoice
from dso.policy import Policy
from dso.training.value import prompt_states

KEPT_BATCH = 64
"""Choices a forward pass when they are computed ahead."""


class BaseScores:
    """Scores of choices under the base model, kept by the choice's id.

    Args:
        policy: whose strength 0 is the base.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.options: dict[str, Tensor] = {}
        self.answers: dict[str, Tensor] = {}
        self.prompt_states: dict[str, Tensor] = {}

    @torch.no_grad()
    def keep(self, encoded: Sequence[EncodedChoice], *, answers: bool, states: bool) -> None:
        """Compute and keep the options' log-probabilities of choices, batch by batch.

        Args:
            encoded: the choices.
            answers: keep the vocabulary's distributions at their answers too.
            states: keep the hidden states at the end of their prompts too.
        """
        for start in range(0, len(encoded), KEPT_BATCH):
            batch = encoded[start : start + KEPT_BATCH]
            with self.policy.base():
                scores = self.policy.score(batch, range(len(batch)) if answers else ())
            for row, choice in enumerate(batch):
                self.options[choice.id] = scores.options[row, : choice.options].clone()
                if answers:
                    self.answers[choice.id] = scores.answers[scores.answer_rows == row]
            if states:
                for choice, state in zip(batch, prompt_states(self.policy, batch), strict=True):
                    self.prompt_states[choice.id] = state.clone()

    @torch.no_grad()
    def scores(self, encoded: Sequence[EncodedChoice], ambiguous: int) -> tuple[Tensor, Tensor]:
        """The base's option log-probabilities (N, K), and its distributions at the pool's answers.

        Args:
            encoded: N choices; those from `ambiguous` on are the pool's.
            ambiguous: how many come before the pool.

        Returns:
            (N, K), and (P, V) in the order of `Scores.answers`.
        """
        pool = range(ambiguous, len(encoded))
        # A blended choice has the id of the one it was made from, and is never kept.
        fresh = [
            row
            for row, choice in enumerate(encoded)
            if choice.blend is not None
            or choice.id not in (self.answers if row >= ambiguous else self.options)
        ]
        options = {row: self.options.get(choice.id) for row, choice in enumerate(encoded)}
        answers = {row: self.answers.get(encoded[row].id) for row in pool}
        if self.policy.anyone(bool(fresh)):
            wanted = [place for place, row in enumerate(fresh) if row >= ambiguous]
            with self.policy.base():
                scores = self.policy.score([encoded[row] for row in fresh or [0]], wanted)
            for place, row in enumerate(fresh):
                options[row] = scores.options[place, : encoded[row].options]
            for place in wanted:
                answers[fresh[place]] = scores.answers[scores.answer_rows == place]
        width = max(choice.options for choice in encoded)
        grid = torch.full((len(encoded), width), -torch.inf, device=self.policy.device)
        for row, values in options.items():
            assert values is not None
            grid[row, : len(values)] = values
        rows = [values for values in answers.values() if values is not None]
        # In the order of `Scores.answers`: every row's first position, then the further ones.
        return grid, torch.cat([*(row[:1] for row in rows), *(row[1:] for row in rows)])

    def states(self, encoded: Sequence[EncodedChoice]) -> Tensor:
        """(N, d) hidden states of the base at the end of the prompts."""
        if any(choice.id not in self.prompt_states for choice in encoded):
            return prompt_states(self.policy, encoded)
        return torch.stack([self.prompt_states[choice.id] for choice in encoded])
