"""The networks with random weights, made where they are measured: no checkpoint is read or written."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bench.gpu_check.timing import device
from depthcrafter.layout import CONFIGS, build_unet, build_vae
from depthcrafter.random_checkpoint import randomise


def half() -> torch.dtype:
    """float16 on a GPU; float32 on the CPU, which has few operations in half precision."""
    return torch.float16 if device() == "cuda" else torch.float32


def random_unet(config: str) -> Any:
    """The UNet of a configuration."""
    return _filled("unet", config, half())


def random_vae(config: str, dtype: torch.dtype) -> Any:
    """The VAE of a configuration."""
    return _filled("vae", config, dtype)


def _filled(network: str, config: str, dtype: torch.dtype) -> nn.Module:
    with torch.device("meta"):
        model = {"unet": build_unet, "vae": build_vae}[network](CONFIGS[config])
    # Not `model.to`: diffusers' own warns of casts.
    model = nn.Module.to(model, dtype).to_empty(device=device())
    randomise(model, torch.Generator(device()).manual_seed(0))
    return model


def normal(*shape: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Random numbers on the device that is measured."""
    return torch.randn(shape, device=device(), dtype=dtype or half())


def to_channels_last(model: nn.Module) -> None:
    """Lay out the weights of all 2-D convolutions so; the temporal ones are 3-D and have another layout."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)


def compiled(model: nn.Module) -> nn.Module:
    """`torch.compile` for fixed shapes; in a dry run traced alone, since to compile for the CPU takes minutes."""
    if device() == "cpu":
        return torch.compile(model, backend="eager")
    return torch.compile(model, dynamic=False)
