"""Each graph of an engine set against the reference, on random inputs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata
from polygraphy.comparator import Comparator, CompareFunc
from polygraphy.logger import G_LOGGER

from dc_rt.engine import GRAPHS, Array, EngineSet, Profile, load_engines
from dc_rt.resize import resize_matrix
from depthcrafter.engine import torch_engines
from depthcrafter.reference import NOISE_AUGMENTATION, load_pipeline
from depthcrafter.report import Report
from depthcrafter.source import Origin

# Largest error that is still rounding, as a share of the output's spread. Half precision has 11 bits, single 24;
# hundreds of layers lie between input and output.
TOLERANCE = {"fp32": 1e-3, "fp16": 1e-1}
SIGMAS = (700.0, 3.0, 0.002)


@dataclass(frozen=True)
class GraphError:
    """One graph at one size: absolute errors, and the standard deviation of the reference's output beside them."""

    graph: str
    size: str
    mean_error: float
    max_error: float
    spread: float
    passed: bool


def verify_engines(
    engines: str | os.PathLike[str],
    base: Origin,
    unet: Origin,
    *,
    backend: str = "auto",
    seed: int = 0,
    base_revision: str | None = None,
    unet_revision: str | None = None,
    report: Report | None = None,
) -> Iterator[GraphError]:
    """Compare every graph of `engines` with the float32 reference on the checkpoint `base` and `unet`.

    Where these are the hub's and the set was exported from them, it is at the same commits unless revisions are given.

    Yields:
        One a graph, size and, for the denoiser, noise level.

    Raises:
        UserError: the engine set or the checkpoint cannot be loaded.
    """
    engine_set = load_engines(engines, backend)
    model = engine_set.manifest.model
    if str(base) == model.base:
        base_revision = base_revision or model.base_revision
    if str(unet) == model.unet:
        unet_revision = unet_revision or model.unet_revision
    pipeline = load_pipeline(base, unet, base_revision=base_revision, unet_revision=unet_revision, report=report)
    reference = torch_engines(pipeline)
    tolerance = TOLERANCE[engine_set.manifest.precision]
    rng = np.random.default_rng(seed)
    for graph in GRAPHS:
        cases = [
            case
            for size in _sizes(engine_set.manifest.profile, graph)
            for case in _inputs(graph, engine_set, rng, *size)
        ]
        # TensorRT's own way of comparing: every backend on the same inputs, and then their outputs.
        example = cases[0][1]
        runners = [
            _Runner("engines", partial(engine_set, graph), example),
            _Runner(
                "reference", lambda graph=graph, **inputs: next(iter(reference[graph](**inputs).values())), example
            ),
        ]
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
            ran = Comparator.run(runners, data_loader=[inputs for _, inputs in cases])
            for (label, _), actual, expected in zip(cases, ran["engines"], ran["reference"], strict=True):
                spread = float(expected["output"].std())
                compare = CompareFunc.simple(atol=tolerance * spread, rtol=0, check_error_stat="max")
                result = compare(actual, expected)["output"]
                mean, largest = float(result.mean_absdiff), float(result.max_absdiff)
                yield GraphError(graph, label, mean, largest, spread, passed=bool(result))


class _Runner(BaseRunner):
    """One graph of a backend, as Polygraphy runs it; its inputs are named, and of the types, as those of an example."""

    def __init__(self, name: str, run: Callable[..., Array], example: Mapping[str, Array]) -> None:
        super().__init__(name)
        self._run, self._example = run, example

    def get_input_metadata_impl(self) -> TensorMetadata:
        metadata = TensorMetadata()
        for name, array in self._example.items():
            metadata.add(name, array.dtype, [None] * array.ndim)
        return metadata

    def infer_impl(self, feed_dict: Mapping[str, Array]) -> dict[str, Array]:
        began = time.perf_counter()
        output = self._run(**feed_dict)
        self.inference_time = time.perf_counter() - began
        return {"output": output}


def _sizes(profile: Profile, graph: str) -> list[tuple[int, int, int]]:
    """Frames, height and width: one frame, two shapes that are not square, and more frames than were traced with."""
    wanted = [(1, 128, 64), (3, 64, 192), (8, 128, 128)]
    if graph == "denoiser":
        wanted.append((70, 64, 128))
    limit = profile.frames.max

    def side(value: int, low: int, high: int) -> int:
        return min(max(value, low), high)

    shape = min(profile.shapes, key=lambda each: each.height.min * each.width.min)
    clipped = [
        (
            min(frames, limit),
            side(height, shape.height.min, shape.height.max),
            side(width, shape.width.min, shape.width.max),
        )
        for frames, height, width in wanted
    ]
    # A fixed shape is a large one: three frames show what seventy would.
    if shape.is_fixed:
        clipped = [size for size in clipped if size[0] <= 3]
    return list(dict.fromkeys(clipped))


def _inputs(
    graph: str, engines: EngineSet, rng: np.random.Generator, n: int, height: int, width: int
) -> Iterator[tuple[str, dict[str, Array]]]:
    model = engines.manifest.model
    size = f"{n} x {height} x {width}"
    latents = (n, model.latent_channels, height // 8, width // 8)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape, dtype=np.float32)

    frames = rng.integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    if graph == "clip_encoder":
        matrices = {"resize_rows": resize_matrix(height), "resize_cols": resize_matrix(width)}
        yield size, {"frames": frames, **matrices}
    elif graph == "vae_encoder":
        yield size, {"frames": frames, "noise": NOISE_AUGMENTATION * normal(n, 3, height, width)}
    elif graph == "denoiser":
        for sigma in SIGMAS:
            yield (
                f"{size}, sigma {sigma:g}",
                {
                    "noisy": normal(1, *latents) * np.float32(np.sqrt(sigma**2 + 1)),
                    "sigma": np.asarray(sigma, np.float32),
                    "image_latents": normal(1, *latents),
                    "embeddings": normal(1, n, model.embedding_dim),
                },
            )
    else:
        yield size, {"latents": normal(*latents)}
