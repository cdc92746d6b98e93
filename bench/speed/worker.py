"""A backend in a process of its own, which runs a clip whenever it is asked to.

So backends take turns without sharing threads or memory, and the largest memory of each is its own.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.children import Child
from bench.clips import clip_frames
from bench.speed.backends import BACKENDS, Call, Float, synchronise, wrap
from bench.speed.gpu_memory import Watch
from dc_rt import DepthCrafter
from dc_rt.engine import GRAPHS, Array, EngineSet
from dc_rt.engine.manifest import LIBRARY_NAMES
from dc_rt.media import VideoWriter, inferno, to_uint8
from dc_rt.options import Sampling

STAGES = ("read", *GRAPHS, "host", "write")
"""What a run's time is made of; "host" is what is left: noise, the sampler's arithmetic, blending."""


@dataclass(frozen=True)
class Task:
    """What every backend has to do: a clip at a size, and the options of the model."""

    engines: Path
    video: Path
    height: int
    width: int
    frames: int
    sampling: Sampling


@dataclass(frozen=True)
class Run:
    """Seconds of every stage, and how often each graph ran on how many frames."""

    seconds: dict[str, float]
    calls: dict[str, dict[int, int]]

    @property
    def total(self) -> float:
        return sum(self.seconds.values())

    @property
    def model(self) -> float:
        """All but reading and writing, which are the same for all backends."""
        return self.total - self.seconds["read"] - self.seconds["write"]


@dataclass(frozen=True)
class Opened:
    """Where a backend runs, and the seconds that opening it took."""

    device: str
    seconds: float
    title: str
    cpu_nodes: dict[str, int] | None = None  # of each graph, that ONNX Runtime left to the CPU beside a GPU


@dataclass(frozen=True)
class Memory:
    """Largest memory so far, in MB: of the process, and of it on GPUs where that can be told.

    `gpu_of` is "process", or "device" where the driver only tells what the GPU has in use.
    """

    host: float
    gpu: float | None
    gpu_of: str = ""


class BackendProcess(Child):
    """A process with one backend, opened. Raises `ChildFailed` where anything goes wrong in it."""

    def __init__(self, backend: str, task: Task) -> None:
        super().__init__()
        self._backend, self._task = backend, task
        self.opened = self.call(open_backend, backend, task.engines)

    def run(self, depth_file: Path | None = None) -> Run:
        """Run the clip once, keeping its depth (float32, frame after frame) where a file for it is given."""
        return self.call(run_task, self._backend, self._task, depth_file)

    def memory(self) -> Memory:
        return self.call(peak_memory)


# In the process


def open_backend(backend: str, engines: Path) -> Opened:
    """Open a backend, for `run_task`."""
    # A cache of its own, so that the first run compiles whatever was compiled before.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{_folder().name}/compiled"
    watch()
    began = time.perf_counter()
    opened = _engines(backend, engines)
    seconds = time.perf_counter() - began
    title = BACKENDS[backend].title
    if opened.backend == "tensorrt":
        title = LIBRARY_NAMES[opened.manifest.flavour]
    return Opened(opened.device, seconds, title, BACKENDS[backend].count_cpu_nodes(engines))


def run_task(backend: str, task: Task, depth_file: Path | None) -> Run:
    """Run the clip of `task`; the model stays open for the next run."""
    run = run_clip(_engines(backend, task.engines), task, Path(_folder().name), depth_file)
    release()
    return run


def release() -> None:
    """Give back what PyTorch keeps for its next run: only the models of all need fit onto the GPU together."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


@cache
def _engines(backend: str, engines: Path) -> EngineSet:
    return BACKENDS[backend].load(engines)


@cache
def watch() -> Watch | None:
    """On this process's memory on GPUs, from its first call on; None where that cannot be told."""
    return Watch.begin()


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Until the process ends."""
    return tempfile.TemporaryDirectory()


def run_clip(engines: EngineSet, task: Task, folder: Path, depth_file: Path | None = None) -> Run:
    """Read, run and write the clip of `task` in one thread, frame by frame, each stage timed apart.

    Written are the videos of `dc-rt infer`: depth in grey and in colours, and the input. It does this beside the model;
    here all comes one after another, so that the stages add up.
    """
    seconds = dict.fromkeys(STAGES, 0.0)
    calls: dict[str, Counter[int]] = {graph: Counter() for graph in GRAPHS}

    def around(graph: str, inputs: Mapping[str, Array], run: Call) -> Float:
        synchronise()
        began = time.perf_counter()
        output = run(graph, inputs)
        synchronise()
        seconds[graph] += time.perf_counter() - began
        calls[graph][output.shape[1] if graph == "denoiser" else output.shape[0]] += 1
        return output

    size = (task.height, task.width)
    began_all = time.perf_counter()
    with ExitStack() as stack:
        grey, colour, copy = (
            stack.enter_context(VideoWriter(folder / f"{name}.mp4", Fraction(24), *size))
            for name in ("depth", "vis", "input")
        )
        kept = stack.enter_context(depth_file.open("wb")) if depth_file else None

        def frames() -> Iterator[NDArray[np.uint8]]:
            clip = clip_frames(task.video, *size, task.frames)
            while True:
                began = time.perf_counter()
                frame = next(clip, None)
                seconds["read"] += time.perf_counter() - began
                if frame is None:
                    return
                began = time.perf_counter()
                copy.write(frame)
                seconds["write"] += time.perf_counter() - began
                yield frame

        for depth in DepthCrafter(wrap(engines, around))(frames(), task.sampling):
            began = time.perf_counter()
            grey.write(to_uint8(depth))
            colour.write(inferno(depth))
            seconds["write"] += time.perf_counter() - began
            if kept:
                kept.write(depth.tobytes())
        began = time.perf_counter()
    seconds["write"] += time.perf_counter() - began
    seconds["host"] = time.perf_counter() - began_all - sum(seconds.values())
    return Run(seconds, {graph: dict(times) for graph, times in calls.items()})


def peak_memory() -> Memory:
    """Of this process so far."""
    # Not getrusage: its maximum is never below the parent's size at the time of the fork.
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        host = int(line.split()[1]) * 1024 / 1e6
    else:
        import resource

        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    if (watched := watch()) is None:
        return Memory(host, None)
    peak = watched.peak()
    return Memory(host, peak.bytes / 1e6, peak.of)
