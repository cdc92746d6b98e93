"""Where a video cuts from one shot to the next, found in its frames as they come, holding 14 small ones.

A cut is a step between two frames that is large, and large beside the steps about it: of PySceneDetect's detectors the
adaptive one judges so. Two things differ here, and `bench.accuracy.shots` measures both against it. A step is held
against the second largest on either side, not the mean, so that neither a dissolve, nor film with every frame twice,
nor a second cut close by misleads it. And the frames before and behind are held against one another: after a flash the
picture is as it was, after a cut it is not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
from numpy.typing import NDArray

DETECTION_SIZE = (36, 64)
"""Height and width of the frames that cuts are found in, whatever the video's shape."""

# Frames on either side that a step is held against; a picture that returns within as many was interrupted by a flash.
_REACH = 6
# Of 255, in the mean over all pixels and colours. Steps within shots reach 1.6 times the others about them, also at a
# quarter of a video's frames; those between shots begin at 2.5 (docs/shots.md).
_LEAST_STEP = 8.0
_LEAST_RATIO = 2.0
# Of a step's size, what it must change the mean by to be a flash's, and what is then still taken for the same picture,
# in which things move meanwhile.
_FLASH_SHARE = 0.9
_FLASH_LEAVES = 0.5


@dataclass(frozen=True)
class _Frame:
    """A frame's number, its picture int16 [h,w,3], and how far that is from the one before; None for the first."""

    number: int
    picture: NDArray[np.int16]
    step: float | None


def find_cuts(frames: Iterable[tuple[int, NDArray[np.uint8]]]) -> Iterator[int]:
    """The numbers of the frames that shots after the first begin with, increasing, each `_REACH` frames late.

    A shot of up to six frames between two of one picture is taken for a flash.

    Args:
        frames: their numbers, and uint8 [h,w,3] at `DETECTION_SIZE`.
    """
    before: deque[_Frame] = deque(maxlen=_REACH + 1)
    following: deque[_Frame] = deque()
    for frame in chain(_with_steps(frames), repeat(None, _REACH)):
        if frame is not None:
            following.append(frame)
        if len(following) > _REACH or (frame is None and following):
            if before and _is_cut(list(before)[::-1], list(following)):
                yield following[0].number
            before.append(following.popleft())


def _with_steps(frames: Iterable[tuple[int, NDArray[np.uint8]]]) -> Iterator[_Frame]:
    last = None
    for number, image in frames:
        picture = image.astype(np.int16)
        last = _Frame(number, picture, None if last is None else _distance(last.picture, picture))
        yield last


def _is_cut(before: Sequence[_Frame], following: Sequence[_Frame]) -> bool:
    """Whether a shot ends with `before[0]` and another begins with `following[0]`; both lead away from the cut."""
    step = following[0].step
    usual = max(_second_largest(before[:-1] or before), _second_largest(following[1:]))
    least = max(_LEAST_STEP, _LEAST_RATIO * (usual + 1))  # a step of 1 is noise
    if step is None or step < least:
        return False
    if abs(float((following[0].picture - before[0].picture).mean())) >= _FLASH_SHARE * step:
        least = max(least, _FLASH_LEAVES * step)
    across = chain(((before[0], frame) for frame in following[1:]), ((frame, following[0]) for frame in before[1:]))
    return all(_distance(one.picture, other.picture) >= least for one, other in across)


def _second_largest(frames: Sequence[_Frame]) -> float:
    """Of their steps; the only one where there is one, and 0 where there is none."""
    steps = sorted((frame.step for frame in frames if frame.step is not None), reverse=True)
    return steps[min(1, len(steps) - 1)] if steps else 0.0


def _distance(one: NDArray[np.int16], other: NDArray[np.int16]) -> float:
    return float(np.abs(one - other).mean())
