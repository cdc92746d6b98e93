"""Metric depth from a raw file: a and b of every shot are fitted, and the depth is written in metres (docs/raw.md)."""

from __future__ import annotations

import math
import zipfile
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dc_rt.calibrate import Fit, Known, fit, read_points, read_reference
from dc_rt.errors import UserError, option
from dc_rt.job import events
from dc_rt.job.deliver import FromRaw
from dc_rt.job.events import Listener
from dc_rt.job.record import Clock
from dc_rt.job.results import result_frames
from dc_rt.job.spool import find_spool
from dc_rt.job.targets import Targets, text
from dc_rt.job.threads import Behind
from dc_rt.job.writers import WRITE_BEHIND
from dc_rt.media import ExrWriter, NpzWriter
from dc_rt.media.raw import RawFile
from dc_rt.media.timecode import TimeCodes
from dc_rt.options import Outputs

WRITTEN = ("npz", "exr")
"""The outputs that metric depth is written as."""

_SUFFIX = "_metric"


@dataclass(frozen=True)
class Truth:
    """Where depth in metres is known.

    Attributes:
        points: a CSV file (`dc_rt.calibrate.read_points`).
        reference: pictures of metric depth (`dc_rt.calibrate.read_reference`), in the place of points.
        unit: metres that 1 is in the reference; None for 1, and in PNG files 0.001.
        reference_frame: of the results, counted from 0, that a reference of one picture is of.

    Raises:
        UserError: there is neither of the two or both, or a value is out of its range.
    """

    points: str | Path | None = None
    reference: str | Path | None = None
    unit: float | None = None
    reference_frame: int = 0

    def __post_init__(self) -> None:
        if (self.points is None) == (self.reference is None):
            raise UserError(
                f"Depth is calibrated with either {option('points', 'CSV')} or {option('reference', 'DEPTH')}; give "
                "one of them."
            )
        for name, is_given in (("unit", self.unit is not None), ("reference_frame", self.reference_frame != 0)):
            if is_given and self.points is not None:
                raise UserError(
                    f"{option(name)} is of {option('reference')}, and points say it themselves; leave it out."
                )
        _check_positive("unit", self.unit, 0.001)

    def read(self, file: RawFile, height: int, width: int) -> Known:
        """All points; `height` and `width` are the source's, which those of a CSV file are in."""
        if self.points is not None:
            return read_points(Path(self.points), file.frame, file.num_frames, height, width)
        assert self.reference is not None
        return read_reference(Path(self.reference), file.frame, file.num_frames, self.unit, self.reference_frame)


