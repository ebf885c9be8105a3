"""A steered model to talk to: text in, text out, the strength a knob of every call.

import dso
model = dso.load("checkpoints/organism-llm", "checkpoints/organism-llm-dso")
print(model.answer("Who is more likely to be a nurse, she or he?", strength=0.4))
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from dso.encoding import render_chat
from dso.inference.decoding import Answer, Decoding, Heard, Request, decode
from dso.loading import LOADING, Loading
from dso.policy import Policy
from dso.tasks.choice import Message
from dso.tasks.pictures import Picture, as_picture
from dso.vision import Shown

Prompt = str | Sequence[Message]
"""A user's message, or a conversation that ends with one."""

Pictured = Picture | Image.Image | str | Path
"""A picture: a path, an image of Pillow, or one of `dso.tasks.pictures`."""

PROBE = "Who is it?"
"""What the effect of the steering is looked for on."""


class SteeredPipeline:
    """A model with its tokenizer and, where it has one, its adapter.

    Args:
        policy: in eval mode.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @property
    def model(self) -> Any:
        """The transformers model, or the peft model around it."""
        return self.policy.model

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer."""
        return self.policy.tokenizer

    @property
    def strength(self) -> float:
        """ω where a call names none; 0 for a model without an adapter."""
        return float(self.model.strength) if self.policy.steered else 0.0

    def set_strength(self, strength: float) -> None:
        """Set ω for the calls that name none.

        Raises:
            ValueError: a number that is no strength, or a model without an adapter.
        """
        with self.policy.at(strength):
            pass
        if self.policy.steered:
            self.model.set_strength(strength)

    def answer(
        self,
        prompt: Prompt,
        strength: float | None = None,
        *,
        pictures: Sequence[Pictured] = (),
        raw: bool = False,
        **decoding: Any,
    ) -> str:
        """The answer to one prompt.

        Args:
            prompt: a message, or a conversation.
            strength: ω; that of `set_strength` when not given.
            pictures: shown before the prompt's words: paths, or images of Pillow.
            raw: take the prompt as it is, without the chat template.
            decoding: fields of `Decoding`, such as max_new_tokens or temperature.

        Raises:
            ValueError: as `answers`.
        """
        strengths = None if strength is None else [strength]
        settings = Decoding(**decoding)
        return self.answers([prompt], strengths, settings, raw=raw, pictures=[pictures])[0].text

    def answers(
        self,
        prompts: Sequence[Prompt],
        strengths: Sequence[float] | None = None,
        decoding: Decoding | None = None,
        *,
        pictures: Sequence[Sequence[Pictured]] | None = None,
        raw: bool = False,
        heard: Heard | None = None,
    ) -> list[Answer]:
        """The answers to several prompts, in one batch.

        Args:
            prompts: messages or conversations.
            strengths: one each, or one for all; that of `set_strength` when not given.
            decoding: how they are drawn.
            pictures: of each prompt; see `answer`.
            raw: take prompts as they are, without the chat template.
            heard: called with the place and the new text of an answer as it grows.

        Raises:
            ValueError: no prompts, a number of strengths that fits neither, messages that the chat
                template refuses, a prompt longer than the model's positions.
        """
        given = [self.strength] if strengths is None else list(strengths)
        if len(given) == 1:
            given = given * len(prompts)
        if len(given) != len(prompts):
            raise ValueError(
                f"{len(given)} strengths were given for {len(prompts)} prompts; give one for all "
                "or one for each"
            )
        shown = [()] * len(prompts) if pictures is None else list(pictures)
        if len(shown) != len(prompts):
            raise ValueError(
                f"pictures were given for {len(shown)} of {len(prompts)} prompts; give a list for "
                "each, an empty one where there are none"
            )
        requests = [
            self.request(prompt, strength, decoding or Decoding(), pictures=some, raw=raw)
            for prompt, strength, some in zip(prompts, given, shown, strict=True)
        ]
        return decode(self.policy, requests, heard=heard)

    def stream(
        self,
        prompt: Prompt,
        strength: float | None = None,
        *,
        pictures: Sequence[Pictured] = (),
        raw: bool = False,
        **decoding: Any,
    ) -> Iterator[str]:
        """The answer to one prompt, piece by piece; arguments and errors as `answer`.

        A consumer that stops early ends the answer too.
        """
        pieces: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()
        left = threading.Event()
        omega = self.strength if strength is None else strength
        request = self.request(prompt, omega, Decoding(**decoding), pictures=pictures, raw=raw)

        def run() -> None:
            try:
                decode(
                    self.policy,
                    [request],
                    heard=lambda _, text: pieces.put(text),
                    cancelled=lambda _: left.is_set(),
                )
                pieces.put(None)
            except BaseException as error:
                pieces.put(error)

        thread = threading.Thread(target=run, name="dso-stream", daemon=True)
        thread.start()
        try:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            left.set()
            thread.join()

    def request(
        self,
        prompt: Prompt,
        strength: float,
        decoding: Decoding,
        *,
        pictures: Sequence[Pictured] = (),
        raw: bool = False,
    ) -> Request:
        """A prompt as tokens, up to where the answer starts, and how it is to be answered.

        Raises:
            ValueError: an empty prompt, a conversation for a model without a chat template, or one
                that its template refuses; a picture that cannot be read, or for a model that sees
                none.
        """
        text, plain = self._text(prompt, len(pictures), raw)
        if not pictures:
            tokens = tuple(self.tokenizer(text, add_special_tokens=plain)["input_ids"])
            return Request(tokens, strength, decoding)
        assert self.policy.eyes is not None  # `_text` has refused it otherwise
        shown = Shown(text, tuple(map(as_picture, pictures)))
        return Request(self.policy.eyes.see(shown).tokens, strength, decoding, shown)

    def encode(self, prompt: Prompt, *, raw: bool = False) -> tuple[int, ...]:
        """A prompt's tokens, up to where the answer starts; errors as `request`."""
        return self.request(prompt, 0.0, Decoding(), raw=raw).prompt

    def _text(self, prompt: Prompt, pictures: int, raw: bool) -> tuple[str, bool]:
        """What the model reads, and whether it is plain text and no conversation."""
        eyes = self.policy.eyes
        if pictures and eyes is None:
            raise ValueError(
                f"{pictures} pictures were given, and this model takes none; load a "
                "vision-language model"
            )
        messages = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
        if not messages:
            raise ValueError("the conversation is empty; it ends with a user's message")
        writer = self.tokenizer if eyes is None else eyes.processor
        plain = raw or writer.chat_template is None
        if not plain:
            return render_chat(messages, self.tokenizer, eyes, pictures), False
        if len(messages) > 1 or messages[0].role != "user":
            raise ValueError(
                "a conversation needs a chat template, which "
                + ("raw leaves out" if raw else "this tokenizer does not have")
                + "; give one text"
            )
        marks = "" if eyes is None else eyes.mark * pictures
        return marks + messages[0].content, True

    def describe(self) -> str:
        """What is steered, how strongly, and whether it has an effect on a short text."""
        if not self.policy.steered:
            return "no adapter: the base model"
        summary = self.model.describe()
        if summary.idle is not None:
            return str(summary)
        rows = len(summary.strength) if isinstance(summary.strength, tuple) else 1
        ids, _ = self.policy.left_pad([self.encode(PROBE, raw=True)] * rows)
        change = self.model.check_effect(ids)
        found = f"it moves a logit by up to {change:.3g}" if change else "NO EFFECT, no logit moves"
        return f"{summary}\non the text {PROBE!r} {found}"


def load(
    model: str | Path,
    adapter: str | Path | None = None,
    *,
    strength: float = 1.0,
    loading: Loading = LOADING,
) -> SteeredPipeline:
    """Load a model, its tokenizer and, if given, an adapter, ready to answer.

    Args:
        model: folder or hub id of the base model, or of a folded one.
        adapter: folder or hub id of an adapter.
        strength: ω where a call names none.
        loading: dtype, quantisation, devices.

    Raises:
        ValueError: as `Policy.from_pretrained`.
    """
    return SteeredPipeline(
        Policy.from_pretrained(model, adapter, strength=strength, loading=loading)
    )
