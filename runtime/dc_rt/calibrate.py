"""Metric depth from disparity: a and b of 1/z = a d + b, fitted to points or pictures whose depth z is known in metres.

The model's depth d is affine to 1/z with unknown a and b, which are of one shot alone: every shot is fitted by itself
(docs/raw.md).
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dc_rt.errors import UserError, option
from dc_rt.media.read_depth import npz_pictures, picture_files, read_exr
from dc_rt.media.read_images import decode_images

FloatArray = NDArray[np.float64]

LEAST_POINTS = 3
"""Two points decide a and b, and say nothing of how well they fit."""

PNG_UNIT = 0.001
"""Metres that 1 is in 16-bit PNG files unless another unit is given: millimetres, as depth cameras write."""

COLUMNS = ("frame", "x", "y", "z")

_TRIALS = 500  # pairs of points that lines are drawn through: were half of all wrong, one in four would be good
_TRIED_ON = 2_000  # points, spread evenly, that these lines are compared by
_BEST = 10  # of the lines, that are improved
_STEPS = 20  # of each improvement, which settles within a few
_LARGEST_FIT = 200_000  # points of dense references that are looked at, spread evenly
_SPREAD = 1e-6  # of disparity, to its size, below which points have one depth
_WITHIN = 2.5  # standard deviations that points are kept within: of normal ones all but 1.2 %
_TO_DEVIATION = 1.4826  # a normal distribution's standard deviation to its median absolute one
_EXACT = 1e-6  # relative error of z that float32 leaves


@dataclass(frozen=True)
class Fit:
    """How the disparity d of a shot becomes metres: z = 1 / (a d + b).

    Attributes:
        a, b: in 1/metres.
        errors: of each point, the fitted z to the known one, less 1: float64 [N].
        used: which points the line is fitted to; the others are taken for wrong: bool [N].
    """

    a: float
    b: float
    errors: FloatArray
    used: NDArray[np.bool_]

    def depth(self, disparity: NDArray[np.float32]) -> NDArray[np.float32]:
        """Metres, float32 of the same shape."""
        return (1 / (self.a * disparity.astype(np.float64) + self.b)).astype(np.float32)


@dataclass(frozen=True)
class Known:
    """Points of a video whose depth is known.

    Attributes:
        frames: which frame of the results each is in, counted from 0: int64 [N].
        disparity: the model's there: float64 [N].
        z: in metres: float64 [N].
        where: what each is called, such as "line 3"; empty for dense references.
    """

    frames: NDArray[np.int64]
    disparity: FloatArray
    z: FloatArray
    where: tuple[str, ...] = ()

    def within(self, start: int, end: int) -> Known:
        """Those in the frames from `start` to before `end`."""
        of_them = (self.frames >= start) & (self.frames < end)
        where = tuple(name for name, is_one in zip(self.where, of_them, strict=False) if is_one)
        return Known(self.frames[of_them], self.disparity[of_them], self.z[of_them], where)


ReadFrame = Callable[[int], NDArray[np.float32]]
"""Gives the model's depth of a frame, float32 [h,w]."""


def fit(disparity: FloatArray, z: FloatArray, low: float, high: float, what: str = "the points") -> Fit:
    """Fit 1/z = a d + b to points of which up to two in five may be wrong.

    The error that is made small is that of z, to z itself: the residuals are z (a d + b) - 1. Least trimmed squares
    over half of the points, then least squares over those within 2.5 standard deviations of it (Rousseeuw and Van
    Driessen, "Computing LTS regression for large data sets", 2006). The same points always give the same fit.

    Args:
        disparity, z: float64 [N].
        low, high: the shot's smallest and largest disparity.
        what: the points are called in messages.

    Raises:
        UserError: the points are too few, have one depth, or say that it is no disparity; or z would not be positive.
    """
    if len(z) < LEAST_POINTS:
        raise UserError(
            f"A calibration takes at least {LEAST_POINTS} points at several depths, and {what} have {len(z)}; add more."
        )
    rows = np.stack([z * disparity, z], axis=1)
    used = np.ones(len(z), bool)
    if not _is_spread(disparity):
        raise _one_depth(what)
    line = _least_trimmed(rows)
    for _ in range(_STEPS):
        errors: FloatArray = abs(rows @ line - 1)
        kept = errors <= _WITHIN * max(_TO_DEVIATION * float(np.median(errors)), _EXACT)
        if not _is_spread(disparity[kept]):
            raise _one_depth(f"those of {what} that agree")
        line = _least_squares(rows[kept])
        if (kept == used).all():
            break
        used = kept
    a, b = map(float, line)
    _check(a, b, low, high, what)
    return Fit(a, b, 1 / (rows @ line) - 1, used)


def _is_spread(disparity: FloatArray) -> bool:
    return len(disparity) > 1 and bool(np.ptp(disparity) > _SPREAD * max(abs(disparity).max(), _SPREAD))


def _one_depth(what: str) -> UserError:
    return UserError(f"All of {what} have one depth, which leaves a and b open; add some nearer and farther away.")


