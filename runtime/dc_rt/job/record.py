"""`NAME.json`: what was done, from what and with what, and how long it took."""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from dc_rt.depth import DepthSource, ShotDepth, range_of
from dc_rt.engine import EngineSet
from dc_rt.engine.demonstration import what_it_demonstrates
from dc_rt.job.events import Listener, Progressed
from dc_rt.job.plan import Plan
from dc_rt.job.targets import text
from dc_rt.media import Damage
from dc_rt.options import Outputs

T = TypeVar("T")

_LONG = ("shots", "times")


def origin_of(engines: EngineSet, plan: Plan, damage: Damage, num_frames: int) -> dict[str, Any]:
    """What `NAME.json` says of where `num_frames` frames of depth come from: the model, its engines and the video."""
    return {
        "model": dataclasses.asdict(engines.manifest.model),
        "demonstration": bool(what_it_demonstrates(engines.manifest)),
        "engines": {
            "backend": engines.backend,
            "device": engines.device,
            "flavour": engines.manifest.flavour,
            "precision": engines.manifest.precision,
            "profile": engines.manifest.profile.name,
            "sha256": {graph: engines.manifest.graphs[graph][0].sha256 for graph in engines.manifest.graphs},
        },
        "source": {
            "path": text(plan.video.path),
            "num_frames": plan.video.num_frames,
            "height": plan.video.height,
            "width": plan.video.width,
            "fps": float(plan.video.fps),
            "notes": [*plan.video.notes, *damage.describe()],
            "decode_errors": damage.num_errors,
            "frames_lost": damage.num_lost,
            "frames_patched": damage.num_patched,
            "frames_missing": plan.num_frames - num_frames,
        },
    }


def record_of(
    origin: Mapping[str, Any],
    plan: Plan,
    outputs: Outputs,
    options: Mapping[str, Any],
    depth: DepthSource,
    numbers: Sequence[int],
    clock: Clock,
) -> dict[str, Any]:
    """What `NAME.json` says: enough to tell how a result came about, and to make it again.

    Args:
        origin: what `origin_of` gives.
        plan, outputs: of the results.
        options: of sampling, source and outputs, by name.
        depth: what the results are made of.
        numbers: of its frames, as `ResultFrame.number`.
        clock: has timed it.
    """
    height, width = plan.result_size(outputs)
    aspect = plan.sample_aspect_ratio(height, width)
    low, high = range_of(depth.shots)
    return {
        **origin,
        "result": {
            "num_frames": depth.num_frames,
            "height": height,
            "width": width,
            "model_height": plan.height,
            "model_width": plan.width,
            "fps": float(plan.fps),
            "variable_frame_rate": not plan.timeline.is_constant,
            "seconds": float(plan.timeline.duration),
            "sample_aspect_ratio": f"{aspect.numerator}:{aspect.denominator}",
            "stride": plan.stride,
            "depth_min": low,
            "depth_max": high,
        },
        "options": dict(options),
        "timings": {
            "seconds": round(clock.elapsed, 3),
            "ms_per_frame": round(1000 * clock.elapsed / depth.num_frames, 3),
            "times_resumed": clock.num_resumed,
            "stages": {stage: round(clock.seconds[stage], 3) for stage in sorted(clock.seconds)},
        },
        "versions": {"python": platform.python_version()} | _versions(),
        "machine": {"system": platform.platform(), "processor": platform.machine()},
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "shots": _shots_of(plan, depth.shots, numbers),
        "times": plan.timeline.seconds(numbers),
    }


def _shots_of(plan: Plan, shots: Sequence[ShotDepth], numbers: Sequence[int]) -> list[dict[str, Any]]:
    """What `NAME.json` says of every shot.

    Args:
        plan: of the run.
        shots: all of them.
        numbers: of all frames, as `ResultFrame.number`.
    """
    ends = [*(shot.start for shot in shots[1:]), len(numbers)]
    return [
        {
            "start_frame": shot.start,
            "end_frame": end,
            "source_frame": numbers[shot.start] * plan.stride,
            "seconds": float(plan.timeline.time(numbers[shot.start])),
            "depth_min": shot.low,
            "depth_max": shot.high,
        }
        for shot, end in zip(shots, ends, strict=True)
    ]


def as_text(record: Mapping[str, Any]) -> str:
    """JSON to be read by people too: what there is one of a frame or of a shot takes a line each, not one a number."""
    rest = {key: value for key, value in record.items() if key not in _LONG}
    lines = [f"  {json.dumps(key)}: {json.dumps(record[key])}" for key in _LONG if key in record]
    return ",\n".join([json.dumps(rest, indent=2).removesuffix("\n}"), *lines]) + "\n}\n"


def _versions() -> dict[str, str]:
    versions = {}
    libraries = ("onnxruntime", "onnxruntime-gpu", "tensorrt-cu13", "tensorrt-rtx-cu13", "torch")
    for package in ("depthcrafter-rt", "numpy", "av", *libraries):
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return versions


class Clock:
    """Seconds a stage, added up over all runs of a job, and told to a listener."""

    def __init__(self, listen: Listener) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.num_resumed = 0
        self._before = 0.0
        self._began = time.perf_counter()
        self._listen = listen
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

    @property
    def seconds_of_this_run(self) -> float:
        """Since the clock was made."""
        return time.perf_counter() - self._began

    def add(self, stage: str, frames: int, seconds: float) -> None:
        with self._lock:
            self.seconds[stage] += seconds
            self._listen(Progressed(stage, frames, seconds))

    @contextmanager
    def measure(self, stage: str, frames: int) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.add(stage, frames, time.perf_counter() - began)

    def timed(self, stage: str, items: Iterator[T]) -> Iterator[T]:
        while True:
            began = time.perf_counter()
            item = next(items, None)
            self.add(stage, item is not None, time.perf_counter() - began)
            if item is None:
                return
            yield item
