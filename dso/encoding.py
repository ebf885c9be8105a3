"""Choices as tokens: the rendered prompt, and every surface form of every option.

A form is tokenised together with its prompt, as the model would have written it, and on its own
only where the tokenizer merges across the border.

A choice can be a *blend* with another one of the same lengths, token by token: between what its
tokens embed to and what the other's do, a share of the way (`dso.scoring` does the arithmetic).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from dso.tasks.choice import Choice, Message
from dso.vision import Eyes, Shown

TEXTS = 2**12
"""Texts that are tokenised at a time."""


@dataclass(frozen=True)
class EncodedChoice:
    """A choice as tokens: everything about it that depends on the tokenizer."""

    id: str
    prompt: tuple[int, ...]
    """Token ids of the rendered prompt, up to where the answer starts; a place for every visual
    token among them."""
    forms: tuple[tuple[int, tuple[int, ...]], ...]
    """(option index, token ids) of every distinct surface form."""
    options: int
    """Number of options."""
    answer: tuple[int, ...]
    """Token ids of the right option's first form; of the first option where none is right."""
    blend: Blend | None = None
    """What it is mixed with, made by `blended`; None: nothing."""
    shown: Shown | None = None
    """The prompt's text and pictures, where it has any."""

    @property
    def length(self) -> int:
        """Tokens of the prompt with its longest form."""
        return len(self.prompt) + max(len(tokens) for _, tokens in self.forms)

    @property
    def other(self) -> EncodedChoice:
        """The choice it is mixed with; itself where it is not."""
        return self if self.blend is None else self.blend.other

    @property
    def share(self) -> float:
        """How much of `other` is in it, in [0, 1]; 0 where it is not mixed."""
        return 0.0 if self.blend is None else self.blend.share


