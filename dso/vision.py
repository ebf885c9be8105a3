"""What a model is given of prompts with pictures.

A family's processor writes a place for every visual token into the prompt and turns the pictures
into tensors, whose names and shapes are the family's own. Rows are processed one by one and kept,
for training and evaluation show the same pictures again and again; a batch is its rows put
together: what has an entry for every token is padded on the left like the tokens, all else is
stacked as it came.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from dso.fitting import check_made, check_sizes, positions_of
from dso.steering.backbone import unwrap
from dso.tasks.pictures import Picture, open_picture

BUDGET = 2**30
"""Bytes of processed pictures that are kept."""
CROSS = "cross_attention_mask"
BY_TOKEN = ("token_type_ids", "mm_token_type_ids", CROSS)
"""Inputs with an entry for every token, in their second dimension."""
NOT_GIVEN = ("attention_mask", "labels")
"""What processors make and is made here, or belongs to training."""


@dataclass(frozen=True)
class Shown:
    """A prompt as text, a mark in it for every picture, and the pictures."""

    text: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Seen:
    """A prompt with its pictures as the model takes it, in a batch of one."""

    tokens: tuple[int, ...]
    """A place for every visual token among them."""
    inputs: Mapping[str, Tensor]
    """What the processor gives besides token ids and mask."""
    positions: Tensor | None = None
    """(3, T) where the model counts positions in three directions."""

    @property
    def size(self) -> int:
        """Bytes of the inputs."""
        return sum(value.numel() * value.element_size() for value in self.inputs.values())


class Eyes:
    """A family's processor, and what it made of the prompts before.

    Args:
        processor: of transformers.
        model: whose inputs it makes.

    Raises:
        ValueError: the processor of another model, as far as their sizes tell.
    """

    def __init__(self, processor: Any, model: Any) -> None:
        self.processor = processor
        self._base = unwrap(model)
        check_sizes(processor, self._base)
        self.family: str = self._base.config.model_type
        # Where a model counts positions in three directions it says how.
        self._index = positions_of(self._base)
        self._kept: OrderedDict[Shown, Seen] = OrderedDict()
        self._bytes = 0

    @property
    def templated(self) -> bool:
        """Whether the processor knows how a conversation is written."""
        return self.processor.chat_template is not None

    @property
    def mark(self) -> str:
        """What stands in a text for a picture."""
        return str(self.processor.image_token)

    def groups(self, batch: Sequence[Shown | None]) -> list[list[int]]:
        """Rows that can be in one pass, one list a pass; mostly one list.

        Llama 3.2 Vision lets the text of a row see the padding of its pictures: its rows are put
        together by their number of pictures.
        """
        if self.family != "mllama":
            return [list(range(len(batch)))]
        found: dict[int, list[int]] = {}
        for row, shown in enumerate(batch):
            found.setdefault(0 if shown is None else len(shown.pictures), []).append(row)
        return list(found.values())

    def see(self, shown: Shown, where: str = "") -> Seen:
        """A prompt with its pictures, as one row of inputs.

        Args:
            shown: text with marks, and pictures.
            where: what it belongs to, for errors.

        Raises:
            ValueError: a picture that cannot be read, or that the processor refuses; a processor
                that makes what the model does not take.
        """
        if shown in self._kept:
            self._kept.move_to_end(shown)
            return self._kept[shown]
        images = [open_picture(picture, where) for picture in shown.pictures]
        begin = self.processor.tokenizer.bos_token
        try:
            made = self.processor(
                text=[shown.text],
                images=[images],
                return_tensors="pt",
                # Some templates write the token that begins a text, some tokenizers do.
                add_special_tokens=begin is None or not shown.text.startswith(begin),
            )
        except (ValueError, TypeError, RuntimeError, IndexError) as error:
            before = f"{where}: " if where else ""
            raise ValueError(
                f"{before}{type(self.processor).__name__} does not take {len(images)} pictures "
                f"with this prompt ({error}); is it the processor of this model?"
            ) from error
        ids = made.pop("input_ids")
        inputs = {name: value for name, value in made.items() if name not in NOT_GIVEN}
        check_made(self.processor, self._base, ids, inputs)
        seen = Seen(tuple(ids[0].tolist()), inputs, self._positions(ids, inputs))
        self._keep(shown, seen)
        return seen

    def _positions(self, ids: Tensor, inputs: Mapping[str, Tensor]) -> Tensor | None:
        if self._index is None:
            return None
        accepted = inspect.signature(self._index).parameters
        given = {name: value for name, value in inputs.items() if name in accepted}
        positions: Tensor = self._index(
            input_ids=ids, attention_mask=torch.ones_like(ids), **given
        )[0]
        return positions[:, 0]

    def _keep(self, shown: Shown, seen: Seen) -> None:
        self._kept[shown] = seen
        self._bytes += seen.size
        while self._bytes > BUDGET:
            self._bytes -= self._kept.popitem(last=False)[1].size


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts as the model takes it, padded on the left."""

    ids: Tensor
    """(B, T) token ids."""
    mask: Tensor
    """(B, T), 1 for a token."""
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    """What else the model takes, where pictures are shown."""
    positions: Tensor | None = None
    """(3, B, T) where the model counts them in three directions; None: as the mask counts."""
    family: str = ""
    """The model's, where pictures are shown."""

    def to(self, device: torch.device) -> Prompts:
        """The same on a device."""
        return Prompts(
            self.ids.to(device),
            self.mask.to(device),
            {name: value.to(device) for name, value in self.inputs.items()},
            None if self.positions is None else self.positions.to(device),
            self.family,
        )

    def counted(self) -> Tensor:
        """Positions, (B, T) or (3, B, T)."""
        if self.positions is not None:
            return self.positions
        return (self.mask.cumsum(-1) - 1).clamp(min=0)

    @property
    def causal(self) -> bool:
        """Whether no token of a prompt sees a later one."""
        return self.family != "paligemma"

    @property
    def start(self) -> Prompts:
        """The prompts without their last tokens."""
        inputs = {
            name: value[:, :-1] if name in BY_TOKEN else value
            for name, value in self.inputs.items()
        }
        positions = None if self.positions is None else self.positions[..., :-1]
        return Prompts(self.ids[:, :-1], self.mask[:, :-1], inputs, positions, self.family)

    def seen_before(self, rows: Tensor) -> Prompts:
        """Prompts whose pictures are in a key-value cache already.

        Args:
            rows: (C,) which ones.
        """
        inputs = {CROSS: self.inputs[CROSS][rows]} if CROSS in self.inputs else {}
        positions = None if self.positions is None else self.positions[:, rows]
        return Prompts(self.ids[rows], self.mask[rows], inputs, positions, self.family)

    def behind(self, rows: Tensor, more: Tensor) -> Prompts:
        """What continues the prompts from their key-value cache.

        Args:
            rows: (C,) which prompt each continues.
            more: (C, L) mask of the further tokens, 1 for a token.

        Returns:
            Prompts whose mask is the whole one, (C, T + L), and whose ids are those of the prompts.
        """
        mask = torch.cat([self.mask[rows], more], dim=1)
        positions = None
        if self.positions is not None:
            positions = self.positions[:, rows, -1:] + more.cumsum(-1)
        inputs = {}
        if (cross := self.inputs.get(CROSS)) is not None:
            # The answer sees what the prompt's last token sees.
            inputs[CROSS] = cross[rows][:, -1:].expand(-1, more.shape[1], -1, -1)
        return Prompts(self.ids[rows], mask, inputs, positions, self.family)

    def extended(self, ids: Tensor, more: Tensor) -> Prompts:
        """The prompts with further tokens, all in one pass.

        Args:
            ids: (B, L) the further tokens.
            more: (B, L) their mask.
        """
        mask = torch.cat([self.mask, more], dim=1)
        whole = torch.cat([self.ids, ids], dim=1)
        positions = None
        if self.positions is not None:
            steps = self.positions[..., -1:] + more.cumsum(-1)
            positions = torch.cat([self.positions, steps], dim=-1)
        inputs = dict(self.inputs)
        for name in BY_TOKEN:
            if name in inputs:
                inputs[name] = torch.cat([inputs[name], self._further(name, more)], dim=1)
        return Prompts(whole, mask, inputs, positions, self.family)

    def _further(self, name: str, more: Tensor) -> Tensor:
        """An input by token, for tokens behind the prompt."""
        own = self.inputs[name]
        if name == CROSS:
            return own[:, -1:].expand(-1, more.shape[1], -1, -1)
        # PaliGemma's answers do not see ahead, its prompts do.
        kind = 1 if self.family == "paligemma" and name == "token_type_ids" else 0
        return own.new_full((len(own), more.shape[1]), kind)


