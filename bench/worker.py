"""A backend in a process of its own, which runs a clip whenever it is asked to.

So backends take turns without sharing threads or memory, and the largest memory of each is its own.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from backends import BACKENDS, Call, Float, synchronise, wrap
from dc_rt import DepthCrafter, Noise
from dc_rt.engine import GRAPHS, Array, EngineSet
from dc_rt.errors import UserError
from dc_rt.media import Mp4Writer, inferno, read_frames, to_uint8

STAGES = ("read", *GRAPHS, "host", "write")
"""What a run's time is made of; "host" is what is left: noise, the sampler's arithmetic, blending."""


@dataclass(frozen=True)
class Job:
    """What every backend has to do: a clip at a size, and the options of the model."""

    engines: Path
    video: Path
    height: int
    width: int
    frames: int
    window: int
    overlap: int
    steps: int
    seed: int = 42


@dataclass(frozen=True)
class Run:
    """Seconds of every stage, and how often each graph ran on how many frames."""

    seconds: dict[str, float]
    calls: dict[tuple[str, int], int]

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


@dataclass(frozen=True)
class Memory:
    """Largest memory so far, in MB: of the process, and of it on the GPU where that can be told."""

    host: float
    gpu: float | None


class BackendFailed(Exception):
    """A backend could not do the job; says why in a sentence."""


class Worker:
    """A process with one backend, opened. Raises `BackendFailed` where anything goes wrong in it."""

    def __init__(self, backend: str, job: Job) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, backend, job), daemon=True)
        self._process.start()
        theirs.close()
        self.opened: Opened = self._receive()

    def run(self, depth_file: Path | None = None) -> Run:
        """Run the clip once, keeping its depth (float32, frame after frame) where a file for it is given."""
        result: Run = self._ask("run", depth_file)
        return result

    def memory(self) -> Memory:
        result: Memory = self._ask("memory")
        return result

    def close(self) -> None:
        self._connection.close()
        self._process.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, *request: Any) -> Any:
        self._connection.send(request)
        return self._receive()

    def _receive(self) -> Any:
        try:
            ok, answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise BackendFailed(f"its process ended with status {self._process.exitcode}") from None
        if not ok:
            raise BackendFailed(answer)
        return answer


def run_clip(engines: EngineSet, job: Job, folder: Path, depth_file: Path | None = None) -> Run:
    """Read, run and write the clip of `job` in one thread, frame by frame, each stage timed apart.

    Written are the videos of `dc-rt infer`: depth in grey and in colours, and the input. It does this beside the model;
    here all comes one after another, so that the stages add up.
    """
    seconds = dict.fromkeys(STAGES, 0.0)
    calls: Counter[tuple[str, int]] = Counter()

    def around(graph: str, inputs: Mapping[str, Array], run: Call) -> Float:
        synchronise()
        began = time.perf_counter()
        output = run(graph, inputs)
        synchronise()
        seconds[graph] += time.perf_counter() - began
        calls[graph, output.shape[1] if graph == "denoiser" else output.shape[0]] += 1
        return output

    size = (job.height, job.width)
    began_all = time.perf_counter()
    with ExitStack() as stack:
        grey, colour, copy = (
            stack.enter_context(Mp4Writer(folder / f"{name}.mp4", Fraction(24), *size))
            for name in ("depth", "vis", "input")
        )
        kept = stack.enter_context(depth_file.open("wb")) if depth_file else None

        def frames() -> Iterator[NDArray[np.uint8]]:
            clip = clip_frames(job.video, *size, job.frames)
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

        depths = DepthCrafter(wrap(engines, around))(
            frames(), steps=job.steps, window_size=job.window, overlap=job.overlap, noise=Noise(job.seed)
        )
        for depth in depths:
            began = time.perf_counter()
            grey.write(to_uint8(depth))
            colour.write(inferno(depth))
            seconds["write"] += time.perf_counter() - began
            if kept:
                kept.write(depth.tobytes())
        began = time.perf_counter()
    seconds["write"] += time.perf_counter() - began
    seconds["host"] = time.perf_counter() - began_all - sum(seconds.values())
    return Run(seconds, dict(calls))


def clip_frames(video: Path, height: int, width: int, num_frames: int) -> Iterator[NDArray[np.uint8]]:
    """`num_frames` frames, uint8 [H,W,3], of a video, which is taken over and over where it is too short."""
    left = num_frames
    while left:
        before = left
        for frame in read_frames(video, height, width, 1, left):
            left -= 1
            yield frame
        if left == before:
            raise UserError(f"No frame of {video} could be decoded; copy or download it again.")


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
    gpu = None
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        gpu = torch.cuda.max_memory_reserved() / 1e6
    return Memory(host, gpu)


def _leave_the_gpu_to_the_others() -> None:
    """Give back what PyTorch keeps for its next run: only the models of all backends need fit onto the GPU together."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _serve(connection: Connection, backend: str, job: Job) -> None:
    """The process: open the backend, then answer requests until the other end is closed."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            # A cache of its own, so that the first run compiles whatever was compiled before.
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/compiled"
            began = time.perf_counter()
            engines = BACKENDS[backend].load(job.engines)
            connection.send((True, Opened(engines.device, time.perf_counter() - began)))
            while True:
                try:
                    request, *arguments = connection.recv()
                except EOFError:
                    return
                answer = run_clip(engines, job, Path(folder), *arguments) if request == "run" else peak_memory()
                _leave_the_gpu_to_the_others()
                connection.send((True, answer))
    except Exception as error:
        first_line = (str(error).strip() or repr(error)).split("\n", 1)[0]
        connection.send((False, f"{type(error).__name__}: {first_line}"))
