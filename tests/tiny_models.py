"""Tiny random models of several families, the same at every call: two blocks, hidden size 32.

The norm weights are random too, so that no identity holds only because a weight is 1 or 0.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    CohereConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    LlavaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

VOCAB = 64
HIDDEN = 32


def build(config: PreTrainedConfig, seed: int, dtype: torch.dtype) -> PreTrainedModel:
    """A model in eval mode with weights that depend on the config and the seed alone."""
    auto = AutoModelForImageTextToText if isinstance(config, LlavaConfig) else AutoModelForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = auto.from_config(config, attn_implementation="eager")
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data += 0.1 * torch.randn_like(parameter)
            else:
                # Weights as small as a config's own make every answer the same.
                parameter.data = 0.2 * torch.randn_like(parameter)
    return model.to(dtype).eval()


def _config(cls: type[PreTrainedConfig], **changes: object) -> PreTrainedConfig:
    sizes: dict[str, object] = {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    return cls(**(sizes | changes))


def tiny_llama(seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return build(_config(LlamaConfig), seed, dtype)


def tiny_qwen2(seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return build(_config(Qwen2Config), seed, dtype)


def tiny_qwen3(seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return build(_config(Qwen3Config, head_dim=8), seed, dtype)


def tiny_gemma2(seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return build(_config(Gemma2Config, head_dim=8, sliding_window=32), seed, dtype)


def tiny_gpt2(seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=VOCAB,
        n_embd=HIDDEN,
        n_layer=2,
        n_head=4,
        n_positions=64,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    )
    return build(config, seed, dtype)


def tiny_opt(seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    config = _config(OPTConfig, ffn_dim=48, word_embed_proj_dim=HIDDEN, dropout=0.0)
    return build(config, seed, dtype)


def tiny_mistral(seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return build(_config(MistralConfig, head_dim=8), seed, dtype)


def tiny_phi(seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return build(_config(PhiConfig), seed, dtype)


def tiny_gpt_neox(seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return build(_config(GPTNeoXConfig), seed, dtype)


def tiny_cohere(seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return build(_config(CohereConfig, use_qk_norm=True), seed, dtype)


def tiny_llava(seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A vision tower with norms of the same width as the language backbone's."""
    vision = CLIPVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=16,
        patch_size=8,
        projection_dim=HIDDEN,
    )
    text = _config(LlamaConfig)
    return build(LlavaConfig(vision_config=vision, text_config=text), seed, dtype)


FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {
    "llama": tiny_llama,
    "qwen2": tiny_qwen2,
    "gemma2": tiny_gemma2,
    "gpt2": tiny_gpt2,
}

MORE_FAMILIES: dict[str, Callable[..., PreTrainedModel]] = {
    "qwen3": tiny_qwen3,
    "opt": tiny_opt,
    "mistral": tiny_mistral,
    "phi": tiny_phi,
    "gpt_neox": tiny_gpt_neox,
    "cohere": tiny_cohere,
    "llava": tiny_llava,
}


def tokens(rows: int = 3, length: int = 7, seed: int = 1) -> torch.Tensor:
    """Random ids without the special ones, (rows, length)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, VOCAB, (rows, length), generator=generator)
