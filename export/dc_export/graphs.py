"""The four graphs as PyTorch modules: what is traced, with everything that touches pixels or latents inside.

Frames come in as uint8 and everything else as float32, which also is what goes out; the weights' precision stays
inside. Each module takes a network of the reference and leaves it changed (collapsed attention, constant blenders):
load it anew for other uses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLTemporalDecoder
from diffusers.models.resnet import AlphaBlender
from torch import Tensor, nn
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

from depthcrafter.collapse import collapse_cross_attention
from depthcrafter.reference import ADDED_TIME_IDS
from depthcrafter.unet import DepthCrafterUNet


class ClipEncoder(nn.Module):
    """frames u8 [n,H,W,3], resize_rows f32 [224,H], resize_cols f32 [224,W] -> embeddings f32 [n,C]."""

    def __init__(self, encoder: CLIPVisionModelWithProjection, feature_extractor: CLIPImageProcessor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("mean", torch.tensor(feature_extractor.image_mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(feature_extractor.image_std).view(3, 1, 1))

    def forward(self, frames: Tensor, resize_rows: Tensor, resize_cols: Tensor) -> Tensor:
        # Resized in float32 whatever the weights are: it is cheap, and the matrices' rows sum over many pixels.
        images = resize_rows @ _pixels(frames) @ resize_cols.T
        images = ((images + 1) / 2 - self.mean) / self.std
        embeddings: Tensor = self.encoder(images.to(self.encoder.dtype)).image_embeds
        return embeddings.float()


class VaeEncoder(nn.Module):
    """frames u8 [n,H,W,3], noise f32 [n,3,H,W], already scaled -> image_latents f32 [n,4,h,w], the posterior's mode."""

    def __init__(self, vae: AutoencoderKLTemporalDecoder) -> None:
        super().__init__()
        vae.decoder = nn.Identity()  # this is the encoder alone
        self.vae = vae

    def forward(self, frames: Tensor, noise: Tensor) -> Tensor:
        latents: Tensor = self.vae.encode(_pixels(frames) + noise).latent_dist.mode()
        return latents.float()


class Denoiser(nn.Module):
    """D(x; sigma) of Karras et al. (2022).

    noisy f32 [1,T,4,h,w], sigma f32 [], image_latents f32 [1,T,4,h,w], embeddings f32 [1,T,C]
    -> denoised f32 [1,T,4,h,w]
    """

    def __init__(self, unet: DepthCrafterUNet) -> None:
        super().__init__()
        collapse_cross_attention(unet)
        freeze_blenders(unet)
        self.unet = unet
        self.register_buffer("added_time_ids", torch.tensor([ADDED_TIME_IDS]))

    def forward(self, noisy: Tensor, sigma: Tensor, image_latents: Tensor, embeddings: Tensor) -> Tensor:
        variance = sigma**2 + 1
        scaled = torch.cat([noisy / variance.sqrt(), image_latents], dim=2)
        dtype = self.unet.dtype
        (v,) = self.unet(
            scaled.to(dtype), sigma.log() / 4, embeddings.to(dtype), self.added_time_ids, return_dict=False
        )
        return noisy / variance - v.float() * (sigma / variance.sqrt())


class VaeDecoder(nn.Module):
    """latents f32 [n,4,h,w] -> depth f32 [n,H,W] in [0,1]; the temporal decoder mixes the n frames."""

    def __init__(self, vae: AutoencoderKLTemporalDecoder) -> None:
        super().__init__()
        freeze_blenders(vae.decoder)
        vae.encoder = nn.Identity()
        middle = vae.decoder.mid_block  # one attention between two residual blocks, never run where there is one block
        middle.attentions = middle.attentions[: len(middle.resnets) - 1]
        self.vae = vae

    def forward(self, latents: Tensor) -> Tensor:
        latents = (latents / self.vae.config.scaling_factor).to(self.vae.dtype)
        images: Tensor = self.vae.decode(latents, num_frames=latents.shape[0]).sample
        return (images.float() / 2 + 0.5).clamp(0, 1).mean(dim=1)


