"""Pictures as PNG files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

# As small as by FFmpeg's defaults, in 0.3 of the time.
_OPTIONS = {"compression_level": "4", "pred": "up"}

_SHAPE_BYTES = 21  # of the chunk pHYs: length, name, two numbers and a unit, checksum


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture, uint8 [H,W,3] RGB."""
    path.write_bytes(png_bytes(picture))


def png_bytes(picture: NDArray[np.uint8]) -> bytes:
    """A PNG file of a picture, uint8 [H,W,3] RGB."""
    encoder = av.VideoCodecContext.create("png", "w")
    encoder.height, encoder.width = picture.shape[:2]
    encoder.pix_fmt = "rgb24"
    encoder.time_base = Fraction(1)  # asked for, though a picture has no time
    encoder.options = dict(_OPTIONS)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    return without_shape(b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)]))


def without_shape(contents: bytes) -> bytes:
    """A PNG file of FFmpeg's without what it says of the shape of pixels.

    FFmpeg takes the two numbers for it in the opposite sense of the PNG specification, so that one of two programs
    would widen what is to be narrowed; and where the shape is not known it writes 0 and 0.
    """
    at = contents.index(b"pHYs") - 4
    return contents[:at] + contents[at + _SHAPE_BYTES :]
