"""One video from file to files.

The first pass runs the model and spools its depth: reading goes ahead of it and spooling behind it, in threads. The
second normalises the depth over the whole video and writes the results into the spool's folder, from where they are
moved into place when all are there: results are whole or absent. A run that ends before that goes on where it was.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
import platform
import shutil
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from dc_rt.errors import UserError
from dc_rt.media import (
    Damage,
    ExrWriter,
    Mp4Writer,
    NpzWriter,
    PngWriter,
    Timeline,
    VideoInfo,
    frame_stride,
    inferno,
    list_images,
    output_size,
    probe,
    read_frames,
    read_numbered,
    to_uint8,
)
from dc_rt.noise import Noise
from dc_rt.pipeline import DepthCrafter, Progress, WindowState
from dc_rt.schedule import karras_sigmas
from dc_rt.spool import Spool, SpoolLock
from dc_rt.targets import Targets, check_batch, is_frame, result_name, text
from dc_rt.threads import Behind, ahead
from dc_rt.windows import check_window, plan_windows

# Frames between the model and the threads beside it: enough to even out, little beside a window.
READ_AHEAD = 16
WRITE_BEHIND = 16

Tell = Callable[[str], None]
"""Is given a sentence to show."""


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
        if not math.isfinite(self.guidance_scale):
            raise UserError(f"The guidance scale must be a number, not {self.guidance_scale}; try --guidance-scale 1.")
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
        """What the results are called."""
        return result_name(self.source.path)

    @property
    def fps(self) -> Fraction:
        """Frame rate of the results, on average where it is variable."""
        return self.timeline.fps

    @cached_property
    def timeline(self) -> Timeline:
        """When the frames of the results are shown: when those of the source are, whatever the stride."""
        return self.source.timeline.every(self.stride, self.num_frames)

    @property
    def sample_aspect_ratio(self) -> Fraction:
        """How wide a pixel of the results is to its height, so that they lie exactly over the source."""
        return self.source.aspect * self.height / self.width

    def denoiser_frames(self, options: Options) -> int:
        """Frames that go through the denoiser in all: every window's, every step, twice with guidance."""
        windows = plan_windows(self.num_frames, options.window_size, options.overlap)
        passes = options.num_denoising_steps * (2 if options.guidance_scale > 1 else 1)
        return passes * sum(end - start for start, end in windows)


def plan_job(model: DepthCrafter, video: Path, options: Options) -> Plan:
    """Look at the video and settle what is to be done by `model`; nothing is written.

    Raises:
        UserError: the video cannot be read, no frame is left of it, or the engines cannot run its size.
    """
    plan = plan_video(video, options)
    check_plan(model, plan, options)
    return plan


def plan_video(video: Path, options: Options) -> Plan:
    """Look at the video and settle what is to be done, whatever engines will do it.

    Raises:
        UserError: the video cannot be read, or no frame is left of it.
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
    return Plan(source, stride, num_frames, height, width)


def check_plan(model: DepthCrafter, plan: Plan, options: Options) -> None:
    """Raise `UserError` where the engines of `model` cannot run the plan's size or window."""
    profile = model.engines.manifest.profile
    profile.check_size(plan.height, plan.width)
    profile.check_window(options.window_size)


