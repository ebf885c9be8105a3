"""Evaluation: every metric of a task's splits, over a grid of strengths.

Each batch is scored by the base model once and by the steered model once a strength, so that the
whole vocabulary's distributions, which the KL needs, never outlive their batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor

from dso.encoding import EncodedChoice
from dso.metrics import kl_divergence, measure
from dso.policy import Policy
from dso.report import Result
from dso.sampling import Rollouts, Sampling, sample_answers
from dso.tasks.choice import Choice
from dso.tasks.table import tabulate
from dso.tasks.task import TaskData

log = logging.getLogger(__name__)

BATCH_TOKENS = 2**14
"""Most tokens of a forward pass: long prompts go in smaller batches."""
Transcript = Callable[[float, Sequence[Choice], Rollouts], None]
"""Takes (strength, choices, their generated answers)."""


@dataclass(frozen=True)
class SplitScores:
    """What was read off the model for one split at one strength, N choices, P with an answer."""

    options: Tensor
    """(N, K) log-probability of every option."""
    kl: Tensor
    """(P,) KL(steered || base) of each prompt with a right answer, nats."""
    generated: Tensor | None = None
    """(N, K) share of each choice's generated answers that mean each option, where any were."""


def by_split(choices: Sequence[Choice]) -> dict[str, list[Choice]]:
    """Choices grouped by the name of their split, in the order in which the names appear."""
    named: dict[str, list[Choice]] = {}
    for choice in choices:
        named.setdefault(choice.split, []).append(choice)
    return named


def splits(data: TaskData) -> dict[str, list[Choice]]:
    """The evaluation choices by split, and the pool the KL budget was held on, as `kl_pool`."""
    return by_split(data.evaluation) | ({"kl_pool": data.pool} if data.pool else {})


@torch.inference_mode()
def score_split(
    policy: Policy,
    choices: Sequence[Choice],
    strengths: Sequence[float],
    batch_size: int = 64,
    sampling: Sampling | None = None,
    seed: int = 0,
    transcript: Transcript | None = None,
    encoded: Sequence[EncodedChoice] | None = None,
) -> Iterator[tuple[int, dict[float, SplitScores]]]:
    """Score the choices of one split.

    Args:
        policy: with an adapter, unless all strengths are 0.
        choices: N of them.
        strengths: the grid; the base, strength 0, is always added.
        batch_size: choices a forward pass.
        sampling: generate answers too, so many and so long.
        seed: of the generated answers.
        transcript: gets every choice with its generated answers.
        encoded: the choices as tokens, where they are at hand.

    Yields:
        (choices done, scores by strength); the scores are complete in the last item and empty
        before.
    """
    encoded = policy.encode(choices) if encoded is None else encoded
    # Prompts of similar length share a batch: less padding.
    order = sorted(range(len(encoded)), key=lambda i: encoded[i].length)
    lengths = [encoded[i].length for i in order]
    grid = sorted({0.0, *strengths})
    width = max(choice.options for choice in encoded)
    options = {w: torch.full((len(encoded), width), -torch.inf) for w in grid}
    kl: dict[float, list[Tensor]] = {w: [] for w in grid}
    generated = {w: torch.zeros(len(encoded), width) for w in grid} if sampling else {}
    generators = {w: torch.Generator(policy.device).manual_seed(seed) for w in grid}
    where: list[int] = []
    for start, stop in _batches(lengths, batch_size):
        rows = order[start:stop]
        batch = [encoded[row] for row in rows]
        known = [n for n, row in enumerate(rows) if choices[row].truth is not None]
        base = None
        for strength in grid:
            with policy.at(strength):
                scores = policy.score(batch, known)
                if sampling is not None:
                    asked = [choices[row] for row in rows]
                    rollouts = sample_answers(policy, asked, batch, sampling, generators[strength])
                    generated[strength][rows] = rollouts.shares(width).cpu()
                    if transcript is not None:
                        transcript(strength, asked, rollouts)
            base = base or scores
            options[strength][rows, : scores.options.shape[1]] = scores.options.cpu()
            if known:
                divergence = kl_divergence(scores.answers, base.answers)
                kl[strength].append(scores.mean_by_row(divergence).cpu())
        where.extend(rows[n] for n in known)
        yield stop, {}
    # Back into the order of the choices, so that a seed's bootstrap does not depend on lengths.
    back = torch.tensor(where).argsort() if where else torch.empty(0, dtype=torch.long)
    yield (
        len(order),
        {
            w: SplitScores(
                options[w],
                torch.cat(kl[w])[back] if kl[w] else torch.empty(0),
                generated.get(w),
            )
            for w in grid
        },
    )


