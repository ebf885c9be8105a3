"""From choices to log-probabilities: which tokens of which forms are read off which pass.

    log pi(y | x) = logsumexp over the surface forms s of y of  sum_t log p(s_t | x, s_<t)

All choices of a batch share one forward pass over their prompts (left-padded). A form of one token
needs nothing more; longer forms continue from the prompt's key-value cache, so a prompt is never
encoded twice.

A *blend* of x and y with x' and y' (`EncodedChoice.blend`), the share λ of the other, is scored at
the embeddings (1 - λ) E[x_t] + λ E[x'_t], those of the answer's own tokens as well, and

    log p(s_t) = (1 - λ) log p(s_t | ...) + λ log p(s'_t | ...)

which is what an answer token has whose row of a linear output layer is mixed in the same way.

Source: arXiv 2512.15926, section 4; the summed surface forms and the blends are additions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence

from dso.checkpointing import recomputes
from dso.encoding import EncodedChoice
from dso.steering.backbone import unwrap
from dso.vision import Prompts


class Forward(Protocol):
    """What scoring needs of a policy; see `dso.policy.Policy`."""

    model: Any
    pad_id: int
    anyone: Callable[[bool], bool]

    @property
    def device(self) -> torch.device:
        """Where inputs go."""

    def left_pad(self, sequences: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """Token ids of sequences that end together, and their mask."""

    def prompts(self, batch: Sequence[EncodedChoice]) -> Prompts:
        """The prompts of a batch with their pictures."""

    def rows(self, rows: Tensor) -> AbstractContextManager[None]:
        """Context: the strengths of the rows selected."""

    def forward(
        self, ids: Tensor, mask: Tensor, *, keep: int, use_cache: bool = False, cache: Any = None,
        embeds: Tensor | None = None, seen: Prompts | None = None,
    ) -> Any:  # fmt: skip
        """One forward pass of the model."""


@dataclass(frozen=True)
class Scores:
    """What one forward pass says about a batch of B choices."""

    options: Tensor
    """(B, K) float32 log-probability of every option; -inf where a choice has fewer."""
    answers: Tensor
    """(P, V) float32 next-token log-probabilities at the answer's positions of the rows asked for:
    first every row's first position, then the further positions of answers of several tokens."""
    answer_rows: Tensor
    """(P,) long: the row of the batch each of `answers` belongs to."""
    tokens: Tensor | None = None
    """(B, K, L) float32 log-probability of each token of an option's first form, 0 behind its end;
    where it was asked for."""

    def mean_by_row(self, values: Tensor) -> Tensor:
        """(R,) mean of P values over each row's positions, for the R rows asked for, ascending."""
        rows, index, counts = self.answer_rows.unique(return_inverse=True, return_counts=True)
        means: Tensor = values.new_zeros(len(rows)).index_add(0, index, values) / counts
        return means