def run_job(
    model: DepthCrafter,
    plan: Plan,
    save_folder: Path,
    options: Options,
    progress: Progress | None = None,
    *,
    tell: Tell | None = None,
    restart: bool = False,
    keep_spool: bool = False,
    overwrite: bool = False,
    lock: SpoolLock | None = None,
) -> list[Path]:
    """Run the video of `plan` and write its results to `save_folder`, going on where an earlier run was.

    `progress` hears of every run of a graph, of frames read ("read") and written ("write"), and once of the frames that
    an earlier run did ("resumed").

    Args:
        tell: is given what is to be said of the video once all of it was read, such as what could not be decoded.
        restart: throw away what an earlier run did.
        keep_spool: leave the spool, with the depth before normalisation, beside the results.
        overwrite: replace files, too, that dc-rt did not write.
        lock: of the spool's folder, for another thread that may have to abandon the run.

    Returns:
        The files and folders written: `NAME_depth.mp4`, `NAME_vis.mp4`, `NAME_input.mp4`, with their options `NAME.npz`
        and the folder `NAME` of EXR or PNG files, and `NAME.json`.

    Raises:
        UserError: something would be overwritten, an earlier run was of something else, another one is at it, or the
            disk is too small.
        OSError: the disk refuses; what was done is kept, and the next run goes on from there.
    """
    targets = Targets.of(plan.source.path, save_folder, options)
    check_batch([targets])
    targets.check(overwrite)
    clock = _Clock(progress)
    fingerprint = _fingerprint(model, plan, options)
    with Spool(targets.spool, fingerprint, plan.height, plan.width, restart, lock) as spool:
        targets.remember_moves()
        clock.take_up(spool.progress.notes)
        if progress and (spool.state or spool.progress.complete):
            progress("resumed", spool.state.start if spool.state else spool.num_frames, 0.0)
        if not spool.progress.complete:
            _check_space(save_folder, plan, options, spool)
            _run_model(model, plan, options, spool, clock)
        damage = Damage(**(spool.progress.notes or {}).get("damage", {}))
        for sentence in damage.describe():
            if tell:
                tell(sentence)
        staging = _empty_folder(targets.spool / "results")
        numbers = _write_results(staging, plan, options, spool, clock)
        record = _record(model, plan, options, spool, damage, clock) | {"files": targets.list_files(staging)}
        (staging / targets.record.name).write_text(_as_json(record, times=plan.timeline.seconds(numbers)))
        targets.check(overwrite, at_the_end=True)  # something may have appeared meanwhile
        results = _move_into_place(staging, save_folder)
        if not keep_spool:
            spool.delete()
        return results


def _run_model(model: DepthCrafter, plan: Plan, options: Options, spool: Spool, clock: _Clock) -> None:
    """The first pass: depth into the spool, committed after every window."""
    start = spool.state.next_frame if spool.state else 0
    damage = Damage()
    frames = read_frames(plan.source, plan.height, plan.width, plan.stride, plan.num_frames, start, damage)
    if spool.state is None:
        frames = _refuse_hopeless(frames, options.window_size, damage, plan)

    def append(depth: NDArray[np.float32]) -> None:
        with clock.measure("write", frames=0):
            spool.append(depth)

    def commit(state: WindowState | None) -> None:
        with clock.measure("write", frames=0):
            spool.commit(state, clock.notes() | {"damage": vars(damage)})

    with (
        closing(frames),
        ahead(clock.timed("read", frames), READ_AHEAD) as read,
        Behind(WRITE_BEHIND) as writer,
    ):
        depths = model(
            read,
            steps=options.num_denoising_steps,
            guidance_scale=options.guidance_scale,
            window_size=options.window_size,
            overlap=options.overlap,
            noise=Noise(options.seed),
            progress=clock.add,
            resume_from=spool.state,
            on_window=lambda state: writer.submit(commit, state),
        )
        for depth in depths:
            writer.submit(append, depth)
        writer.submit(commit, None)
    # Decoding has the last word on the number of frames: a stream may hold a few that cannot be shown.
    if spool.num_frames == 0:
        raise UserError(f"No frame of {plan.source.path} could be decoded; copy or download it again.")


def _refuse_hopeless(
    frames: Generator[NDArray[np.uint8], None, None], window_size: int, damage: Damage, plan: Plan
) -> Generator[NDArray[np.uint8], None, None]:
    """The frames, once those of the first window are read: raises `UserError` if most of them cannot be decoded."""
    with closing(frames):
        window = deque(islice(frames, window_size))
        if damage.is_hopeless:
            raise UserError(
                f"Most of the first {damage.num_frames} frames of {plan.source.path} cannot be decoded "
                f"({damage.num_lost} are lost, {damage.num_patched} damaged): it is damaged, or encrypted; "
                "copy or download it again."
            )
        while window:
            yield window.popleft()
        yield from frames