def _least_trimmed(rows: FloatArray) -> FloatArray:
    """The line [2] whose better half of squared residuals has the least sum, as far as trials find it."""
    pairs = rows[np.random.default_rng(0).integers(len(rows), size=(_TRIALS, 2))]
    pairs = pairs[abs(np.linalg.det(pairs)) > 0]
    if not len(pairs):
        return _least_squares(rows)
    lines = np.linalg.solve(pairs, np.ones((len(pairs), 2, 1)))[..., 0]
    tried_on = rows[np.unique(np.linspace(0, len(rows) - 1, _TRIED_ON).astype(int))]
    sums = _sum_of_half((tried_on @ lines.T - 1).T ** 2)
    improved = [_concentrated(tried_on, line) for line in lines[np.argsort(sums, kind="stable")[:_BEST]]]
    best = min(improved, key=lambda line: float(_sum_of_half((tried_on @ line - 1) ** 2)))
    return _concentrated(rows, best)


def _concentrated(rows: FloatArray, line: FloatArray) -> FloatArray:
    """A line fitted to the half of all points that is nearest to it, again and again, which only lessens their sum."""
    before: NDArray[np.int64] | None = None
    for _ in range(_STEPS):
        errors = abs(rows @ line - 1)
        half = np.sort(np.argpartition(errors, _half(len(rows)) - 1)[: _half(len(rows))])
        if before is not None and np.array_equal(half, before):
            break
        line, before = _least_squares(rows[half]), half
    return line


def _sum_of_half(squares: FloatArray) -> FloatArray:
    """Of the smaller half of the last axis."""
    half = _half(squares.shape[-1])
    total: FloatArray = np.partition(squares, half - 1, axis=-1)[..., :half].sum(axis=-1)
    return total


