"""Random checkpoints of any size, in the layout of the real ones, for tests, benchmarks and machines without a hub.

python -m depthcrafter.random_checkpoint tiny checkpoints/tiny
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from dc_rt.errors import UserError
from depthcrafter.unet import DepthCrafterUNet

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class CheckpointConfig:
    """The sizes of the three networks; everything else is as in the real checkpoint."""

    unet_channels: tuple[int, int, int, int]
    unet_layers: int
    unet_heads: tuple[int, int, int, int]
    time_ids_dim: int
    vae_channels: tuple[int, int, int, int]
    vae_layers: int
    clip_hidden: int
    clip_intermediate: int
    clip_layers: int
    clip_heads: int
    embedding_dim: int
    dtype: str = "float32"


CONFIGS = {
    # Small enough to ship and to test with.
    "tiny": CheckpointConfig(
        unet_channels=(32, 32, 32, 64),
        unet_layers=1,
        unet_heads=(1, 2, 2, 2),
        time_ids_dim=32,
        vae_channels=(32, 32, 32, 32),
        vae_layers=1,
        clip_hidden=64,
        clip_intermediate=128,
        clip_layers=2,
        clip_heads=2,
        embedding_dim=64,
    ),
    # The real sizes, in float16 as the original publishes and runs them.
    "full": CheckpointConfig(
        unet_channels=(320, 640, 1280, 1280),
        unet_layers=2,
        unet_heads=(5, 10, 20, 20),
        time_ids_dim=256,
        vae_channels=(128, 256, 512, 512),
        vae_layers=2,
        clip_hidden=1280,
        clip_intermediate=5120,
        clip_layers=32,
        clip_heads=16,
        embedding_dim=1024,
        dtype="float16",
    ),
}


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
    dtype: torch.dtype = getattr(torch, config.dtype)
    variant = {"variant": "fp16"} if dtype == torch.float16 else {}
    generator = torch.Generator().manual_seed(seed)

    # One network at a time, so that the full size never holds two.
    _cast(_random_unet(config, generator), dtype).save_pretrained(base / "unet")
    _cast(_random_vae(config, generator), dtype).save_pretrained(base / "vae", **variant)
    _cast(_random_image_encoder(config, generator), dtype).save_pretrained(base / "image_encoder", **variant)
    _scheduler().save_pretrained(base / "scheduler")
    _write_json(base / "feature_extractor" / "preprocessor_config.json", _FEATURE_EXTRACTOR)
    # Last, since it marks a whole checkpoint.
    _write_json(base / "model_index.json", _MODEL_INDEX)
    return base, base / "unet"


_MODEL_INDEX = {
    "_class_name": "StableVideoDiffusionPipeline",
    "_diffusers_version": "0.24.0.dev0",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
    "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
}

_FEATURE_EXTRACTOR = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 224},
}


def _scheduler() -> EulerDiscreteScheduler:
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        use_karras_sigmas=True,
        sigma_min=0.002,
        sigma_max=700.0,
        timestep_spacing="leading",
        timestep_type="continuous",
        steps_offset=1,
    )


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def _random_unet(config: CheckpointConfig, generator: torch.Generator) -> DepthCrafterUNet:
    with torch.device("meta"):
        unet = DepthCrafterUNet(
            sample_size=96,
            in_channels=8,
            out_channels=4,
            block_out_channels=config.unet_channels,
            layers_per_block=config.unet_layers,
            num_attention_heads=config.unet_heads,
            cross_attention_dim=config.embedding_dim,
            addition_time_embed_dim=config.time_ids_dim,
            projection_class_embeddings_input_dim=3 * config.time_ids_dim,
        )
    _randomise(unet.to_empty(device="cpu"), generator)
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
        vae = AutoencoderKLTemporalDecoder(
            block_out_channels=config.vae_channels,
            down_block_types=("DownEncoderBlock2D",) * 4,
            layers_per_block=config.vae_layers,
            latent_channels=4,
            sample_size=768,
            scaling_factor=0.18215,
            force_upcast=True,
        )
    _randomise(vae.to_empty(device="cpu"), generator)
    spread = 1 / vae.config.scaling_factor
    latents = vae.encode(_normal(generator, 2, 3, 64, 64).clamp(-1, 1)).latent_dist.mode()
    _rescale(vae.quant_conv, spread / latents.std())
    images = vae.decode(spread * _normal(generator, 2, 4, 16, 16), num_frames=2).sample
    # Each channel should fill [-1,1] and all but never leave it, where clamping would hide differences.
    _rescale(vae.decoder.time_conv_out, 0.35 / images.std())
    vae.decoder.time_conv_out.bias.zero_()
    return vae


def _random_image_encoder(config: CheckpointConfig, generator: torch.Generator) -> CLIPVisionModelWithProjection:
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=config.clip_hidden,
            intermediate_size=config.clip_intermediate,
            num_hidden_layers=config.clip_layers,
            num_attention_heads=config.clip_heads,
            patch_size=14,
            image_size=224,
            projection_dim=config.embedding_dim,
            hidden_act="gelu",
        )
    ).eval()
    _randomise(encoder, generator)
    embeddings = encoder(_normal(generator, 2, 3, 224, 224)).image_embeds
    _rescale(encoder.visual_projection, 1.0 / embeddings.std())
    return encoder


@torch.no_grad()
def _randomise(model: nn.Module, generator: torch.Generator) -> None:
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


def _cast(model: M, dtype: torch.dtype) -> M:
    # Not `model.to`: diffusers' own warns of casts, and here there is no harm in one.
    nn.Module.to(model, dtype)
    return model


def _normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator)