@dataclass(frozen=True)
class Blend:
    """The other part of a mixed choice.

    Raises:
        ValueError: a share outside [0, 1], or an `other` that is mixed itself.
    """

    other: EncodedChoice
    """A choice with as many tokens in its prompt and in every form."""
    share: float
    """How much of it: 0 is the choice itself, 1 the other."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ValueError(f"the share of {self.other.id!r} is {self.share}; wanted 0 to 1")
        if self.other.blend is not None:
            raise ValueError(f"{self.other.id!r} is a blend already; mix choices that are not")


def blended(encoded: EncodedChoice, other: EncodedChoice, share: float) -> EncodedChoice | None:
    """The choice mixed, token by token, with a share of another one.

    Where both have the same token the mixture is that token, so nothing has to say which positions
    are meant.

    Args:
        encoded: what is mixed; a blend that it has is replaced.
        other: not a blend.
        share: of the other, in [0, 1].

    Returns:
        None where the two cannot be mixed: they show pictures, their prompts differ in length, or
        their forms, in their order, are not of the same options and lengths.

    Raises:
        ValueError: as `Blend`.
    """
    if encoded.shown is not None or other.shown is not None:
        return None
    shapes = [
        (len(choice.prompt), [(option, len(tokens)) for option, tokens in choice.forms])
        for choice in (encoded, other)
    ]
    return replace(encoded, blend=Blend(other, share)) if shapes[0] == shapes[1] else None


def render(choice: Choice, tokenizer: PreTrainedTokenizerBase, eyes: Eyes | None = None) -> str:
    """The prompt's text as the model sees it, ending where its answer starts.

    Args:
        choice: whose prompt.
        tokenizer: of the model.
        eyes: of a model that sees; its processor writes the conversation, and a mark for every
            picture in front of the prompt.

    Raises:
        ValueError: the chat template refuses the messages; pictures for a model that sees none.
    """
    if choice.pictures and eyes is None:
        raise ValueError(
            f"choice {choice.id!r} shows {len(choice.pictures)} pictures, and this model takes "
            "none; give a vision-language model"
        )
    if (tokenizer if eyes is None else eyes.processor).chat_template is None:
        marks = "" if eyes is None else eyes.mark * len(choice.pictures)
        words = [*(m.content for m in choice.messages), choice.prompt, "Answer:"]
        return marks + "\n".join(words)
    messages = [*choice.messages, Message("user", choice.prompt)]
    try:
        return render_chat(messages, tokenizer, eyes, len(choice.pictures))
    except ValueError as error:
        raise ValueError(f"choice {choice.id!r}: {error}") from error


def render_chat(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    eyes: Eyes | None = None,
    pictures: int = 0,
) -> str:
    """Messages as the chat template writes them, ending where the answer starts.

    Args:
        messages: the conversation.
        tokenizer: of the model.
        eyes: of a model that sees.
        pictures: how many stand in front of the last message.

    Raises:
        ValueError: the chat template refuses them.
    """
    conversation: list[dict[str, Any]]
    if eyes is None:
        writer: Any = tokenizer
        conversation = [{"role": m.role, "content": m.content} for m in messages]
    else:
        writer = eyes.processor
        parts = [[{"type": "text", "text": m.content}] for m in messages]
        parts[-1] = [{"type": "image"}] * pictures + parts[-1]
        conversation = [
            {"role": m.role, "content": part} for m, part in zip(messages, parts, strict=True)
        ]
    try:
        text = writer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        roles = [message.role for message in messages]
        raise ValueError(
            f"the tokenizer's chat template refuses messages of {roles} ({error}); where it has no "
            "system role, put that text into the prompt"
        ) from error
    return str(text)


def encode(
    choices: Sequence[Choice],
    tokenizer: PreTrainedTokenizerBase,
    end_token: bool = False,
    eyes: Eyes | None = None,
) -> list[EncodedChoice]:
    """Tokenise choices.

    Args:
        choices: what to tokenise.
        tokenizer: of the model they are put to.
        end_token: append the end token to every surface form, so that options which are prefixes
            of one another can be told apart.
        eyes: of a model that sees.

    Raises:
        ValueError: two options share a surface form, or a form of one option is the prefix of
            another option's and `end_token` is off (both are named); a form has no tokens; a
            picture that cannot be read, or is shown to a model that sees none.
    """
    if not choices:
        return []
    special = (tokenizer if eyes is None else eyes.processor).chat_template is None
    prompts = [render(choice, tokenizer, eyes) for choice in choices]
    heads = _tokens(prompts, tokenizer, special)
    texts = (
        prompt + form
        for prompt, choice in zip(prompts, choices, strict=True)
        for option in choice.options
        for form in option.forms
    )
    joint = _tokens(texts, tokenizer, special)
    encoded = []
    for choice, head, prompt in zip(choices, heads, prompts, strict=True):
        forms: list[tuple[int, tuple[int, ...], str]] = []
        for index, option in enumerate(choice.options):
            for form in option.forms:
                tokens = _continuation(head, next(joint), form, tokenizer)
                tokens += (tokenizer.eos_token_id,) if tokens and end_token else ()
                if not tokens:
                    raise ValueError(
                        f"choice {choice.id!r}: the form {form!r} of option {option.text!r} "
                        "has no tokens: the tokenizer knows none of its characters; remove it"
                    )
                if not any(index == i and tokens == t for i, t, _ in forms):
                    forms.append((index, tokens, form))
        kept = _check_prefixes(choice, forms)
        right = choice.truth if choice.truth is not None else 0
        answer = next(t for i, t in kept if i == right)
        code = EncodedChoice(choice.id, head, kept, len(choice.options), answer)
        if choice.pictures:
            assert eyes is not None  # `render` has refused it otherwise
            shown = Shown(prompt, choice.pictures)
            seen = eyes.see(shown, f"choice {choice.id!r}")
            code = replace(code, prompt=seen.tokens, shown=shown)
        encoded.append(code)
    return encoded


def _tokens(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, special: bool
) -> Iterator[tuple[int, ...]]:
    """Token ids of each text; a part at a time, for a tokenizer keeps far more than the ids."""
    eos = tokenizer.eos_token_id
    rest = iter(texts)
    while part := list(islice(rest, TEXTS)):
        for row in tokenizer(part, add_special_tokens=special)["input_ids"]:
            # Some tokenizers close every text with the end token; an answer continues the prompt.
            yield tuple(row[:-1] if special and row and row[-1] == eos else row)


def _continuation(
    head: tuple[int, ...],
    joint: tuple[int, ...],
    form: str,
    tokenizer: PreTrainedTokenizerBase,
) -> tuple[int, ...]:
    if joint[: len(head)] == head and len(joint) > len(head):
        return joint[len(head) :]
    # The tokenizer merges across the border: the form on its own then.
    return tuple(tokenizer(form, add_special_tokens=False)["input_ids"])


def _check_prefixes(
    choice: Choice, forms: list[tuple[int, tuple[int, ...], str]]
) -> tuple[tuple[int, tuple[int, ...]], ...]:
    """Refuse options that cannot be told apart; drop forms a shorter one of the option contains.

    The probability of a form already contains that of everything that starts with it.
    """
    kept = []
    for index, tokens, form in forms:
        redundant = False
        for other, shorter, name in forms:
            if (other, shorter) == (index, tokens) or tokens[: len(shorter)] != shorter:
                continue
            if other == index:
                redundant = True
                continue
            a, b = choice.options[other].text, choice.options[index].text
            if shorter == tokens:
                raise ValueError(
                    f"choice {choice.id!r}: options {a!r} (form {name!r}) and {b!r} (form "
                    f"{form!r}) are the same in tokens; an answer in this form could be either, so "
                    "remove it from one of them"
                )
            raise ValueError(
                f"choice {choice.id!r}: option {a!r} (form {name!r}) is a prefix of option {b!r} "
                f"(form {form!r}) in tokens, so their probabilities cannot be told apart; set "
                "end_token: true, or give forms that differ"
            )
        if not redundant:
            kept.append((index, tokens))
    return tuple(kept)
