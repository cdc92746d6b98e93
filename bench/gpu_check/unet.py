"""The whole UNet with random weights, one evaluation: by the frames of a window, in eager mode and compiled."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from bench.gpu_check.models import Sizes
from bench.gpu_check.rows import Row
from bench.gpu_check.timing import Times, Work, free, peak_gb, rows_of


def measure_eager(sizes: Sizes) -> Iterator[Row]:
    """In eager mode, as diffusers has it and in channels_last; at every window length."""
    import torch

    from bench.gpu_check.networks import random_unet, to_channels_last

    unet = random_unet(sizes.config)
    for frames in sizes.windows:
        yield from _in_layout(sizes, unet, frames, torch.contiguous_format, "eager")
    to_channels_last(unet)
    for frames in sizes.windows:
        yield from _in_layout(sizes, unet, frames, torch.channels_last, "eager, channels_last")


def measure_compiled(sizes: Sizes) -> Iterator[Row]:
    """Compiled, with collapsed cross-attention; the shortest window first, as each is compiled anew."""
    import torch

    from bench.gpu_check.networks import compiled, random_unet
    from dc_export.graphs import collapse_cross_attention, freeze_blenders

    unet = random_unet(sizes.config)
    collapse_cross_attention(unet)
    freeze_blenders(unet)
    model = compiled(unet)
    for frames in reversed(sizes.windows):
        yield from _in_layout(sizes, model, frames, torch.contiguous_format, "compiled, collapsed")


def _in_layout(sizes: Sizes, unet: Any, frames: int, layout: Any, name: str) -> Iterator[Row]:
    """The row of one window length."""
    work = _evaluation(sizes, unet, frames, layout)
    peak_gb()  # what was before is not this one's
    shown = partial(_shown, frames=frames)
    yield from rows_of({name: lambda: work}, sizes.seconds, f"UNet, T={frames}", shown, lambda _: peak_gb())
    free()


def _shown(times: Times, frames: int) -> str:
    return f"{times.median:.4g} ms, {times.median / frames:.3g} ms/frame"


def _evaluation(sizes: Sizes, unet: Any, frames: int, layout: Any) -> Work:
    """The work of one evaluation."""
    import torch

    from bench.gpu_check.networks import normal
    from depthcrafter.reference import ADDED_TIME_IDS

    config = unet.config
    latents = normal(1, frames, config.in_channels, sizes.height // 8, sizes.width // 8)
    # The layout is of images: of [T,C,h,w], as which the UNet sees a window.
    latents = latents[0].to(memory_format=layout)[None]
    context = normal(1, frames, config.cross_attention_dim)
    time_ids = torch.tensor([ADDED_TIME_IDS], device=latents.device)
    timestep = torch.tensor(0.5, device=latents.device)

    def work() -> None:
        with torch.inference_mode():
            unet(latents, timestep, context, time_ids, return_dict=False)

    return work
