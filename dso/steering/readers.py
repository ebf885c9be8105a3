"""Which weights read a norm's output, family by family, and where these have room for a bias.

A family is told by the model type of its language backbone. Readers are named from their decoder
block. A norm that no weight reads, because its output is added to the residual stream, has none.
The names are those of transformers' own modelling code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from dso.steering.backbone import QK_NORMS, block_norms, count_norms, find_norms, norm_weight
from dso.steering.llama import why_no_llama

_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_GATED = ("mlp.gate_proj", "mlp.up_proj")
_LLAMA = {"input_layernorm": _QKV, "post_attention_layernorm": _GATED}
_SANDWICH: dict[str, tuple[str, ...]] = {
    "input_layernorm": _QKV,
    "post_attention_layernorm": (),
    "pre_feedforward_layernorm": _GATED,
    "post_feedforward_layernorm": (),
}
_ATTENTION = {"self_attn": "attention_bias"}


@dataclass(frozen=True)
class Layout:
    """How the decoder blocks of a family read their norms."""

    readers: Mapping[str, tuple[str, ...]]
    """By the norm's name in its block: modules with a weight, or parameters; () where the output is
    added to the residual stream."""
    biases: Mapping[str, str] = field(default_factory=dict)
    """By the part of the block: the field of the configuration that gives its linear layers biases.
    """
    like_llama: bool = False
    """Whether a block computes what Llama's does under the same names, which has both fields."""


LAYOUTS: dict[str, Layout] = {
    "llama": Layout(_LLAMA, _ATTENTION | {"mlp": "mlp_bias"}),
    "smollm3": Layout(_LLAMA, _ATTENTION | {"mlp": "mlp_bias"}),
    "qwen2": Layout(_LLAMA, like_llama=True),
    "mistral": Layout(_LLAMA, like_llama=True),
    "qwen3": Layout(_LLAMA, _ATTENTION),
    "qwen2_vl_text": Layout(_LLAMA),
    "qwen2_5_vl_text": Layout(_LLAMA),
    "qwen3_vl_text": Layout(_LLAMA, _ATTENTION),
    "gemma": Layout(_LLAMA, _ATTENTION),
    "gemma2": Layout(_SANDWICH, _ATTENTION),
    "gemma3_text": Layout(_SANDWICH, _ATTENTION),
    "phi3": Layout(
        {
            "input_layernorm": ("self_attn.qkv_proj",),
            "post_attention_layernorm": ("mlp.gate_up_proj",),
        }
    ),
    "mixtral": Layout(
        {
            "input_layernorm": _QKV,
            "post_attention_layernorm": ("mlp.gate", "mlp.experts.gate_up_proj"),
        }
    ),
    "olmo2": Layout({"post_attention_layernorm": (), "post_feedforward_layernorm": ()}),
    "cohere": Layout({"input_layernorm": (*_QKV, *_GATED)}, _ATTENTION),
    "phi": Layout({"input_layernorm": (*_QKV, "mlp.fc1")}),
    "gpt2": Layout({"ln_1": ("attn.c_attn",), "ln_2": ("mlp.c_fc",)}),
    "gpt_neox": Layout(
        {
            "input_layernorm": ("attention.query_key_value",),
            "post_attention_layernorm": ("mlp.dense_h_to_4h",),
        }
    ),
    "opt": Layout({"self_attn_layer_norm": _QKV, "final_layer_norm": ("fc1",)}),
}


@dataclass(frozen=True)
class Reader:
    """One weight that reads a norm's output."""

    name: str
    """Of the weight, qualified in the base model."""
    weight: Tensor
    """(..., d), or (d, out) where it is transposed."""
    transposed: bool
    """Whether it is that of a Conv1D."""
    bias: str | None
    """Name of its bias, qualified; None where it can have none."""
    old_bias: Tensor | None = None
    """(out,); None where it has none yet."""
    flag: str | None = None
    """Field of the configuration that the bias takes; None where it is there already."""
    llama: bool = False
    """Whether it is Llama's field, and the model is to become one."""


class CannotFold(ValueError):
    """A part of an adapter has no place in the weights of its base model."""


@dataclass(frozen=True)
class Fit:
    """Which parts of an adapter at one norm have a place in the weights of the base."""

    shift: bool
    """Whether there is a shift b that has one."""
    ranked: bool
    """Whether there is a low-rank part U Vᵀ that has one."""
    readers: tuple[Reader, ...]
    """What takes them; none where the norm does itself, as it takes every scale."""
    problems: tuple[str, ...]
    """The other parts: norm, part and reason."""


