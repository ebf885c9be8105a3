"""The plain model around new weights: written as a stock checkpoint, and read back.

No weight that stays is copied: the new model is made without memory and refers to the base's own.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME

from dso.steering.backbone import language_backbone
from dso.steering.changes import Changes
from dso.steering.llama import llama_config
from dso.steering.readers import LAYOUTS


def write_plain(
    base: PreTrainedModel, changes: Changes, folder: Path
) -> tuple[type[PreTrainedModel], list[str]]:
    """Write the plain model with its new weights into a folder.

    Args:
        base: with its adapters, which are left out.
        changes: its new weights.
        folder: a new one.

    Returns:
        Its class, and what its user has to know.
    """
    new, notes = _rebuilt(base, changes)
    if (generation := base.generation_config) is not None:
        # Written as it is: save_pretrained refuses some that transformers itself has loaded.
        new.generation_config = type(generation)()
    new.save_pretrained(folder)
    if generation is not None:
        generation.to_json_file(folder / GENERATION_CONFIG_NAME)
    # safetensors makes files that only their owner can read, and a server may be another user.
    mode = (folder / CONFIG_NAME).stat().st_mode
    for file in folder.glob("*.safetensors"):
        file.chmod(mode)
    return type(new), notes


def _rebuilt(base: PreTrainedModel, changes: Changes) -> tuple[PreTrainedModel, list[str]]:
    config = copy.deepcopy(base.config)
    text = config.get_text_config(decoder=True)
    cls: type[PreTrainedModel] = type(base)
    flags, notes = set(changes.flags), list[str]()
    if changes.llama:
        llama, notes = llama_config(text)
        biases = LAYOUTS["llama"].biases
        flags |= {flag for part, flag in biases.items() if _has_biases(base, part)}
        if text is config:
            config, cls = llama, LlamaForCausalLM
        else:
            place = next(name for name, value in vars(config).items() if value is text)
            setattr(config, place, llama)
        text = llama
    for flag in flags:
        setattr(text, flag, True)
    if flags:
        notes.append(
            f"linear layers have new biases ({', '.join(sorted(flags))} in config.json): "
            "an engine that does not read these fields drops the shift, some without a word; "
            "compare an answer or two with transformers'"
        )
    # Nothing is computed on the device "meta": weights are put in by reference.
    with torch.device("meta"):
        new = cls(config)
    state = _plain_state(base) | changes.weights
    for name, wanted in new.state_dict().items():
        if name not in state and name.endswith(".bias"):
            state[name] = torch.zeros(wanted.shape, dtype=base.dtype)
    new.load_state_dict(state, assign=True)
    new.tie_weights()
    return new, notes


def _has_biases(base: PreTrainedModel, part: str) -> bool:
    """Whether linear layers in a part of the decoder blocks have biases already."""
    names = [name for name, _ in language_backbone(base).named_parameters()]
    return any(f".{part}." in name and name.endswith(".bias") for name in names)


def _plain_state(base: PreTrainedModel) -> dict[str, Tensor]:
    """The base's own weights under their own names."""
    return {
        key.replace(".base_layer.", "."): value
        for key, value in base.state_dict().items()
        if ".steering_" not in key
    }


def read_plain(cls: type[PreTrainedModel], folder: Path, base: PreTrainedModel) -> PreTrainedModel:
    """Load what was written, as transformers alone does.

    Args:
        cls: its class.
        folder: that it was written into.
        base: whose dtype, devices and attention implementation it gets.

    Raises:
        RuntimeError: weights are missing, or there are others than the model's.
    """
    spread = len({parameter.device for parameter in base.parameters()}) > 1
    loaded: Any = cls.from_pretrained(
        folder,
        dtype=base.dtype,
        attn_implementation=base.config._attn_implementation,
        device_map="auto" if spread else {"": base.device},
        output_loading_info=True,
    )
    again, info = loaded
    wrong = {kind: sorted(map(str, keys)) for kind, keys in info.items() if keys}
    if wrong:
        raise RuntimeError(f"the folded {cls.__name__} does not load whole: {wrong}")
    # Frozen as under an adapter: torch picks other kernels for weights that take a gradient.
    plain: PreTrainedModel = again.eval().requires_grad_(False)
    return plain
