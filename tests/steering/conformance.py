"""What every family of models has to pass, and what it cannot.

A check takes the name of a family and raises when the family does not pass; the first line of its
docstring is how docs/families.md names it (`tests.families_page`).
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from dso.steering import (
    AffineSteering,
    SteeringConfig,
    attach,
    find_norms,
    load_adapter,
    save_adapter,
)
from tests.steering.steered import randomise, steer
from tests.tiny_models import BLOCKS, tiny, tokens

# From the architectures: norms of the hidden size in each block. One more follows the last block.
NORMS_PER_BLOCK = {
    "llama": 2,
    "mistral": 2,
    "qwen2": 2,
    "qwen3": 2,
    "gemma": 2,
    "gemma2": 4,
    "gemma3_text": 4,
    "phi": 1,
    "phi3": 2,
    "mixtral": 2,
    "smollm3": 2,
    "olmo2": 2,
    "cohere": 1,
    "gpt2": 2,
    "gpt_neox": 2,
    "opt": 2,
    "qwen2_vl": 2,
    "qwen2_5_vl": 2,
    "qwen3_vl": 2,
    "llava": 2,
    "llava_next": 2,
    "internvl": 2,
    "paligemma": 2,
    "mllama": 2,
    "idefics2": 2,
    "idefics3": 2,
    "smolvlm": 2,
    "gemma3": 4,
}
# How many blocks have norms of queries and keys, which are steered on request.
QK_BLOCKS = {
    "qwen3": 2,
    "gemma3_text": 2,
    "phi": 2,
    "olmo2": 2,
    "cohere": 2,
    "qwen3_vl": 2,
    "mllama": 1,
    "gemma3": 2,
}
QK_NAMES = ("q_norm", "k_norm", "q_layernorm", "k_layernorm")
# Blocks that look at the image, and that a text passes by.
IDLE = {"mllama": ("model.language_model.layers.1.",)}
# Their processors say of each token whether it is text, with a 0.
TYPED = frozenset({"gemma3", "paligemma"})

ROWS = [0.0, 0.3, 1.0]
NEW = 6


class Limit(NamedTuple):
    """What a family cannot do: why, and the error that its check has to end in."""

    reason: str
    error: type[Exception]
    message: str


CANNOT: dict[tuple[str, str], Limit] = {
    ("cohere", "query_and_key_norms_are_steered"): Limit(
        "The weight of its norms of queries and keys is a matrix, a row per head, which one scale "
        "and one shift per channel do not fit: `qk_norms=True` is refused.",
        ValueError,
        "set qk_norms=False",
    ),
}


def base(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A base model of one's own, with the attention that transformers picks."""
    # Frozen as under an adapter: torch picks other kernels, other in the last bit, for weights that
    # take a gradient.
    return tiny(family, dtype=dtype, attention=None).requires_grad_(False)


@lru_cache(maxsize=2)
def plain(family: str) -> PreTrainedModel:
    """The base model; leave it as it is."""
    return base(family)


@lru_cache(maxsize=2)
def shared(family: str) -> PeftModel:
    """The steered model at strength 1; leave it as it is."""
    return steer(base(family))


def prompt(model: nn.Module, ids: Tensor) -> dict[str, Tensor]:
    """The inputs that the processor of the model's family makes of texts; 0 is padding."""
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    if model.config.model_type in TYPED:
        inputs["token_type_ids"] = torch.zeros_like(ids)
    return inputs


def logits(model: nn.Module, ids: Tensor | None = None, **settings: object) -> Tensor:
    inputs = prompt(model, tokens() if ids is None else ids)
    with torch.no_grad():
        found: Tensor = model(**inputs, **settings).logits
    return found


def generate(
    model: PeftModel | PreTrainedModel, ids: Tensor | None = None, **settings: object
) -> Tensor:
    """NEW tokens for each prompt, the prompt left out."""
    inputs = prompt(model, tokens() if ids is None else ids)
    settings = {"do_sample": False, "max_new_tokens": NEW, "min_new_tokens": NEW} | settings
    said: Tensor = model.generate(**inputs, **settings)
    return said[:, inputs["input_ids"].shape[1] :]


def close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-4)


def each_row_alone(call: Callable[..., Tensor], model: PeftModel, **settings: object) -> Tensor:
    """What a call gives when each prompt is given alone at its strength, one below another."""
    pairs = zip(tokens().split(1), ROWS, strict=True)
    return torch.cat([call(model, row, strength=strength, **settings) for row, strength in pairs])


