"""The reference: DepthCrafter in PyTorch, a whole video in memory, written to be read and to be compared with."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import StableVideoDiffusionPipeline
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from numpy.typing import NDArray

from dc_rt.attention import DEFAULT_ATTENTION, find_attention
from dc_rt.errors import UserError
from dc_rt.noise import Noise, NoiseSource
from dc_rt.options import Sampling
from dc_rt.sampler import SAMPLERS, Denoise, guided
from dc_rt.schedule import initial_scale, noise_levels
from dc_rt.windows import blend_weights, plan_windows
from depthcrafter.attention import set_attention
from depthcrafter.checkpoint import (
    load_feature_extractor,
    load_image_encoder,
    load_scheduler,
    load_unet,
    load_vae,
)
from depthcrafter.report import Report
from depthcrafter.source import CONFIGS, DEFAULT_BASE, DEFAULT_UNET, NETWORKS, Origin, find_checkpoint

NOISE_AUGMENTATION = 0.02
# Frames per second, motion bucket, noise augmentation: constants in DepthCrafter, inputs in Stable Video Diffusion.
ADDED_TIME_IDS = (7.0, 127.0, NOISE_AUGMENTATION)
DECODE_CHUNK = 8


class DepthCrafterPipeline(StableVideoDiffusionPipeline):
    """Video to depth, after Hu et al. (CVPR 2025) and the original `depth_crafter_ppl.py`.

    The four methods `embed`, `encode`, `denoise` and `decode` are what the four graphs compute.
    """

    @torch.inference_mode()
    def __call__(
        self,
        frames: NDArray[np.uint8],
        sampling: Sampling | None = None,
        *,
        noise: NoiseSource | None = None,
        **changes: Any,
    ) -> NDArray[np.float32]:
        """Depth of a video.

        Args:
            frames: uint8 [n,H,W,3], RGB, H and W multiples of 64.
            sampling: how; the defaults of `Sampling` unless given.
            noise: `dc_rt.Noise(sampling.seed)` unless given.
            changes: options of `Sampling` by name, in the place of those of `sampling`.

        Returns:
            Disparity, larger is nearer: float32 [n,H,W] in [0,1], not normalised.

        Raises:
            UserError: an option is out of its range.
        """
        sampling = replace(sampling or Sampling(), **changes)
        window_size, overlap = sampling.window_size, sampling.overlap
        noise = noise or Noise(sampling.seed)
        num_frames, height, width, _ = frames.shape
        sigmas = [float(sigma) for sigma in noise_levels(sampling)]
        windows = list(plan_windows(num_frames, window_size, overlap))

        chunks = [slice(i, i + DECODE_CHUNK) for i in range(0, num_frames, DECODE_CHUNK)]
        embeddings = torch.cat([self.embed(frames[chunk]) for chunk in chunks]).unsqueeze(0)
        pixel_noise = [
            np.stack([noise.frame(i, (3, height, width)) for i in range(num_frames)[chunk]]) for chunk in chunks
        ]
        image_latents = torch.cat(
            [
                self.encode(frames[chunk], NOISE_AUGMENTATION * eps)
                for chunk, eps in zip(chunks, pixel_noise, strict=True)
            ]
        ).unsqueeze(0)

        latents: torch.Tensor | None = None
        for start, end in windows:
            shape = (4, height // 8, width // 8)
            eps = self._tensor(np.stack([noise.latent(i % window_size, shape) for i in range(start, end)]))[None]
            x = eps * float(initial_scale())
            if latents is not None and overlap:
                x[:, :overlap] = latents[:, -overlap:] + eps[:, :overlap] * sigmas[0]
            condition = (image_latents[:, start:end], embeddings[:, start:end])
            x = SAMPLERS[sampling.sampler].sample(self._denoiser(*condition, sampling), x, sigmas)
            latents = x if latents is None else _join(latents, x, overlap)

        assert latents is not None
        depth: NDArray[np.float32] = torch.cat([self.decode(latents[0, chunk]) for chunk in chunks]).cpu().numpy()
        return depth

    def _denoiser(
        self, image_latents: torch.Tensor, embeddings: torch.Tensor, sampling: Sampling
    ) -> Denoise[torch.Tensor]:
        """`denoise` under a condition, guided away from zero latents and zero embeddings if `sampling` asks for it."""

        def conditioned(image_latents: torch.Tensor, embeddings: torch.Tensor) -> Denoise[torch.Tensor]:
            return lambda x, sigma: self.denoise(x, sigma, image_latents, embeddings)

        denoise = conditioned(image_latents, embeddings)
        if not sampling.is_guided:
            return denoise
        without = conditioned(torch.zeros_like(image_latents), torch.zeros_like(embeddings))
        return guided(denoise, without, sampling.guidance_scale)

    @torch.inference_mode()
    def embed(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """CLIP embeddings, float32 [n,C], of uint8 [n,H,W,3]."""
        images = _resize_with_antialiasing(self._pixels(frames), (224, 224))
        mean = images.new_tensor(self.feature_extractor.image_mean).view(3, 1, 1)
        std = images.new_tensor(self.feature_extractor.image_std).view(3, 1, 1)
        images = ((images + 1) / 2 - mean) / std
        return self.image_encoder(images.to(self.image_encoder.dtype)).image_embeds.float()

    @torch.inference_mode()
    def encode(self, frames: NDArray[np.uint8], noise: NDArray[np.float32]) -> torch.Tensor:
        """Mode of the VAE's posterior, float32 [n,4,h,w], of uint8 [n,H,W,3] plus noise [n,3,H,W], already scaled.

        A VAE that asks for it (`force_upcast`) is brought to float32: its encoder overflows float16.
        """
        pixels = self._pixels(frames) + self._tensor(noise)
        with self._vae_in_float32():
            return self.vae.encode(pixels.to(self.vae.dtype)).latent_dist.mode().float()

    @torch.inference_mode()
    def denoise(
        self, noisy: torch.Tensor, sigma: float, image_latents: torch.Tensor, embeddings: torch.Tensor
    ) -> torch.Tensor:
        """D(x; sigma) of Karras et al. (2022) for a v-predicting network, float32 [1,T,4,h,w].

        Args:
            noisy: float32 [1,T,4,h,w].
            sigma: noise level, above 0.
            image_latents: [1,T,4,h,w].
            embeddings: [1,T,C].
        """
        variance = sigma**2 + 1
        scaled = torch.cat([noisy / math.sqrt(variance), image_latents], dim=2)
        v = self.unet(
            scaled.to(self.unet.dtype),
            torch.tensor(math.log(sigma) / 4, device=noisy.device),
            encoder_hidden_states=embeddings.to(self.unet.dtype),
            added_time_ids=noisy.new_tensor([ADDED_TIME_IDS]),
            return_dict=False,
        )[0]
        return noisy / variance - v.float() * (sigma / math.sqrt(variance))

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Depth, float32 [n,H,W] in [0,1], of finished latents [n,4,h,w] that the temporal decoder sees together."""
        latents = latents / self.vae.config.scaling_factor
        images = self.vae.decode(latents.to(self.vae.dtype), num_frames=len(latents)).sample.float()
        return (images / 2 + 0.5).clamp(0, 1).mean(dim=1)

    def _pixels(self, frames: NDArray[np.uint8]) -> torch.Tensor:
        """uint8 [n,H,W,3] as float32 [n,3,H,W] in [-1,1]."""
        return self._tensor(frames).permute(0, 3, 1, 2).float() / 255 * 2 - 1

    def _tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._execution_device)

    @contextlib.contextmanager
    def _vae_in_float32(self) -> Iterator[None]:
        upcast = self.vae.dtype == torch.float16 and self.vae.config.force_upcast
        if upcast:
            self.vae.to(dtype=torch.float32)
        try:
            yield
        finally:
            if upcast:
                self.vae.to(dtype=torch.float16)


