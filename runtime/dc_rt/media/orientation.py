"""How pictures are to be turned and mirrored before they are shown: a video's display matrix, or a photo's EXIF."""

from __future__ import annotations

import gc
import struct
from dataclasses import dataclass
from typing import Any

import av.sidedata.sidedata
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray


def _unnamed_kind(kinds: Any, value: int) -> Any:
    unnamed = object.__new__(kinds)
    unnamed._name_, unnamed._value_ = f"UNKNOWN_{value}", value
    return unnamed


# FFmpeg attaches kinds of side data to frames that PyAV 18 has no name for (a photo's EXIF is one), and it then raises
# an error instead of giving any of them. PyAV 19 fixes it in the same way.
if "_missing_" not in vars(av.sidedata.sidedata.Type):
    av.sidedata.sidedata.Type._missing_ = classmethod(_unnamed_kind)  # type: ignore[assignment]


# Of pictures that nobody has a use for any more, at most, before they are freed.
_MOST_UNFREED = 128_000_000
_unfreed = 0


@dataclass(frozen=True)
class Orientation:
    """What makes the shown picture of the stored one: first rows become columns, then either is reversed.

    `is_exact` is False where the file asks for a turn that is no multiple of 90 degrees: this is then the nearest.
    """

    transposed: bool = False
    rows_reversed: bool = False
    columns_reversed: bool = False
    is_exact: bool = True

    @classmethod
    def of(cls, frame: VideoFrame) -> Orientation:
        """What the file asks for. FFmpeg gives a photo's EXIF orientation as a display matrix too."""
        _free_earlier(frame)
        try:
            matrix = bytes(frame.side_data["DISPLAYMATRIX"])  # type: ignore[typeddict-item]
        except KeyError:
            return cls()
        # ISO/IEC 14496-12, 8.3.2: a stored point (x, y) is shown at (a x + c y, b x + d y), apart from a shift.
        a, b, _, c, d = struct.unpack("=9i", matrix)[:5]
        transposed = abs(b) + abs(c) > abs(a) + abs(d)
        along, across = ((c, b), (a, d)) if transposed else ((a, d), (b, c))
        return cls(transposed, along[1] < 0, along[0] < 0, max(map(abs, across)) * 100 <= max(map(abs, along)))

    @classmethod
    def of_exif(cls, number: int) -> Orientation:
        """That of EXIF's tag 0x0112, 1 to 8; anything else is taken for 1, upright."""
        mirrored_rows, mirrored_columns = number in (3, 4, 7, 8), number in (2, 3, 6, 7)
        return cls(number in (5, 6, 7, 8), mirrored_rows, mirrored_columns)

    def shown_size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width as shown of a picture that is stored with these; and the other way round."""
        return (width, height) if self.transposed else (height, width)

    def apply(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The stored picture [H,W,C] as it is shown: a view."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.rows_reversed else 1, :: -1 if self.columns_reversed else 1]


class Orientations:
    """The orientations of a video's frames, one after the other."""

    def __init__(self) -> None:
        self._rotation: int | None = None
        self._orientation = Orientation()

    def of(self, frame: VideoFrame) -> Orientation:
        """Its display matrix is read again where its angle is another one than the frame's before it."""
        if frame.rotation != self._rotation:
            self._rotation, self._orientation = frame.rotation, Orientation.of(frame)
        return self._orientation


def _free_earlier(frame: VideoFrame) -> None:
    """Have the frames freed whose side data was read: with it PyAV makes a circle that keeps a frame.

    Left to Python, which counts objects and not their bytes, hundreds of them stay: 2.5 GB of a 4K video.
    """
    global _unfreed
    _unfreed += sum(plane.buffer_size for plane in frame.planes)
    if _unfreed > _MOST_UNFREED:
        _unfreed = 0
        gc.collect()