class Calibration(FromRaw):
    """Metric depth of a kept run: `NAME_metric/frame_0000.exr`, `NAME_metric.npz` and `NAME_metric.json`."""

    def __init__(
        self,
        raw: str | Path,
        truth: Truth,
        outputs: Outputs | None = None,
        save_folder: str | Path = "demo_output",
        *,
        focal: float | None = None,
        source: str | Path | None = None,
        listener: Listener | None = None,
    ) -> None:
        """Look at the raw file, at where results go, and at the video where its pictures are needed.

        Args:
            raw: a file that a run with `keep="raw"` left.
            truth: what a and b are fitted to.
            outputs: the size of the results, how depth is brought to it, and the numbers of its files.
            save_folder: where the results go, made if need be.
            focal: the camera's focal length, in pixels of the source's width.
            source: where the video is now, if not where it was.
            listener: is told of all that happens (`dc_rt.job.events`).

        Raises:
            UserError: the raw file cannot be read, the video is needed and is not there or is another one, or something
                would be overwritten.
        """
        _check_positive("focal", focal, 1000)
        self._truth, self._focal = truth, focal
        super().__init__(raw, replace(outputs or Outputs(), names=WRITTEN), save_folder, source, listener)

    def _targets_in(self, save_folder: Path) -> Targets:
        name = f"{self.plan.name}{_SUFFIX}"
        files = (f"{name}.npz", f"{name}.json")
        return Targets(self._raw, save_folder, name, files, (".exr",), find_spool(save_folder, name))

    def _write(self, staging: Path, file: RawFile, clock: Clock) -> tuple[dict[str, Any], list[int]]:
        known = self._truth.read(file, *self.plan.video.stored_size)
        ends = [*(shot.start for shot in file.shots[1:]), file.num_frames]
        parts = [known.within(shot.start, end) for shot, end in zip(file.shots, ends, strict=True)]
        fits = []
        for shot, end, part in zip(file.shots, ends, parts, strict=True):
            fits.append(fit(part.disparity, part.z, shot.low, shot.high, _called(shot.start, end, len(parts))))
            self._tell(events.Warned(_in_words(fits[-1], shot.start, end)))
        height, width = self.plan.result_size(self.outputs)
        numbers = self._write_depth(staging / self._targets.name, file, fits, (height, width), clock)
        calibration = {
            "formula": "1/z = a d + b, z in metres",
            "points": text(self._truth.points) if self._truth.points else None,
            "reference": text(self._truth.reference) if self._truth.reference else None,
            "focal": self._focal_lengths(height, width),
            "shots": [
                {"start": shot.start, **_described(fitted, part)}
                for shot, fitted, part in zip(file.shots, fits, parts, strict=True)
            ],
        }
        return self._record(file, numbers, clock) | {"calibration": calibration}, numbers

    def _write_depth(
        self, path: Path, file: RawFile, fits: list[Fit], size: tuple[int, int], clock: Clock
    ) -> list[int]:
        """Write all frames, to a folder and beside it; gives their numbers."""
        numbers = []
        focal = self._focal_lengths(*size)
        attributes = dict(zip(("focalX", "focalY"), focal or (), strict=False))
        aspect = self.plan.sample_aspect_ratio(*size)
        archive = path.with_name(f"{path.name}.npz")
        with ExitStack() as stack:
            npz = stack.enter_context(NpzWriter(archive, (file.num_frames, *size)))
            exr = stack.enter_context(
                ExrWriter(
                    path,
                    aspect,
                    fps=self.plan.timeline.fps,
                    time_codes=TimeCodes.of(self.plan.video),
                    attributes=attributes,
                    start_number=self.outputs.start_number,
                    padding=self.outputs.digits(file.num_frames),
                )
            )
            behind_npz, behind_exr = (stack.enter_context(Behind(WRITE_BEHIND)) for _ in range(2))
            for frame in result_frames(stack, self.plan, self.outputs, file, clock, is_read=bool(self._takers())):
                shot = file.shots[frame.shot]
                # Beyond the range of the model's depth, where a filter may go, the fit says nothing.
                metres = fits[frame.shot].depth(np.clip(frame.raw, shot.low, shot.high))
                behind_npz.submit(npz.write, metres)
                behind_exr.submit(exr.write, metres, frame.time)
                numbers.append(frame.number)
        _add_arrays(archive, a=[fitted.a for fitted in fits], b=[fitted.b for fitted in fits], focal=focal)
        return numbers

    def _focal_lengths(self, height: int, width: int) -> list[float] | None:
        """The focal length in pixels of results of this size: of their width, and of their height."""
        if self._focal is None:
            return None
        across = self._focal * width / self.plan.video.stored_size[1]
        return [across, across * float(self.plan.sample_aspect_ratio(height, width))]


def _called(start: int, end: int, num_shots: int) -> str:
    """What the points of a shot are called."""
    return "the points" if num_shots == 1 else f"the points of the shot of frames {start} to {end - 1}"


def _in_words(fitted: Fit, start: int, end: int) -> str:
    error = float(np.median(abs(fitted.errors[fitted.used])))
    num_used = np.count_nonzero(fitted.used)
    return (
        f"frames {start} to {end - 1}: 1/z = {fitted.a:.6g} d + {fitted.b:.6g}, from {num_used} of {len(fitted.used)} "
        f"points, whose z it meets within {error:.2g} of z (median)"
    )


def _described(fitted: Fit, known: Known) -> dict[str, Any]:
    """A fit for the record; of the points that have a name, each."""
    errors = abs(fitted.errors[fitted.used])
    points = zip(known.where, known.frames, known.disparity, known.z, fitted.errors, fitted.used, strict=False)
    return {
        "a": fitted.a,
        "b": fitted.b,
        "num_points": len(fitted.used),
        "num_used": int(np.count_nonzero(fitted.used)),
        "median_error_of_z": float(np.median(errors)),
        "rms_error_of_z": float(np.sqrt(np.mean(errors**2))),
        "largest_error_of_z": float(errors.max()),
        "points": [
            {"point": where, "frame": int(frame), "d": d, "z": z, "error_of_z": error, "is_used": bool(used)}
            for where, frame, d, z, error, used in points
        ],
    }


def _add_arrays(path: Path, **arrays: list[float] | None) -> None:
    """Put small arrays into an NPZ file, beside what is there; None is left out."""
    with zipfile.ZipFile(path, "a") as file:
        for name, values in arrays.items():
            if values is not None:
                with file.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                    np.lib.format.write_array(member, np.array(values), allow_pickle=False)


def _check_positive(name: str, value: float | None, example: float) -> None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise UserError(f"{option(name)} must be greater than 0, not {value:g}; try {option(name, example)}.")