@contextmanager
def norms_called(model: nn.Module) -> Iterator[set[str]]:
    """The names of the modules whose class is named as a norm and that run inside the context."""
    called: set[str] = set()
    hooks = [
        module.register_forward_hook(lambda *_, name=name: called.add(name))
        for name, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
    ]
    try:
        yield called
    finally:
        for hook in hooks:
            hook.remove()


def norms_are_found(family: str) -> None:
    """every norm of the language backbone is found, and none of an image tower"""
    model = plain(family)
    blocks = find_norms(model, final=False, qk=False)
    every = find_norms(model, final=True, qk=False)
    assert len(blocks) == BLOCKS * NORMS_PER_BLOCK[family]
    assert len(every) == len(blocks) + 1
    assert set(blocks) < set(every)
    assert list(shared(family).describe().names) == blocks
    # A look from the other side: what runs on a text are the norms found and no others.
    with norms_called(model) as called:
        logits(model)
    idle = IDLE.get(family, ())
    qk = {name for name in called if name.endswith(QK_NAMES)}
    assert len(qk) == 2 * (QK_BLOCKS.get(family, 0) - len(idle))
    assert called - qk == {name for name in every if not name.startswith(idle)}


def no_strength_is_the_base(family: str) -> None:
    """ω = 0 is the base bit for bit: logits in float32 and bfloat16, and what is generated"""
    for dtype in (torch.float32, torch.bfloat16):
        expected = logits(base(family, dtype))
        model = steer(base(family, dtype))
        assert torch.equal(logits(model, strength=0.0), expected)
        assert torch.equal(logits(model, strength=[0.0] * 3), expected)
    assert torch.equal(generate(shared(family), strength=0.0), generate(plain(family)))


def strength_changes_the_answer(family: str) -> None:
    """ω = 1 changes the logits of every row, and what is generated"""
    model = shared(family)
    off = logits(plain(family))
    change = (logits(model) - off).abs().amax(dim=(1, 2))
    assert change.min() > 0.1 * off.std()
    assert not torch.equal(generate(model), generate(plain(family)))


def saved_is_loaded(family: str) -> None:
    """a saved adapter, loaded onto a fresh base, gives the same logits bit for bit"""
    model = shared(family)
    with tempfile.TemporaryDirectory() as folder:
        save_adapter(model, Path(folder) / "adapter")
        loaded = load_adapter(base(family), Path(folder) / "adapter")
    for strength in (1.0, ROWS):
        expected = logits(model, strength=strength)
        assert torch.equal(logits(loaded, strength=strength), expected)


def a_row_is_the_row_alone(family: str) -> None:
    """a row of a batch with a strength per row is the row alone, in forward and in generate"""
    model = shared(family)
    assert close(logits(model, strength=ROWS), each_row_alone(logits, model))
    assert torch.equal(generate(model, strength=ROWS), each_row_alone(generate, model))
    assert model.strength == 1


def cached_is_uncached(family: str) -> None:
    """generate with the KV cache is generate without, with a strength per row"""
    model = shared(family)
    cached = generate(model, strength=ROWS)
    assert torch.equal(generate(model, strength=ROWS, use_cache=False), cached)


def left_padded_is_unpadded(family: str) -> None:
    """a left-padded batch is the unpadded one, in forward and in generate"""
    model = shared(family)
    padded = torch.cat([torch.zeros(3, 4, dtype=torch.long), tokens()], dim=1)
    positions = ((padded != 0).long().cumsum(1) - 1).clamp(min=0)
    got = logits(model, padded, position_ids=positions, strength=ROWS)
    assert close(got[:, 4:], logits(model, strength=ROWS))
    said = generate(model, padded, strength=ROWS)
    assert torch.equal(said, generate(model, strength=ROWS))


