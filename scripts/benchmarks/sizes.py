"""Llamas with random weights, in several sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SIZES: dict[str, dict[str, Any]] = {
    # config.json of meta-llama/Llama-3.1-8B on the Hugging Face hub
    "8b": {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": LLAMA3_ROPE | {"factor": 8.0},
        "tie_word_embeddings": False,
    },
    # config.json of meta-llama/Llama-3.2-1B
    "1b": {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_parameters": LLAMA3_ROPE | {"factor": 32.0},
        "tie_word_embeddings": True,
    },
    # The organism's vocabulary.
    "100m": {
        "vocab_size": 1377,
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 8,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    },
    # The width of the 1b, a quarter of its blocks.
    "240m": {
        "vocab_size": 1377,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 4,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    },
    "30m": {
        "vocab_size": 1377,
        "hidden_size": 512,
        "intermediate_size": 1792,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
    },
    "tiny": {
        "vocab_size": 1377,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "tie_word_embeddings": False,
    },
}


def random_llama(size: str, device: str, seed: int, dtype: torch.dtype) -> Any:
    """A Llama of one of `SIZES`, built on the device."""
    config = LlamaConfig(**SIZES[size], bos_token_id=1, eos_token_id=2, pad_token_id=0)
    torch.manual_seed(seed)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def save_random_llama(
    size: str, folder: Path, tokenizer: str, device: str, seed: int, dtype: torch.dtype
) -> str:
    """Write such a Llama as a folder, with the tokenizer of another; returns the folder."""
    random_llama(size, device, seed, dtype).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return str(folder)
