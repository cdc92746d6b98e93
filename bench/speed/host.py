"""What the host makes the GPU wait for: a run on engines that sleep as long as a GPU would compute.

    python -m bench.speed.host                                  # 1024x576, 1725 frames, 49 ms a frame
    python -m bench.speed.host --sampler trimmed --copies

The first pass of a job as it is, from the file to the spool, on engines that sleep without holding the interpreter's
lock and give noise: nothing else is left out but the results. What is not sleep is what a GPU waits for. With --copies
inputs and outputs are copied, as they are to and from pinned memory. --hash prints a hash of the inputs of all graphs
instead, to be compared with another version's.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import tempfile
import time
import zlib
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from bench.clips import DEMO, clip_frames, parse_size
from bench.records import write_record
from bench.speed.machine import describe
from dc_rt import DepthCrafter, Job
from dc_rt.engine import Array, Engine, EngineSet, Manifest, Range
from dc_rt.engine.discovery import BUNDLED
from dc_rt.job.events import Event, Planned, Progressed, WindowDone
from dc_rt.job.job import JobCancelled
from dc_rt.media import VideoWriter
from dc_rt.options import Outputs, Sampling, Source
from dc_rt.sampler import SAMPLERS

MS_PER_FRAME = 49.0
# TFLOP a frame at 1024x576, as the design counts them: how a frame's time is shared out among the graphs.
WORK = {"clip_encoder": 0.33, "vae_encoder": 2.61, "denoiser": 3.09, "vae_decoder": 6.94}


class Sleeping:
    """The four graphs: each sleeps its share of a frame's time, and gives noise that depends on its shape alone."""

    def __init__(self, ms_per_frame: float, sampling: Sampling, copies: bool, is_hashing: bool) -> None:
        overlapping = sampling.window_size / sampling.stride
        times = {"denoiser": sum(sampling.evaluations) * overlapping}
        total = sum(work * times.get(graph, 1) for graph, work in WORK.items())
        self._seconds = {graph: ms_per_frame / 1000 * work / total for graph, work in WORK.items()}
        self._copies, self._is_hashing = copies, is_hashing
        self._rng = np.random.default_rng(0)
        self._pinned: dict[str, np.ndarray[Any, Any]] = {}
        self._made: dict[str, Array] = {}
        self.slept = 0.0
        self.digest = hashlib.sha256()

    def engine(self, graph: str) -> Engine:
        """The graph of this name."""

        def run(**inputs: Array) -> dict[str, Array]:
            shape, num_frames = _shape_of(graph, inputs)
            if self._is_hashing:
                for name in sorted(inputs):
                    self.digest.update(f"{graph} {name}".encode())
                    self.digest.update(zlib.crc32(np.ascontiguousarray(inputs[name]).tobytes()).to_bytes(4, "little"))
            if self._copies:
                self._copy(graph, inputs)
            if self._made.get(graph, np.empty(0)).shape != shape:
                self._made[graph] = self._rng.random(shape, np.float32)
            asleep = time.perf_counter()
            time.sleep(num_frames * self._seconds[graph])
            self.slept += time.perf_counter() - asleep
            return {"output": self._made[graph].copy() if self._copies else self._made[graph]}

        return run

    def _copy(self, graph: str, inputs: dict[str, Array]) -> None:
        for name, array in inputs.items():
            key = f"{graph} {name} {np.shape(array)}"
            if key not in self._pinned:
                self._pinned[key] = np.empty_like(array)
            np.copyto(self._pinned[key], array)


