"""A tiny model with an adapter on it that does something."""

from __future__ import annotations

import torch
from peft import PeftModel
from torch import nn

from dso.steering import SteeringConfig, attach


def randomise(model: nn.Module, seed: int = 7, size: float = 0.3, adapter: str = "default") -> None:
    """Give the adapter's scales and shifts normal values, as training would have."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "steering_" in name and name.endswith(f".{adapter}"):
            parameter.data.copy_(size * torch.randn(parameter.shape, generator=generator))


def steer(model: nn.Module, config: SteeringConfig | None = None, seed: int = 7) -> PeftModel:
    """The model with a random adapter, in eval mode, at strength 1."""
    steered = attach(model, config).eval()
    randomise(steered, seed)
    return steered