def load_pipeline(
    base: Origin = DEFAULT_BASE,
    unet: Origin = DEFAULT_UNET,
    *,
    base_revision: str | None = None,
    unet_revision: str | None = None,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    attention: str = DEFAULT_ATTENTION,
    cpu_offload: str = "none",
    report: Report | None = None,
) -> DepthCrafterPipeline:
    """Load the reference.

    Args:
        base: folder or hub id of Stable Video Diffusion.
        unet: folder, file or hub id of DepthCrafter's UNet.
        base_revision: branch, tag or commit of a base on the hub; its main branch unless given.
        unet_revision: likewise of the UNet.
        dtype: torch.float32 or torch.float16.
        device: "cpu" or "cuda".
        attention: one of `dc_rt.attention.ATTENTIONS`.
        cpu_offload: "none"; "model" keeps one network on the GPU at a time, "sequential" one layer.
        report: is told what is downloaded; standard error unless given.

    Raises:
        UserError: a checkpoint, or what an option needs, is not there.
    """
    find_attention(attention)  # before anything is downloaded
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("PyTorch sees no CUDA device; use the device cpu, or install a CUDA build of PyTorch.")
    if cpu_offload not in ("none", "model", "sequential"):
        raise UserError(f"There is no CPU offload {cpu_offload!r}; choose none, model or sequential.")
    if cpu_offload != "none" and device == "cpu":
        raise UserError("CPU offload moves weights off a GPU, and the device is cpu; use --cpu-offload none.")
    precision = "fp16" if dtype == torch.float16 else "fp32"
    parts = [(part, precision) for part in (*CONFIGS, *NETWORKS)]
    revisions = {"base_revision": base_revision, "unet_revision": unet_revision}
    checkpoint = find_checkpoint(base, unet, parts, **revisions, report=report)
    at_base, at_unet = checkpoint.base.path, checkpoint.unet.path
    pipeline = DepthCrafterPipeline(
        vae=load_vae(at_base, dtype),
        image_encoder=load_image_encoder(at_base, dtype),
        unet=load_unet(at_unet, dtype),
        scheduler=load_scheduler(at_base),
        feature_extractor=load_feature_extractor(at_base),
    )
    if cpu_offload == "model":
        pipeline.enable_model_cpu_offload(device=device)
    elif cpu_offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.to(device)
    set_attention((pipeline.unet, pipeline.vae), attention, torch.device(device))
    return pipeline


def _join(latents: torch.Tensor, new: torch.Tensor, overlap: int) -> torch.Tensor:
    """Append a window's latents, cross-fading the frames that both have."""
    if not overlap:
        return torch.cat([latents, new], dim=1)
    w = torch.from_numpy(blend_weights(overlap)).to(new).view(1, overlap, 1, 1, 1)
    blended = new[:, :overlap] * w + latents[:, -overlap:] * (1 - w)
    return torch.cat([latents[:, :-overlap], blended, new[:, overlap:]], dim=1)
