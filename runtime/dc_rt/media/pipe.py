"""Frames that come through a pipe, as yuv4mpeg or raw: read once, kept as they come, and read from there again.

They are kept as raw as they are. FFV1 took 0.15 to 0.42 of the space on three real clips, and 10 to 33 times as long as
writing them (54 ms a frame at 1280x720, on the cores that the model runs on); at that size raw frames take 0.6 of what
their depth does. And a file's length says how many frames are whole, whatever ended the run.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import BinaryIO, cast

import av
from av.container import InputContainer
from av.video.frame import VideoFrame

from dc_rt.errors import UserError, option
from dc_rt.media.pyav import open_input, to_fraction

STANDARD_INPUT = Path("-")


class PipeError(UserError):
    """What came through the pipe is not what was to come."""


# https://wiki.multimedia.cx/index.php/YUV4MPEG2, as FFmpeg's yuv4mpegdec.c reads it.
_MAGIC, _FRAME = b"YUV4MPEG2", b"FRAME"
_LONGEST_LINE = 4096
_NO_RATE, _INTERLACED = b"F0:0", (b"It", b"Ib", b"Im")
_MATRICES = {"bt601": 6, "bt709": 1, "bt2020": 9}  # ISO/IEC 23091-2, matrix coefficients


def is_pipe(path: Path) -> bool:
    """Whether it is not a file, but standard input."""
    return path == STANDARD_INPUT


@dataclass(frozen=True)
class PipeFormat:
    """What the frames of a stream are.

    Attributes:
        demuxer, header, options: how FFmpeg is told: its name of the format, the stream's first bytes, and what such a
            stream does not say itself.
        height, width: in pixels.
        num_bytes: of a frame.
        pixel_aspect: width of a pixel to its height.
        fps: frames a second; None where the stream does not say.
        is_interlaced: whether each frame is of two fields.
        matrix: of its colours, by its name in `dc_rt.options.MATRICES`.
    """

    demuxer: str
    header: bytes
    options: tuple[tuple[str, str], ...]
    height: int
    width: int
    num_bytes: int
    pixel_aspect: Fraction
    fps: Fraction | None
    is_interlaced: bool
    matrix: str = "unknown"

    @classmethod
    def of_yuv4mpeg(cls, header: bytes) -> PipeFormat:
        """That of a stream with this first line; raises `av.FFmpegError` for one that FFmpeg does not know."""
        return cls._found("yuv4mpegpipe", header + _FRAME + b"\n", {}, header.split())

    @classmethod
    def of_raw(cls, height: int, width: int, pixel_format: str) -> PipeFormat:
        """That of bare frames; raises `av.FFmpegError` for a pixel format that FFmpeg does not know."""
        return cls._found("rawvideo", b"", {"video_size": f"{width}x{height}", "pixel_format": pixel_format}, ())

    @classmethod
    def _found(cls, demuxer: str, header: bytes, options: dict[str, str], fields: Collection[bytes]) -> PipeFormat:
        has_rate = any(field.startswith(b"F") and field != _NO_RATE for field in fields)
        # FFmpeg knows how long a frame is: it is shown one that is black.
        with _described(demuxer, header, options) as container:
            stream = container.streams.video[0]
            packet = next(container.demux(stream))
            return cls(
                demuxer,
                header,
                tuple(options.items()),
                stream.codec_context.height,
                stream.codec_context.width,
                packet.size,
                to_fraction(stream.sample_aspect_ratio) or Fraction(1),
                to_fraction(stream.guessed_rate) if has_rate else None,
                any(field in _INTERLACED for field in fields),
            )

    @contextmanager
    def decoder(self) -> Iterator[Callable[[bytes], VideoFrame]]:
        """What makes a frame of its bytes: set up as for a file of the same, so that both are the same frames."""
        with _described(self.demuxer, self.header, dict(self.options)) as container:
            codec = container.streams.video[0].codec_context

            def decode(data: bytes) -> VideoFrame:
                (frame,) = codec.decode(av.Packet(data))
                if self.matrix != "unknown":
                    frame.colorspace = _MATRICES[self.matrix]
                return frame

            yield decode


class Pipe:
    """A stream of frames that can be read once. `keep_in` says where they are kept; `frames` then reads them.

    One thread reads the stream; others may read what is kept meanwhile (`Kept`).

    Attributes:
        form: what the frames are.
        num_kept: frames that came, and are kept.
    """

    def __init__(self, stream: BinaryIO, form: PipeFormat) -> None:
        self.form = form
        self._stream = stream
        self._path: Path | None = None
        self._num_known = 0
        self.num_kept = 0
        self._has_ended = False
        self._changed = threading.Condition()

    def keep_in(self, path: Path, num_known: int) -> None:
        """Keep frames in this file, the first `num_known` of which an earlier run has kept."""
        self._path, self._num_known = path, num_known

    def frames(self) -> Generator[VideoFrame, None, None]:
        """Every frame, as it comes and once it is kept.

        Raises:
            UserError: the stream is damaged, ends amid a frame, or its first frames are not those that are kept.
            OSError: the disk refuses.
        """
        assert self._path is not None
        try:
            with (
                self._path.open("r+b" if self._num_known else "w+b", buffering=0) as file,
                self.form.decoder() as decode,
            ):
                file.truncate(self._num_known * self.form.num_bytes)
                while (data := self._next()) is not None:
                    if self.num_kept < self._num_known:
                        if file.read(self.form.num_bytes) != data:
                            raise self._changed_stream()
                    else:
                        _write_all(file, data)
                    with self._changed:
                        self.num_kept += 1
                        self._changed.notify_all()
                    yield decode(data)
                if self.num_kept < self._num_known:
                    raise self._changed_stream()
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    def sync(self) -> int:
        """Have what is kept on the disk; gives how many frames that are."""
        assert self._path is not None
        num_kept = self.num_kept
        if self._path.exists():
            with self._path.open("r+b") as file:
                os.fsync(file.fileno())
        return num_kept

    @property
    def kept(self) -> Kept:
        """What is kept, to be read again."""
        assert self._path is not None
        return Kept(self, self._path)

    def wait_for(self, number: int) -> bool:
        """Wait until frame `number` is kept; False where there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self.num_kept > number or self._has_ended)
            return self.num_kept > number

    def _next(self) -> bytes | None:
        """The next frame; None where the stream ends."""
        if self.form.demuxer == "yuv4mpegpipe":
            line = self._stream.readline(_LONGEST_LINE)
            if not line:
                return None
            if not line.startswith(_FRAME) and not _FRAME.startswith(line):
                raise PipeError(
                    f"What comes on standard input after {self.num_kept} frames is no frame of yuv4mpeg: the stream is "
                    "damaged; write it anew, and nothing else to it."
                )
            if not line.endswith(b"\n"):
                raise self._cut()
        data = self._stream.read(self.form.num_bytes)
        if len(data) == self.form.num_bytes:
            return data
        if not data and self.form.demuxer == "rawvideo":
            return None
        raise self._cut()

    def _cut(self) -> PipeError:
        return PipeError(
            f"The stream on standard input ends amid a frame, after {self.num_kept} whole ones: it is cut short, or of "
            f"another size or pixel format than {self.form.width}x{self.form.height}; give the whole stream again, or "
            f"take those frames alone with {option('process_length', self.num_kept)}."
        )

    def _changed_stream(self) -> PipeError:
        assert self._path is not None
        return PipeError(
            f"Frame {self.num_kept} on standard input is another than in the unfinished run in {self._path.parent}; "
            f"give the same stream again to resume it, or {option('restart', True)} to throw it away."
        )


