"""Depth on disk between the two passes over a video: it is normalised only when the last frame is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class Spool:
    """An append-only file of float32 [H,W] frames, with the smallest and the largest depth so far."""

    def __init__(self, path: Path, height: int, width: int) -> None:
        self._shape = (height, width)
        self._file = path.open("w+b")
        self.num_frames = 0
        self.min = np.float32(np.inf)
        self.max = np.float32(-np.inf)

    def append(self, depth: NDArray[np.float32]) -> None:
        """Add the next frame, float32 [H,W]."""
        self._file.write(np.ascontiguousarray(depth, np.float32).data)
        self.num_frames += 1
        self.min = min(self.min, depth.min())
        self.max = max(self.max, depth.max())

    def normalised(self) -> Iterator[NDArray[np.float32]]:
        """All frames as (depth - min) / (max - min): float32 [H,W] in [0,1]; zeros where all depth is the same."""
        span = self.max - self.min
        self._file.seek(0)
        for _ in range(self.num_frames):
            depth = np.fromfile(self._file, np.float32, self._shape[0] * self._shape[1]).reshape(self._shape)
            yield (depth - self.min) / span if span > 0 else np.zeros_like(depth)

    def close(self) -> None:
        """Close the file; it is left to the owner of its folder to delete."""
        self._file.close()
