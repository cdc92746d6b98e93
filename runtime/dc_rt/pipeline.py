"""DepthCrafter's method (Hu et al., CVPR 2025): from frames to depth, holding one window, however long the video.

The four graphs, for n frames, T frames of a window, H x W pixels, h = H/8, w = W/8, C the embeddings' width:

    clip_encoder   frames u8 [n,H,W,3], resize_rows [224,H], resize_cols [224,W]              -> embeddings [n,C]
    vae_encoder    frames u8 [n,H,W,3], noise [n,3,H,W], already scaled                       -> image_latents [n,4,h,w]
    denoiser       noisy [1,T,4,h,w], sigma [], image_latents [1,T,4,h,w], embeddings [1,T,C] -> denoised [1,T,4,h,w]
    vae_decoder    latents [n,4,h,w]                                                          -> depth [n,H,W]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dc_rt.noise import NoiseSource
from dc_rt.noise_ahead import NoiseAhead
from dc_rt.options import Sampling
from dc_rt.resize import resize_matrix
from dc_rt.sampler import SAMPLERS, Denoise, guided
from dc_rt.schedule import initial_scale, noise_levels
from dc_rt.windows import Float, WindowState, blend

NOISE_AUGMENTATION = 0.02
# Frames that the encoders and the decoder take at a time. The temporal decoder mixes the frames of a chunk, so that
# chunks of 8 from frame 0 on are part of the result; for the encoders, whose frames are independent, it is only a size.
CHUNK = 8

Frame = NDArray[np.uint8]
Graphs = Callable[..., Float]
"""Runs a graph: called with its name, and with its inputs by theirs, whose memory is used again once it has run."""
OnWindow = Callable[[WindowState], None]


def estimate_depth(
    graphs: Graphs,
    frames: Iterator[Frame],
    size: tuple[int, int],
    sampling: Sampling,
    noise: NoiseSource,
    state: WindowState,
    on_window: OnWindow,
) -> Iterator[Float]:
    """Depth of the frames from `state.next_frame` on: float32 [H,W] in [0,1], in order, from `state.num_decoded` on.

    Args:
        graphs: the four of a model.
        frames: uint8 [H,W,3], read as they are needed.
        size: H and W, multiples of 64.
        sampling: how.
        noise: where the noise comes from.
        state: what the window before left.
        on_window: is given the state between two windows, once the depth before it was taken.
    """
    height, width = size
    resize = {"resize_rows": resize_matrix(height), "resize_cols": resize_matrix(width)}
    spare: list[NDArray[np.uint8]] = []  # memory for chunks: to get it anew takes a system longer than to fill it
    latent_noise = cache(lambda slot: noise.latent(slot, (4, height // 8, width // 8)))
    cuts = _cuts(state.next_frame, sampling.window_size - len(state.embeddings), sampling.stride)
    with NoiseAhead(noise, np.float32(NOISE_AUGMENTATION), size, cuts, sampling.stride) as pixel_noise:
        following = next(frames, None)
        while following is not None:
            # Read the rest of the window, embedding what is there, and one frame more: whether it is there says whether
            # a window follows.
            new, embedded = [], [state.embeddings]
            for chunk in _chunks(chain([following], islice(frames, sampling.window_size - len(state.embeddings) - 1))):
                memory = spare.pop() if spare else np.empty((CHUNK, height, width, 3), np.uint8)
                new.append(np.stack(chunk, out=memory[: len(chunk)]))
                embedded.append(graphs("clip_encoder", frames=new[-1], **resize))
            following = next(frames, None)
            embeddings = np.concatenate(embedded)
            image_latents = np.concatenate([state.image_latents, *_encode(graphs, new, state.next_frame, pixel_noise)])
            spare += (chunk.base for chunk in new if chunk.base is not None)

            sigmas = noise_levels(sampling)
            slots = [(state.start + i) % sampling.window_size for i in range(len(embeddings))]
            eps = np.stack([latent_noise(slot) for slot in slots])
            denoise = _denoiser(graphs, image_latents[None], embeddings[None], sampling)
            (latents,) = SAMPLERS[sampling.sampler].sample(
                denoise, _start_from(eps, state.latents, sigmas[0])[None], sigmas
            )
            shared = len(state.latents)
            latents[:shared] = blend(state.latents, latents[:shared])

            keep = sampling.overlap if following is not None else 0
            final, kept = np.split(latents, [len(latents) - keep])
            finished = np.concatenate([state.finished, final])
            while len(finished) >= CHUNK or (following is None and len(finished)):
                yield from graphs("vae_decoder", latents=finished[:CHUNK])
                finished = finished[CHUNK:]
            if following is not None:
                stride = sampling.stride
                state = WindowState(state.start + stride, image_latents[stride:], embeddings[stride:], kept, finished)
                on_window(state)


def _encode(graphs: Graphs, chunks: list[NDArray[np.uint8]], index: int, noise: NoiseAhead) -> Iterator[Float]:
    """Image latents of chunks of frames, under a little noise; the first frame is number `index` of the video."""
    for pixels in chunks:
        yield graphs("vae_encoder", frames=pixels, noise=noise.take(index, len(pixels)))
        index += len(pixels)


def _start_from(eps: Float, previous: Float, sigma: np.float32) -> Float:
    """Where a window's latents start: noise, and over the overlap the previous window's result under noise."""
    noisy = eps * initial_scale()
    shared = len(previous)
    noisy[:shared] = previous + eps[:shared] * sigma
    return noisy


def _denoiser(graphs: Graphs, image_latents: Float, embeddings: Float, sampling: Sampling) -> Denoise[Float]:
    """D(x; sigma) under the condition [1,T,...], guided away from that without one if `sampling` asks for it."""

    def conditioned(image_latents: Float, embeddings: Float) -> Denoise[Float]:
        def denoise(x: Float, sigma: Any) -> Float:
            return graphs(
                "denoiser", noisy=x, sigma=np.asarray(sigma), image_latents=image_latents, embeddings=embeddings
            )

        return denoise

    denoise = conditioned(image_latents, embeddings)
    if not sampling.is_guided:
        return denoise
    without = conditioned(np.zeros_like(image_latents), np.zeros_like(embeddings))
    return guided(denoise, without, np.float32(sampling.guidance_scale))


def _cuts(index: int, num_frames: int, stride: int) -> Iterator[tuple[int, int]]:
    """First frame and number of frames of all chunks from frame `index` on: of this window's, and of those after it."""
    while True:
        yield from ((index + i, min(CHUNK, num_frames - i)) for i in range(0, num_frames, CHUNK))
        index, num_frames = index + num_frames, stride


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    items = iter(items)
    while chunk := list(islice(items, CHUNK)):
        yield chunk