@dataclass(frozen=True)
class Kept:
    """The frames of a pipe, from where they are kept: those that are still to come are waited for."""

    pipe: Pipe
    path: Path

    @property
    def form(self) -> PipeFormat:
        """What the frames are."""
        return self.pipe.form

    def frames(self) -> Generator[VideoFrame, None, None]:
        """Every frame, in order."""
        if not self.pipe.wait_for(0):  # there need not be a file before
            return
        with self.form.decoder() as decode, self.path.open("rb") as file:
            for number in count():
                if not self.pipe.wait_for(number):
                    return
                yield decode(file.read(self.form.num_bytes))


def open_pipe(stream: BinaryIO, raw_size: tuple[int, int] | None, raw_format: str, matrix: str) -> Pipe:
    """Begin to read a stream: yuv4mpeg, which says itself what it is, unless the size of raw frames is given.

    Args:
        stream: where it comes from.
        raw_size: height and width of raw frames.
        raw_format: their pixel format, as FFmpeg calls it.
        matrix: of their colours, of `dc_rt.options.MATRICES`.

    Raises:
        UserError: nothing comes, it is neither of the two, or there is no such pixel format.
    """
    if raw_size:
        try:
            return Pipe(stream, replace(PipeFormat.of_raw(*raw_size, raw_format), matrix=matrix))
        except av.FFmpegError as error:
            raise UserError(
                f"There is no {option('raw_format', raw_format)} of FFmpeg's for {raw_size[1]}x{raw_size[0]} pixels; "
                f"try {option('raw_format', 'rgb24')}, and have the frames written so."
            ) from error
    start = stream.read(len(_MAGIC))
    if not start:
        raise UserError(
            "Nothing came on standard input: the program that is to write the frames failed, or none is there; its own "
            "words say why."
        )
    line = start + stream.readline(_LONGEST_LINE) if start == _MAGIC else b""
    try:
        if line.endswith(b"\n"):
            return Pipe(stream, replace(PipeFormat.of_yuv4mpeg(line), matrix=matrix))
    except (av.FFmpegError, StopIteration):
        pass
    raise UserError(
        "What comes on standard input is no yuv4mpeg that can be read; write it with FFmpeg's `-f yuv4mpegpipe`, or "
        f"give {option('raw_size', 'WxH')} and {option('raw_format')} of raw frames."
    )


def standard_input() -> BinaryIO:
    """Where the frames come from; raises `UserError` where it is a keyboard, or closed."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise UserError("- is standard input, and nothing is piped into it; pipe frames in, or name a video.")
    return sys.stdin.buffer


class _Blackness(io.RawIOBase):
    """A stream's first bytes and then zeros, without an end: what shows FFmpeg the format of a stream."""

    def __init__(self, header: bytes) -> None:
        self._header = header

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        part, self._header = self._header[:size], self._header[size:]
        return part + bytes(size - len(part))


@contextmanager
def _described(demuxer: str, header: bytes, options: dict[str, str]) -> Iterator[InputContainer]:
    container = open_input(cast(BinaryIO, _Blackness(header)), format=demuxer, options=options)
    try:
        yield container
    finally:
        container.close()


def _write_all(file: io.FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
