"""What a set of engines needs on the GPU, from what its manifest says: known before anything is opened.

The builder has counted weights and workspace. The arrays that go in and out follow from the frames. What CUDA and the
library take for themselves is an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from dc_rt.engine.manifest import GRAPHS, Build, Manifest
from dc_rt.errors import option
from dc_rt.pipeline import CHUNK

WEIGHT_STREAMING = "weight_streaming"  # the flag in the manifest
# CUDA's context, the kernels that are loaded and TensorRT itself. No GPU has measured it yet.
OVERHEAD_BYTES = 512 << 20
CLIP_SIZE = 224


@dataclass(frozen=True)
class Need:
    """Bytes on the GPU at one time.

    Attributes:
        weights: of the engines that are there together.
        workspace: what the largest of them computes in.
        arrays: what goes in and comes out.
        overhead: what CUDA and the library take.
    """

    weights: int
    workspace: int
    arrays: int
    overhead: int = OVERHEAD_BYTES

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.workspace + self.arrays + self.overhead


def gpu_need(manifest: Manifest, height: int, width: int, window_size: int, cpu_offload: str) -> Need | None:
    """What a set needs for frames of a size; None where it is not one of TensorRT's.

    Args:
        manifest: as `Manifest.built` gives it.
        height, width: of the frames, in pixels.
        window_size: frames denoised together.
        cpu_offload: "none" has all four engines on the GPU; "model" one at a time; "sequential" that one without its
            weights, as far as need be.
    """
    build = manifest.builds.get(manifest.flavour)
    shape = manifest.profile.shape_of(height, width)
    if build is None or shape is None:
        return None
    arrays = {graph: array_bytes(graph, height, width, window_size, manifest.model.embedding_dim) for graph in GRAPHS}
    if cpu_offload == "none":
        weights = sum(engine.weights_bytes for engine in build.engines.values())
        return Need(weights, _largest_workspace(build, shape), sum(arrays.values()))
    streamed = cpu_offload == "sequential"
    each = (
        Need(0 if streamed else engine.weights_bytes, engine.workspace_at(shape), arrays[graph])
        for graph, engine in build.engines.items()
    )
    return max(each, key=lambda need: need.total)


NOT_STREAMED = (
    "Sequential offload is TensorRT's weight streaming, and these engines run on ONNX Runtime; use "
    f"{option('cpu_offload', 'model')}, which keeps one graph in memory at a time."
)
"""The sentence for sequential offload on ONNX Runtime."""


def offloads_of(manifest: Manifest) -> tuple[str, ...]:
    """The ways to run a set that its engines allow, the fastest first."""
    build = manifest.builds.get(manifest.flavour)
    if build is not None and WEIGHT_STREAMING in build.flags:
        return ("none", "model", "sequential")
    return ("none", "model")


def array_bytes(graph: str, height: int, width: int, window_size: int, embedding_dim: int) -> int:
    """Bytes of all inputs and outputs of a graph (see `dc_rt.pipeline` for their shapes)."""
    return sum(math.prod(shape) * size for shape, size in _arrays(graph, height, width, window_size, embedding_dim))


def _arrays(
    graph: str, height: int, width: int, window_size: int, embedding_dim: int
) -> Iterator[tuple[tuple[int, ...], int]]:
    """Shape and bytes an element."""
    latent = (4, height // 8, width // 8)
    frames = (CHUNK, height, width, 3)
    match graph:
        case "clip_encoder":
            yield from ((frames, 1), ((CLIP_SIZE, height + width), 4), ((CHUNK, embedding_dim), 4))
        case "vae_encoder":
            yield from ((frames, 1), (frames, 4), ((CHUNK, *latent), 4))
        case "denoiser":
            yield from (((3, window_size, *latent), 4), ((window_size, embedding_dim), 4))
        case _:
            yield from (((CHUNK, *latent), 4), ((CHUNK, height, width), 4))


def _largest_workspace(build: Build, shape: int) -> int:
    return max(engine.workspace_at(shape) for engine in build.engines.values())
