"""SMPTE time codes (ST 12-1): the source's own, counted on to each frame."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from dc_rt.media.read import VideoInfo

_TIME_CODE = re.compile(r"(\d{2}):(\d{2}):(\d{2})([:;.,])(\d{2,3})")
_MOST_FRAMES = 60  # a second: beyond it there is no time code


@dataclass(frozen=True)
class TimeCode:
    """One of them; from rates above 30 on, `frame` counts pairs of frames, and `field` is the second of a pair."""

    hours: int
    minutes: int
    seconds: int
    frame: int
    field: bool
    is_drop_frame: bool


@dataclass(frozen=True)
class TimeCodes:
    """The time codes of a video's frames.

    Attributes:
        fps: frames a second, exactly.
        start: the first frame's, counted in frames from 00:00:00:00.
        is_drop_frame: whether numbers are left out so that codes keep up with a clock at 29.97 or 59.94 a second.
    """

    fps: Fraction
    start: int = 0
    is_drop_frame: bool = False

    @classmethod
    def of(cls, video: VideoInfo) -> TimeCodes | None:
        """Those that a file's header begins, or from 00:00:00:00; None where frames come faster than they can count."""
        if round(video.fps) > _MOST_FRAMES:
            return None
        return cls.parse(video.time_code, video.fps) if video.time_code else cls(video.fps)

    @classmethod
    def parse(cls, text: str, fps: Fraction) -> TimeCodes:
        """Those from a time code such as "01:00:00:00" on, a drop-frame one ("01:00:00;00") where the rate has such.

        Text that is none begins at 00:00:00:00.
        """
        match = _TIME_CODE.fullmatch(text.strip())
        if not match:
            return cls(fps)
        hours, minutes, seconds, frame = (int(match[group]) for group in (1, 2, 3, 5))
        rate = max(round(fps), 1)
        is_drop_frame = match[4] != ":" and rate % 30 == 0
        num_minutes = 60 * hours + minutes
        left_out = _left_out(rate) * (num_minutes - num_minutes // 10) if is_drop_frame else 0
        return cls(fps, (60 * num_minutes + seconds) * rate + frame - left_out, is_drop_frame)

    def at(self, time: Fraction) -> TimeCode:
        """The time code of the frame that is shown at a time, in seconds from the first one's."""
        rate = max(round(self.fps), 1)
        number = self.start + round(time * self.fps)
        if self.is_drop_frame:
            # In each minute but every tenth, the first numbers are left out.
            in_ten = 600 * rate - 9 * _left_out(rate)
            tens, rest = divmod(number, in_ten)
            past = max(rest - 60 * rate, 0) // (60 * rate - _left_out(rate)) + (rest >= 60 * rate)
            number += _left_out(rate) * (9 * tens + past)
        seconds, frame = divmod(number, rate)
        frame, field = divmod(frame, 2) if rate > 30 else (frame, 0)
        hours, rest = divmod(seconds, 3600)
        return TimeCode(hours % 24, rest // 60, rest % 60, frame, bool(field), self.is_drop_frame)


def _left_out(rate: int) -> int:
    """Numbers that a drop-frame minute leaves out."""
    return rate // 15
