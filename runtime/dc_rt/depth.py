"""Depth as the model gave it, wherever it is kept, and what is made of it for all outputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


@dataclass(frozen=True)
class ShotDepth:
    """A shot of a video: its first frame, counted among those that there are, and its smallest and largest depth."""

    start: int
    low: float
    high: float


class DepthSource(Protocol):
    """Where the second pass takes depth from: the spool of a run, or what one has kept."""

    @property
    def num_frames(self) -> int:
        """Frames that there are."""

    @property
    def numbers(self) -> Sequence[int] | None:
        """Which of the timeline's each frame is; None where reading the video tells."""

    @property
    def shots(self) -> tuple[ShotDepth, ...]:
        """All shots in order, one at least; the first starts at 0."""

    def frames(self) -> Iterator[Float]:
        """All frames in order: float32 [h,w], as the model gave them."""


def range_of(shots: tuple[ShotDepth, ...]) -> tuple[float, float]:
    """Smallest and largest depth of several shots."""
    return min(shot.low for shot in shots), max(shot.high for shot in shots)


def normalised(raw: Float, depth_range: tuple[float, float]) -> Float:
    """(raw - low) / (high - low) in float32, cut to [0,1]; zeros where all depth is the same. Of any shape."""
    low, high = map(np.float32, depth_range)
    span = high - low
    if not span > 0:
        return np.zeros_like(raw)
    return np.asarray(np.clip((raw - low) / span, 0, 1), np.float32)
