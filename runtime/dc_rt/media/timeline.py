"""When frames are shown: times from a container's stamps, exact where the rate is constant."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

LONGEST_PAUSE = 24 * 3600
"""Seconds that a frame may be shown for: no video has a longer pause, and MP4 cannot hold a much longer one."""

# Rates that cameras, broadcasts and editors use. Containers round times, so that a rate cannot be read off them.
_ROUND_RATES = (5, 6, 8, 10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 72, 75, 90, 100, 120, 144, 200, 240)
_COMMON_RATES = (
    *map(Fraction, _ROUND_RATES),
    *(Fraction(1000 * rate, 1001) for rate in _ROUND_RATES if rate % 12 == 0 or rate == 30),
    Fraction(25, 2),
)
_ROUNDING_OF_RATES = 2e-4  # how far off people write them


@dataclass(frozen=True, eq=False)
class Timeline:
    """When each frame of a video is shown, in ticks from the first one's time.

    Attributes:
        tick: seconds.
        times: int64 [num_frames], strictly increasing from 0.
        end: when the last frame stops being shown.
        fps: frames a second: the rate where it is constant, else the average.
        is_constant: whether frames come at the rate `fps`, although some may be missing; a tick is then 1/fps, or a
            whole part of it.
    """

    tick: Fraction
    times: NDArray[np.int64]
    end: int
    fps: Fraction
    is_constant: bool

    @classmethod
    def even(cls, num_frames: int, fps: Fraction) -> Timeline:
        """That of a constant rate without a gap."""
        return cls(1 / fps, np.arange(num_frames, dtype=np.int64), num_frames, fps, True)

    def __len__(self) -> int:
        return len(self.times)

    @property
    def duration(self) -> Fraction:
        """Seconds from the first frame's time to the end of the last one's."""
        return self.end * self.tick

    def time(self, index: int) -> Fraction:
        """When a frame is shown, in seconds."""
        return int(self.times[index]) * self.tick

    def seconds(self, indices: Iterable[int]) -> list[float]:
        """The times of these frames."""
        return [float(self.time(index)) for index in indices]

    def every(self, stride: int, num_frames: int) -> Timeline:
        """That of frames 0, stride, 2*stride, ...: at most `num_frames`, each shown until the next one is."""
        times = self.times[::stride][:num_frames]
        following = num_frames * stride
        end = int(self.times[following]) if following < len(self.times) else self.end
        if not self.is_constant:
            return Timeline(self.tick, times, end, self.fps / stride, False)
        # The coarsest tick that they and the end are whole numbers of: a constant rate stays exactly constant.
        step = math.gcd(stride, end, int(np.gcd.reduce(np.diff(times))))
        return Timeline(self.tick * step, times // step, end // step, self.fps / stride, True)


def timeline_of(
    stamps: NDArray[np.int64], last_duration: int, tick: Fraction, stated_rates: Iterable[Fraction | None]
) -> Timeline:
    """The timeline of frames with these time stamps.

    Args:
        stamps: int64 [num_frames], at least one, strictly increasing, in ticks of the container's clock.
        last_duration: ticks for which the last frame is shown; 0 where the file does not say.
        tick: seconds.
        stated_rates: what the file says of its rate, which may be wrong; None and 0 where it says nothing.
    """
    rates = [rate for rate in stated_rates if rate]
    times = stamps - stamps[0]
    if last_duration * tick > LONGEST_PAUSE:  # a damaged number
        last_duration = 0
    if len(times) == 1:
        fps = 1 / (last_duration * tick) if last_duration > 0 else (rates or [Fraction(25)])[0]
        return Timeline.even(1, fps)
    for fps in _candidates(times, tick, rates):
        numbers = _numbers(times, tick, fps)
        # Of two or three frames, any that are evenly apart would do; not if the last one is shown for another time.
        shown = float(last_duration * tick * fps)
        if numbers is not None and (len(times) > 3 or abs(shown - max(round(shown), 1)) < 0.1 or not last_duration):
            # A last frame that is shown for little more than one is an encoder's remainder.
            return Timeline(1 / fps, numbers, int(numbers[-1]) + max(int(shown + 0.25), 1), fps, True)
    # What the last frame is shown for, if nothing says so: as long as most of the others.
    end = int(times[-1]) + (last_duration if last_duration > 0 else int(np.median(np.diff(times))))
    return Timeline(tick, times, end, len(times) / (end * tick), False)


def exact_rate(fps: float) -> Fraction:
    """The rate that a number stands for: 23.976, and 23.98 too, for 24000/1001."""
    common = min(_COMMON_RATES, key=lambda rate: abs(rate - Fraction(fps)))
    return common if abs(common / Fraction(fps) - 1) < _ROUNDING_OF_RATES else Fraction(fps).limit_denominator(1001)


def unevenness(timeline: Timeline) -> tuple[float, float] | None:
    """The shortest and the longest time between two frames in milliseconds, where they differ; None where not."""
    if len(timeline) < 2:
        return None
    steps = np.diff(timeline.times)
    low, high = (float(1000 * timeline.tick * int(step)) for step in (steps.min(), steps.max()))
    # Containers round times to their ticks, and to milliseconds in Matroska.
    return (low, high) if high > 1.2 * low and high - low > 2 else None


def _candidates(times: NDArray[np.int64], tick: Fraction, rates: list[Fraction]) -> Iterator[Fraction]:
    """Rates that the times may be of, likely ones first."""
    usual = 1 / (Fraction(float(np.median(np.diff(times)))) * tick)
    mean = Fraction(len(times) - 1) / (int(times[-1]) * tick)
    common = [rate for rate in _COMMON_RATES if abs(rate / usual - 1) < 0.05 or abs(rate / mean - 1) < 0.05]
    yield from dict.fromkeys([*rates, *sorted(common, key=lambda rate: abs(rate - mean)), mean.limit_denominator(1001)])


def _numbers(times: NDArray[np.int64], tick: Fraction, fps: Fraction) -> NDArray[np.int64] | None:
    """The number of each frame at a constant rate, gaps counted; None if the frames do not come at that rate.

    They do if each is within the rounding of its time to a tick, and most follow the one before at once.
    """
    exact = times * float(tick * fps)
    numbers = np.rint(exact).astype(np.int64)
    steps = np.diff(numbers)
    # Both the first time and this one were rounded to ticks; not where a tick is a frame or near it, and beyond a
    # quarter of a frame anything would fit.
    rounding = 1.01 * float(tick * fps)
    tolerance = rounding if rounding <= 0.25 else 0.02
    fits = (
        np.abs(exact - numbers).max() <= tolerance
        and steps.min() >= 1
        and np.count_nonzero(steps == 1) * 2 >= len(steps)
    )
    return numbers if fits else None
