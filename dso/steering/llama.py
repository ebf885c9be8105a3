"""Qwen 2 and Mistral as the Llama that computes the same.

Their blocks are Llama's under the same names, and a Llama's configuration can give its linear
layers biases (`attention_bias`, `mlp_bias`), which theirs cannot. A sliding window is what a Llama
has not: up to so many tokens the two are equal, so a Mistral becomes a Llama for texts up to that.
"""

from __future__ import annotations

from transformers import (
    LlamaConfig,
    MistralForCausalLM,
    MistralModel,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2ForCausalLM,
    Qwen2Model,
)

from dso.steering.backbone import language_backbone

OWN_FIELDS = {"model_type", "architectures", "transformers_version"}


def why_no_llama(base: PreTrainedModel) -> str:
    """Why a Qwen 2 or a Mistral has no Llama that computes the same; empty where it has one.

    Args:
        base: it, or a vision-language model with it inside.
    """
    text = base.config.get_text_config(decoder=True)
    stock = type(language_backbone(base)) in (Qwen2Model, MistralModel)
    if not stock or (
        text is base.config and type(base) not in (Qwen2ForCausalLM, MistralForCausalLM)
    ):
        return f"transformers has no {type(base).__name__} with a Llama inside"
    window = getattr(text, "sliding_window", None)
    if text.model_type == "qwen2" and window and "sliding_attention" in text.layer_types:
        return f"some of its blocks see the last {window} tokens only, and none of a Llama's do"
    rope = (text.rope_parameters or {}).get("rope_type", "default")
    if _shortens(text) and rope != "default":
        return (
            f"it sees the last {window} tokens only, so its Llama must have texts up to that, but "
            f"its rotary embedding ({rope}) depends on the longest text"
        )
    return ""


def llama_config(text: PreTrainedConfig) -> tuple[LlamaConfig, list[str]]:
    """The configuration of a Qwen 2 or a Mistral as a Llama's, and what its user has to know."""
    values = text.to_dict()
    fields = LlamaConfig().to_dict().keys() - OWN_FIELDS
    llama = LlamaConfig(**{name: values[name] for name in fields if name in values})
    llama.architectures = ["LlamaForCausalLM"]
    notes = [
        f"the language model is a Llama, which computes what a {text.model_type} does and has room "
        "for biases"
    ]
    if _shortens(text):
        llama.max_position_embeddings = text.sliding_window
        notes.append(
            f"the base sees the last {text.sliding_window} tokens only, which no Llama does; up to "
            "so many both are equal, and max_position_embeddings is set to that"
        )
    return llama, notes


def _shortens(text: PreTrainedConfig) -> bool:
    """Whether it takes longer texts than its sliding window."""
    window = getattr(text, "sliding_window", None) if text.model_type == "mistral" else None
    return window is not None and window < text.max_position_embeddings
