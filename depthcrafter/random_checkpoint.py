"""Random checkpoints of any size, in the layout of the real ones, for tests, benchmarks and machines without a hub.

python -m depthcrafter.random_checkpoint tiny checkpoints/tiny
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder
from torch import nn
from transformers import CLIPVisionModelWithProjection

from dc_rt.errors import UserError
from depthcrafter.layout import (
    CONFIGS,
    CheckpointConfig,
    build_image_encoder,
    build_unet,
    build_vae,
    save_network,
    save_rest,
)
from depthcrafter.unet import DepthCrafterUNet


def make_checkpoint(
    path: str | os.PathLike[str], config: CheckpointConfig | str = "tiny", seed: int = 0
) -> tuple[Path, Path]:
    """Write a random checkpoint: the base at `path`, the UNet at `path`/unet.

    The files, their names and configurations are those of stabilityai/stable-video-diffusion-img2vid-xt and
    tencent/DepthCrafter. A float16 configuration writes the base as the variant "fp16", as the hub has it.

    Activations are sane: nothing is zero or saturated, each parameter matters, and what leaves each network has the
    spread that the trained one gives (v and embeddings of order 1, latents of 1/scaling_factor, depth within [0,1]).

    Args:
        path: folder, made if need be.
        config: sizes, or the name of an entry of `CONFIGS`.
        seed: the same seed gives the same weights, whatever else was drawn before.

    Returns:
        The folders (base, unet).

    Raises:
        UserError: `config` names no configuration.
    """
    if isinstance(config, str):
        if config not in CONFIGS:
            raise UserError(f"There is no configuration {config!r}; the known ones are {', '.join(CONFIGS)}.")
        config = CONFIGS[config]
    base = Path(path)
    generator = torch.Generator().manual_seed(seed)

    # One network at a time, so that the full size never holds two.
    save_network(_random_unet(config, generator), base, "unet", config)
    save_network(_random_vae(config, generator), base, "vae", config)
    save_network(_random_image_encoder(config, generator), base, "image_encoder", config)
    save_rest(base)
    return base, base / "unet"


def _random_unet(config: CheckpointConfig, generator: torch.Generator) -> DepthCrafterUNet:
    with torch.device("meta"):
        unet = build_unet(config)
    randomise(unet.to_empty(device="cpu"), generator)
    v = unet(
        _normal(generator, 1, 2, 8, 16, 16),
        torch.tensor(0.5),
        _normal(generator, 1, 2, config.embedding_dim),
        torch.tensor([[7, 127, 0.02]]),
        return_dict=False,
    )[0]
    _rescale(unet.conv_out, 1.0 / v.std())
    return unet


def _random_vae(config: CheckpointConfig, generator: torch.Generator) -> AutoencoderKLTemporalDecoder:
    with torch.device("meta"):
        vae = build_vae(config)
    randomise(vae.to_empty(device="cpu"), generator)
    spread = 1 / vae.config.scaling_factor
    latents = vae.encode(_normal(generator, 2, 3, 64, 64).clamp(-1, 1)).latent_dist.mode()
    _rescale(vae.quant_conv, spread / latents.std())
    images = vae.decode(spread * _normal(generator, 2, 4, 16, 16), num_frames=2).sample
    # Each channel should fill [-1,1] and all but never leave it, where clamping would hide differences.
    _rescale(vae.decoder.time_conv_out, 0.35 / images.std())
    vae.decoder.time_conv_out.bias.zero_()
    return vae


def _random_image_encoder(config: CheckpointConfig, generator: torch.Generator) -> CLIPVisionModelWithProjection:
    encoder = build_image_encoder(config).eval()
    randomise(encoder, generator)
    embeddings = encoder(_normal(generator, 2, 3, 224, 224)).image_embeds
    _rescale(encoder.visual_projection, 1.0 / embeddings.std())
    return encoder


@torch.no_grad()
def randomise(model: nn.Module, generator: torch.Generator) -> None:
    """Fill every parameter so that each block passes about unit variance on, and none is left at a neutral value."""
    model.eval().requires_grad_(False)
    for name, parameter in _named_parameters(model):
        if name.endswith("mix_factor"):
            # Well away from 0, where spatial and temporal could be swapped unseen.
            parameter.uniform_(-2, 2, generator=generator)
        elif name.endswith(("position_embedding.weight", "class_embedding")):
            parameter.normal_(0, 0.3, generator=generator)
        elif parameter.ndim >= 2:
            gain = 1.5 if name.endswith(("to_q.weight", "to_k.weight", "q_proj.weight", "k_proj.weight")) else 0.8
            parameter.normal_(0, gain / math.sqrt(parameter[0].numel()), generator=generator)
        elif name.endswith("bias"):
            parameter.normal_(0, 0.1, generator=generator)
        else:
            parameter.normal_(1, 0.1, generator=generator)


def _named_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """In an order that does not depend on how a library registers its modules."""
    return iter(sorted(model.named_parameters()))


@torch.no_grad()
def _rescale(layer: nn.Module, factor: torch.Tensor | float) -> None:
    for parameter in layer.parameters():
        parameter.mul_(factor)


def _normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator)
