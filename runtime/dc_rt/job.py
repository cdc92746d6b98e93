"""One video from file to files.

Depth is spooled as it comes, normalised over the whole video in a second pass, and written into a folder beside the
results' place. Only when all is there is it moved into place, so that results are whole or absent.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dc_rt.errors import UserError
from dc_rt.media import (
    ExrWriter,
    Mp4Writer,
    NpzWriter,
    PngWriter,
    VideoInfo,
    frame_stride,
    inferno,
    output_size,
    probe,
    read_frames,
    to_uint8,
)
from dc_rt.noise import Noise
from dc_rt.pipeline import DepthCrafter, Progress
from dc_rt.schedule import karras_sigmas
from dc_rt.spool import Spool
from dc_rt.windows import check_window, plan_windows


@dataclass(frozen=True)
class Options:
    """How a video is read, run and written; names and defaults are those of `dc-rt infer`."""

    process_length: int = -1
    target_fps: float = -1
    max_res: int = 1024
    dataset: str = "open"
    window_size: int = 110
    overlap: int = 25
    num_denoising_steps: int = 5
    guidance_scale: float = 1.0
    seed: int = 42
    save_npz: bool = False
    save_exr: bool = False
    save_png: bool = False

    def check(self) -> None:
        """Raise `UserError` for an option that no video and no engines could make right."""
        check_window(self.window_size, self.overlap)
        karras_sigmas(self.num_denoising_steps)
        Noise(self.seed)
        output_size(1, 1, self.max_res, self.dataset)
        frame_stride(1, self.target_fps)
        if self.process_length < -1:
            raise UserError(
                f"The number of frames to process must be positive, or -1 for all, not {self.process_length}."
            )


@dataclass(frozen=True)
class Plan:
    """What a run will do: the source, the frames taken from it, and the size and rate that they are processed at."""

    source: VideoInfo
    stride: int
    num_frames: int
    height: int
    width: int

    @property
    def name(self) -> str:
        """What the results are called: the file's name without its suffix, or the folder's name."""
        path = self.source.path
        return path.resolve().name if path.is_dir() else path.stem

    @property
    def fps(self) -> Fraction:
        """Frame rate of the results: they last as long as the source, whatever the stride."""
        return self.source.fps / self.stride

    def denoiser_frames(self, options: Options) -> int:
        """Frames that go through the denoiser in all: every window's, every step, twice with guidance."""
        windows = plan_windows(self.num_frames, options.window_size, options.overlap)
        passes = options.num_denoising_steps * (2 if options.guidance_scale > 1 else 1)
        return passes * sum(end - start for start, end in windows)


def plan_job(model: DepthCrafter, video: Path, options: Options) -> Plan:
    """Look at the video and settle what is to be done; nothing is written.

    Raises:
        UserError: the video cannot be read, no frame is left of it, or the engines cannot run its size.
    """
    options.check()
    source = probe(video)
    stride = frame_stride(float(source.fps), options.target_fps)
    num_frames = len(range(0, source.num_frames, stride))
    if options.process_length >= 0:
        num_frames = min(num_frames, options.process_length)
    if num_frames == 0:
        raise UserError(
            f"No frame is left of {video} (every {stride}. of {source.num_frames}, at most {options.process_length}); "
            "try --process-length -1."
        )
    height, width = output_size(source.height, source.width, options.max_res, options.dataset)
    profile = model.engines.manifest.profile
    profile.check_size(height, width)
    profile.check_window(options.window_size)
    return Plan(source, stride, num_frames, height, width)


def run_job(
    model: DepthCrafter, plan: Plan, save_folder: Path, options: Options, progress: Progress | None = None
) -> list[Path]:
    """Run the video of `plan` and write its results to `save_folder`.

    `progress` hears of every run of a graph, and of frames read ("read") and written ("write").

    Returns:
        The files and folders written: `NAME_depth.mp4`, `NAME_vis.mp4`, `NAME_input.mp4`, with their options `NAME.npz`
        and the folder `NAME` of EXR or PNG files, and `NAME.json`.

    Raises:
        UserError: the video turns out to be damaged; nothing is left behind.
        OSError: the results cannot be written; nothing is left behind.
    """
    began = time.perf_counter()
    clock = _Clock(progress)
    with _staging_folder(save_folder, plan.name) as staging, ExitStack() as stack:
        spool = Spool(staging / "spool.f32", plan.height, plan.width)
        stack.callback(spool.close)
        with Mp4Writer(staging / f"{plan.name}_input.mp4", plan.fps, plan.height, plan.width) as input_video:
            frames = _copied(clock.timed("read", _frames(plan)), input_video, clock)
            depths = model(
                frames,
                steps=options.num_denoising_steps,
                guidance_scale=options.guidance_scale,
                window_size=options.window_size,
                overlap=options.overlap,
                noise=Noise(options.seed),
                progress=clock.add,
            )
            for depth in depths:
                with clock.measure("write", frames=0):
                    spool.append(depth)
        # Decoding has the last word on the number of frames: a stream may hold a few that cannot be shown.
        if spool.num_frames == 0:
            raise UserError(f"No frame of {plan.source.path} could be decoded; copy or download it again.")
        _write_results(staging, plan, options, spool, clock)
        spool.close()
        (staging / "spool.f32").unlink()
        record = _record(model, plan, options, spool, clock, time.perf_counter() - began)
        (staging / f"{plan.name}.json").write_text(json.dumps(record, indent=2) + "\n")
        return _move_into_place(staging, save_folder)