def score(
    policy: Forward,
    batch: Sequence[EncodedChoice],
    distributions: Sequence[int] = (),
    by_token: bool = False,
) -> Scores:
    """Score every option and, for the rows in `distributions`, the whole vocabulary.

    Args:
        policy: at the strength that is set.
        batch: B encoded choices with at most K options.
        distributions: see `Policy.score`.
        by_token: likewise.

    Raises:
        ValueError: as `Policy.score`.
    """
    if not batch:
        raise ValueError("there are no choices to score; the batch is empty")
    prompts = policy.prompts(batch)
    ids, mask = prompts.ids, prompts.mask
    shares = embeds = None
    if any(choice.blend is not None for choice in batch):
        _check_blends(policy, batch, distributions, by_token)
        shares = torch.tensor([choice.share for choice in batch], device=policy.device)
        embeds = _mixed(policy, ids, policy.left_pad([c.other.prompt for c in batch])[0], shares)
    plan = _plan(batch)
    if policy.anyone(bool(plan.tails)) and not plan.tails:
        # Others have a second pass, and need this process for it: it adds to no form.
        head, other = plan.entries[0][3:]
        plan.tails[0, (head, head), (other, other)] = []
    share = bool(plan.tails) and not recomputes(policy.model)
    output = policy.forward(ids, mask, keep=1, use_cache=share, embeds=embeds, seen=prompts)
    first = output.logits[:, -1].float().log_softmax(-1)
    rows, options, slots, heads, others = torch.tensor(plan.entries, device=first.device).T
    score = first[rows, heads]
    if shares is not None:
        mixed = torch.lerp(score, first[rows, others], shares[rows])
        score = torch.where(heads == others, score, mixed)
    pieces = [score[:, None]]
    wanted = torch.tensor(list(distributions), dtype=torch.long, device=first.device)
    full, full_rows = [first[wanted]], [wanted]
    if plan.tails:
        keys = list(plan.tails)
        cache = output.past_key_values if share else None
        tail, targets, others = _tail(policy, batch, keys, cache, prompts, shares)
        inside = targets >= 0
        picked = tail.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        if shares is not None:
            there = tail.gather(-1, others.clamp(min=0)[..., None])[..., 0]
            weights = shares[[row for row, _, _ in keys]][:, None]
            mixed = torch.lerp(picked, there, weights)
            picked = torch.where(targets == others, picked, mixed)
        sums = picked.masked_fill(~inside, 0).sum(-1)
        source = [n for n, key in enumerate(keys) for _ in plan.tails[key]]
        places = torch.tensor(
            [place for key in keys for place in plan.tails[key]],
            dtype=torch.long,
            device=score.device,
        )
        score = score.index_add(0, places, sums[source])
        if by_token:
            behind = picked.masked_fill(~inside, 0)[source]
            empty = behind.new_zeros(len(score), behind.shape[1])
            pieces.append(empty.index_add(0, places, behind))
        chosen = set(distributions)
        answers = [
            n for n, (r, tokens, _) in enumerate(keys) if r in chosen and tokens == batch[r].answer
        ]
        for n in answers:
            full.append(tail[n][inside[n]])
            full_rows.append(wanted.new_full((int(inside[n].sum()),), keys[n][0]))
    width = max(choice.options for choice in batch)
    grid = score.new_full((len(batch), width, int(slots.max()) + 1), -torch.inf)
    tokens = None
    if by_token:
        each, only = torch.cat(pieces, dim=1), slots == 0
        blank = each.new_zeros(len(batch), width, each.shape[1])
        tokens = blank.index_put((rows[only], options[only]), each[only])
    return Scores(
        options=grid.index_put((rows, options, slots), score).logsumexp(-1),
        answers=torch.cat(full),
        answer_rows=torch.cat(full_rows),
        tokens=tokens,
    )


def reunited(
    parts: Sequence[Scores], rows: Sequence[Sequence[int]], distributions: Sequence[int]
) -> Scores:
    """The scores of a batch that took several passes.

    Args:
        parts: of every pass.
        rows: which rows of the batch each was for.
        distributions: as `score`, of the batch.
    """
    width = max(part.options.shape[1] for part in parts)
    length = max((part.tokens.shape[2] for part in parts if part.tokens is not None), default=0)
    order = torch.tensor([row for part in rows for row in part]).argsort()
    options = [pad(p.options, (0, width - p.options.shape[1]), value=-torch.inf) for p in parts]
    tokens = [
        pad(p.tokens, (0, length - p.tokens.shape[2], 0, width - p.tokens.shape[1]))
        for p in parts
        if p.tokens is not None
    ]
    first, further = {}, []
    for part, own in zip(parts, rows, strict=True):
        asked = sum(row in set(own) for row in distributions)
        for place, row in enumerate(part.answer_rows.tolist()):
            if place < asked:
                first[own[row]] = part.answers[place]
            else:
                further.append((own[row], part.answers[place]))
    further.sort(key=lambda one: one[0])
    every = [(row, first[row]) for row in distributions] + further
    like = parts[0]
    return Scores(
        options=torch.cat(options)[order.to(like.options.device)],
        answers=torch.stack([one for _, one in every]) if every else like.answers[:0],
        answer_rows=like.answer_rows.new_tensor([row for row, _ in every]),
        tokens=torch.cat(tokens)[order.to(like.options.device)] if length else None,
    )


