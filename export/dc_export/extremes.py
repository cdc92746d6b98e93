"""Frames at the ends of what there is, which half precision is tried on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def extremes(height: int, width: int, num_frames: int = 2) -> dict[str, NDArray[np.uint8]]:
    """Frames, uint8 [T,H,W,3], at the ends of what there is: flat, or with all the contrast that frames can have."""
    rng = np.random.default_rng(0)
    shape = (num_frames, height, width, 3)
    halves = np.zeros(shape, np.uint8)
    halves[:, :, width // 2 :] = 255
    stripes = np.zeros(shape, np.uint8)
    stripes[:, :, ::2] = 255
    flicker = np.zeros(shape, np.uint8)
    flicker[1::2] = 255
    return {
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
        "noise": rng.integers(0, 256, shape, dtype=np.uint8),
        "noise of black and white": 255 * rng.integers(0, 2, shape, dtype=np.uint8),
        "a hard edge": halves,
        "stripes of a pixel": stripes,
        "black, then white": flicker,
    }