def copies_keep_their_strength(family: str) -> None:
    """beams and `num_return_sequences` keep the strength of their row"""
    model = shared(family)
    for how in ({"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}):
        mixed = generate(model, strength=ROWS, **how)
        assert torch.equal(mixed, each_row_alone(generate, model, **how))
    # With a vanishing temperature sampling is greedy, and all sequences of a prompt are the same.
    sampling = {"do_sample": True, "temperature": 1e-6, "top_k": 0, "num_return_sequences": 2}
    greedy = generate(model, strength=ROWS).repeat_interleave(2, dim=0)
    assert torch.equal(generate(model, strength=ROWS, **sampling), greedy)


def checkpointing_keeps_the_gradient(family: str) -> None:
    """gradient checkpointing gives the adapter the same gradient"""
    model = steer(base(family)).train()
    runs: list[nn.Module] = []
    for module in model.modules():
        if isinstance(module, AffineSteering):
            module.register_forward_pre_hook(lambda module, _: runs.append(module))
    used = (BLOCKS - (family in IDLE)) * NORMS_PER_BLOCK[family]
    gradients: list[dict[str, Tensor]] = []
    for times in (1, 2):
        if times == 2:
            model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
        runs.clear()
        model.zero_grad()
        with model.strength_at([0.2, 0.5, 1.0]):
            model(**prompt(model, tokens()), labels=tokens()).loss.backward()
        # Nothing was checkpointed unless the norms ran once more in backward().
        assert len(runs) == times * used
        named = model.named_parameters()
        gradients.append({name: p.grad for name, p in named if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert len(gradients[0]) == 2 * used
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 1e-6
        assert torch.allclose(gradients[1][name], gradient, atol=1e-6)


def a_copy_is_independent(family: str) -> None:
    """a deepcopy gives the same logits and has its own adapter and knob"""
    model = shared(family)
    before = logits(model)
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin), before)
    twin.set_strength(0.2)
    assert model.strength == 1
    assert torch.equal(logits(twin), logits(model, strength=0.2))
    randomise(twin, seed=9)
    assert torch.equal(logits(model), before)
    assert not close(logits(twin, strength=1.0), before)


def compiles_once(family: str) -> None:
    """`torch.compile` makes one graph without breaks, and turning ω does not compile again"""
    model = steer(base(family))
    graphs = 0

    def count(graph: torch.fx.GraphModule, _: object) -> Callable[..., object]:
        nonlocal graphs
        graphs += 1
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(model, backend=count, fullgraph=True)
    try:
        # A strength per row has another shape than a number: one graph for each of the two.
        for number, strengths in ((1, [0.0, 0.5, 1.0]), (2, [ROWS, ROWS[::-1], [0.0] * 3])):
            for strength in strengths:
                model.set_strength(strength)
                assert close(logits(compiled), logits(model))
                assert graphs == number
    finally:
        torch._dynamo.reset()


def adapters_switch(family: str) -> None:
    """several adapters: switched, summed, disabled (which is the base bit for bit), deleted"""
    off = logits(plain(family))
    model = steer(base(family))
    first = logits(model)
    attach(model, SteeringConfig(final_norm=True), adapter_name="other")
    randomise(model, seed=2, adapter="other")
    assert torch.equal(logits(model), first)
    model.set_adapter("other")
    second = logits(model)
    assert model.describe().num_norms == BLOCKS * NORMS_PER_BLOCK[family] + 1
    assert not close(second, first)
    model.base_model.set_adapter(["default", "other"])
    both = logits(model)
    assert not close(both, first)
    assert not close(both, second)
    assert torch.equal(logits(model, strength=0.0), off)
    with model.disable_adapter():
        assert torch.equal(logits(model), off)
    model.set_adapter("default")
    assert torch.equal(logits(model), first)
    model.delete_adapter("other")
    assert torch.equal(logits(model), first)
    assert torch.equal(logits(model.unload()), off)


def query_and_key_norms_are_steered(family: str) -> None:
    """`qk_norms=True` steers the norms of queries and keys too (– where there are none)"""
    blocks = find_norms(plain(family), final=False, qk=False)
    names = find_norms(plain(family), final=False, qk=True)
    model = steer(base(family), SteeringConfig(qk_norms=True))
    assert list(model.describe().names) == names
    own = [name for name in names if name not in blocks]
    assert len(own) == 2 * QK_BLOCKS.get(family, 0)
    assert all(name.endswith(QK_NAMES) for name in own)
    if not own:
        return
    # The norms of queries and keys alone, so that it is their effect that is seen.
    model = steer(base(family), SteeringConfig(target_modules=own))
    off = logits(plain(family))
    assert torch.equal(logits(model, strength=0.0), off)
    mixed = logits(model, strength=ROWS)
    assert torch.equal(mixed, off) == all(name.startswith(IDLE.get(family, ())) for name in own)
    assert close(mixed, each_row_alone(logits, model))


CHECKS: dict[str, Callable[[str], None]] = {
    check.__name__: check
    for check in (
        norms_are_found,
        no_strength_is_the_base,
        strength_changes_the_answer,
        saved_is_loaded,
        a_row_is_the_row_alone,
        cached_is_uncached,
        left_padded_is_unpadded,
        copies_keep_their_strength,
        checkpointing_keeps_the_gradient,
        a_copy_is_independent,
        compiles_once,
        adapters_switch,
        query_and_key_norms_are_steered,
    )
}
