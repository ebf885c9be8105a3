"""Sampled answers: generate from the policy itself, read what the texts mean, score them again.

Answers are drawn from the model's own distribution: temperature 1, nothing cut off, nothing
penalised, so that log pi of what was drawn is what an estimator needs. A prompt is encoded once and
its key-value cache shared by all its answers. A text that means no option is "unparsed"; it is
counted and never dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dso.encoding import EncodedChoice
from dso.policy import Policy
from dso.tasks.choice import Choice
from dso.tasks.parsing import parse_answer


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled, for the estimators that need it."""

    samples: int = 8
    """Answers a prompt."""
    max_new_tokens: int = 8
    """Longest answer; what is longer is cut there and read as it stands."""
    epochs: int = 1
    """Optimiser steps on the same answers; more than one needs the clipped ratio of grpo."""

    def __post_init__(self) -> None:
        for name in ("samples", "max_new_tokens", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"sampling.{name} is {getattr(self, name)}; wanted at least 1")


@dataclass(frozen=True)
class Rollouts:
    """G sampled answers to each of N choices, ready to be scored."""

    encoded: list[EncodedChoice]
    """The choices with every distinct answer as one more option behind their own."""
    column: Tensor
    """(N, G) long: the column of each answer among the options of `encoded`."""
    option: Tensor
    """(N, G) long: the choice's option each answer means, -1 for none (unparsed)."""
    length: Tensor
    """(N, G) long: tokens of each answer."""
    texts: list[list[str]]
    """What was said."""

    @property
    def unparsed(self) -> Tensor:
        """() share of the answers that mean no option."""
        return (self.option < 0).float().mean()

    def shares(self, options: int) -> Tensor:
        """(N, options) share of each choice's answers that mean each option; rows sum to 1 or, with
        unparsed answers, to less."""
        hits = self.option[..., None] == torch.arange(options, device=self.option.device)
        return hits.float().mean(1)


@torch.no_grad()
def sample_tokens(
    policy: Policy,
    batch: Sequence[EncodedChoice],
    sampling: Sampling,
    generator: torch.Generator,
) -> list[list[tuple[int, ...]]]:
    """Answers as tokens, the end token included where the model gave one.

    Args:
        policy: at the strength that is set; in eval mode.
        batch: N encoded choices.
        sampling: how many answers, and how long.
        generator: on the policy's device.

    Returns:
        For every choice its `samples` answers.
    """
    ends = torch.tensor(sorted(policy.end_ids), dtype=torch.long, device=policy.device)
    ids, mask = policy.left_pad([choice.prompt for choice in batch])
    output = policy.forward(ids, mask, keep=1, use_cache=True)
    cache = output.past_key_values
    cache.batch_repeat_interleave(sampling.samples)
    logits = output.logits[:, -1].repeat_interleave(sampling.samples, dim=0)
    mask = mask.repeat_interleave(sampling.samples, dim=0)
    origin = torch.arange(len(batch), device=ids.device).repeat_interleave(sampling.samples)
    answers: list[list[int]] = [[] for _ in range(len(origin))]
    alive = torch.arange(len(origin), device=ids.device)
    for length in range(1, sampling.max_new_tokens + 1):
        drawn = torch.multinomial(logits.float().softmax(-1), 1, generator=generator)
        for row, token in zip(alive.tolist(), drawn[:, 0].tolist(), strict=True):
            answers[row].append(token)
        going = (~torch.isin(drawn[:, 0], ends)).nonzero()[:, 0]
        if len(going) == 0 or length == sampling.max_new_tokens:
            break
        if len(going) < len(alive):
            # Only the answers that go on are computed further.
            cache.batch_select_indices(going)
            drawn, mask, alive = drawn[going], mask[going], alive[going]
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
        with policy.rows(origin[alive]):
            logits = policy.forward(drawn, mask, keep=1, cache=cache).logits[:, -1]
    return [
        [tuple(answers[row * sampling.samples + g]) for g in range(sampling.samples)]
        for row in range(len(batch))
    ]


def sample_answers(
    policy: Policy,
    choices: Sequence[Choice],
    encoded: Sequence[EncodedChoice],
    sampling: Sampling,
    generator: torch.Generator,
) -> Rollouts:
    """Generate answers to choices and read them.

    Args:
        policy: at the strength that is set; in eval mode.
        choices: N of them, whose options the texts are read as.
        encoded: the same choices as tokens.
        sampling: how many answers, and how long.
        generator: on the policy's device.
    """
    drawn = sample_tokens(policy, encoded, sampling, generator)
    return read_answers(policy, choices, encoded, drawn)


def read_answers(
    policy: Policy,
    choices: Sequence[Choice],
    encoded: Sequence[EncodedChoice],
    drawn: Sequence[Sequence[tuple[int, ...]]],
) -> Rollouts:
    """What answers mean, given as tokens: G to each of N choices."""
    extended, columns, options, lengths, texts = [], [], [], [], []
    for choice, code, answers in zip(choices, encoded, drawn, strict=True):
        distinct = {tokens: place for place, tokens in enumerate(dict.fromkeys(answers))}
        decoded = policy.tokenizer.batch_decode(
            [list(tokens) for tokens in distinct], skip_special_tokens=True
        )
        said = dict(zip(distinct, decoded, strict=True))
        means = {tokens: parse_answer(text, choice.options) for tokens, text in said.items()}
        more = tuple((code.options + place, tokens) for tokens, place in distinct.items())
        extended.append(
            replace(code, forms=code.forms + more, options=code.options + len(distinct))
        )
        columns.append([code.options + distinct[tokens] for tokens in answers])
        options.append([-1 if means[t] is None else means[t] for t in answers])
        lengths.append([len(tokens) for tokens in answers])
        texts.append([said[tokens] for tokens in answers])
    device = policy.device
    return Rollouts(
        encoded=extended,
        column=torch.tensor(columns, device=device),
        option=torch.tensor(options, device=device),
        length=torch.tensor(lengths, device=device),
        texts=texts,
    )