class ConstantBlender(nn.Module):
    """`AlphaBlender` of frames that all belong to a video: a fixed mix of the spatial and the temporal path."""

    def __init__(self, blender: AlphaBlender) -> None:
        super().__init__()
        alpha = torch.sigmoid(blender.mix_factor.detach())
        if blender.switch_spatial_to_temporal_mix:
            alpha = 1 - alpha
        self.alpha = alpha.item()

    def forward(self, x_spatial: Tensor, x_temporal: Tensor, image_only_indicator: Tensor | None = None) -> Tensor:
        return self.alpha * x_spatial + (1 - self.alpha) * x_temporal


def freeze_blenders(model: nn.Module) -> None:
    """Replace every `AlphaBlender` by its constant mix. Exact but for the rounding of 1 - alpha."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, AlphaBlender):
                setattr(module, name, ConstantBlender(child))


@dataclass(frozen=True)
class Graph:
    """Names and axes of one of the four, and an input to trace it with.

    Axes are named by what they are: n, T, H, W and, an eighth of these two, h and w. `example(embedding_dim,
    latent_channels)` gives inputs of a size at which no dimension is 1 at any level, since the exporter would take
    such a one for a constant.
    """

    inputs: dict[str, dict[int, str]]
    output: str
    output_axes: dict[int, str]
    example: Callable[[int, int], dict[str, Tensor]]


EXAMPLE_FRAMES, EXAMPLE_HEIGHT, EXAMPLE_WIDTH = 4, 128, 192


def _specs() -> dict[str, Graph]:
    n, height, width = EXAMPLE_FRAMES, EXAMPLE_HEIGHT, EXAMPLE_WIDTH
    h, w = height // 8, width // 8
    frames, latents, noise = {0: "n", 1: "H", 2: "W"}, {0: "n", 2: "h", 3: "w"}, {0: "n", 2: "H", 3: "W"}
    window = {1: "T", 3: "h", 4: "w"}
    return {
        "clip_encoder": Graph(
            inputs={"frames": frames, "resize_rows": {1: "H"}, "resize_cols": {1: "W"}},
            output="embeddings",
            output_axes={0: "n"},
            example=lambda dim, channels: {
                "frames": _random_frames(n, height, width),
                "resize_rows": torch.rand(224, height),
                "resize_cols": torch.rand(224, width),
            },
        ),
        "vae_encoder": Graph(
            inputs={"frames": frames, "noise": noise},
            output="image_latents",
            output_axes=latents,
            example=lambda dim, channels: {
                "frames": _random_frames(n, height, width),
                "noise": torch.rand(n, 3, height, width),
            },
        ),
        "denoiser": Graph(
            inputs={"noisy": window, "sigma": {}, "image_latents": window, "embeddings": {1: "T"}},
            output="denoised",
            output_axes=window,
            example=lambda dim, channels: {
                "noisy": torch.rand(1, n, channels, h, w),
                "sigma": torch.tensor(1.5),
                "image_latents": torch.rand(1, n, channels, h, w),
                "embeddings": torch.rand(1, n, dim),
            },
        ),
        "vae_decoder": Graph(
            inputs={"latents": latents},
            output="depth",
            output_axes=frames,
            example=lambda dim, channels: {"latents": torch.rand(n, channels, h, w)},
        ),
    }


def _random_frames(n: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8)


def _pixels(frames: Tensor) -> Tensor:
    """uint8 [n,H,W,3] as float32 [n,3,H,W] in [-1,1]."""
    # Made float first: TensorRT takes uint8 as an input, but only to be cast.
    return frames.float().permute(0, 3, 1, 2) / 255 * 2 - 1


GRAPH_SPECS = _specs()