def _tail(
    policy: Forward,
    batch: Sequence[EncodedChoice],
    keys: Sequence[_Tail],
    cache: Any,
    prompts: Prompts,
    shares: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities (C, L, V) after the first token of C (row, form)s, and targets (C, L).

    A target of -1 is padding. The third are the targets of what the rows are mixed with.
    """
    device = prompts.mask.device
    rows = torch.tensor([row for row, _, _ in keys], device=device)

    def padded(sequences: list[tuple[int, ...]], value: int) -> Tensor:
        tensors = [torch.tensor(tokens, device=device) for tokens in sequences]
        return pad_sequence(tensors, batch_first=True, padding_value=value)

    ids = padded([tokens[:-1] for _, tokens, _ in keys], policy.pad_id)
    targets = padded([tokens[1:] for _, tokens, _ in keys], -1)
    tail_mask = (targets >= 0).to(prompts.mask.dtype)
    width = ids.shape[1]
    others = targets
    if shares is not None:
        other_ids = padded([tokens[:-1] for _, _, tokens in keys], policy.pad_id)
        others = padded([tokens[1:] for _, _, tokens in keys], -1)
    if cache is not None:
        cache.batch_select_indices(rows)
        whole, seen = ids, prompts.behind(rows, tail_mask)
    else:
        seen = policy.prompts([batch[row] for row, _, _ in keys]).extended(ids, tail_mask)
        whole = seen.ids
        if shares is not None:
            before, _ = policy.left_pad([batch[row].other.prompt for row, _, _ in keys])
            other_ids = torch.cat([before, other_ids], dim=1)
    embeds = None if shares is None else _mixed(policy, whole, other_ids, shares[rows])
    with policy.rows(rows):
        output = policy.forward(whole, seen.mask, keep=width, cache=cache, embeds=embeds, seen=seen)
    return output.logits[:, -width:].float().log_softmax(-1), targets, others


def _mixed(policy: Forward, ids: Tensor, others: Tensor, shares: Tensor) -> Tensor:
    """(B, T, H) the embeddings of (B, T) ids, each row a share of the way to the others'."""
    embed = unwrap(policy.model).get_input_embeddings()
    own, there = embed(ids), embed(others)
    # Where both are the same token the difference is 0, so that nothing is rounded.
    mixed: Tensor = torch.lerp(own.float(), there.float(), shares[:, None, None])
    return mixed.to(own.dtype)


def _check_blends(
    policy: Forward, batch: Sequence[EncodedChoice], distributions: Sequence[int], by_token: bool
) -> None:
    """Refuse what cannot be said of blends, and models they cannot be put to."""
    if by_token:
        raise ValueError(
            "the log-probability of each token was asked of a batch with blends; blends are "
            "for the exact estimator, so score the choices as they are"
        )
    asked = [batch[row].id for row in distributions if batch[row].blend is not None]
    if asked:
        raise ValueError(
            f"next-token distributions were asked of {len(asked)} blends, {asked[0]!r} the "
            "first; they are the distributions of no text, so ask for unblended rows only"
        )
    config = unwrap(policy.model).config.get_text_config(decoder=True)
    if getattr(config, "hidden_size_per_layer_input", None):
        raise ValueError(
            f"{config.model_type} looks every token up again in each block, so that a prompt "
            "is more than its input embeddings; train it without virtual occupations"
        )


_Tail = tuple[int, tuple[int, ...], tuple[int, ...]]
"""A row, and a form of it as tokens: its own, and of what it is mixed with (its own, where not)."""


@dataclass(frozen=True)
class _Plan:
    """Where every form of a batch goes."""

    entries: list[tuple[int, int, int, int, int]]
    """(row, option, running number of the form within the option, first token, the first token of
    what the row is mixed with) of every form."""
    tails: dict[_Tail, list[int]]
    """The forms longer than one token -> their positions in `entries`."""


def _plan(batch: Sequence[EncodedChoice]) -> _Plan:
    plan = _Plan([], {})
    for row, choice in enumerate(batch):
        counts = [0] * choice.options
        for (option, tokens), (_, others) in zip(choice.forms, choice.other.forms, strict=True):
            if len(tokens) > 1:
                plan.tails.setdefault((row, tokens, others), []).append(len(plan.entries))
            plan.entries.append((row, option, counts[option], tokens[0], others[0]))
            counts[option] += 1
    return plan