def _frames(plan: Plan) -> Iterator[NDArray[np.uint8]]:
    return iter(read_frames(plan.source.path, plan.height, plan.width, plan.stride, plan.num_frames))


def _copied(frames: Iterator[NDArray[np.uint8]], video: Mp4Writer, clock: _Clock) -> Iterator[NDArray[np.uint8]]:
    """The frames, each written to `video` as it passes."""
    for frame in frames:
        with clock.measure("write", frames=0):
            video.write(frame)
        yield frame


class _DepthWriter(Protocol):
    def write(self, frame: Any, /) -> None: ...


def _write_results(staging: Path, plan: Plan, options: Options, spool: Spool, clock: _Clock) -> None:
    """The second pass: every result that needs normalised depth, a frame at a time."""
    size = (plan.height, plan.width)
    with ExitStack() as stack:
        as_grey = stack.enter_context(Mp4Writer(staging / f"{plan.name}_depth.mp4", plan.fps, *size))
        as_colour = stack.enter_context(Mp4Writer(staging / f"{plan.name}_vis.mp4", plan.fps, *size))
        as_depth: list[_DepthWriter] = []
        if options.save_npz:
            shape = (spool.num_frames, *size)
            as_depth.append(stack.enter_context(NpzWriter(staging / f"{plan.name}.npz", shape)))
        if options.save_exr:
            as_depth.append(stack.enter_context(ExrWriter(staging / plan.name)))
        if options.save_png:
            as_depth.append(stack.enter_context(PngWriter(staging / plan.name)))
        for depth in spool.normalised():
            with clock.measure("write", frames=1):
                as_grey.write(to_uint8(depth))
                as_colour.write(inferno(depth))
                for writer in as_depth:
                    writer.write(depth)


def _record(
    model: DepthCrafter, plan: Plan, options: Options, spool: Spool, clock: _Clock, seconds: float
) -> dict[str, Any]:
    """What `NAME.json` says: enough to tell how a result came about, and to make it again."""
    engines = model.engines
    return {
        "model": dataclasses.asdict(engines.manifest.model),
        "engines": {
            "backend": engines.backend,
            "device": engines.device,
            "flavour": engines.manifest.flavour,
            "precision": engines.manifest.precision,
            "profile": engines.manifest.profile.name,
            "sha256": {graph: engines.manifest.graphs[graph][0].sha256 for graph in engines.manifest.graphs},
        },
        "source": {
            "path": str(plan.source.path),
            "num_frames": plan.source.num_frames,
            "height": plan.source.height,
            "width": plan.source.width,
            "fps": float(plan.source.fps),
        },
        "result": {
            "num_frames": spool.num_frames,
            "height": plan.height,
            "width": plan.width,
            "fps": float(plan.fps),
            "stride": plan.stride,
            "depth_min": float(spool.min),
            "depth_max": float(spool.max),
        },
        "options": dataclasses.asdict(options),
        "timings": {
            "seconds": round(seconds, 3),
            "ms_per_frame": round(1000 * seconds / spool.num_frames, 3),
            "stages": {stage: round(clock.seconds[stage], 3) for stage in sorted(clock.seconds)},
        },
        "versions": {"python": platform.python_version()} | _versions(),
        "machine": {"system": platform.platform(), "processor": platform.machine()},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _versions() -> dict[str, str]:
    versions = {}
    for package in ("depthcrafter-rt", "numpy", "av", "onnxruntime", "onnxruntime-gpu", "torch"):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


@contextmanager
def _staging_folder(save_folder: Path, name: str) -> Iterator[Path]:
    """A hidden folder in `save_folder`, on the same file system; gone at the end, as is a `save_folder` left empty."""
    save_folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{name}.", suffix=".part", dir=save_folder))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        with suppress(OSError):
            save_folder.rmdir()


def _move_into_place(staging: Path, save_folder: Path) -> list[Path]:
    """Move every result to where the user looks for it, replacing those of an earlier run; the record comes last."""
    results = []
    for source in sorted(staging.iterdir(), key=lambda path: (path.suffix == ".json", path.name)):
        target = save_folder / source.name
        if source.is_dir():
            _move_frames(source, target)
        else:
            source.replace(target)
        results.append(target)
    return results


def _move_frames(source: Path, target: Path) -> None:
    """Move numbered frames into a folder, where an earlier, longer run's go and anything else stays."""
    target.mkdir(exist_ok=True)
    frames = sorted(source.iterdir())
    suffixes = {frame.suffix for frame in frames}
    for stale in target.glob("frame_*"):
        if stale.suffix in suffixes:
            stale.unlink()
    for frame in frames:
        frame.replace(target / frame.name)


class _Clock:
    """Seconds a stage, added up and passed on."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._progress: Callable[[str, int, float], None] = progress or (lambda stage, frames, seconds: None)

    def add(self, stage: str, frames: int, seconds: float) -> None:
        self.seconds[stage] += seconds
        self._progress(stage, frames, seconds)

    @contextmanager
    def measure(self, stage: str, frames: int) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.add(stage, frames, time.perf_counter() - began)

    def timed(self, stage: str, items: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        while True:
            began = time.perf_counter()
            item = next(items, None)
            self.add(stage, item is not None, time.perf_counter() - began)
            if item is None:
                return
            yield item
