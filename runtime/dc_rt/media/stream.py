"""Depth on a stream, a frame as soon as it is there: yuv4mpeg, 16-bit grey or float32."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from dc_rt.media.colormap import to_uint8, to_uint16
from dc_rt.media.convention import shown_values
from dc_rt.media.results import Result, ResultFrame
from dc_rt.media.write_video import fitting

# What writing to a pipe raises whose reader has left: the second on Windows.
_CLOSED = (errno.EPIPE, errno.EINVAL)
# Between two tries of a pipe that does not wait for its reader, which another program may ask for.
_POLL_SECONDS = 0.05


def write_all(stream: BinaryIO, data: bytes) -> None:
    """Write all of `data` to a stream, which may take a part of it at a time.

    Raises `BrokenPipeError` where the reader has left, and other `OSError`s as they are.
    """
    rest = memoryview(data)
    try:
        while rest:
            written = stream.write(rest)
            if written is None:
                time.sleep(_POLL_SECONDS)
            rest = rest[written or 0 :]
        stream.flush()
    except OSError as error:
        if error.errno in _CLOSED:
            raise BrokenPipeError(errno.EPIPE, "what reads standard output has closed it") from error
        raise


class StreamWriter:
    """Writes the frames of a result to a binary stream, which stays open.

    yuv4mpeg is 8-bit grey of full range, as FFmpeg reads "mono"; gray16le is round(65535 * depth), and float32 the
    depth itself, both little-endian, without a header.
    """

    def __init__(self, stream: BinaryIO, result: Result) -> None:
        self._stream = stream
        self._outputs = result.outputs
        if self._outputs.pipe_format == "yuv4mpeg":
            fps, aspect = result.timeline.fps, fitting(result.sample_aspect_ratio)
            header = (
                f"YUV4MPEG2 W{result.width} H{result.height} F{fps.numerator}:{fps.denominator} Ip "
                f"A{aspect.numerator}:{aspect.denominator} Cmono XCOLORRANGE=FULL\n"
            )
            write_all(stream, header.encode())

    def write(self, frame: ResultFrame) -> None:
        """Write a frame. Raises `BrokenPipeError` where the reader has left, and other `OSError`s as they are."""
        write_all(self._stream, self._encoded(shown_values(frame, self._outputs)))

    def _encoded(self, depth: NDArray[np.float32]) -> bytes:
        match self._outputs.pipe_format:
            case "yuv4mpeg":
                return b"FRAME\n" + to_uint8(depth, dither=self._outputs.dither).tobytes()
            case "gray16le":
                return to_uint16(depth).astype("<u2").tobytes()
            case _:
                return depth.astype("<f4").tobytes()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def stream(path: Path, result: Result) -> StreamWriter:
    """Depth on the stream of the result, standard output in most cases; `path` is no file."""
    assert result.stream is not None
    return StreamWriter(result.stream, result)
