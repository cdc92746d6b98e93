"""Depth from the size that the model runs at to that of the results."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Upsampler:
    """Brings depth from one size to another; called with frames in order."""

    def __init__(self, model_size: tuple[int, int], size: tuple[int, int], mode: str) -> None:
        """`model_size` and `size` are heights and widths, `mode` is of `dc_rt.options.UPSCALES`."""
        self._is_identity = model_size == size
        self._rows, self._cols = (_bilinear(*sides) for sides in zip(size, model_size, strict=True))
        self.takes_guide = False

    def __call__(self, depth: NDArray[np.float32], guide: NDArray[np.uint8] | None) -> NDArray[np.float32]:
        """Depth [h,w] at the other size, [H,W], float32; `guide` is the picture at that size, uint8 [H,W,3]."""
        if self._is_identity:
            return depth
        return np.asarray(self._rows @ depth @ self._cols.T, np.float32)


def _bilinear(size: int, before: int) -> NDArray[np.float32]:
    """Weights [size, before] of a linear interpolation between the middles of pixels."""
    at = np.clip((np.arange(size) + 0.5) * before / size - 0.5, 0, before - 1)
    return np.asarray(np.maximum(1 - np.abs(at[:, None] - np.arange(before)), 0), np.float32)