class Readers:
    """What reads the norms of a base model.

    Args:
        base: plain, or with its norms wrapped.
    """

    def __init__(self, base: PreTrainedModel) -> None:
        self.base = base
        self.kind: str = base.config.get_text_config(decoder=True).model_type
        self._blocks = frozenset(block_norms(base))
        found = find_norms(base, final=True, qk=False) if count_norms(base) else []
        self._final = frozenset(found) - self._blocks

    def fit(self, norm: str, *, shift: bool, ranked: bool) -> Fit:
        """Which parts of an adapter at a norm have a place.

        Args:
            norm: qualified name.
            shift: whether there is a shift b.
            ranked: whether there is a low-rank part U Vᵀ.
        """
        readers: list[Reader] = []
        problems = []
        if ranked:
            try:
                readers = self.of(norm)
                self._check_free(readers)
            except CannotFold as problem:
                problems.append(f"{norm}, low-rank part: {problem}")
                ranked, readers = False, []
        own_bias = getattr(self.base.get_submodule(norm), "bias", None) is not None
        if shift and (ranked or not own_bias):
            try:
                readers = self.of(norm)
                self._check_biases(readers)
            except CannotFold as problem:
                problems.append(f"{norm}, shift: {problem}")
                shift, readers = False, readers if ranked else []
        return Fit(shift, ranked, tuple(readers), tuple(problems))

    def of(self, norm: str) -> list[Reader]:
        """The weights that read a norm's output.

        Raises:
            CannotFold: there are none, or it is not known which.
        """
        block, _, leaf = norm.rpartition(".")
        if leaf in QK_NORMS:
            raise CannotFold("attention reads it, and no weight")
        if norm in self._final:
            return [self._head(norm)]
        layout = LAYOUTS.get(self.kind)
        if norm not in self._blocks or layout is None or leaf not in layout.readers:
            raise CannotFold(
                f"it is not known which weights of a {self.kind} read it; known are the blocks of "
                f"{', '.join(sorted(LAYOUTS))}"
            )
        if self.kind == "opt" and not self.base.config.do_layer_norm_before:
            raise CannotFold("its output is the residual stream itself")
        if not layout.readers[leaf]:
            raise CannotFold(
                "its output is added to the residual stream, and no weight reads it alone"
            )
        return [self._reader(f"{block}.{path}", layout) for path in layout.readers[leaf]]

    def _reader(self, name: str, layout: Layout) -> Reader:
        part, _, leaf = name.rpartition(".")
        try:
            found = getattr(self.base.get_submodule(part), leaf)
        except AttributeError:
            raise CannotFold(f"this {self.kind} has no {name}, which should read it") from None
        if isinstance(found, nn.Parameter):
            return Reader(name, found, False, None)
        inside = name.split(".")[-2]
        if layout.like_llama:
            return _linear(name, found, LAYOUTS["llama"].biases.get(inside), llama=True)
        return _linear(name, found, layout.biases.get(inside))

    def _head(self, norm: str) -> Reader:
        """What reads the final norm."""
        head = self.base.get_output_embeddings()
        width = norm_weight(self.base.get_submodule(norm)).shape[0]
        if not isinstance(head, nn.Linear) or head.in_features != width:
            raise CannotFold("the model has no head that reads it")
        name = next(name for name, module in self.base.named_modules() if module is head)
        return _linear(name, head, None)

    def _check_free(self, readers: Sequence[Reader]) -> None:
        """Raises CannotFold where one of them is the embedding too."""
        embedding = self.base.get_input_embeddings().weight
        if any(reader.weight is embedding for reader in readers):
            raise CannotFold("the head that reads it is the embedding too, which must not move")

    def _check_biases(self, readers: Sequence[Reader]) -> None:
        """Raises CannotFold where one of them has no bias and can have none."""
        closed = [reader.name.removesuffix(".weight") for reader in readers if reader.bias is None]
        if closed:
            raise CannotFold(
                f"{', '.join(closed)} would need a bias, which no setting of a "
                f"{type(self.base).__name__} gives"
            )
        if any(reader.llama for reader in readers) and (reason := why_no_llama(self.base)):
            raise CannotFold(f"it would take a Llama's biases, but {reason}")


def _linear(name: str, module: nn.Module, flag: str | None, llama: bool = False) -> Reader:
    """A linear layer, or one like it, with the field of the configuration that gives it a bias."""
    weight, bias = module.weight, module._parameters.get("bias")
    assert isinstance(weight, Tensor)
    known = bias is not None
    return Reader(
        f"{name}.weight",
        weight,
        isinstance(module, Conv1D),
        f"{name}.bias" if known or flag is not None else None,
        bias,
        None if known else flag,
        llama and not known,
    )
