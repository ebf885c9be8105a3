"""The model as a policy over a choice's options.

    log pi(y | x) = logsumexp over the surface forms s of y of  sum_t log p(s_t | x, s_<t)

All choices of a batch share one forward pass over their prompts (left-padded). A form of one token
needs nothing more; longer forms continue from the prompt's key-value cache, so a prompt is never
encoded twice. The base model is the same weights with the strength at zero.

A *blend* of x and y with x' and y' (`EncodedChoice.blend`), the share λ of the other, is scored at
the embeddings (1 - λ) E[x_t] + λ E[x'_t], those of the answer's own tokens as well, and

    log p(s_t) = (1 - λ) log p(s_t | ...) + λ log p(s'_t | ...)

which is what an answer token has whose row of a linear output layer is mixed in the same way.

Source: arXiv 2512.15926, section 4; the summed surface forms and the blends are additions.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from dso.checkpointing import recomputes
from dso.encoding import EncodedChoice, encode, render
from dso.loading import LOADING, Loading, load_base, load_tokenizer
from dso.steering import SteeringModel, load_adapter
from dso.tasks.choice import Choice

log = logging.getLogger(__name__)

Strength = float | Sequence[float] | Tensor


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


class Policy:
    """A causal language model, its tokenizer and, where attached, its steering adapter.

    Args:
        model: a transformers causal LM, plain or with a steering adapter.
        tokenizer: its tokenizer; it needs a padding or an end token.
        end_token: append the end token to every surface form, so that options which are prefixes
            of one another can be told apart.
    """

    def __init__(
        self, model: Any, tokenizer: PreTrainedTokenizerBase, *, end_token: bool = False
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.end_token = end_token
        self.anyone: Callable[[bool], bool] = bool
        """Whether something holds here or, of a model that is spread over processes, in any of
        them: each of its forward passes takes them all."""
        pad = tokenizer.pad_token_id
        if pad is None:
            pad = tokenizer.eos_token_id
            if pad is None:
                raise ValueError(
                    f"the tokenizer of {model.config._name_or_path!r} has neither a padding nor an "
                    "end token; set tokenizer.pad_token to one of its tokens"
                )
            log.info("no padding token; the end token pads instead (it is masked out)")
        self.pad_id = int(pad)
        if end_token and tokenizer.eos_token_id is None:
            raise ValueError("end_token is set, but the tokenizer has no end token")
        accepted = inspect.signature(_unwrapped(model).forward).parameters
        self._takes_positions = "position_ids" in accepted
        self._takes_keep = "logits_to_keep" in accepted

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        adapter: str | Path | None = None,
        *,
        strength: float = 1.0,
        loading: Loading = LOADING,
        end_token: bool = False,
        trainable: bool = False,
    ) -> Policy:
        """Load a model, its tokenizer and, if given, an adapter at a strength.

        Args:
            model: a model folder or hub id.
            adapter: an adapter folder or hub id.
            strength: initial strength of the adapter.
            loading: how the base is loaded: dtype, quantisation, devices.
            end_token: see the class.
            trainable: whether the adapter's vectors require gradients.

        Raises:
            ValueError: a path that does not exist, a folder without a model or a tokenizer, an
                adapter trained for another base.
        """
        tokenizer = load_tokenizer(model, loading.revision)
        base = load_base(model, loading)
        if adapter is not None:
            base = load_adapter(base, adapter, trainable=trainable)
            base.set_strength(strength)
        return cls(base.eval(), tokenizer, end_token=end_token)

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def positions(self) -> int | None:
        """How many tokens a sequence can have; None where the model's configuration sets no end."""
        config = _unwrapped(self.model).config.get_text_config(decoder=True)
        limit = getattr(config, "max_position_embeddings", None)
        return None if limit is None else int(limit)

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the model's own and the tokenizer's."""
        ends = _unwrapped(self.model).generation_config.eos_token_id
        several = ends if isinstance(ends, list | tuple) else [ends]
        return frozenset(int(i) for i in (*several, self.tokenizer.eos_token_id) if i is not None)

    @property
    def vocabulary(self) -> int:
        """How many tokens the model's distributions range over."""
        return int(_unwrapped(self.model).get_output_embeddings().weight.shape[0])

    @property
    def synced(self) -> bool:
        """Whether the model is spread over processes."""
        return self.anyone is not bool

    @property
    def steered(self) -> bool:
        """Whether a steering adapter is attached."""
        return isinstance(getattr(self.model, "base_model", None), SteeringModel)

    def at(self, strength: Strength) -> AbstractContextManager[None]:
        """Context: every call at this strength; without an adapter only 0 is possible."""
        if self.steered:
            context: AbstractContextManager[None] = self.model.strength_at(strength)
            return context
        if torch.as_tensor(strength).ne(0).any():
            raise ValueError(
                f"strength {strength} was asked of a model without an adapter; attach one first"
            )
        return nullcontext()

    def base(self) -> AbstractContextManager[None]:
        """Context: the base model, the same weights at strength zero."""
        return self.at(0.0)

    # -- tokens -----------------------------------------------------------------------------

    def render(self, choice: Choice) -> str:
        """The prompt's text as the model sees it; see `dso.encoding.render`."""
        return render(choice, self.tokenizer)

    def encode(self, choices: Sequence[Choice]) -> list[EncodedChoice]:
        """Tokenise choices; see `dso.encoding.encode`.

        Raises:
            ValueError: as there, or a choice is longer than the model has positions.
        """
        encoded = encode(choices, self.tokenizer, self.end_token)
        long = [choice for choice in encoded if not self.fits(choice)]
        if long:
            raise ValueError(
                f"{len(long)} of {len(encoded)} choices are longer than the model's "
                f"{self.positions} positions, {long[0].id!r} the first ({long[0].length} tokens); "
                "leave them out (`--skip-long` of `dso evaluate`), or shorten them"
            )
        return encoded

    def fits(self, choice: EncodedChoice) -> bool:
        """Whether the model has a position for every token of the prompt and its longest answer."""
        return self.positions is None or choice.length <= self.positions

    # -- forward passes ---------------------------------------------------------------------

    def option_log_probs(self, batch: Sequence[EncodedChoice]) -> Tensor:
        """Log-probability of every option, at the current strength.

        Args:
            batch: B encoded choices with at most K options.

        Returns:
            (B, K) float32; -inf where a choice has fewer options.
        """
        return self.score(batch).options

    def score(
        self,
        batch: Sequence[EncodedChoice],
        distributions: Sequence[int] = (),
        *,
        by_token: bool = False,
    ) -> Scores:
        """Score every option and, for the rows in `distributions`, the whole vocabulary.

        Args:
            batch: B encoded choices with at most K options.
            distributions: rows whose next-token distributions at the answer's positions are wanted
                too (for the KL to the base); they come from the same forward pass.
            by_token: give each token's log-probability too, for options of one form.

        Raises:
            ValueError: an empty batch; a strength per row where gradients are wanted through
                gradient checkpointing; blends of which distributions or each token's
                log-probability are wanted, or that the model cannot take.
        """
        if not batch:
            raise ValueError("there are no choices to score; the batch is empty")
        ids, mask = self.left_pad([choice.prompt for choice in batch])
        shares = embeds = None
        if any(choice.blend is not None for choice in batch):
            self._check_blends(batch, distributions, by_token)
            shares = torch.tensor([choice.share for choice in batch], device=self.device)
            embeds = self._mixed(ids, self.left_pad([c.other.prompt for c in batch])[0], shares)
        plan = _plan(batch)
        if self.anyone(bool(plan.tails)) and not plan.tails:
            # Others have a second pass, and need this process for it: it adds to no form.
            head, other = plan.entries[0][3:]
            plan.tails[0, (head, head), (other, other)] = []
        share = bool(plan.tails) and not recomputes(self.model)
        output = self.forward(ids, mask, keep=1, use_cache=share, embeds=embeds)
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
            tail, targets, others = self._tail(batch, keys, cache, mask, shares)
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
                n
                for n, (r, tokens, _) in enumerate(keys)
                if r in chosen and tokens == batch[r].answer
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

    def _tail(
        self,
        batch: Sequence[EncodedChoice],
        keys: Sequence[_Tail],
        cache: Any,
        mask: Tensor,
        shares: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities (C, L, V) after the first token of C (row, form)s, and targets (C, L).

        A target of -1 is padding. The third are the targets of what the rows are mixed with.
        """
        rows = torch.tensor([row for row, _, _ in keys], device=mask.device)

        def padded(sequences: list[tuple[int, ...]], value: int) -> Tensor:
            tensors = [torch.tensor(tokens, device=mask.device) for tokens in sequences]
            return pad_sequence(tensors, batch_first=True, padding_value=value)

        ids = padded([tokens[:-1] for _, tokens, _ in keys], self.pad_id)
        targets = padded([tokens[1:] for _, tokens, _ in keys], -1)
        tail_mask = (targets >= 0).to(mask.dtype)
        width = ids.shape[1]
        others = targets
        if shares is not None:
            other_ids = padded([tokens[:-1] for _, _, tokens in keys], self.pad_id)
            others = padded([tokens[1:] for _, _, tokens in keys], -1)
        whole, full = ids, mask[rows]
        if cache is not None:
            cache.batch_select_indices(rows)
        else:
            prompts, full = self.left_pad([batch[row].prompt for row, _, _ in keys])
            whole = torch.cat([prompts, ids], dim=1)
            if shares is not None:
                prompts, _ = self.left_pad([batch[row].other.prompt for row, _, _ in keys])
                other_ids = torch.cat([prompts, other_ids], dim=1)
        full = torch.cat([full, tail_mask], dim=1)
        embeds = None if shares is None else self._mixed(whole, other_ids, shares[rows])
        with self.rows(rows):
            output = self.forward(whole, full, keep=width, cache=cache, embeds=embeds)
        return output.logits[:, -width:].float().log_softmax(-1), targets, others

    def _mixed(self, ids: Tensor, others: Tensor, shares: Tensor) -> Tensor:
        """(B, T, H) the embeddings of (B, T) ids, each row a share of the way to the others'."""
        embed = _unwrapped(self.model).get_input_embeddings()
        own, there = embed(ids), embed(others)
        # Where both are the same token the difference is 0, so that nothing is rounded.
        mixed: Tensor = torch.lerp(own.float(), there.float(), shares[:, None, None])
        return mixed.to(own.dtype)

    def _check_blends(
        self, batch: Sequence[EncodedChoice], distributions: Sequence[int], by_token: bool
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
        config = _unwrapped(self.model).config.get_text_config(decoder=True)
        if getattr(config, "hidden_size_per_layer_input", None):
            raise ValueError(
                f"{config.model_type} looks every token up again in each block, so that a prompt "
                "is more than its input embeddings; train it without virtual occupations"
            )

    def rows(self, rows: Tensor) -> AbstractContextManager[None]:
        """Context: the strengths of the rows selected, where each row of the batch has its own."""
        if not self.steered or self.model.strength.ndim == 0:
            return nullcontext()
        if torch.is_grad_enabled() and self.model.recomputes():
            # The rows' strengths would be gone when backward() runs the forward pass again.
            raise ValueError(
                "a strength per row cannot be trained through transformers' own gradient "
                "checkpointing; use `dso.checkpointing.checkpointed`, or one strength for the batch"
            )
        return self.at(self.model.strength[rows])

    def left_pad(self, sequences: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """Token ids (B, T) of sequences that end together, and their mask (B, T), 1 for a token."""
        width = max(len(s) for s in sequences)
        ids = torch.full((len(sequences), width), self.pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, tokens in enumerate(sequences):
            ids[row, width - len(tokens) :] = torch.tensor(tokens)
            mask[row, width - len(tokens) :] = 1
        return ids.to(self.device), mask.to(self.device)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        *,
        keep: int,
        use_cache: bool = False,
        cache: Any = None,
        embeds: Tensor | None = None,
    ) -> Any:
        """One forward pass of the model, positions counted from each row's first real token.

        Args:
            ids: (B, T) token ids; behind what `cache` holds, where one is given.
            mask: (B, S) of the whole sequences, cache included.
            keep: for how many of the last positions logits are wanted.
            use_cache: keep the keys and values.
            cache: of an earlier pass.
            embeds: (B, T, H) input embeddings, in place of those of `ids`.
        """
        arguments: dict[str, Any] = {"attention_mask": mask}
        if embeds is None:
            arguments["input_ids"] = ids
        else:
            arguments["inputs_embeds"] = embeds
        if self._takes_positions:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            arguments["position_ids"] = positions[:, -ids.shape[1] :]
        if self._takes_keep:
            arguments["logits_to_keep"] = keep
        if cache is not None:
            arguments["past_key_values"] = cache
        return self.model(**arguments, use_cache=use_cache or cache is not None)


def _unwrapped(model: Any) -> Any:
    """The transformers model inside a PEFT wrapper."""
    return model.get_base_model() if getattr(model, "peft_config", None) is not None else model


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
