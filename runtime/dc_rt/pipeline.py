"""DepthCrafter's algorithm: a generator from frames to depth that holds one window, however long the video.

The four graphs, for n frames, T frames of a window, H x W pixels, h = H/8, w = W/8, C the embeddings' width:

    clip_encoder   frames u8 [n,H,W,3], resize_rows [224,H], resize_cols [224,W]              -> embeddings [n,C]
    vae_encoder    frames u8 [n,H,W,3], noise [n,3,H,W], already scaled                       -> image_latents [n,4,h,w]
    denoiser       noisy [1,T,4,h,w], sigma [], image_latents [1,T,4,h,w], embeddings [1,T,C] -> denoised [1,T,4,h,w]
    vae_decoder    latents [n,4,h,w]                                                          -> depth [n,H,W]
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice, pairwise

import numpy as np
from numpy.typing import NDArray

from dc_rt.engine import EngineSet, load_engines
from dc_rt.errors import UserError
from dc_rt.noise import Noise, NoiseSource
from dc_rt.resize import resize_matrix
from dc_rt.schedule import initial_scale, karras_sigmas
from dc_rt.windows import blend, check_window

NOISE_AUGMENTATION = 0.02
# Frames that the encoders and the decoder take at a time. The temporal decoder mixes the frames of a chunk, so that
# chunks of 8 from frame 0 on are part of the result; for the encoders, whose frames are independent, it is only a size.
CHUNK = 8

Float = NDArray[np.float32]
Progress = Callable[[str, int, float], None]
"""Called after each run of a graph: its name, the frames it was given and the seconds it took."""


@dataclass(frozen=True)
class WindowState:
    """What a window leaves to the next one: with it and the frames from `next_frame` on, a run goes on.

    Attributes:
        start: first frame of the next window.
        image_latents: of that window's first frames, those of the overlap: float32 [overlap,4,h,w].
        embeddings: likewise, float32 [overlap,C].
        latents: the result so far over these frames, which the next window's is blended with: float32 [overlap,4,h,w].
        finished: latents that wait for a whole chunk to be decoded with: float32 [0 to 7,4,h,w].
    """

    start: int
    image_latents: Float
    embeddings: Float
    latents: Float
    finished: Float

    @property
    def next_frame(self) -> int:
        """The first frame that was not encoded yet."""
        return self.start + len(self.embeddings)

    @property
    def num_decoded(self) -> int:
        """Frames whose depth was given out."""
        return self.start - len(self.finished)

    @classmethod
    def initial(cls, shape: tuple[int, int, int], embedding_dim: int) -> WindowState:
        """Before the first window: nothing is shared."""
        none = np.empty((0, *shape), np.float32)
        return cls(0, none, np.empty((0, embedding_dim), np.float32), none, none)


OnWindow = Callable[[WindowState], None]


class DepthCrafter:
    """A model, ready to run. `DepthCrafter.load(...)` makes one; calling it runs a video."""

    def __init__(self, engines: EngineSet) -> None:
        self.engines = engines

    @classmethod
    def load(cls, engines: str | os.PathLike[str], backend: str = "auto", *, cpu_offload: str = "none") -> DepthCrafter:
        """Check and open an engine set; see `dc_rt.engine.load_engines` for the arguments and errors."""
        return cls(load_engines(engines, backend, cpu_offload))

    def __call__(
        self,
        frames: Iterable[NDArray[np.uint8]],
        *,
        steps: int = 5,
        guidance_scale: float = 1.0,
        window_size: int = 110,
        overlap: int = 25,
        noise: NoiseSource | None = None,
        progress: Progress | None = None,
        resume_from: WindowState | None = None,
        on_window: OnWindow | None = None,
    ) -> Iterator[Float]:
        """Depth of a video, frame by frame.

        Args:
            frames: uint8 [H,W,3] each, RGB, of one size, H and W multiples of 64. Read as it is needed.
            steps: denoising steps, at least 1.
            guidance_scale: classifier-free guidance; up to 1 there is none, above it each step costs two.
            window_size: frames that are denoised together.
            overlap: frames that neighbouring windows share, below `window_size`.
            noise: where the noise comes from; `Noise(seed=42)` unless given.
            progress: see `Progress`.
            resume_from: where an earlier run was; `frames` then starts with frame `resume_from.next_frame`, and the
                depth with frame `resume_from.num_decoded`. The result is that of an uninterrupted run, bit for bit.
            on_window: is given the state between two windows, once the depth before it was taken.

        Yields:
            Disparity, larger is nearer: float32 [H,W] in [0,1], in order, not yet normalised over the video.

        Raises:
            UserError: at once for an option out of its range, at the first frame for one that the engines cannot run.
        """
        check_window(window_size, overlap)
        self.engines.manifest.profile.check_window(window_size)
        sigmas = karras_sigmas(steps)
        run = _Run(self.engines, sigmas, guidance_scale, noise or Noise(), progress or _ignore)
        return run.depths(iter(frames), window_size, overlap, resume_from, on_window or (lambda state: None))


class _Run:
    """One video on its way through the graphs."""

    def __init__(
        self, engines: EngineSet, sigmas: Float, guidance_scale: float, noise: NoiseSource, progress: Progress
    ) -> None:
        self.engines = engines
        self.sigmas = sigmas
        self.guidance_scale = guidance_scale
        self.noise = noise
        self.progress = progress

    def depths(
        self,
        frames: Iterator[NDArray[np.uint8]],
        window_size: int,
        overlap: int,
        state: WindowState | None,
        on_window: OnWindow,
    ) -> Iterator[Float]:
        first = next(frames, None)
        if first is None:
            return
        height, width = self._check_first(first)
        self.resize = {"resize_rows": resize_matrix(height), "resize_cols": resize_matrix(width)}
        frames = _of_one_size(chain([first], frames), height, width)

        shape = (4, height // 8, width // 8)
        state = state or WindowState.initial(shape, self.engines.manifest.model.embedding_dim)
        following: NDArray[np.uint8] | None = next(frames)
        while following is not None:
            # Read the rest of the window, embedding what is there, and one frame more: whether it is there says whether
            # a window follows.
            new: list[NDArray[np.uint8]] = []
            embedded = [state.embeddings]
            for chunk in _chunks(chain([following], islice(frames, window_size - len(state.embeddings) - 1))):
                new += chunk
                embedded.append(self._embed(chunk))
            following = next(frames, None)
            embeddings = np.concatenate(embedded)
            image_latents = np.concatenate([state.image_latents, *self._encode(new, state.next_frame)])

            slots = [(state.start + i) % window_size for i in range(len(embeddings))]
            eps = np.stack([self.noise.latent(slot, shape) for slot in slots])
            latents = self._denoise(self._start_from(eps, state.latents), image_latents, embeddings)
            shared = len(state.latents)
            latents[:shared] = blend(state.latents, latents[:shared])

            keep = overlap if following is not None else 0
            final, kept = np.split(latents, [len(latents) - keep])
            finished = np.concatenate([state.finished, final])
            while len(finished) >= CHUNK or (following is None and len(finished)):
                yield from self._graph("vae_decoder", min(CHUNK, len(finished)), latents=finished[:CHUNK])
                finished = finished[CHUNK:]
            if following is not None:
                stride = window_size - overlap
                state = WindowState(state.start + stride, image_latents[stride:], embeddings[stride:], kept, finished)
                on_window(state)

    def _start_from(self, eps: Float, previous: Float) -> Float:
        """Where a window's latents start: noise, and over the overlap the previous window's result under noise."""
        noisy = eps * initial_scale()
        shared = len(previous)
        noisy[:shared] = previous + eps[:shared] * self.sigmas[0]
        return noisy

    def _denoise(self, x: Float, image_latents: Float, embeddings: Float) -> Float:
        """Euler steps of the probability flow from the first noise level to 0; all [T,...]."""
        x, image_latents, embeddings = x[None], image_latents[None], embeddings[None]
        for sigma, sigma_next in pairwise(self.sigmas):
            denoised = self._denoised(x, sigma, image_latents, embeddings)
            if self.guidance_scale > 1:
                unconditional = self._denoised(x, sigma, np.zeros_like(image_latents), np.zeros_like(embeddings))
                denoised = unconditional + np.float32(self.guidance_scale) * (denoised - unconditional)
            x = x + (x - denoised) / sigma * (sigma_next - sigma)
        result: Float = x[0]
        return result

    def _denoised(self, x: Float, sigma: np.float32, image_latents: Float, embeddings: Float) -> Float:
        inputs = {"noisy": x, "sigma": np.asarray(sigma), "image_latents": image_latents, "embeddings": embeddings}
        return self._graph("denoiser", x.shape[1], **inputs)

    def _embed(self, frames: Sequence[NDArray[np.uint8]]) -> Float:
        return self._graph("clip_encoder", len(frames), frames=np.stack(frames), **self.resize)

    def _encode(self, frames: list[NDArray[np.uint8]], index: int) -> Iterator[Float]:
        """Image latents of `frames`, the first of which is frame `index` of the video."""
        indices = count(index)
        for chunk in _chunks(frames):
            height, width, _ = chunk[0].shape
            noise = np.stack([self.noise.frame(next(indices), (3, height, width)) for _ in chunk])
            inputs = {"frames": np.stack(chunk), "noise": np.float32(NOISE_AUGMENTATION) * noise}
            yield self._graph("vae_encoder", len(chunk), **inputs)

    def _graph(self, graph: str, num_frames: int, **inputs: NDArray[np.generic]) -> Float:
        began = time.perf_counter()
        output = self.engines(graph, **inputs)
        self.progress(graph, num_frames, time.perf_counter() - began)
        return output

    def _check_first(self, frame: NDArray[np.uint8]) -> tuple[int, int]:
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
            raise UserError(f"Frames must be uint8 [H,W,3], not {frame.dtype} {list(frame.shape)}; convert them first.")
        height, width, _ = frame.shape
        self.engines.manifest.profile.check_size(height, width)
        return height, width


def _chunks(frames: Iterable[NDArray[np.uint8]]) -> Iterator[list[NDArray[np.uint8]]]:
    frames = iter(frames)
    while chunk := list(islice(frames, CHUNK)):
        yield chunk


def _of_one_size(frames: Iterable[NDArray[np.uint8]], height: int, width: int) -> Iterator[NDArray[np.uint8]]:
    for index, frame in enumerate(frames):
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            raise UserError(
                f"Frame {index} is {frame.dtype} {list(frame.shape)} and the first was uint8 {[height, width, 3]}; "
                "resize all frames to one size."
            )
        yield frame


def _ignore(stage: str, num_frames: int, seconds: float) -> None:
    pass
