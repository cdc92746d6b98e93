"""Frames as the page takes them: depth in 8 to 16 bits without any further loss, and pictures as WebP.

Browsers decode videos with 8 bits a channel, lossily, and as their colour management has it. So depth is no video here,
but whole numbers that JavaScript decodes exactly: each is told by what its neighbours to the left and above predict
(Weinberger et al., "The LOCO-I lossless image compression algorithm", 2000), and zlib takes it from there.
`static/unpack.js` undoes it.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

FEWEST_BITS, MOST_BITS = 8, 16

# Of WebP: what is seen is the same, and more takes longer.
_QUALITY, _EFFORT = 85, 4
_LEVEL = 6  # of zlib: 9 takes twice the time for 1 % less


@dataclass(frozen=True)
class Size:
    """A height and a width, in pixels."""

    height: int
    width: int

    def within(self, longest: int) -> Size:
        """The same shape with no side above `longest`; itself where none is."""
        scale = Fraction(longest, max(self.height, self.width))
        if scale >= 1:
            return self
        return Size(max(round(self.height * scale), 1), max(round(self.width * scale), 1))


def depth_error(bits: int) -> float:
    """How far a decoded number may be from the packed one: half a step."""
    return 0.5 / ((1 << bits) - 1)


def pack_depth(depth: NDArray[np.float32], size: Size, bits: int) -> bytes:
    """Depth [H,W] in [0,1], of a smaller size by taking pixels, none of which is a mix of near and far."""
    rows, columns = _taken(depth.shape[0], size.height), _taken(depth.shape[1], size.width)
    taken = depth[rows[:, None], columns] if depth.shape != (size.height, size.width) else depth
    mask = (1 << bits) - 1
    levels = np.rint(np.clip(taken, 0, 1).astype(np.float64) * mask).astype(np.int32)
    # The difference modulo 2**bits that is nearest to 0.
    half = 1 << (bits - 1)
    residuals = ((levels - _predicted(levels) + half) & mask) - half
    zigzag = (residuals << 1) ^ (residuals >> 31)
    return zlib.compress((zigzag >> 8).astype(np.uint8).tobytes() + (zigzag & 255).astype(np.uint8).tobytes(), _LEVEL)


def pack_picture(image: NDArray[np.uint8], size: Size) -> bytes:
    """A picture uint8 [H,W,3] as WebP of `size`."""
    context = VideoCodecContext.create("libwebp", "w")
    context.width, context.height, context.pix_fmt = size.width, size.height, "bgra"
    context.time_base = Fraction(1, 25)  # which no encoder goes without
    context.options = {"quality": str(_QUALITY), "compression_level": str(_EFFORT)}
    frame = VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
    # libwebp makes YUV of it, as its decoders undo it; FFmpeg's own conversion would have to be told which that is.
    frame = frame.reformat(size.width, size.height, "bgra", interpolation="AREA")
    return b"".join(bytes(packet) for packet in (*context.encode(frame), *context.encode(None)))


def _predicted(levels: NDArray[np.int32]) -> NDArray[np.int32]:
    """What is expected of each, [H,W]: of the first row its left neighbour, of the first column that above."""
    guess = np.zeros_like(levels)
    guess[0, 1:] = levels[0, :-1]
    above, corner = levels[:-1], np.empty_like(levels[1:])
    left = np.empty_like(corner)
    left[:, 1:], left[:, 0] = levels[1:, :-1], above[:, 0]
    corner[:, 1:], corner[:, 0] = above[:, :-1], above[:, 0]
    low, high = np.minimum(left, above), np.maximum(left, above)
    guess[1:] = np.clip(left + above - corner, low, high)
    return guess


@lru_cache(maxsize=4)
def _taken(length: int, wanted: int) -> NDArray[np.intp]:
    """Which of `length` pixels are taken, at the middles of `wanted` equal parts."""
    return np.asarray((2 * np.arange(wanted) + 1) * length // (2 * wanted), np.intp)