class _Writer(Protocol):
    """Any writer of `dc_rt.media`."""

    def write(self, frame: NDArray[Any], /) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...


def _write_results(staging: Path, plan: Plan, options: Options, spool: Spool, clock: _Clock) -> list[int]:
    """The second pass: all results, a frame at a time, each file in a thread of its own; gives the frames' numbers.

    The input is read again, which costs less than to keep it.
    """
    size, aspect = (plan.height, plan.width), plan.sample_aspect_ratio
    numbers: list[int] = []
    with ExitStack() as stack:

        def behind(writer: _Writer) -> Callable[..., None]:
            opened = stack.enter_context(writer)
            return partial(stack.enter_context(Behind(WRITE_BEHIND)).submit, opened.write)

        def video(kind: str) -> Callable[..., None]:
            path = staging / f"{plan.name}_{kind}.mp4"
            return behind(Mp4Writer(path, plan.timeline, *size, sample_aspect_ratio=aspect))

        write_input, write_grey, write_colour = map(video, ("input", "depth", "vis"))
        write_depth = []
        if options.save_npz:
            write_depth.append(behind(NpzWriter(staging / f"{plan.name}.npz", (spool.num_frames, *size))))
        if options.save_exr:
            write_depth.append(behind(ExrWriter(staging / plan.name, aspect)))
        if options.save_png:
            write_depth.append(behind(PngWriter(staging / plan.name)))
        read = stack.enter_context(ahead(read_numbered(plan.source, *size, plan.stride, plan.num_frames), READ_AHEAD))
        # The depth first: when it ends, no frame is taken for nothing.
        for depth, (number, frame) in zip(spool.normalised(), read, strict=False):
            with clock.measure("write", frames=1):
                write_input(frame, number)
                write_grey(to_uint8(depth), number)
                write_colour(inferno(depth), number)
                for write in write_depth:
                    write(depth)
            numbers.append(number)
        if len(numbers) != spool.num_frames or next(read, None) is not None:
            raise UserError(
                f"{plan.source.path} has other frames than when its depth was estimated; has it changed? "
                "Start over with --restart."
            )
    return numbers


def _record(
    model: DepthCrafter, plan: Plan, options: Options, spool: Spool, damage: Damage, clock: _Clock
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
            "path": text(plan.source.path),
            "num_frames": plan.source.num_frames,
            "height": plan.source.height,
            "width": plan.source.width,
            "fps": float(plan.source.fps),
            "notes": [*plan.source.notes, *damage.describe()],
            "decode_errors": damage.num_errors,
            "frames_lost": damage.num_lost,
            "frames_patched": damage.num_patched,
            "frames_missing": plan.num_frames - spool.num_frames,
        },
        "result": {
            "num_frames": spool.num_frames,
            "height": plan.height,
            "width": plan.width,
            "fps": float(plan.fps),
            "variable_frame_rate": not plan.timeline.is_constant,
            "seconds": float(plan.timeline.duration),
            "sample_aspect_ratio": f"{plan.sample_aspect_ratio.numerator}:{plan.sample_aspect_ratio.denominator}",
            "stride": plan.stride,
            "depth_min": spool.range[0],
            "depth_max": spool.range[1],
        },
        "options": dataclasses.asdict(options),
        "timings": {
            "seconds": round(clock.elapsed, 3),
            "ms_per_frame": round(1000 * clock.elapsed / spool.num_frames, 3),
            "times_resumed": clock.num_resumed,
            "stages": {stage: round(clock.seconds[stage], 3) for stage in sorted(clock.seconds)},
        },
        "versions": {"python": platform.python_version()} | _versions(),
        "machine": {"system": platform.platform(), "processor": platform.machine()},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _as_json(record: Mapping[str, Any], **long: list[float]) -> str:
    """JSON to be read by people too: `long` values take a line each, not one a number."""
    lines = [f"  {json.dumps(key)}: {json.dumps(values)}" for key, values in long.items()]
    return ",\n".join([json.dumps(record, indent=2).removesuffix("\n}"), *lines]) + "\n}\n"


