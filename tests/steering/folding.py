"""Tiny steered models, folded and read back."""

import json

import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

from dso.steering import SteeringConfig, attach, fold
from tests.steering.conformance import prompt
from tests.steering.steered import randomise
from tests.tiny_models import CONFIGS, build, tokens

OMEGA = 0.5

OWN_BIAS = ("gpt2", "gpt_neox", "opt", "phi")
WHOLE = ("llama", "qwen2", "mistral", "smollm3", *OWN_BIAS)
IN_PART = (
    "qwen3", "gemma", "gemma2", "gemma3_text", "mixtral", "cohere", "phi3", "olmo2", "qwen2_vl",
    "qwen2_5_vl", "qwen3_vl",
)  # fmt: skip


def steered(family, dtype=torch.float32, changes=None, **form):
    """A tiny model with a random adapter: its config changed, the adapter's form given."""
    config = CONFIGS[family]()
    for name, value in (changes or {}).items():
        setattr(config, name, value)
    model = attach(build(config, 0, dtype), SteeringConfig(**form)).eval()
    randomise(model, size=0.2)
    return model


def inputs(model):
    return prompt(model.get_base_model(), tokens())


def folded(model, folder, strength=OMEGA, **settings):
    return fold(model, strength, folder, [inputs(model)], **settings)


def stock(folder):
    """What transformers makes of a folder by itself."""
    sees = "text_config" in json.loads((folder / "config.json").read_text())
    auto = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    model = auto.from_pretrained(folder, dtype="auto", attn_implementation="eager").eval()
    assert not any("steering" in name for name, _ in model.named_modules())
    return model.requires_grad_(False)  # as the base under an adapter: torch then picks its kernels


def apart(one, other):
    return float((one - other).abs().max())
