"""The sizes of the three networks, and the layout of a checkpoint on disk: that of the real ones.

A checkpoint is a *base* folder with the VAE, the image encoder and the scheduler, as
stabilityai/stable-video-diffusion-img2vid-xt has them, and in it, for those that this project makes, the UNet's folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from depthcrafter.unet import DepthCrafterUNet


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


# Small enough to ship and to test with.
_TINY = CheckpointConfig(
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
)
CONFIGS = {
    "tiny": _TINY,
    # Trained by `depthcrafter.nano`, published in float16 as the original is.
    "nano": replace(_TINY, dtype="float16"),
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


def build_unet(config: CheckpointConfig) -> DepthCrafterUNet:
    """The UNet as the library initialises it."""
    return DepthCrafterUNet(
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


def build_vae(config: CheckpointConfig) -> AutoencoderKLTemporalDecoder:
    """The VAE as the library initialises it."""
    return AutoencoderKLTemporalDecoder(
        block_out_channels=config.vae_channels,
        down_block_types=("DownEncoderBlock2D",) * 4,
        layers_per_block=config.vae_layers,
        latent_channels=4,
        sample_size=768,
        scaling_factor=0.18215,
        force_upcast=True,
    )


def build_image_encoder(config: CheckpointConfig) -> CLIPVisionModelWithProjection:
    """The image encoder as the library initialises it."""
    return CLIPVisionModelWithProjection(
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
    )


def save_network(model: nn.Module, base: Path, subfolder: str, config: CheckpointConfig) -> None:
    """Write `model` in the precision of `config`.

    A float16 base is the variant "fp16", as the hub has it; the UNet has no variant there, whatever its precision.
    """
    dtype: torch.dtype = getattr(torch, config.dtype)
    variant = {"variant": "fp16"} if dtype == torch.float16 and subfolder != "unet" else {}
    # Not `model.to`: diffusers' own warns of casts, and here there is no harm in one.
    nn.Module.to(model, dtype)
    model.save_pretrained(base / subfolder, **variant)


def save_rest(base: Path) -> None:
    """Write what is the same in every checkpoint. Comes last, since `model_index.json` marks a whole one."""
    build_scheduler().save_pretrained(base / "scheduler")
    _write_json(base / "feature_extractor" / "preprocessor_config.json", _FEATURE_EXTRACTOR)
    _write_json(base / "model_index.json", _MODEL_INDEX)


def build_scheduler() -> EulerDiscreteScheduler:
    """Stable Video Diffusion's, with DepthCrafter's schedule."""
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
