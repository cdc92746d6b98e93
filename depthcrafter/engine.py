"""The reference as a backend of the runtime: `dc-rt infer --backend torch`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dc_rt.attention import DEFAULT_ATTENTION
from dc_rt.engine import Array, Engine, Manifest, OpenEngine
from dc_rt.torch_steps import in_words
from depthcrafter.fast import check_steps_here, speed_up
from depthcrafter.reference import DepthCrafterPipeline, load_pipeline


def open_engines(
    folder: Path,
    manifest: Manifest,
    cpu_offload: str,
    attention: str = DEFAULT_ATTENTION,
    torch_steps: Sequence[str] = (),
) -> tuple[OpenEngine, str]:
    """The four graphs computed by PyTorch from the checkpoint that the manifest names, at the commits that it names.

    On a GPU where there is one.

    Raises:
        UserError: the checkpoint, this way to compute attention, or one of the steps of `dc_rt.torch_steps` is not to
            be had here.
    """
    check_steps_here(torch_steps)  # before anything is downloaded
    cuda = torch.cuda.is_available()
    pipeline = load_pipeline(
        manifest.model.base,
        manifest.model.unet,
        base_revision=manifest.model.base_revision,
        unet_revision=manifest.model.unet_revision,
        dtype=torch.float16 if cuda and manifest.precision == "fp16" else torch.float32,
        device="cuda" if cuda else "cpu",
        attention=attention,
        cpu_offload=cpu_offload,
    )
    pipeline.set_progress_bar_config(disable=True)
    speed_up(pipeline, torch_steps)
    engines = torch_engines(pipeline)
    device = torch.cuda.get_device_name() if cuda else "the CPU"
    device += "" if attention == DEFAULT_ATTENTION else f", attention by {attention}"
    return engines.__getitem__, device + in_words(torch_steps)


def torch_engines(pipeline: DepthCrafterPipeline) -> dict[str, Engine]:
    """The four graphs by name, with the inputs and outputs that they have as ONNX graphs."""

    def tensor(array: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(pipeline._execution_device)

    def clip_encoder(frames: Array, resize_rows: Array, resize_cols: Array) -> dict[str, Array]:
        # The reference resizes with diffusers' own function: the matrices are the graphs' way to the same.
        return {"embeddings": pipeline.embed(frames.astype(np.uint8, copy=False)).cpu().numpy()}

    def vae_encoder(frames: Array, noise: Array) -> dict[str, Array]:
        latents = pipeline.encode(frames.astype(np.uint8, copy=False), noise.astype(np.float32, copy=False))
        return {"image_latents": latents.cpu().numpy()}

    def denoiser(noisy: Array, sigma: Array, image_latents: Array, embeddings: Array) -> dict[str, Array]:
        denoised = pipeline.denoise(tensor(noisy), float(sigma), tensor(image_latents), tensor(embeddings))
        return {"denoised": denoised.cpu().numpy()}

    def vae_decoder(latents: Array) -> dict[str, Array]:
        return {"depth": pipeline.decode(tensor(latents)).cpu().numpy()}

    return {
        "clip_encoder": clip_encoder,
        "vae_encoder": vae_encoder,
        "denoiser": denoiser,
        "vae_decoder": vae_decoder,
    }
