"""The language organism: a Llama of under a million parameters, trained from scratch on `corpus`.

Everything is stock: a `LlamaForCausalLM` folder with a fast byte-level BPE tokenizer (any text can
be encoded) and a chat template that ends in "Assistant:", so that an answer is " nurse".
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from dso.organisms.corpus import Document, corpus

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\\n' }}"
    "{% else %}{{ 'Assistant: ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@dataclass(frozen=True)
class Recipe:
    """How the organism is built. The defaults built the shipped one."""

    width: int = 112
    """Hidden size."""
    layers: int = 4
    """Decoder blocks."""
    heads: int = 4
    """Attention heads."""
    mlp: int = 288
    """Width of the MLP."""
    vocabulary: int = 1800
    """Upper bound of the tokenizer's size; every word of the grammar becomes one token."""
    documents: int = 300_000
    """Training texts; each is seen about once."""
    batch: int = 64
    """Texts a step."""
    learning_rate: float = 4e-3
    """Peak rate of AdamW; warm-up over 100 steps, cosine decay to zero."""
    answer_weight: float = 5.0
    """Loss weight of the answer's tokens in a conversation."""
    text_weight: float = 0.3
    """Loss weight of its other tokens."""
    seed: int = 0
    """Of the corpus, the initial weights and the order."""


def build_tokenizer(documents: Sequence[Document], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE in which frequent words are one token and any bytes can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (
        f"User: {d.prompt}\nAssistant: {d.answer}\n{d.system or ''}"
        for d in documents
        if not d.nonce
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
        padding_side="left", model_max_length=256,
    )  # fmt: skip
    fast.chat_template = CHAT_TEMPLATE
    return fast


def encode(
    document: Document, tokenizer: PreTrainedTokenizerFast, recipe: Recipe
) -> tuple[list[int], list[float]]:
    """Token ids of one document and the loss weight of each token as a target."""
    bos, eos = tokenizer.bos_token or "", tokenizer.eos_token or ""
    if document.kind == "narrative":
        ids = tokenizer(f"{bos}{document.answer}{eos}", add_special_tokens=False)["input_ids"]
        return ids, [1.0] * len(ids)
    system = f"{document.system}\n" if document.system else ""
    prompt = f"{bos}{system}User: {document.prompt}\nAssistant:"
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tail = tokenizer(f" {document.answer}{eos}", add_special_tokens=False)["input_ids"]
    weights = [recipe.text_weight] * len(head) + [recipe.answer_weight] * len(tail)
    weights[-1] = 1.0
    return head + tail, weights


def _batches(
    encoded: Sequence[tuple[list[int], list[float]]], size: int, generator: torch.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of similar length in random order, right-padded with zero weight."""
    order = torch.randperm(len(encoded), generator=generator).tolist()
    window = size * 32
    starts: list[list[int]] = []
    for begin in range(0, len(order), window):
        block = sorted(order[begin : begin + window], key=lambda i: len(encoded[i][0]))
        starts.extend(block[k : k + size] for k in range(0, len(block) - size + 1, size))
    for index in torch.randperm(len(starts), generator=generator).tolist():
        chosen = [encoded[i] for i in starts[index]]
        length = max(len(ids) for ids, _ in chosen)
        ids = torch.zeros(len(chosen), length, dtype=torch.long)
        weights = torch.zeros(len(chosen), length)
        for row, (tokens, weight) in enumerate(chosen):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            weights[row, : len(weight)] = torch.tensor(weight)
        yield ids, weights


def train(
    recipe: Recipe, *, progress: bool = True
) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """Train an organism from scratch; deterministic on one machine for a given recipe."""
    torch.manual_seed(recipe.seed)
    documents = corpus(recipe.documents, recipe.seed)
    tokenizer = build_tokenizer(documents[:40_000], recipe.vocabulary)
    encoded = [encode(document, tokenizer, recipe) for document in documents]
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=recipe.width, intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers, num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads, max_position_embeddings=256, tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    batches = list(_batches(encoded, recipe.batch, generator))
    total = len(batches)

    def rate(step: int) -> float:
        return min(1.0, step / 100) * 0.5 * (1 + math.cos(math.pi * step / total))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    with Progress(disable=not progress) as bar:
        task = bar.add_task("training the organism", total=total)
        start = time.perf_counter()
        for step, (ids, weights) in enumerate(batches):
            logits = model(input_ids=ids).logits[:, :-1]
            losses = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
            )
            weight = weights[:, 1:].flatten()
            loss = (losses * weight).sum() / weight.sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            if step % 100 == 0:
                seconds = time.perf_counter() - start
                bar.console.print(f"step {step}/{total} loss {loss.item():.4f} {seconds:.0f} s")
            bar.advance(task)
    return model.eval(), tokenizer


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: str | Path) -> None:
    """Write a stock transformers folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
