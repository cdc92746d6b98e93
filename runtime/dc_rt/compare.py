"""Two results of one clip compared: figures, and a video of their difference. Both are read twice, and never held."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dc_rt.errors import UserError
from dc_rt.media.colormap import to_uint8
from dc_rt.media.read_depth import DepthFile, open_depth
from dc_rt.media.write_video import VideoWriter

# Of the largest value, below which an error to it is no measure.
_LEAST_SHARE = 0.01
# The colours of a difference are full at so many times its root mean square: few pixels at edges differ by far more.
_FULL_COLOUR = 4

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


@dataclass(frozen=True)
class Comparison:
    """How a result A is from another one, B, over all pixels of all frames where both are finite.

    Attributes:
        num_frames, height, width: of both.
        mean, largest, rms: of |A - B|, as they are.
        scale, shift: for which scale * A + shift is nearest to B, in squares.
        mean_aligned: of |scale * A + shift - B|.
        relative: of the same to B where B is at least 1 % of its largest value, like AbsRel.
        correlation: of A and B; NaN where one of them is constant.
        flicker: of A and of B, the mean of the absolute change from a frame to the next.
        by_frame: mean |A - B| of each frame.
    """

    num_frames: int
    height: int
    width: int
    mean: float
    largest: float
    rms: float
    scale: float
    shift: float
    mean_aligned: float
    relative: float
    correlation: float
    flicker: tuple[float, float]
    by_frame: tuple[float, ...]

    @property
    def full_colour(self) -> float:
        """The difference at which the video's colours are full."""
        return _full_colour(self.largest, self.rms)

    @property
    def worst(self) -> list[tuple[int, float]]:
        """Frames, counted from 0, and their mean |A - B|: those that differ most, the most different first."""
        order = sorted(range(self.num_frames), key=lambda index: -self.by_frame[index])
        return [(index, self.by_frame[index]) for index in order[:5]]


def open_pair(a: Path, b: Path) -> tuple[DepthFile, DepthFile]:
    """Look at two results; raises `UserError` where one cannot be read, or they are not of one size and length."""
    first, second = open_depth(a), open_depth(b)
    if (first.height, first.width) != (second.height, second.width):
        raise UserError(
            f"{a} is {first.width}x{first.height} pixels and {b} is {second.width}x{second.height}; "
            "compare results of one size."
        )
    if first.num_frames != second.num_frames:
        raise UserError(
            f"{a} has {first.num_frames} frames and {b} has {second.num_frames}; compare results of the same frames."
        )
    return first, second


def compare(a: DepthFile, b: DepthFile, video: Path | None = None, *, side_by_side: bool = False) -> Comparison:
    """Compare two results.

    Args:
        a, b: as `open_pair` gives them.
        video: where a video of A - B goes, H.264 in MP4: red where A is larger, blue where B is.
        side_by_side: put A and B before it.

    Raises:
        UserError: one of them is not as long as it says, or there is no pixel where both are finite.
    """
    sums = _Sums()
    for pair in _pairs(a, b):
        sums.add(*pair)
    if not sums.count:
        raise UserError(f"{a.path} and {b.path} have no pixel where both are numbers; write them again.")
    scale, shift = sums.fit()
    full = _full_colour(sums.largest, sums.rms)
    aligned = _Aligned(scale, shift, _LEAST_SHARE * sums.largest_b)
    with ExitStack() as stack:
        writer = None
        if video:
            width = a.width * (3 if side_by_side else 1)
            shape = a.pixel_aspect or b.pixel_aspect or Fraction(1)
            writer = stack.enter_context(VideoWriter(video, a.timeline, a.height, width, sample_aspect_ratio=shape))
        for pair in _pairs(a, b):
            aligned.add(*pair)
            if writer:
                parts = [_grey(each, *ends) for each, ends in zip(pair, sums.ranges, strict=True)]
                difference = signed_colours(pair[0] - pair[1], full)
                writer.write(np.hstack([*parts, difference]) if side_by_side else difference)
    return Comparison(
        a.num_frames,
        a.height,
        a.width,
        sums.absolute / sums.count,
        sums.largest,
        sums.rms,
        scale,
        shift,
        aligned.absolute / sums.count,
        aligned.relative / max(aligned.count, 1),
        sums.correlation(),
        (sums.change_a / max(sums.changes, 1), sums.change_b / max(sums.changes, 1)),
        tuple(sums.by_frame),
    )


def _full_colour(largest: float, rms: float) -> float:
    return min(largest, _FULL_COLOUR * rms)


