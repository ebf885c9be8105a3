"""Base models and tokenizers from a folder or the hub, with errors that name what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase


def load_tokenizer(model: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder or hub id, padding on the left.

    Raises:
        ValueError: no such folder, or no tokenizer in it that can be read.
    """
    _check_path(model)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            model, padding_side="left"
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{model} has no tokenizer that can be read ({error}); save it beside the model with "
            "tokenizer.save_pretrained"
        ) from error
    return tokenizer


def load_base(
    model: str | Path,
    *,
    dtype: str | torch.dtype = "auto",
    device_map: str | dict[str, Any] | None = None,
) -> Any:
    """A causal language model from a folder or hub id.

    Raises:
        ValueError: no such folder, or no causal language model in it that can be read.
    """
    _check_path(model)
    try:
        return AutoModelForCausalLM.from_pretrained(model, dtype=dtype, device_map=device_map)
    except (OSError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"{model} has no causal language model that can be read ({error}); wanted a folder or "
            "hub id with config.json and weights"
        ) from error


def _check_path(model: str | Path) -> None:
    """A path that looks like a folder must be one: otherwise the hub would be asked for it."""
    path = Path(model)
    looks_local = isinstance(model, Path) or path.is_absolute() or str(model).startswith((".", "~"))
    if path.exists():
        if not (path / "config.json").is_file():
            raise ValueError(f"{path} is no model folder: it has no config.json")
    elif looks_local or len(path.parts) > 2 or path.parts[0] == "checkpoints":
        raise ValueError(f"model folder {path} does not exist; give a folder or a hub id")
