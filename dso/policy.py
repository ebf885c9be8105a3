"""The model as a policy over a choice's options: pi(y | x), its base, and its distance to it.

The base model is the same weights with the strength at zero. How choices become log-probabilities
is in `dso.scoring`. Source: arXiv 2512.15926, section 4.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dso.encoding import EncodedChoice, encode, render
from dso.loading import LOADING, Loading, load_base, load_processor, load_tokenizer
from dso.scoring import Scores, reunited, score
from dso.steering import SteeringModel, load_adapter
from dso.steering.backbone import unwrap
from dso.tasks.choice import Choice
from dso.vision import Eyes, Prompts, Shown, together

log = logging.getLogger(__name__)

Strength = float | Sequence[float] | Tensor


class Policy:
    """A causal language model, its tokenizer and, where attached, its steering adapter.

    Args:
        model: a transformers causal LM, plain or with a steering adapter.
        tokenizer: its tokenizer; it needs a padding or an end token.
        end_token: append the end token to every surface form, so that options which are prefixes
            of one another can be told apart.
        processor: of a model that sees pictures; None for one that does not.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        *,
        end_token: bool = False,
        processor: Any = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.end_token = end_token
        self.eyes = None if processor is None else Eyes(processor, model)
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
        accepted = inspect.signature(unwrap(model).forward).parameters
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
        processor = load_processor(model, loading.revision, tokenizer)
        base = load_base(model, loading)
        if adapter is not None:
            base = load_adapter(base, adapter, trainable=trainable)
            base.set_strength(strength)
        return cls(base.eval(), tokenizer, end_token=end_token, processor=processor)

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def positions(self) -> int | None:
        """How many tokens a sequence can have; None where the model's configuration sets no end."""
        config = unwrap(self.model).config.get_text_config(decoder=True)
        limit = getattr(config, "max_position_embeddings", None)
        return None if limit is None else int(limit)

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the model's own and the tokenizer's."""
        ends = unwrap(self.model).generation_config.eos_token_id
        several = ends if isinstance(ends, list | tuple) else [ends]
        return frozenset(int(i) for i in (*several, self.tokenizer.eos_token_id) if i is not None)

    @property
    def vocabulary(self) -> int:
        """How many tokens the model's distributions range over."""
        return int(unwrap(self.model).get_output_embeddings().weight.shape[0])

    @property
    def synced(self) -> bool:
        """Whether the model is spread over processes."""
        return self.anyone is not bool

    @property
    def steered(self) -> bool:
        """Whether a steering adapter is attached."""
        return isinstance(getattr(self.model, "base_model", None), SteeringModel)

    @property
    def recipe(self) -> dict[str, Any] | None:
        """How the attached adapter was trained, where its configuration says."""
        if not self.steered:
            return None
        recipe: dict[str, Any] | None = self.model.peft_config[self.model.active_adapter].recipe
        return recipe

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
        return render(choice, self.tokenizer, self.eyes)

    def encode(self, choices: Sequence[Choice]) -> list[EncodedChoice]:
        """Tokenise choices; see `dso.encoding.encode`.

        Raises:
            ValueError: as there, or a choice is longer than the model has positions.
        """
        encoded = self.encode_any(choices)
        long = [choice for choice in encoded if not self.fits(choice)]
        if long:
            raise ValueError(
                f"{len(long)} of {len(encoded)} choices are longer than the model's "
                f"{self.positions} positions, {long[0].id!r} the first ({long[0].length} tokens); "
                "shorten them, or leave them out (`--skip-long`, where a command has it)"
            )
        return encoded

    def encode_any(self, choices: Sequence[Choice]) -> list[EncodedChoice]:
        """As `encode`, of whatever length; see `fits`."""
        return encode(choices, self.tokenizer, self.end_token, self.eyes)

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
        groups = self.passes([code.shown for code in batch])
        if len(groups) < 2:
            return score(self, batch, distributions, by_token)
        parts = []
        for group in groups:
            wanted = [group.index(row) for row in distributions if row in group]
            with self.rows(torch.tensor(group, device=self.device)):
                parts.append(score(self, [batch[row] for row in group], wanted, by_token))
        return reunited(parts, groups, distributions)

    def passes(self, shown: Sequence[Shown | None]) -> list[list[int]]:
        """Rows that can be in one forward pass, one list a pass; mostly one list.

        Args:
            shown: of each row the text and pictures of its prompt, if it has any.
        """
        return [list(range(len(shown)))] if self.eyes is None else self.eyes.groups(shown)

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

    def prompts(self, batch: Sequence[EncodedChoice]) -> Prompts:
        """The prompts of a batch with their pictures, on the model's device."""
        return self.gather([c.prompt for c in batch], [c.shown for c in batch])

    def gather(
        self, sequences: Sequence[tuple[int, ...]], shown: Sequence[Shown | None]
    ) -> Prompts:
        """Prompts as a batch that ends together, on the model's device.

        Args:
            sequences: token ids.
            shown: text and pictures of those that have any.
        """
        if not any(shown):
            return Prompts(*self.left_pad(sequences))
        assert self.eyes is not None  # what is shown was seen when it was encoded
        seen = [None if one is None else self.eyes.see(one) for one in shown]
        return together(sequences, seen, self.eyes, self.pad_id).to(self.device)

    def forward(
        self,
        ids: Tensor,
        mask: Tensor,
        *,
        keep: int,
        use_cache: bool = False,
        cache: Any = None,
        embeds: Tensor | None = None,
        seen: Prompts | None = None,
    ) -> Any:
        """One forward pass of the model, positions counted from each row's first real token.

        Args:
            ids: (B, T) token ids; behind what `cache` holds, where one is given.
            mask: (B, S) of the whole sequences, cache included.
            keep: for how many of the last positions logits are wanted.
            use_cache: keep the keys and values.
            cache: of an earlier pass.
            embeds: (B, T, H) input embeddings, in place of those of `ids`.
            seen: further inputs and positions, where pictures are shown.
        """
        arguments: dict[str, Any] = {"attention_mask": mask}
        if seen is not None:
            arguments |= seen.inputs
        if embeds is None:
            arguments["input_ids"] = ids
        else:
            arguments["inputs_embeds"] = embeds
        if self._takes_positions:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            if seen is not None and seen.positions is not None:
                positions = seen.positions
            arguments["position_ids"] = positions[..., -ids.shape[1] :]
        if self._takes_keep:
            arguments["logits_to_keep"] = keep
        if cache is not None:
            arguments["past_key_values"] = cache
        return self.model(**arguments, use_cache=use_cache or cache is not None)