def together(
    tokens: Sequence[tuple[int, ...]], seen: Sequence[Seen | None], eyes: Eyes, pad_id: int
) -> Prompts:
    """Rows as a batch, padded on the left.

    Args:
        tokens: of every prompt.
        seen: the same with its pictures, where there are any.
        eyes: of the model.
        pad_id: the token that pads.

    Raises:
        ValueError: rows that the model cannot have in one batch.
    """
    width = max(map(len, tokens))
    ids = torch.full((len(tokens), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(tokens):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    shown = [one for one in seen if one is not None]
    if not shown:
        return Prompts(ids, mask)
    if eyes.family == "mllama" and len({_pictures(one) for one in seen}) > 1:
        raise ValueError(
            "rows with different numbers of pictures were put into one batch, and in Llama 3.2 "
            "Vision the text of one then sees the padding of its pictures; give batches of one "
            "number"
        )
    inputs = {}
    for name in dict.fromkeys(name for one in shown for name in one.inputs):
        if name in BY_TOKEN:
            inputs[name] = _by_token(name, tokens, seen, width)
        else:
            inputs[name] = _stacked([one.inputs[name] for one in shown])
    positions = None
    if any(one.positions is not None for one in shown):
        positions = torch.zeros(3, *ids.shape, dtype=torch.long)
        for row, (prompt, one) in enumerate(zip(tokens, seen, strict=True)):
            own = None if one is None else one.positions
            if own is None:
                own = torch.arange(len(prompt))  # of words alone all three are the same
            positions[:, row, width - len(prompt) :] = own
    return Prompts(ids, mask, inputs, positions, eyes.family)


def _pictures(seen: Seen | None) -> int:
    return 0 if seen is None else seen.inputs["pixel_values"].shape[1]


def _by_token(
    name: str, tokens: Sequence[tuple[int, ...]], seen: Sequence[Seen | None], width: int
) -> Tensor:
    like = next(one.inputs[name] for one in seen if one is not None)
    rows = [
        like.new_zeros(1, len(prompt), *like.shape[2:]) if one is None else one.inputs[name]
        for prompt, one in zip(tokens, seen, strict=True)
    ]
    return _stacked(
        [pad(row, (0, 0) * (row.dim() - 2) + (width - row.shape[1], 0)) for row in rows]
    )


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """Concatenated along the first dimension, the others padded with 0 to the largest."""
    largest = [max(sizes) for sizes in zip(*[part.shape[1:] for part in parts], strict=True)]
    padded = []
    for part in parts:
        more = [size - own for size, own in zip(largest, part.shape[1:], strict=True)]
        padded.append(pad(part, [n for size in reversed(more) for n in (0, size)]))
    return torch.cat(padded)
