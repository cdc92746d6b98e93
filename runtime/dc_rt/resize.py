"""The anti-aliased resize before CLIP, as two matrices.

Stable Video Diffusion blurs with a Gaussian and then interpolates bicubically (`_resize_with_antialiasing` in
diffusers). Both are linear and separable, so that for an image x the whole is `rows @ x @ cols.T`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CLIP_SIZE = 224


def resize_matrix(length: int, target: int = CLIP_SIZE) -> NDArray[np.float32]:
    """Blur and interpolation along one side: float32 [target, length]; every row sums to 1.

    Worked out in float64 and rounded once.
    """
    return (_bicubic_matrix(length, target) @ _blur_matrix(length, target)).astype(np.float32)


def _blur_matrix(length: int, target: int) -> NDArray[np.float64]:
    """Gaussian blur [length, length] with reflected borders; its width follows the reduction, as in scikit-image."""
    sigma = max((length / target - 1) / 2, 0.001)
    taps = int(max(4 * sigma, 3)) | 1
    offsets = np.arange(taps) - taps // 2
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    sources = np.arange(length)[:, None] + offsets
    sources = np.abs(sources)
    sources = np.where(sources >= length, 2 * (length - 1) - sources, sources)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.arange(length)[:, None], sources), kernel)
    return matrix


def _bicubic_matrix(length: int, target: int) -> NDArray[np.float64]:
    """Cubic convolution [target, length] (Keys 1981, a = -0.75), corners aligned, borders repeated."""
    a = -0.75
    # PyTorch finds the positions in float32, where they are off by up to 1e-4 pixels; so that both agree, so does this.
    positions = np.arange(target, dtype=np.float32) * np.float32((length - 1) / (target - 1))
    first = np.floor(positions).astype(int)
    matrix = np.zeros((target, length))
    for tap in range(-1, 3):
        x = np.abs(positions.astype(np.float64) - (first + tap))
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        sources = np.clip(first + tap, 0, length - 1)
        np.add.at(matrix, (np.arange(target), sources), np.where(x <= 1, near, far))
    return matrix