def _shape_of(graph: str, inputs: dict[str, Array]) -> tuple[tuple[int, ...], int]:
    """Of the output, and the number of frames."""
    if graph == "denoiser":
        return inputs["noisy"].shape, inputs["noisy"].shape[1]
    if graph == "vae_decoder":
        frames, _, height, width = inputs["latents"].shape
        return (frames, 8 * height, 8 * width), frames
    frames, height, width, _ = inputs["frames"].shape
    return ((frames, 64) if graph == "clip_encoder" else (frames, 4, height // 8, width // 8)), frames


def make_clip(path: Path, height: int, width: int, num_frames: int) -> Path:
    """A video of this size."""
    with VideoWriter(path, Fraction(24), height, width) as writer:
        for frame in clip_frames(DEMO, height, width, num_frames):
            writer.write(frame)
    return path


class Watch:
    """Listens to a job: when it began, when depth was there, and cancels it then, before results are written."""

    def __init__(self) -> None:
        self.began = self.ended = 0.0
        self.first_evaluation = 0.0
        self.job: Job | None = None

    def hear(self, event: Event) -> None:
        """Listen."""
        now = time.perf_counter()
        if isinstance(event, Planned):
            self.began, self._num_frames = now, event.num_frames
        elif isinstance(event, Progressed) and event.stage == "denoiser" and not self.first_evaluation:
            self.first_evaluation = now - self.began
        elif isinstance(event, WindowDone) and event.num_frames == self._num_frames:
            self.ended = now
            assert self.job is not None
            self.job.cancel()


def run(video: Path, sampling: Sampling, sleeping: Sleeping, max_res: int, folder: Path) -> Watch:
    """The first pass of a job, watched."""
    manifest = Manifest.read(BUNDLED)
    sizes = dataclasses.replace(
        manifest.profile, height=Range(64, 576, 1024), width=Range(64, 1024, 1024), frames=Range(1, 110, 256)
    )
    manifest = dataclasses.replace(manifest, profile=sizes)
    engines = EngineSet(manifest, "onnx", "nothing", sleeping.engine, one_resident=False)
    watch = Watch()
    with DepthCrafter(engines) as model:
        # What is written of each frame while the model runs is not to be measured here.
        watch.job = Job(
            model,
            video,
            sampling,
            Source(max_res=max_res),
            Outputs(("npz",)),
            folder,
            restart=True,
            listener=watch.hear,
        )
        with suppress(JobCancelled):
            watch.job.run()
    return watch


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=parse_size, default=(576, 1024), help="WIDTHxHEIGHT; 1024x576")
    parser.add_argument("--windows", type=int, default=20, help="of 110 frames that share 25: a clip of so many")
    parser.add_argument("--sampler", choices=SAMPLERS, default=Sampling.sampler)
    parser.add_argument("--ms", type=float, default=MS_PER_FRAME, help="that the GPU computes a frame for")
    parser.add_argument("--copies", action="store_true", help="copy inputs and outputs, as to and from pinned memory")
    parser.add_argument(
        "--hash", action="store_true", help="print a hash of all inputs of all graphs; times tell nothing"
    )
    parser.add_argument("--write", action="store_true", help="write bench/results/host.json")
    arguments = parser.parse_args()
    height, width = arguments.size
    sampling = Sampling(sampler=arguments.sampler)
    num_frames = sampling.window_size + (arguments.windows - 1) * sampling.stride
    sleeping = Sleeping(0.0 if arguments.hash else arguments.ms, sampling, arguments.copies, arguments.hash)
    with tempfile.TemporaryDirectory() as folder:
        video = make_clip(Path(folder, "clip.mp4"), height, width, num_frames)
        watch = run(video, sampling, sleeping, max(height, width), Path(folder, "results"))
    if arguments.hash:
        print(f"inputs {sleeping.digest.hexdigest()}")
        return
    wall = watch.ended - watch.began
    host = 1000 * (wall - sleeping.slept) / num_frames
    print(f"{width}x{height}, {num_frames} frames in {arguments.windows} windows, sampler {arguments.sampler}")
    print(
        f"wall {wall:.2f} s, of which asleep {sleeping.slept:.2f} s; the first evaluation began after "
        f"{watch.first_evaluation:.2f} s"
    )
    if arguments.write:
        figures = {"num_frames": num_frames, "wall": wall, "asleep": sleeping.slept, "host_ms_per_frame": host}
        write_record({"machine": describe(), "options": vars(arguments), **figures}, "host")
    print(f"host_ms_per_frame {host:.2f}")


if __name__ == "__main__":
    main()