def _that_fit(
    policy: Policy, choices: Sequence[Choice], split: str
) -> tuple[Sequence[Choice], list[EncodedChoice]]:
    """The choices that the model has positions for, and the same as tokens."""
    encoded = policy.encode_any(choices)
    kept = [c for c, code in zip(choices, encoded, strict=True) if policy.fits(code)]
    if len(kept) < len(choices):
        log.info(
            "%s: %d of %d choices are longer than the model's %s positions and are left out",
            split, len(choices) - len(kept), len(choices), policy.positions,
        )  # fmt: skip
    if not kept:
        raise ValueError(
            f"{split}: all {len(choices)} choices are longer than the model's {policy.positions} "
            "positions; nothing is left to measure"
        )
    return kept, [code for code in encoded if policy.fits(code)]


def _batches(lengths: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of batches of ascending lengths: at most `size` rows and `BATCH_TOKENS` tokens,
    padding included, and at least one row."""
    start = 0
    while start < len(lengths):
        stop = start + 1
        while (
            stop < len(lengths)
            and stop - start < size
            and (stop - start + 1) * lengths[stop] <= BATCH_TOKENS
        ):
            stop += 1
        yield start, stop
        start = stop


def evaluate(
    policy: Policy,
    data: TaskData | Mapping[str, Sequence[Choice]],
    strengths: Sequence[float],
    *,
    seed: int = 0,
    batch_size: int = 64,
    replicates: int = 1000,
    progress: bool = True,
    sampling: Sampling | None = None,
    transcript: Transcript | None = None,
    skip_long: bool = False,
    **labels: Any,
) -> list[Result]:
    """Measure a model at every strength on every split.

    Args:
        policy: the model, with an adapter unless the only strength is 0.
        data: a task's data, or choices by split.
        strengths: the grid.
        seed: of sampled answers and bootstrap, and written into every result.
        batch_size: choices a forward pass.
        replicates: of the bootstrap.
        progress: show a progress bar.
        sampling: also generate answers, read them and count the unparsed; about as slow again as
            the answers are many and long.
        transcript: called with (strength, choices, rollouts) for every batch of generated answers.
        skip_long: leave out, and log, choices longer than the model has positions; otherwise they
            are an error.
        labels: further keys of every result, such as `model`, `adapter`, `task`.

    Returns:
        One result a figure. On `kl_pool` only the KL is reported: it is training data.
    """
    named = splits(data) if isinstance(data, TaskData) else dict(data)
    grid = sorted(dict.fromkeys(float(w) for w in strengths))
    results: list[Result] = []
    with Progress(disable=not progress, transient=True) as bar:
        for split, asked in named.items():
            if skip_long:
                choices, encoded = _that_fit(policy, asked, split)
            else:
                choices, encoded = asked, policy.encode(asked)
            job = bar.add_task(f"evaluating {split}", total=len(choices))
            scores: dict[float, SplitScores] = {}
            for done, complete in score_split(
                policy, choices, grid, batch_size, sampling, seed, transcript, encoded
            ):
                bar.update(job, completed=done)
                scores = complete or scores
            table = tabulate(choices)
            base = scores[0.0].options
            for strength in grid:
                kl = scores[strength].kl
                figures = measure(
                    scores[strength].options,
                    table,
                    base,
                    seed=seed,
                    replicates=replicates,
                    kl=kl if len(kl) else None,
                    generated=scores[strength].generated,
                )
                results.extend(
                    Result(strength=strength, split=split, seed=seed, **vars(figure), **labels)
                    for figure in figures
                    if split != "kl_pool" or figure.metric == "kl"
                )
    return results
