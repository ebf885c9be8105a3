"""Sampled answers: generate from the policy itself, read what the texts mean, score them again.

Answers are drawn by transformers' `generate` from the model's own distribution: temperature 1,
nothing cut off, nothing penalised, so that log pi of what was drawn is what an estimator needs. The
settings a model brings for its chats (its `generation_config`) are out of force meanwhile. A prompt
is encoded once and its key-value cache shared by all its answers. A text that means no option is
"unparsed"; it is counted and never dropped.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from dso.encoding import EncodedChoice
from dso.policy import Policy
from dso.steering.backbone import unwrap
from dso.tasks.choice import Choice
from dso.tasks.parsing import parse_answer
from dso.vision import Prompts


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
    *,
    synced: bool = False,
) -> list[list[tuple[int, ...]]]:
    """Answers as tokens, the end token included where the model gave one.

    Args:
        policy: at the strength that is set; in eval mode.
        batch: N encoded choices.
        sampling: how many answers, and how long.
        generator: all that the answers depend on by chance; torch's global random numbers are
            neither used nor moved on.
        synced: go on with forward passes until every process has its answers, as a model whose
            weights are sharded over the processes needs; all of them must call.

    Returns:
        For every choice its `samples` answers.

    Raises:
        ValueError: the model is in train mode.
    """
    model = unwrap(policy.model)
    if any(module.training for module in model.modules()):
        raise ValueError(
            "answers were to be sampled from a model in train mode, whose dropout would change its "
            "distribution; call `policy.model.eval()` first"
        )
    ends, copies = policy.end_ids, sampling.samples
    prompts = policy.prompts(batch)
    rows = torch.arange(len(batch), device=policy.device).repeat_interleave(copies)
    # A prompt in which every token sees every other is encoded whole or not at all.
    cache = _shareable_cache(model) if prompts.causal else None
    if cache is not None and prompts.ids.shape[1] == 1:
        # A masked column in front leaves something to encode before the last token.
        padded = pad(prompts.ids, (1, 0), value=policy.pad_id)
        prompts = Prompts(padded, pad(prompts.mask, (1, 0)))
    settings = own_distribution(sampling.max_new_tokens, ends, policy.pad_id)
    with _random_numbers(policy.device, generator):
        if cache is not None:
            # The prompts without their last tokens. That generate itself encodes them keeps the
            # model's way of counting positions; the token it draws is not used. One pass in every
            # process: there is nothing to wait for. Without a padding token generate does not take
            # a prompt of one token, of which nothing is left here, for padded on the right.
            one = own_distribution(1, frozenset(), None)
            generate_tokens(policy, prompts.start, one, cache)
            cache.batch_repeat_interleave(copies)
            whole = prompts.seen_before(rows)
        else:
            whole = policy.prompts([batch[row] for row in rows.tolist()])
        with policy.rows(rows):
            out = generate_tokens(policy, whole, settings, cache, synced=synced)
    width = prompts.ids.shape[1]
    answers = [_through_end(tokens, ends) for tokens in out[:, width:].tolist()]
    return [answers[start : start + copies] for start in range(0, len(answers), copies)]


def generate_tokens(
    policy: Policy,
    prompts: Prompts,
    settings: GenerationConfig,
    cache: DynamicCache | None = None,
    *,
    synced: bool = False,
    choosing: Sequence[LogitsProcessor] = (),
    stopping: Sequence[StoppingCriteria] = (),
) -> Tensor:
    """Run `generate` with these settings and nothing else, at the strength that is set.

    Args:
        policy: whose model.
        prompts: B of T tokens, and what they show.
        settings: all of them; those of the model are out of force.
        cache: of what stands before, which is added to.
        synced: as `sample_tokens`.
        choosing: changes the scores of the next tokens.
        stopping: ends rows.

    Returns:
        (B, T + L) the prompts with what was drawn behind them.
    """
    arguments: dict[str, Any] = {} if cache is None else {"past_key_values": cache}
    if choosing:
        arguments["logits_processor"] = LogitsProcessorList(choosing)
    if stopping:
        arguments["stopping_criteria"] = StoppingCriteriaList(stopping)
    model = unwrap(policy.model)
    if "position_ids" in inspect.signature(model.forward).parameters:
        # Said rather than left to the model: Qwen's VLMs would remember those of the last batch.
        arguments["position_ids"] = prompts.counted()
    with _in_force(model, settings):
        tokens: Tensor = policy.model.generate(
            input_ids=prompts.ids,
            attention_mask=prompts.mask,
            generation_config=settings,
            synced_gpus=synced,
            **prompts.inputs,
            **arguments,
        )
    return tokens


def own_distribution(
    max_new_tokens: int, ends: frozenset[int], padding: int | None, *, greedy: bool = False
) -> GenerationConfig:
    """Settings of `generate` that draw from softmax(logits) and from nothing else.

    Args:
        max_new_tokens: the longest answer.
        ends: tokens that end one.
        padding: what stands behind the end of the shorter ones.
        greedy: take the likeliest token instead of drawing one.
    """
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=sorted(ends) or None,
        pad_token_id=padding,
        # One sequence a row, drawn token by token.
        do_sample=not greedy,
        num_beams=1,
        num_return_sequences=1,
        early_stopping=False,
        length_penalty=1.0,
        prompt_lookup_num_tokens=None,
        assistant_early_exit=None,
        use_mtp=None,
        # Nothing sharpened and nothing cut off; of draws, a top_k left unset would be 50.
        temperature=1.0,
        top_k=None if greedy else 0,
        top_p=1.0,
        min_p=None,
        top_h=None,
        typical_p=1.0,
        epsilon_cutoff=0.0,
        eta_cutoff=0.0,
        # Nothing penalised, forbidden, forced or favoured.
        repetition_penalty=1.0,
        encoder_repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        encoder_no_repeat_ngram_size=0,
        bad_words_ids=None,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        forced_bos_token_id=None,
        forced_eos_token_id=None,
        sequence_bias=None,
        exponential_decay_length_penalty=None,
        guidance_scale=None,
        watermarking_config=None,
        token_healing=False,
        remove_invalid_values=False,
        renormalize_logits=False,
        # No end but an end token or the length.
        min_length=None,
        min_new_tokens=None,
        max_time=None,
        stop_strings=None,
        # Tokens alone are returned; the cache is the plain one.
        return_dict_in_generate=False,
        output_scores=False,
        output_logits=False,
        output_attentions=False,
        output_hidden_states=False,
        use_cache=True,
        cache_implementation=None,
        prefill_chunk_size=None,
        disable_compile=True,
    )


@contextmanager
def _in_force(model: PreTrainedModel, settings: GenerationConfig) -> Iterator[None]:
    """Context: `settings` are the model's own, from which generate takes whatever a caller leaves
    unset, None included."""
    own = model.generation_config
    model.generation_config = settings
    try:
        yield
    finally:
        model.generation_config = own


@contextmanager
def _random_numbers(device: torch.device, generator: torch.Generator) -> Iterator[None]:
    """Context: torch's global random numbers are those of a seed drawn from `generator`.

    generate takes no generator. Only the CPU's and this device's are exchanged: `torch.manual_seed`
    would move on those of every other device too.
    """
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    others = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(others, device_type=device.type):
        torch.default_generator.manual_seed(seed)
        for other in others:
            state = torch.Generator(other).manual_seed(seed).get_state()
            torch.get_device_module(other).set_rng_state(state, other)
        yield


def _shareable_cache(model: PreTrainedModel) -> DynamicCache | None:
    """An empty cache, where all that the model caches can be repeated for a prompt's answers.

    Recurrent states, as of linear attention, are not repeated by transformers: None.
    """
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    plain = all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)
    return cache if plain else None


def _through_end(tokens: list[int], ends: frozenset[int]) -> tuple[int, ...]:
    """The tokens up to the first end token, that one included; all where there is none."""
    length = next((n for n, token in enumerate(tokens, 1) if token in ends), len(tokens))
    return tuple(tokens[:length])


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
