"""Depth as integers: grey of 8 and 16 bits, and colours."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def coloured(depth: NDArray[np.float32], name: str, *, dither: bool = False) -> NDArray[np.uint8]:
    """Depth in [0,1], any shape [...], as RGB uint8 [..., 3]; what is beyond [0,1] as its ends.

    Args:
        depth: larger is nearer.
        name: of `dc_rt.formats.COLORMAPS`.
        dither: see `to_uint8`.
    """
    levels = to_uint8(depth, dither=dither)
    return table(name)[levels]


def inferno(depth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Depth in [0,1], any shape [...], as RGB uint8 [..., 3]: dark is far, bright is near."""
    return coloured(depth, "inferno")


def to_uint8(depth: NDArray[np.float32], *, dither: bool = False) -> NDArray[np.uint8]:
    """Depth in [0,1] as grey uint8 of the same shape, cut down to whole steps of 1/255 as the original does; what is
    beyond [0,1] as its ends.

    With `dither`, of depth [H,W], it is cut down or up by where a pixel is, so that neighbours have depth itself on
    average. The pattern is the same in every frame: what stands still does not flicker, and costs a video little.
    """
    levels = np.clip(depth, 0, 1) * 255
    if dither:
        levels = np.minimum(levels + thresholds(*depth.shape), 255)
    return levels.astype(np.uint8)


def to_uint16(depth: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Depth in [0,1] as grey uint16 of the same shape: round(depth * 65535); what is beyond [0,1] as its ends."""
    return np.round(np.clip(depth, 0, 1) * 65535).astype(np.uint16)


@lru_cache(maxsize=4)
def thresholds(height: int, width: int) -> NDArray[np.float32]:
    """Interleaved gradient noise (J. Jimenez, "Next generation post processing in Call of Duty: Advanced Warfare",
    SIGGRAPH 2014): float32 [H,W] in [0,1), any 3x3 of which have nine values that are evenly apart."""
    y, x = np.ogrid[:height, :width]
    return np.asarray((52.9829189 * ((0.06711056 * x + 0.00583715 * y) % 1)) % 1, np.float32)


@cache
def table(name: str) -> NDArray[np.uint8]:
    """The colours of all levels of depth, uint8 [256,3], by a name of `dc_rt.formats.COLORMAPS`.

    `(colors * 255).astype(uint8)` of matplotlib's (tools/colormaps.py), whose inferno is CC0; and grey.
    """
    if name == "grey":
        return np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    colours: NDArray[np.uint8] = np.load(Path(__file__).with_name(f"{name}.npy"))
    return colours
