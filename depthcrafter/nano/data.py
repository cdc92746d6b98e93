"""What training reads: clips of procedural scenes, rendered once, and their latents and embeddings, encoded once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from depthcrafter.nano.scenes import Clip, make_clip
from depthcrafter.reference import NOISE_AUGMENTATION, DepthCrafterPipeline

# Seeds of training scenes count up from here; those that are held out, for validation and for evaluation, lie below.
TRAINING_SEEDS = 1_000_000
VALIDATION_SEEDS = 500_000
# Of the logarithm of a scene's disparity plus this: their sum is nearly in proportion to 1 / depth.
FAR, COARSE_MEAN, COARSE_SPREAD = 0.2, -0.72, 0.54
# Encoded together; frames are independent of one another in both encoders.
ENCODE_CHUNK = 16


@dataclass(frozen=True)
class Bucket:
    """Clips of one size: how many, of how many frames."""

    name: str
    first_seed: int
    num_clips: int
    num_frames: int
    height: int
    width: int

    @property
    def stem(self) -> str:
        """Names the bucket's files: other clips have another."""
        return f"{self.name}-{self.first_seed}-{self.num_clips}x{self.num_frames}-{self.width}x{self.height}"

    def clips(self) -> Iterator[Clip]:
        """The clips, in the order of their seeds."""
        seeds = range(self.first_seed, self.first_seed + self.num_clips)
        shape = [[size] * self.num_clips for size in (self.num_frames, self.height, self.width)]
        with ProcessPoolExecutor() as pool:
            yield from pool.map(make_clip, seeds, *shape, chunksize=4)


@dataclass(frozen=True)
class EncodedClips:
    """What the UNet is trained on.

    Attributes:
        image_latents: float16 [n,T,4,h,w], as `DepthCrafterPipeline.encode` gives them: not scaled.
        depth_latents: float16 [n,T,4,h,w], of the disparity as a grey picture, times the VAE's scaling factor.
        embeddings: float16 [n,T,C].
    """

    image_latents: NDArray[np.float16]
    depth_latents: NDArray[np.float16]
    embeddings: NDArray[np.float16]


def rendered(bucket: Bucket, cache: Path) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Frames uint8 [n,T,H,W,3] and disparity float16 [n,T,H,W] of a bucket, from `cache` if they are there."""
    paths = [cache / f"{bucket.stem}-{kind}.npy" for kind in ("frames", "disparity")]
    if not all(path.exists() for path in paths):
        clips = list(bucket.clips())
        _save(paths[0], np.stack([clip.frames for clip in clips]))
        _save(paths[1], np.stack([clip.disparity.astype(np.float16) for clip in clips]))
    frames, disparity = (np.load(path, mmap_mode="r") for path in paths)
    return frames, disparity


def encoded(bucket: Bucket, pipeline: DepthCrafterPipeline, cache: Path, seed: int) -> EncodedClips:
    """The clips of a bucket through the pipeline's VAE and CLIP in bfloat16, from `cache` if they are there."""
    names = ("image_latents", "depth_latents", "embeddings")
    paths = [cache / f"{bucket.stem}-{name}.npy" for name in names]
    if not all(path.exists() for path in paths):
        generator = torch.Generator().manual_seed(seed)
        # On a CPU, convolutions in bfloat16 take half as long where channels come last.
        pipeline.vae.encoder.to(memory_format=torch.channels_last)
        with torch.autocast(pipeline.device.type, dtype=torch.bfloat16):
            columns = list(zip(*(_encode(clip, pipeline, generator) for clip in bucket.clips()), strict=True))
        pipeline.vae.encoder.to(memory_format=torch.contiguous_format)
        for path, column in zip(paths, columns, strict=True):
            _save(path, np.stack(column))
    return EncodedClips(*(np.load(path, mmap_mode="r") for path in paths))


def coarse(disparity: torch.Tensor) -> torch.Tensor:
    """What the first of the latents' channels tells: the logarithm of disparity, where errors in depth count alike near
    and far, with about a mean of 0 and a spread of 1 over the training set."""
    return ((disparity + FAR).log() - COARSE_MEAN) / COARSE_SPREAD


def near(coarse: torch.Tensor) -> torch.Tensor:
    """What `coarse` took the logarithm of: disparity plus `FAR`."""
    return (coarse * COARSE_SPREAD + COARSE_MEAN).exp()


def to_and_fro(rng: np.random.Generator, length: int, num_frames: int) -> NDArray[np.intp]:
    """Index [num_frames] of a clip's frames: from any, in either direction, one or two at a time, to and fro."""
    if length == 1:
        return np.zeros(num_frames, np.intp)
    way = (rng.integers(2 * length) + rng.choice([-2, -1, 1, 2]) * np.arange(num_frames)) % (2 * length - 2)
    index: NDArray[np.intp] = np.minimum(way, 2 * length - 2 - way)
    return index


def _encode(clip: Clip, pipeline: DepthCrafterPipeline, generator: torch.Generator) -> tuple[NDArray[np.float16], ...]:
    num_frames, height, width, _ = clip.frames.shape
    grey = np.repeat(np.round(clip.disparity * 255).astype(np.uint8)[..., None], 3, axis=-1)
    columns: list[list[torch.Tensor]] = [[], [], []]
    for start in range(0, num_frames, ENCODE_CHUNK):
        chunk = slice(start, start + ENCODE_CHUNK)
        frames = clip.frames[chunk]
        noise = torch.randn((len(frames), 3, height, width), generator=generator).numpy()
        columns[0].append(pipeline.encode(frames, NOISE_AUGMENTATION * noise))
        columns[1].append(pipeline.encode(grey[chunk], 0 * noise) * pipeline.vae.config.scaling_factor)
        columns[2].append(pipeline.embed(frames))
    return tuple(torch.cat(column).cpu().numpy().astype(np.float16) for column in columns)


def _save(path: Path, array: NDArray[np.generic]) -> None:
    """Whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".partial.npy")
    np.save(beside, array)
    beside.replace(path)
