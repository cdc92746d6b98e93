"""The ways of `dc_rt.attention` in diffusers' networks."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models import attention_processor
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch.nn.attention import SDPBackend, sdpa_kernel

from dc_rt.attention import DEFAULT_ATTENTION, find_attention
from dc_rt.errors import UserError, option
from dc_rt.installation import install_command


def set_attention(networks: Sequence[torch.nn.Module], name: str, device: torch.device) -> None:
    """Have the UNet and the VAE compute attention this way; CLIP, which takes next to no time, keeps its own.

    Raises:
        UserError: there is no such way, or it does not work on this device.
    """
    way = find_attention(name)
    if way.package:
        _try_xformers(networks, device)
    processor = getattr(attention_processor, way.processor)
    for network in networks:
        network.set_attn_processor(processor())
    if way.kernel:
        kernel = getattr(SDPBackend, way.kernel)
        for network in networks:
            if isinstance(network, UNetSpatioTemporalConditionModel):
                _try_kernel(network, name, kernel, device)
                network.set_attn_processor(OneKernel(kernel))


class OneKernel(AttnProcessor2_0):
    """Attention by one of PyTorch's kernels. Of the UNet alone: none but the slowest takes the VAE's heads of 512."""

    def __init__(self, kernel: SDPBackend) -> None:
        super().__init__()
        self._kernel = kernel

    def __call__(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        """As `AttnProcessor2_0`; raises RuntimeError for tensors that the kernel does not take."""
        with sdpa_kernel(self._kernel):
            return super().__call__(*arguments, **keywords)


def _try_kernel(unet: torch.nn.Module, name: str, kernel: SDPBackend, device: torch.device) -> None:
    """Raise `UserError` unless this kernel takes every kind of head that the UNet has."""
    for dtype, size in sorted(set(_heads([unet])), key=str):
        x = torch.zeros(1, 1, 8, size, dtype=dtype, device=device)
        try:
            # It warns at length why it does not, before it raises.
            with warnings.catch_warnings(action="ignore"), sdpa_kernel(kernel):
                torch.nn.functional.scaled_dot_product_attention(x, x, x)
        except RuntimeError as error:
            kind = f"{str(dtype).removeprefix('torch.')} heads of {size} on the device {device.type}"
            raise UserError(
                f"PyTorch's kernel {name} cannot compute {kind}; use {option('attention', DEFAULT_ATTENTION)}."
            ) from error


def _try_xformers(networks: Sequence[torch.nn.Module], device: torch.device) -> None:
    """Raise `UserError` unless xformers has a kernel for every kind of head: which it has depends on the GPU.

    Diffusers' own check takes one kind, in float32, for all: the VAE's heads are of another size than the UNet's.
    """
    instead = f"use {option('attention', DEFAULT_ATTENTION)}"
    try:
        from xformers.ops import memory_efficient_attention
    except Exception as error:  # another package's code, which may raise anything
        raise UserError(
            f"xformers cannot be used here ({_first_line(error)}); install it on a machine with a GPU "
            f"(`{install_command('xformers')}`), or {instead}."
        ) from error
    for dtype, size in sorted(set(_heads(networks)), key=str):
        x = torch.zeros(1, 8, size, dtype=dtype, device=device)
        try:
            memory_efficient_attention(x, x, x)
        except Exception as error:
            kind = f"{str(dtype).removeprefix('torch.')} heads of {size} on the device {device.type}"
            raise UserError(f"xformers cannot compute {kind} ({_first_line(error)}); {instead}.") from error


def _heads(networks: Sequence[torch.nn.Module]) -> Iterator[tuple[torch.dtype, int]]:
    """Type and size of all heads; those of a VAE that is brought to float32 to encode have two types."""
    for network in networks:
        dtypes = {network.dtype} | ({torch.float32} if network.config.get("force_upcast") else set())
        for layer in network.modules():
            if isinstance(layer, Attention):
                yield from ((dtype, layer.inner_dim // layer.heads) for dtype in dtypes)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
