"""Results as a file a frame: EXR, and 16-bit PNG and TIFF.

Every writer is a context manager with a `write` method, and writes into the very folder that it is given, where it
replaces what is already there. What the disk refuses is raised as an `OSError`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, Self, cast

import av
import numpy as np
from numpy.typing import NDArray

from dc_rt.cores import num_cores
from dc_rt.errors import UserError, option
from dc_rt.formats import EXR_PRESETS, ExrPreset
from dc_rt.media.colormap import to_uint16
from dc_rt.media.png import without_shape
from dc_rt.media.timecode import TimeCodes
from dc_rt.media.write_video import SQUARE
from dc_rt.outputs import FEWEST_DIGITS, frame_name

LARGEST_HALF = 65504
"""The largest number that a half float holds: 2**15 * (2 - 2**-10)."""

_LARGEST_INT = 2**31 - 1


class FramesWriter:
    """A folder with a file a frame, several of which are written side by side."""

    def __init__(self, folder: str | Path, suffix: str, start_number: int = 0, padding: int = FEWEST_DIGITS) -> None:
        """Creates the folder.

        Args:
            folder: its path.
            suffix: of every file's name.
            start_number: that the first frame is called by.
            padding: digits of a number at least.
        """
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._suffix = suffix
        self._start_number, self._padding = start_number, padding
        self._num_frames = 0
        self._pool = ThreadPoolExecutor(num_cores(), "frames")
        self._pending: deque[Future[None]] = deque()

    def write(self, depth: NDArray[Any], time: Fraction | None = None) -> None:
        """Write the next frame [H,W], which must stay as it is; raises what writing an earlier one raised.

        `time` is when it is shown, in seconds from the first frame's.
        """
        while len(self._pending) >= 2 * num_cores():
            self._pending.popleft().result()
        path = self._folder / frame_name(self._start_number + self._num_frames, self._suffix, self._padding)
        self._pending.append(self._pool.submit(self._write, path, depth, time))
        self._num_frames += 1

    def _write(self, path: Path, depth: NDArray[Any], time: Fraction | None) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for all files and raise the error of one; after an error of the caller's own, that one prevails."""
        self._pool.shutdown(cancel_futures=kind is not None)
        if kind is None:
            for written in self._pending:
                written.result()


class ExrWriter(FramesWriter):
    """Floats in the channels of a preset of `dc_rt.formats`: float32 bit for bit, or half, rounded to the nearest."""

    def __init__(
        self,
        folder: str | Path,
        sample_aspect_ratio: Fraction = SQUARE,
        *,
        preset: str = "z",
        half: bool = False,
        compression: str = "zip",
        fps: Fraction | None = None,
        time_codes: TimeCodes | None = None,
        attributes: Mapping[str, float] | None = None,
        start_number: int = 0,
        padding: int = FEWEST_DIGITS,
    ) -> None:
        """Create the folder.

        Args:
            folder: its path.
            sample_aspect_ratio: width of a pixel to its height.
            preset: a key of `EXR_PRESETS`.
            half: whether numbers have 16 bits, and 11 of precision.
            compression: "zip" (16 lines together), "zips" (one by one) or "piz" (wavelets), all of them lossless.
            fps: frames a second, for the header.
            time_codes: those of the frames, likewise; none unless given.
            attributes: more numbers for the header, by name.
            start_number, padding: see `FramesWriter`.
        """
        super().__init__(folder, ".exr", start_number, padding)
        self._preset: ExrPreset = EXR_PRESETS[preset]
        self._dtype = np.float16 if half else np.float32
        self._sample_aspect_ratio = sample_aspect_ratio
        self._compression = compression
        self._fps = fps
        self._time_codes = time_codes
        self._attributes = {**self._preset.attributes, **(attributes or {})}

    def _write(self, path: Path, depth: NDArray[Any], time: Fraction | None) -> None:
        import OpenEXR  # a large library that few runs need

        values = np.ascontiguousarray(depth, dtype=self._dtype)
        try:
            OpenEXR.File(self._header(time), dict.fromkeys(self._preset.channels, values)).write(str(path))
        except RuntimeError as error:  # all that OpenEXR raises, with the system's message in it
            raise OSError(str(error)) from error

    def _header(self, time: Fraction | None) -> Mapping[str, Any]:
        import OpenEXR

        header = {
            "compression": getattr(OpenEXR, f"{self._compression.upper()}_COMPRESSION"),
            "type": OpenEXR.scanlineimage,
            "pixelAspectRatio": float(self._sample_aspect_ratio),
            **self._attributes,
        }
        if self._fps is not None:
            header["framesPerSecond"] = self._fps.limit_denominator(_LARGEST_INT // max(int(self._fps) + 1, 1))
        code = self._time_codes.at(time) if self._time_codes and time is not None else None
        if code:
            # Colour frame, drop frame, field, binary group flags, then the eight binary groups, which say nothing.
            flags = (False, code.is_drop_frame, code.field, False, False, False)
            header["timeCode"] = OpenEXR.TimeCode(code.hours, code.minutes, code.seconds, code.frame, *flags, *[0] * 8)
        return header


def check_half(low: float, high: float) -> None:
    """Raise `UserError` where values from `low` to `high` do not fit into half floats."""
    if max(abs(low), abs(high)) > LARGEST_HALF:
        raise UserError(
            f"Values of up to {max(abs(low), abs(high)):.6g} are more than half floats hold, which is {LARGEST_HALF}; "
            f"use {option('exr_type', 'float')} or {option('values', 'normalised')}."
        )


class PngWriter(FramesWriter):
    """16-bit grey: round(depth * 65535), of depth in [0,1]; or those numbers themselves, uint16."""

    def __init__(self, folder: str | Path, start_number: int = 0, padding: int = FEWEST_DIGITS) -> None:
        super().__init__(folder, ".png", start_number, padding)

    def _write(self, path: Path, depth: NDArray[Any], time: Fraction | None) -> None:
        path.write_bytes(without_shape(_encode(depth, "png", "gray16be")))


class TiffWriter(FramesWriter):
    """16-bit grey in TIFF, compressed without loss (Deflate): the numbers that `PngWriter` writes."""

    def __init__(self, folder: str | Path, start_number: int = 0, padding: int = FEWEST_DIGITS) -> None:
        super().__init__(folder, ".tiff", start_number, padding)

    def _write(self, path: Path, depth: NDArray[Any], time: Fraction | None) -> None:
        path.write_bytes(_encode(depth, "tiff", "gray16le", {"compression_algo": "deflate"}))


def _encode(
    depth: NDArray[Any], encoder_name: str, pixel_format: str, options: Mapping[str, str] | None = None
) -> bytes:
    """An image file of a 16-bit grey image [H,W]."""
    grey = depth if depth.dtype == np.uint16 else to_uint16(depth)
    encoder = cast("av.VideoCodecContext", av.VideoCodecContext.create(encoder_name, "w"))
    encoder.height, encoder.width = grey.shape
    encoder.pix_fmt = pixel_format
    encoder.time_base = Fraction(1)  # asked for, though an image has no time
    encoder.options = dict(options or {})
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(grey), format=pixel_format)
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
