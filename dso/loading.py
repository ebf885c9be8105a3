"""Base models and tokenizers from a folder or the hub, with errors that name what is wrong.

A base is loaded whole or not at all. What a checkpoint lacks transformers fills with random numbers
and a warning; here a shard that is missing or cut short, a weight that is missing or of another
shape, and a weight that was left off the devices are refused by name.

Only linear layers are quantised. Norms and embeddings keep their dtype, so that an adapter has the
same widths and the same fingerprint on the quantised and on the full model.
"""

from __future__ import annotations

import importlib.util
import logging
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from dso.weight_files import check_weight_files, some

Quantisation = Literal["none", "8bit", "4bit"]

DTYPES = {
    "auto": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}
DEVICE_MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
ATTENTIONS = (
    "eager",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
    "flex_attention",
)


@dataclass(frozen=True)
class Loading:
    """How a base model is loaded.

    Raises:
        ValueError: a value that does not exist; the message lists those that do.
    """

    dtype: str = "auto"
    """Of the weights that are not quantised: bfloat16, float16, float32, or auto, which is the
    checkpoint's own. The adapter is float32 always."""
    quantisation: Quantisation = "none"
    """Bits of the linear layers' weights: none, 8bit (LLM.int8) or 4bit (nf4, computed in dtype,
    under auto in bfloat16). Needs bitsandbytes: pip install 'dso[quantised]'."""
    device_map: str | None = None
    """Where the weights go: a device such as cuda:0, or auto, balanced, balanced_low_0 or
    sequential, which spread the blocks over all GPUs. None is the CPU, or where the trainer puts
    them; a quantised model goes to the first GPU."""
    attention: str | None = None
    """Attention implementation: eager, sdpa, flash_attention_2 and so on, or a kernel's hub id.
    None is what transformers takes by itself."""
    revision: str | None = None
    """Branch, tag or commit of a hub id. None is its main branch."""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; wanted one of {', '.join(DTYPES)}")
        if self.quantisation not in get_args(Quantisation):
            raise ValueError(
                f"quantisation is {self.quantisation!r}; wanted one of "
                f"{', '.join(get_args(Quantisation))}"
            )
        if self.device_map is not None and self.device_map not in DEVICE_MAPS:
            _device(self.device_map)
        kernel = self.attention is not None and "/" in self.attention
        if self.attention is not None and self.attention not in ATTENTIONS and not kernel:
            raise ValueError(
                f"attention is {self.attention!r}; wanted one of {', '.join(ATTENTIONS)}, or the "
                "hub id of a kernel"
            )


LOADING = Loading()


