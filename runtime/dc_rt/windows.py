"""The sliding window: which frames are denoised together, and how neighbours are joined.

Window k covers frames [k*stride, k*stride + window), cut at the end of the video, with stride = window - overlap.
There is a window after it exactly when a frame lies beyond it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dc_rt.errors import UserError


def check_window(window_size: int, overlap: int) -> None:
    """Raise `UserError` unless 0 <= overlap < window_size."""
    if window_size < 1:
        raise UserError(f"The window must hold at least 1 frame, not {window_size}; try --window-size 110.")
    if not 0 <= overlap < window_size:
        raise UserError(
            f"The overlap must be at least 0 and smaller than the window of {window_size} frames, not {overlap}; "
            f"try --overlap {window_size * 25 // 110}."
        )


def plan_windows(num_frames: int, window_size: int, overlap: int) -> Iterator[tuple[int, int]]:
    """First frame and end of every window of a video of `num_frames` frames, in order."""
    check_window(window_size, overlap)
    start = 0
    while num_frames > 0:
        end = min(start + window_size, num_frames)
        yield start, end
        if end == num_frames:
            return
        start += window_size - overlap


def blend_weights(overlap: int) -> NDArray[np.float32]:
    """Weight of the newer window over the overlap: float32 [overlap], 0 to 1 with both end points."""
    return np.linspace(0, 1, overlap, dtype=np.float32)


def blend(old: NDArray[np.float32], new: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cross-fade two results of the same frames, [overlap, ...] each, from `old` to `new`."""
    w = blend_weights(len(old)).reshape(-1, *[1] * (old.ndim - 1))
    return new * w + old * (1 - w)
