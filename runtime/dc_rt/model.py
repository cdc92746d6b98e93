"""A model: an engine set that runs videos, with everything that a caller can give wrong checked at this door."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dc_rt.engine import EngineSet, load_engines
from dc_rt.errors import UserError
from dc_rt.noise import Noise, NoiseSource
from dc_rt.options import Sampling
from dc_rt.pipeline import Frame, Graphs, OnWindow, estimate_depth
from dc_rt.windows import Float, WindowState

OnGraph = Callable[[str, int, float], None]
"""Called after each run of a graph: its name, the frames it was given and the seconds it took."""


class DepthCrafter:
    """A model, ready to run; as a context manager it is closed at the end.

    `DepthCrafter.load(...)` makes one; calling it runs a video.
    """

    def __init__(self, engines: EngineSet) -> None:
        self.engines = engines

    @classmethod
    def load(
        cls,
        engines: str | os.PathLike[str],
        backend: str = "auto",
        *,
        cpu_offload: str = "none",
        provider: str | None = None,
        attention: str | None = None,
        torch_steps: Sequence[str] = (),
    ) -> Self:
        """Check and open an engine set; see `dc_rt.engine.load_engines` for the arguments and errors."""
        return cls(load_engines(engines, backend, cpu_offload, provider, attention, torch_steps))

    def __call__(
        self,
        frames: Iterable[Frame],
        sampling: Sampling | None = None,
        *,
        noise: NoiseSource | None = None,
        progress: OnGraph | None = None,
        resume_from: WindowState | None = None,
        on_window: OnWindow | None = None,
        **changes: Any,
    ) -> Iterator[Float]:
        """Depth of a video, frame by frame.

        Args:
            frames: uint8 [H,W,3] each, RGB, of one size, H and W multiples of 64. Read as it is needed.
            sampling: how; the defaults of `Sampling` unless given.
            noise: where the noise comes from; `Noise(sampling.seed)` unless given.
            progress: is called after each run of a graph with its name, its frames and its seconds.
            resume_from: where an earlier run was; `frames` then starts with frame `resume_from.next_frame`, and the
                depth with frame `resume_from.num_decoded`. The result is that of an uninterrupted run, bit for bit.
            on_window: is given the state between two windows, once the depth before it was taken.
            changes: options of `Sampling` by name, in the place of those of `sampling`.

        Yields:
            Disparity, larger is nearer: float32 [H,W] in [0,1], in order, not yet normalised over the video.

        Raises:
            UserError: at once for an option out of its range, at the first frame for one that the engines cannot run.
        """
        sampling = replace(sampling or Sampling(), **changes)
        self.engines.manifest.profile.check_window(sampling.window_size)
        graphs: Graphs = timed(self.engines, progress) if progress else self.engines
        noise = noise or Noise(sampling.seed)
        return self._depths(graphs, iter(frames), sampling, noise, resume_from, on_window or (lambda state: None))

    def _depths(
        self,
        graphs: Graphs,
        frames: Iterator[Frame],
        sampling: Sampling,
        noise: NoiseSource,
        state: WindowState | None,
        on_window: OnWindow,
    ) -> Iterator[Float]:
        first = next(frames, None)
        if first is None:
            return
        if first.ndim != 3 or first.shape[2] != 3 or first.dtype != np.uint8:
            raise UserError(f"Frames must be uint8 [H,W,3], not {first.dtype} {list(first.shape)}; convert them first.")
        height, width, _ = first.shape
        self.engines.manifest.profile.check_size(height, width)
        embedding_dim = self.engines.manifest.model.embedding_dim
        state = state or WindowState.initial((4, height // 8, width // 8), embedding_dim)
        frames = _of_one_size(chain([first], frames), height, width)
        yield from estimate_depth(graphs, frames, (height, width), sampling, noise, state, on_window)

    def close(self) -> None:
        """Close the engines; one that is called again is opened again."""
        self.engines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def timed(graphs: Graphs, on_graph: OnGraph) -> Graphs:
    """The same graphs, with `on_graph` told of every run."""

    def run(graph: str, **inputs: NDArray[np.generic]) -> Float:
        began = time.perf_counter()
        output = graphs(graph, **inputs)
        on_graph(graph, output.shape[1] if graph == "denoiser" else len(output), time.perf_counter() - began)
        return output

    return run


def _of_one_size(frames: Iterable[Frame], height: int, width: int) -> Iterator[Frame]:
    for index, frame in enumerate(frames):
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            raise UserError(
                f"Frame {index} is {frame.dtype} {list(frame.shape)} and the first was uint8 {[height, width, 3]}; "
                "resize all frames to one size."
            )
        yield frame
