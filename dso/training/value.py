"""The learned baseline of PPO: what reward to expect of a prompt, from the base's hidden state.

    V(x) = w . normalised(h(x)) + c

h(x) is the base model's last hidden state at the last token of the prompt, the input of its output
layer. It comes from the base, strength 0, so it never changes and is computed once a prompt; w and
c start at 0 and have no part in the adapter. Source: Schulman et al. 2017, arXiv 1707.06347, for
the baseline; an answer is one action here, so V needs no bootstrapping in time.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dso.encoding import EncodedChoice
from dso.policy import Policy


class ValueBaseline(nn.Module):
    """A linear baseline on hidden states of width d, each normalised to mean 0 and variance 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, states: Tensor) -> Tensor:
        """(N,) expected rewards from (N, d) hidden states."""
        normal = nn.functional.layer_norm(states.detach().float(), states.shape[-1:])
        values: Tensor = self.head(normal)[:, 0]
        return values


@torch.no_grad()
def prompt_states(policy: Policy, encoded: Sequence[EncodedChoice]) -> Tensor:
    """(N, d) float32 hidden states of the base model at the last token of each prompt."""
    caught: list[Tensor] = []
    head = policy.model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    try:
        prompts = policy.prompts(encoded)
        with policy.base():
            policy.forward(prompts.ids, prompts.mask, keep=1, seen=prompts)
    finally:
        hook.remove()
    return caught[0][:, -1].float()