def signed_colours(difference: NDArray[np.float32], full: float) -> NDArray[np.uint8]:
    """A signed difference [H,W] as RGB uint8 [H,W,3]: white is none, red positive, blue negative, full at `full`."""
    share = np.clip(np.nan_to_num(difference / max(full, 1e-30)), -1, 1)
    paler = np.rint(255 * (1 - np.abs(share))).astype(np.uint8)
    red, blue = np.where(share < 0, paler, 255), np.where(share > 0, paler, 255)
    return np.stack([red, paler, blue], axis=-1).astype(np.uint8)


def _grey(depth: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """Depth [H,W] as RGB uint8 [H,W,3], black at `low` and white at `high`."""
    share = np.clip(np.nan_to_num((depth - np.float32(low)) / np.float32(max(high - low, 1e-30))), 0, 1)
    return np.repeat(to_uint8(share)[..., None], 3, axis=-1)


def _pairs(a: DepthFile, b: DepthFile) -> Iterator[Pair]:
    first, second = _counted(a), _counted(b)
    with closing(first), closing(second):
        yield from zip(first, second, strict=True)


def _counted(depth: DepthFile) -> Generator[NDArray[np.float32], None, None]:
    count = 0
    for picture in depth.pictures():
        yield picture
        count += 1
    if count != depth.num_frames:
        raise UserError(
            f"{depth.path} has {count} frames that can be read where {depth.num_frames} should be; write it again."
        )


@dataclass
class _Sums:
    """What the first pass adds up."""

    count: int = 0
    changes: int = 0
    a: float = 0.0
    b: float = 0.0
    aa: float = 0.0
    bb: float = 0.0
    ab: float = 0.0
    absolute: float = 0.0
    squares: float = 0.0
    largest: float = 0.0
    largest_b: float = 0.0
    change_a: float = 0.0
    change_b: float = 0.0
    ranges: list[tuple[float, float]] = field(default_factory=lambda: [(math.inf, -math.inf)] * 2)
    by_frame: list[float] = field(default_factory=list)
    _last: Pair | None = None

    def add(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
        known = np.isfinite(a) & np.isfinite(b)
        x, y = a[known].astype(np.float64), b[known].astype(np.float64)
        apart = np.abs(x - y)
        self.by_frame.append(float(apart.mean()) if len(apart) else 0.0)
        self.count += len(x)
        self.a, self.b = self.a + float(x.sum()), self.b + float(y.sum())
        self.aa, self.bb, self.ab = self.aa + float(x @ x), self.bb + float(y @ y), self.ab + float(x @ y)
        self.absolute, self.squares = self.absolute + float(apart.sum()), self.squares + float(apart @ apart)
        if len(x):
            self.largest = max(self.largest, float(apart.max()))
            self.largest_b = max(self.largest_b, float(y.max()))
            self.ranges = [
                (min(low, float(z.min())), max(high, float(z.max())))
                for (low, high), z in zip(self.ranges, (x, y), strict=True)
            ]
        if self._last is not None:
            steps = np.abs(a - self._last[0]), np.abs(b - self._last[1])
            both = np.isfinite(steps[0]) & np.isfinite(steps[1])
            self.changes += int(both.sum())
            self.change_a += float(steps[0][both].sum(dtype=np.float64))
            self.change_b += float(steps[1][both].sum(dtype=np.float64))
        self._last = a, b

    @property
    def rms(self) -> float:
        return math.sqrt(self.squares / self.count)

    def fit(self) -> tuple[float, float]:
        """Scale and shift of A, by least squares."""
        spread = self.aa - self.a**2 / self.count
        if spread <= 1e-12 * max(self.aa, 1e-300):
            return 0.0, self.b / self.count
        scale = (self.ab - self.a * self.b / self.count) / spread
        return scale, (self.b - scale * self.a) / self.count

    def correlation(self) -> float:
        spreads = (self.aa - self.a**2 / self.count) * (self.bb - self.b**2 / self.count)
        if spreads <= 1e-24 * max(self.aa * self.bb, 1e-300):
            return math.nan
        return (self.ab - self.a * self.b / self.count) / math.sqrt(spreads)


@dataclass
class _Aligned:
    """What the second pass adds up."""

    scale: float
    shift: float
    least: float
    count: int = 0
    absolute: float = 0.0
    relative: float = 0.0

    def add(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> None:
        known = np.isfinite(a) & np.isfinite(b)
        x, y = a[known].astype(np.float64), b[known].astype(np.float64)
        apart = np.abs(self.scale * x + self.shift - y)
        far_enough = (y >= self.least) & (y > 0)
        self.absolute += float(apart.sum())
        self.relative += float((apart[far_enough] / y[far_enough]).sum())
        self.count += int(far_enough.sum())
