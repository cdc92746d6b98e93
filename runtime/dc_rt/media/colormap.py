"""Depth as 8-bit pictures."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def inferno(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Depth in [0,1], any shape [...], as RGB uint8 [..., 3]: dark is far, bright is near."""
    return _inferno_table()[np.clip((depth * 255).astype(np.int32), 0, 255)]


def to_uint8(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Depth in [0,1] as grey uint8 of the same shape, cut down to whole steps of 1/255 as the original does."""
    return (depth * 255).astype(np.uint8)


@cache
def _inferno_table() -> NDArray[np.uint8]:
    """uint8 [256,3]: `(colors * 255).astype(uint8)` of matplotlib's inferno, whose colormaps are CC0."""
    table: NDArray[np.uint8] = np.load(Path(__file__).with_name("inferno.npy"))
    return table
