"""Points in space from depth that is known up to a scale and a shift, seen through a pinhole camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dc_rt.errors import UserError, option

FOCAL, NEAR, FAR = 1.0, 1.0, 10.0
"""The defaults: 53 degrees across, and a scene that is ten times as far at its farthest as at its nearest."""


@dataclass(frozen=True)
class Lens:
    """What turns disparity into points. The model knows none of the three: they are the viewer's choice.

    Attributes:
        focal: length, in widths of the picture.
        near, far: distance of disparity 1 and of disparity 0, in one unit, whichever.

    Raises:
        UserError: one of them is not greater than 0, or far is not farther than near.
    """

    focal: float = FOCAL
    near: float = NEAR
    far: float = FAR

    def __post_init__(self) -> None:
        for name in ("focal", "near", "far"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise UserError(
                    f"{option(name)} must be a number greater than 0, not {value:g}; try {option(name, 1)}."
                )
        if not self.far > self.near:
            raise UserError(
                f"{option('far', self.far)} must be farther than {option('near', self.near)}; try "
                f"{option('far', 10 * self.near)}."
            )

    def distance(self, disparity: NDArray[np.float32]) -> NDArray[np.float32]:
        """Distance along the camera's axis: 1/z = 1/far + d (1/near - 1/far). Of any shape, d in [0,1]."""
        low, span = np.float32(1 / self.far), np.float32(1 / self.near - 1 / self.far)
        return np.asarray(1 / (low + disparity * span), np.float32)

    def points(self, disparity: NDArray[np.float32], pixel_aspect: float = 1.0) -> NDArray[np.float32]:
        """Where each pixel's centre is in space: float32 [H,W,3] of disparity [H,W] in [0,1].

        The camera is that of glTF and OpenGL, at the origin: x to the right, y up, and it looks along -z.
        `pixel_aspect` is the width of a pixel to its height.
        """
        height, width = disparity.shape
        z = self.distance(disparity)
        x = (np.arange(width, dtype=np.float32) + np.float32(0.5)) / np.float32(width) - np.float32(0.5)
        y = np.float32(0.5 * height) - (np.arange(height, dtype=np.float32) + np.float32(0.5))
        y /= np.float32(width * pixel_aspect)
        scale = z / np.float32(self.focal)
        return np.stack([x * scale, y[:, None] * scale, -z], axis=-1)
