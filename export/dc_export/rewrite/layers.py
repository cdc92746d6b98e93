"""How many there are of what a rule is for, told from the network and not from its graph.

Level 0 of the UNet has the latents' size, and each level half the sides of the one before. Latents' sides are multiples
of 8, so that the number of pixels is one of 64, 16, 4 and 1: see `dc_export.rewrite.graph.pixel_divisor`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock, TemporalBasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import SpatioTemporalResBlock, TemporalResnetBlock
from torch import nn
from transformers.models.clip.modeling_clip import CLIPAttention

from dc_export.rewrite.rules import LARGE, is_fused

DIVISORS = (64, 16, 4, 1)


def attentions_without_kernel(network: nn.Module) -> int:
    sizes = [layer.inner_dim // layer.heads for layer in _all(network, Attention)]
    sizes += [layer.head_dim for layer in _all(network, CLIPAttention)]
    return sum(not is_fused(_is_half(network), size) for size in sizes)


def blends_with_a_residual(network: nn.Module) -> int:
    return _count(network, SpatioTemporalResBlock)


def half_normalizations_over_frames(network: nn.Module) -> int:
    """Two of each temporal residual block."""
    return 2 * _count(network, TemporalResnetBlock) * _is_half(network)


def gated_feed_forwards(network: nn.Module) -> int:
    return _count(network, GEGLU)


def group_normalizations(network: nn.Module) -> int:
    return _count(network, nn.GroupNorm)


def large_temporal_transformers(network: nn.Module) -> int:
    return _count_in_levels(network, TemporalBasicTransformerBlock, least=LARGE)


def large_spatial_layers(network: nn.Module) -> int:
    """Residual blocks and the spatial parts of transformers; a network that mixes no frames is one as a whole."""
    blocks = _count(network, SpatioTemporalResBlock)
    if not blocks:
        return int(group_normalizations(network) > 0)
    if not hasattr(network, "unet"):  # the VAE's levels have more pixels than the latents
        return blocks
    return sum(_count_in_levels(network, kind, least=LARGE) for kind in (SpatioTemporalResBlock, BasicTransformerBlock))


def feed_forwards_in_no_slice(network: nn.Module) -> int:
    """Of the spatial parts of large transformers; of small levels all."""
    return _count_in_levels(network, BasicTransformerBlock, least=LARGE) + feed_forwards_of_small_levels(network)


def feed_forwards_of_small_levels(network: nn.Module) -> int:
    """Of levels that are not large and can be cut: one of each spatial part, two of each temporal one."""
    return _count_in_levels(network, GEGLU, least=2, below=LARGE)


def _all(network: nn.Module, kind: type[nn.Module]) -> Iterator[nn.Module]:
    return (module for module in network.modules() if isinstance(module, kind))


def _count(network: nn.Module, kind: type[nn.Module]) -> int:
    return sum(1 for _ in _all(network, kind))


def _count_in_levels(network: nn.Module, kind: type[nn.Module], least: int, below: int = 1 << 30) -> int:
    """Of the UNet's levels whose number of pixels is divisible by at least `least`, and by less than `below`."""
    if not hasattr(network, "unet"):
        return 0
    levels = zip(DIVISORS, network.unet.down_blocks, reversed(network.unet.up_blocks), strict=True)
    return sum(_count(down, kind) + _count(up, kind) for divisor, down, up in levels if least <= divisor < below)


def _is_half(network: nn.Module) -> bool:
    return next(network.parameters()).dtype is torch.float16