def _half(count: int) -> int:
    """How many of so many points make a half: one more, for the line through two of them fits these anyhow."""
    return min((count + 3) // 2, count)


def _least_squares(rows: FloatArray) -> FloatArray:
    line, *_ = np.linalg.lstsq(rows, np.ones(len(rows)), rcond=None)
    return np.asarray(line, np.float64)


def _check(a: float, b: float, low: float, high: float, what: str) -> None:
    """Raise `UserError` where the line is that of no disparity over the range that the shot has."""
    if a <= 0:
        raise UserError(
            f"By {what} that which the model takes for nearer is farther away (a = {a:.4g}); z is to be the distance "
            "in metres, with large numbers far away: check the points' z and places."
        )
    if a * low + b <= 0:
        raise UserError(
            f"With a = {a:.4g} and b = {b:.4g}, fitted to {what}, disparities of {low:.4g} to {-b / a:.4g} would lie "
            f"beyond infinity (the shot's are {low:.4g} to {high:.4g}); add points of what is farthest away."
        )


def read_points(path: Path, read: ReadFrame, num_frames: int, height: int, width: int) -> Known:
    """Points of a CSV file: frame, x, y, z a line, after a header with these names in any order or without one.

    A frame is that of the results, counted from 0; x and y count pixels of the source as it is shown, from the centre
    of the top left one; z is in metres. Empty lines and those that begin with # are left out.

    Args:
        path: of the file.
        read: gives the model's depth.
        num_frames, height, width: of the results, and of the source as it is shown.

    Raises:
        UserError: it cannot be read, a line is wrong, or a point lies outside the picture.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text; give a CSV file of {','.join(COLUMNS)}.") from error
    order: tuple[str, ...] = COLUMNS
    found: list[tuple[int, dict[str, float]]] = []
    for number, line in enumerate(lines, start=1):
        fields = [field.strip() for field in next(csv.reader([line]), [])]
        if not any(fields) or fields[0].startswith("#"):
            continue
        if not found and sorted(map(str.lower, fields)) == sorted(COLUMNS):
            order = tuple(map(str.lower, fields))
            continue
        point = _point(fields, order, f"Line {number} of {path}")
        _check_inside(point, num_frames, height, width, f"Line {number} of {path}")
        found.append((number, point))
    frame, x, y, z = (np.array([point[column] for _, point in found], np.float64) for column in COLUMNS)
    frames = frame.astype(np.int64)
    disparity = np.empty(len(found))
    for index in np.unique(frames):
        of_it = frames == index
        disparity[of_it] = _disparity_at(read(int(index)), x[of_it], y[of_it], height, width)
    return Known(frames, disparity, z, tuple(f"line {number}" for number, _ in found))


def _point(fields: list[str], order: tuple[str, ...], where: str) -> dict[str, float]:
    if len(fields) != len(COLUMNS):
        raise UserError(f"{where} has {len(fields)} values; it takes four: {','.join(order)}.")
    try:
        point = dict(zip(order, map(float, fields), strict=True))
    except ValueError as error:
        raise UserError(f"{where} is no point ({error}); it takes four numbers: {','.join(order)}.") from error
    if not all(map(math.isfinite, point.values())) or point["z"] <= 0 or point["frame"] != int(point["frame"]):
        raise UserError(f"{where} is no point; the frame is a whole number, and z is greater than 0, in metres.")
    return point


def _check_inside(point: dict[str, float], num_frames: int, height: int, width: int, where: str) -> None:
    if not 0 <= point["frame"] < num_frames:
        raise UserError(
            f"{where} is of frame {point['frame']:.0f}, and the results have frames 0 to {num_frames - 1}; "
            "count them from 0."
        )
    if not (-0.5 <= point["x"] <= width - 0.5 and -0.5 <= point["y"] <= height - 0.5):
        raise UserError(
            f"{where} is outside the picture: x = {point['x']:g} and y = {point['y']:g}, and it has {width}x{height} "
            "pixels; give places in the source as it is shown."
        )


def _disparity_at(depth: NDArray[np.float32], x: Any, y: Any, height: int, width: int) -> FloatArray:
    """The model's depth at places in a picture of another size, x and y [N]: linear from one pixel to the next."""
    y, top, bottom = _neighbours(y, height, depth.shape[0])
    x, left, right = _neighbours(x, width, depth.shape[1])
    upper = depth[top, left] * (1 - x) + depth[top, right] * x
    lower = depth[bottom, left] * (1 - x) + depth[bottom, right] * x
    return np.asarray(upper * (1 - y) + lower * y, np.float64)


def _neighbours(at: Any, size: int, other: int) -> tuple[FloatArray, NDArray[np.int64], NDArray[np.int64]]:
    """Of places along a side of `size` pixels, counted from the first one's centre: how far each is from one of `other`
    pixels to the next, and these two."""
    scaled = np.clip((np.asarray(at, np.float64) + 0.5) * (other / size) - 0.5, 0, other - 1)
    first = np.floor(scaled).astype(np.int64)
    return scaled - first, first, np.minimum(first + 1, other - 1)


def read_reference(path: Path, read: ReadFrame, num_frames: int, unit: float | None = None, frame: int = 0) -> Known:
    """Points of pictures of metric depth, of any size: zeros, NaN and infinity are holes.

    Of a long or large reference a part is taken, spread evenly.

    Args:
        path: an NPZ file of one array [T,H,W] or [H,W], a folder of EXR files or 16-bit PNG files, or one of these.
        read: gives the model's depth.
        num_frames: of the results; the reference has as many, or one.
        unit: metres that 1 is in it; 1 unless given, and in PNG files 0.001.
        frame: of the results, counted from 0, that the reference is of where it has one.

    Raises:
        UserError: it cannot be read, or has another number of frames.
    """
    count, pictures = _pictures(path)
    if count not in (1, num_frames):
        raise UserError(
            f"{path} has {count} frames and the results have {num_frames}; give a reference of the same frames, or of "
            "one of them."
        )
    if count > 1 and frame:
        raise UserError(f"{path} has a frame for each of the results; leave {option('reference_frame', frame)} out.")
    if not 0 <= frame < num_frames:
        raise UserError(
            f"The results have frames 0 to {num_frames - 1}, and no frame {frame}, that {path} would be of; give "
            f"another {option('reference_frame')}."
        )
    metres = unit if unit is not None else PNG_UNIT if _is_png(path) else 1.0
    frames, disparity, z = [], [], []
    for number, picture in zip(range(num_frames) if count > 1 else [frame], pictures, strict=True):
        known = np.asarray(picture * np.float64(metres))
        x, y = _spread_places(np.isfinite(known) & (known > 0), _LARGEST_FIT // count)
        disparity.append(_disparity_at(read(number), x, y, *known.shape))
        z.append(known[y, x])
        frames.append(np.full(len(x), number, np.int64))
    return Known(np.concatenate(frames), np.concatenate(disparity), np.concatenate(z))


def _spread_places(wanted: NDArray[np.bool_], at_most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """x and y of about so many of the places that are true, evenly spread."""
    places = np.flatnonzero(wanted)
    if len(places) > at_most:
        places = places[np.linspace(0, len(places) - 1, max(at_most, LEAST_POINTS)).astype(int)]
    y, x = np.divmod(places, wanted.shape[1])
    return x, y


def _pictures(path: Path) -> tuple[int, Iterator[NDArray[Any]]]:
    """How many pictures of depth there are, and these, [H,W], one after the other."""
    try:
        if path.is_dir():
            files = picture_files(path)
            return len(files), map(_read_picture, files)
        if path.suffix.lower() != ".npz":
            path.stat()  # what is not there is no image that cannot be read
            return 1, iter([_read_picture(path)])
        shape, _, pictures = npz_pictures(path)
        return shape[0] if len(shape) == 3 else 1, pictures()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be read: {error.strerror}; check the name and the permissions.")


def _is_png(path: Path) -> bool:
    return path.suffix.lower() == ".png" if not path.is_dir() else picture_files(path)[0].suffix.lower() == ".png"


def _read_picture(path: Path) -> NDArray[Any]:
    return read_exr(path) if path.suffix.lower() == ".exr" else _read_grey(path)


def _read_grey(path: Path) -> NDArray[Any]:
    (frame,) = decode_images([path])
    if not frame.format.name.startswith("gray16"):
        raise UserError(
            f"{path} is {frame.format.name}, and a reference is an NPZ file, EXR files, or 16-bit grey PNG files; "
            "give one of these."
        )
    return frame.to_ndarray(format="gray16le")