def _versions() -> dict[str, str]:
    versions = {}
    libraries = ("onnxruntime", "onnxruntime-gpu", "tensorrt-cu13", "tensorrt-rtx-cu13", "torch")
    for package in ("depthcrafter-rt", "numpy", "av", *libraries):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


def _fingerprint(model: DepthCrafter, plan: Plan, options: Options) -> dict[str, Any]:
    """All that decides the depth: what a run must share with the one that it continues."""
    try:
        video = _content_hash(plan.source.path)
    except OSError as error:
        raise UserError(f"{plan.source.path} cannot be read any more ({error}); check the file.") from error
    engines = model.engines
    graphs = "".join(engines.manifest.graphs[graph][0].sha256 for graph in sorted(engines.manifest.graphs))
    return {
        "video": video,
        "engines": hashlib.sha256(graphs.encode()).hexdigest(),
        "backend": engines.backend,
        "size": f"{plan.width}x{plan.height}",
        "stride": plan.stride,
        "frames": plan.num_frames,
        "window_size": options.window_size,
        "overlap": options.overlap,
        "num_denoising_steps": options.num_denoising_steps,
        "guidance_scale": max(options.guidance_scale, 1.0),
        "seed": options.seed,
    }


def _content_hash(path: Path) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's images."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    images = ((image.name, _content_hash(image)) for image in list_images(path))
    return hashlib.sha256(repr(list(images)).encode()).hexdigest()


def _check_space(save_folder: Path, plan: Plan, options: Options, spool: Spool) -> None:
    """Raise `UserError` where the disk is sure to run full: the spool's and the results' size against what is free."""
    pixels = plan.height * plan.width
    left = plan.num_frames - spool.num_frames
    # Videos take well under a byte a pixel; 16-bit PNG 2; NPZ and EXR at most 4 each, compressed or not.
    per_pixel = 1 + 4 * (options.save_npz + options.save_exr) + 2 * options.save_png
    needed = pixels * (4 * left + per_pixel * plan.num_frames)
    free = shutil.disk_usage(save_folder).free
    if needed > free:
        raise UserError(
            f"{plan.source.path} needs up to {_size(needed)} in {save_folder}, where {_size(free)} are free; "
            "free some, or give another --save-folder."
        )


def _size(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _empty_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


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
    if not target.is_dir():
        target.unlink(missing_ok=True)
    target.mkdir(exist_ok=True)
    frames = sorted(source.iterdir())
    suffixes = {frame.suffix for frame in frames}
    for stale in list(target.iterdir()):
        if is_frame(stale.name, suffixes):
            stale.unlink()
    for frame in frames:
        frame.replace(target / frame.name)


class _Clock:
    """Seconds a stage, added up over all runs of a job, and passed on."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.num_resumed = 0
        self._before = 0.0
        self._began = time.perf_counter()
        self._progress: Callable[[str, int, float], None] = progress or (lambda stage, frames, seconds: None)
        self._lock = threading.Lock()

    def take_up(self, notes: Mapping[str, Any] | None) -> None:
        """Go on from the `notes` of an interrupted run."""
        if notes:
            self.seconds.update(notes["stages"])
            self._before = notes["elapsed"]
            self.num_resumed = notes["num_resumed"] + 1

    def notes(self) -> dict[str, Any]:
        with self._lock:
            return {"stages": dict(self.seconds), "elapsed": self.elapsed, "num_resumed": self.num_resumed}

    @property
    def elapsed(self) -> float:
        """Seconds since the job began, without those between an interruption and the next run."""
        return self._before + time.perf_counter() - self._began

    def add(self, stage: str, frames: int, seconds: float) -> None:
        with self._lock:
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