def load_tokenizer(model: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder or hub id, padding on the left.

    Raises:
        ValueError: no such folder, or no tokenizer in it that can be read.
    """
    _check_path(model, revision)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            model, padding_side="left", revision=revision or "main"
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{model} has no tokenizer that can be read ({error}); save it beside the model with "
            "tokenizer.save_pretrained"
        ) from error
    return tokenizer


def load_processor(
    model: str | Path, revision: str | None, tokenizer: PreTrainedTokenizerBase
) -> Any:
    """The processor of a vision-language model, with this tokenizer; None for a language model.

    Raises:
        ValueError: a vision-language model without a processor that can be read.
    """
    config = _config(model, revision)
    if not _sees(config):
        return None
    try:
        processor: Any = AutoProcessor.from_pretrained(model, revision=revision or "main")
    except (OSError, ValueError, ImportError, AttributeError) as error:
        raise ValueError(
            f"{model} is a vision-language model, and has no processor that can be read "
            f"({_first_line(error)}); save it beside the model with processor.save_pretrained. "
            "Some processors need torchvision: pip install torchvision, of torch's own build"
        ) from error
    if not hasattr(processor, "image_processor"):
        raise ValueError(
            f"{model} is a vision-language model, but its processor, a "
            f"{type(processor).__name__}, takes no pictures; save the model's own beside it"
        )
    processor.tokenizer = tokenizer
    return processor


def _config(model: str | Path, revision: str | None) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(model, revision=revision or "main")
    except (OSError, ValueError) as error:
        raise ValueError(f"{model} has no config.json that can be read ({error})") from error
    return config


def _sees(config: PreTrainedConfig) -> bool:
    """Whether transformers takes pictures with text for this kind of model."""
    kind = type(config)
    return kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not (
        kind in MODEL_FOR_CAUSAL_LM_MAPPING and getattr(config, "vision_config", None) is None
    )


def load_base(model: str | Path, loading: Loading = LOADING) -> Any:
    """A causal language model, one that sees or not, from a folder or hub id, in eval mode.

    Args:
        model: a model folder or hub id.
        loading: how.

    Raises:
        ValueError: no such folder, no causal language model in it that can be read, weights that
            are missing, damaged or left off the devices, a device or package that is not there.
    """
    _check_path(model, loading.revision)
    check_weight_files(Path(model))
    if loading.device_map is not None and loading.device_map not in DEVICE_MAPS:
        _check_device(loading.device_map)
    # A None would count as given, and erase what the checkpoint's config says of itself.
    given: dict[str, Any] = {}
    if loading.quantisation != "none":
        given["quantization_config"] = _quantiser(loading)
    if loading.attention is not None:
        given["attn_implementation"] = loading.attention
    try:
        sees = _sees(_config(model, loading.revision))
        cls: Any = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        loaded: Any = cls.from_pretrained(
            model,
            dtype=DTYPES[loading.dtype] or "auto",
            device_map=loading.device_map,
            revision=loading.revision or "main",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, with their names
            **given,
        )
    except torch.OutOfMemoryError as error:
        raise ValueError(
            f"{model} does not fit into the memory there is ({_first_line(error)}); take dtype "
            "bfloat16, quantisation 8bit or 4bit, or device_map auto with a further GPU"
        ) from error
    except ImportError as error:
        raise ValueError(
            f"{model} needs a package that is not installed ({_first_line(error)})"
        ) from error
    except (OSError, ValueError, RuntimeError, SafetensorError, EOFError, UnpicklingError) as error:
        raise ValueError(
            f"{model} has no causal language model that can be read ({_first_line(error)}); wanted "
            "a folder or hub id with config.json and weights"
        ) from error
    base, info = loaded
    _check_weights(model, base, info)
    _check_quantised(model, base, loading)
    return base


# -- quantisation ----------------------------------------------------------------------------


def _quantiser(loading: Loading) -> BitsAndBytesConfig:
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(
            f"quantisation {loading.quantisation} needs bitsandbytes, which is not installed: "
            "pip install 'dso[quantised]'"
        )
    if loading.quantisation == "8bit":
        # Without this every linear layer says so at every call.
        logging.getLogger("bitsandbytes.autograd._functions").addFilter(_other_than_cast)
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=DTYPES[loading.dtype] or torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )


def _other_than_cast(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith("MatMul8bitLt: inputs will be cast")


def _check_quantised(model: str | Path, base: Any, loading: Loading) -> None:
    """What was asked for is what is there; and gradients pass through it."""
    asked = loading.quantisation
    if asked != "none" and not getattr(base, f"is_loaded_in_{asked}", False):
        raise ValueError(
            f"{model} cannot be loaded in {asked}: its checkpoint is quantised "
            "already; set quantisation to none to load it as it is"
        )
    for module in base.modules():
        # On CPUs with bfloat16 instructions a 4-bit layer turns its weight, in the first forward
        # pass without gradients, into a form that no gradient passes through, and says nothing.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


# -- what is on the disk ---------------------------------------------------------------------


def _check_path(model: str | Path, revision: str | None) -> None:
    """A path that looks like a folder must be one: otherwise the hub would be asked for it."""
    path = Path(model)
    looks_local = isinstance(model, Path) or path.is_absolute() or str(model).startswith((".", "~"))
    if path.exists():
        if not (path / "config.json").is_file():
            raise ValueError(f"{path} is no model folder: it has no config.json")
        if revision is not None:
            raise ValueError(
                f"revision {revision!r} was given, but {path} is a folder and has only the one; "
                "leave the revision out, or give a hub id"
            )
    elif looks_local or len(path.parts) > 2 or path.parts[0] == "checkpoints":
        raise ValueError(f"model folder {path} does not exist; give a folder or a hub id")


# -- what was loaded -------------------------------------------------------------------------


def _check_weights(model: str | Path, base: nn.Module, info: dict[str, Any]) -> None:
    """Every weight comes from the checkpoint and is on a device."""
    missing = sorted(info["missing_keys"])  # tied weights are not among them
    if missing:
        raise ValueError(
            f"{model} lacks {len(missing)} weights that a {type(base).__name__} has: "
            f"{some(missing)}; they would be random numbers. The weights belong to another model "
            "or are incomplete"
        )
    other = sorted(
        f"{key} {tuple(a)} instead of {tuple(b)}" for key, a, b in info["mismatched_keys"]
    )
    if other:
        raise ValueError(
            f"{model} has {len(other)} weights of another shape than its config.json asks for: "
            f"{some(other)}; the two belong to different models"
        )
    off = [name for name, parameter in base.named_parameters() if parameter.is_meta]
    if off:
        raise ValueError(
            f"{model} does not fit on the devices: {len(off)} of its weights were left on the CPU "
            f"or the disk ({some(off)}), where they can be neither steered nor trained; take "
            "dtype bfloat16, quantisation 8bit or 4bit, or a further GPU"
        )


# -- devices ---------------------------------------------------------------------------------


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "meta":
        raise ValueError(
            f"device_map is {name!r}; wanted a device such as cpu or cuda:0, or one of "
            f"{', '.join(DEVICE_MAPS)}"
        )
    return device


def _check_device(name: str) -> None:
    try:
        torch.empty(0, device=_device(name))
    # torch raises an AssertionError where it was built without the device.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"device_map is {name!r}, but there is no such device here ({_first_line(error)}); "
            "give another, or leave it out"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
