"""Results out, a frame at a time and in constant memory: MP4, NPZ, EXR, 16-bit PNG.

Every writer is a context manager with a `write` method, and writes to the very path that it is given: replacing what is
already there in one step is the caller's. What the disk refuses is raised as an `OSError`; the incomplete file is left
to the caller too.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import numpy as np
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from numpy.typing import NDArray

from dc_rt.cores import num_cores
from dc_rt.errors import UserError
from dc_rt.installation import pip_install
from dc_rt.media.timeline import Timeline
from dc_rt.outputs import frame_name

SQUARE = Fraction(1)
"""The sample aspect ratio of square pixels: how wide one is to its height."""

# MP4 counts ticks a second in 32 bits, and players in fewer: clocks of a nanosecond are cut down to a microsecond.
_SHORTEST_TICK = Fraction(1, 1_000_000)
_LARGEST_FIELD = 65535  # of numbers in H.264's headers
_DEFLATE_WINDOW = 1 << 15  # how far back a stream refers to what it has
_NPZ_BLOCK = 1 << 19  # of depth, to be compressed by a thread
_PHYS_BYTES = 21  # of a PNG file's chunk pHYs: length, name, two numbers and a unit, checksum


def fitting(sample_aspect_ratio: Fraction) -> Fraction:
    """The nearest sample aspect ratio that files can hold, whose numbers have 16 bits."""
    if sample_aspect_ratio > 1:
        return 1 / fitting(1 / sample_aspect_ratio)
    return max(sample_aspect_ratio.limit_denominator(_LARGEST_FIELD), Fraction(1, _LARGEST_FIELD))


def _tick_for(timeline: Timeline) -> Fraction:
    """The timeline's tick, or one so long that none of its steps is too large for MP4, which has 31 bits for it."""
    longest = max(int(np.diff(timeline.times, append=timeline.end).max()), 1) * timeline.tick
    if longest <= max(timeline.tick, _SHORTEST_TICK) * 2**30:
        return max(timeline.tick, _SHORTEST_TICK)
    return Fraction(1, int(2**30 / longest))


class Mp4Writer:
    """H.264 in MP4, quality as the original's (crf 18), playable while it downloads.

    Frames are shown at a constant rate, or when a timeline says.
    """

    def __init__(
        self,
        path: str | Path,
        timing: Fraction | Timeline,
        height: int,
        width: int,
        crf: int = 18,
        *,
        sample_aspect_ratio: Fraction = SQUARE,
    ) -> None:
        """`height` and `width` must be even, `crf` is 0 (lossless) to 51; `timing` is a frame rate or a timeline.

        Raises `UserError` where PyAV was built without libx264.
        """
        if "libx264" not in av.codecs_available:
            raise UserError(
                f"This build of PyAV has no H.264 encoder; get one that has with `{pip_install('--upgrade', 'av')}`."
            )
        self._shape = (height, width, 3)
        self._timeline = timing if isinstance(timing, Timeline) else None
        fps = timing.fps if isinstance(timing, Timeline) else timing
        self._tick = _tick_for(self._timeline) if self._timeline else 1 / fps
        self._num_frames = 0
        self._last_time = -1
        self._reformatter = VideoReformatter()
        # The name may end in anything, and "file:" keeps FFmpeg from taking a part of it for a protocol.
        self._container = av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"})
        # Without its macroblock tree, whose AVX-512 code gives other bytes for the same frames now and then: a resumed
        # run must end in the very files of one that was not interrupted.
        # "veryfast" takes 0.4 of the default's time for files of the same quality that are 5 % larger.
        # Without B-frames, since a file of frames that are stored out of order cannot say how long each is shown.
        options = {"crf": str(crf), "preset": "veryfast", "x264-params": "mbtree=0:bframes=0"}
        self._stream = self._container.add_stream(
            "libx264", rate=max(fps.limit_denominator(_LARGEST_FIELD), Fraction(1, _LARGEST_FIELD)), options=options
        )
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = self._tick
        self._stream.codec_context.sample_aspect_ratio = fitting(sample_aspect_ratio)
        # Players guess the matrix of an untagged file from its size, and guess differently.
        self._stream.colorspace = Colorspace.ITU709
        self._stream.color_range = ColorRange.MPEG
        self._stream.color_primaries = ColorPrimaries.BT709
        self._stream.color_trc = ColorTrc.BT709
        self._container.start_encoding()  # opens the file now, not when the encoder gives its first packet

    def write(self, frame: NDArray[np.uint8], number: int | None = None) -> None:
        """Append a frame, uint8 [H,W,3] RGB or [H,W] grey: number `number` of the timeline, or the next one."""
        rgb = np.ascontiguousarray(np.broadcast_to(frame if frame.ndim == 3 else frame[..., None], self._shape))
        picture = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(rgb, format="rgb24"),
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )
        picture.pts, picture.time_base = self._time(self._num_frames if number is None else number), self._tick
        self._container.mux(self._stream.encode(picture))
        self._num_frames += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                packets = self._stream.encode(None)
                if packets and self._timeline:  # the others are shown until the next one is
                    end = round(self._timeline.duration / self._tick)
                    packets[-1].duration = max(end - self._last_time, 1)
                self._container.mux(packets)
        finally:
            self._container.close()

    def _time(self, number: int) -> int:
        if self._timeline is None:
            return number
        time = round(int(self._timeline.times[number]) * self._timeline.tick / self._tick)
        self._last_time = max(time, self._last_time + 1)  # frames that are nearer than a tick
        return self._last_time


class NpzWriter:
    """What `np.savez_compressed(path, depth=...)` writes, without ever holding the array.

    Compressed by several threads, which is most of the work: the one stream of the file is made of blocks, each of
    which goes on from the end of the one before (as pigz does). They are the same however many threads there are.
    """

    def __init__(self, path: str | Path, shape: tuple[int, int, int]) -> None:
        """`shape` is [T,H,W] of the whole array: it precedes the data."""
        self._shape = shape
        self._num_frames = 0
        self._size = self._crc = 0
        self._window = b""
        self._pool = ThreadPoolExecutor(num_cores(), "npz")
        self._pending: deque[Future[bytes]] = deque()
        self._zip = zipfile.ZipFile(path, "w")
        self._info = zipfile.ZipInfo("depth.npy")
        # The size is not known yet, and may pass 4 GB.
        self._member = self._zip.open(self._info, "w", force_zip64=True)
        header = io.BytesIO()
        description = {"descr": np.lib.format.dtype_to_descr(np.dtype("<f4")), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, description)
        self._append(memoryview(header.getvalue()))

    def write(self, depth: NDArray[np.float32]) -> None:
        """Append a frame, float32 [H,W], which must stay as it is.

        Raises `ValueError` for another shape or one frame too many.
        """
        if depth.shape != self._shape[1:] or self._num_frames == self._shape[0]:
            raise ValueError(f"frame {self._num_frames} of shape {depth.shape} does not fit into {self._shape}")
        data = np.ascontiguousarray(depth, dtype="<f4").data.cast("B")
        for start in range(0, len(data), _NPZ_BLOCK):
            self._append(data[start : start + _NPZ_BLOCK])
        self._num_frames += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raises `ValueError` if frames are missing, since no reader could load the file."""
        self._pool.shutdown(cancel_futures=kind is not None)
        with self._zip:
            with self._member:
                if kind is None:
                    while self._pending:
                        self._member.write(self._pending.popleft().result())
                    self._member.write(zlib.compressobj(wbits=-zlib.MAX_WBITS).flush())  # the stream's end
            # As zipfile knows it, what it was given is stored: say what that is.
            self._info.compress_type, self._info.CRC, self._info.file_size = zipfile.ZIP_DEFLATED, self._crc, self._size
            assert self._zip.fp is not None
            self._zip.fp.seek(self._info.header_offset)
            self._zip.fp.write(self._info.FileHeader(zip64=True))
        if kind is None and self._num_frames != self._shape[0]:
            raise ValueError(f"{self._num_frames} frames were written of {self._shape[0]}")

    def _append(self, block: memoryview) -> None:
        """Have a block compressed, and those written before it that are."""
        while self._pending and (self._pending[0].done() or len(self._pending) >= 4 * num_cores()):
            self._member.write(self._pending.popleft().result())
        self._pending.append(self._pool.submit(_deflate, block, self._window))
        self._size, self._crc = self._size + len(block), zlib.crc32(block, self._crc)
        self._window = (self._window + bytes(block[-_DEFLATE_WINDOW:]))[-_DEFLATE_WINDOW:]


def _deflate(block: memoryview, window: bytes) -> bytes:
    """A part of a raw DEFLATE stream, with `window` before it, that ends at a whole byte."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS, zdict=window)
    return compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)


class FramesWriter:
    """A folder with a file a frame, several of which are written side by side."""

    def __init__(self, folder: str | Path, suffix: str) -> None:
        """Creates the folder."""
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._suffix = suffix
        self._num_frames = 0
        self._pool = ThreadPoolExecutor(num_cores(), "frames")
        self._pending: deque[Future[None]] = deque()

    def write(self, depth: NDArray[np.float32]) -> None:
        """Write the next frame, float32 [H,W], which must stay as it is; raises what writing an earlier one raised."""
        while len(self._pending) >= 2 * num_cores():
            self._pending.popleft().result()
        path = self._folder / frame_name(self._num_frames, self._suffix)
        self._pending.append(self._pool.submit(self._write, path, depth))
        self._num_frames += 1

    def _write(self, path: Path, depth: NDArray[np.float32]) -> None:
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
    """Float32 in channel `Z`, bit for bit."""

    def __init__(
        self,
        folder: str | Path,
        sample_aspect_ratio: Fraction = SQUARE,
        *,
        attributes: Mapping[str, float] | None = None,
    ) -> None:
        """`sample_aspect_ratio`: width of a pixel to its height; `attributes`: more numbers for the header, by name."""
        super().__init__(folder, ".exr")
        self._attributes = dict(attributes or {})
        self._sample_aspect_ratio = sample_aspect_ratio

    def _write(self, path: Path, depth: NDArray[np.float32]) -> None:
        import OpenEXR  # a large library that few runs need

        header = self._attributes | {
            "compression": OpenEXR.ZIP_COMPRESSION,
            "type": OpenEXR.scanlineimage,
            "pixelAspectRatio": float(self._sample_aspect_ratio),
        }
        try:
            OpenEXR.File(header, {"Z": np.ascontiguousarray(depth, dtype=np.float32)}).write(str(path))
        except RuntimeError as error:  # all that OpenEXR raises, with the system's message in it
            raise OSError(str(error)) from error


class PngWriter(FramesWriter):
    """16-bit grey: round(depth * 65535), of depth in [0,1]."""

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder, ".png")

    def _write(self, path: Path, depth: NDArray[np.float32]) -> None:
        path.write_bytes(_encode_png(np.round(depth * 65535).astype(np.uint16)))


def _encode_png(grey: NDArray[np.uint16]) -> bytes:
    """A PNG file of a 16-bit grey image [H,W]."""
    encoder = av.VideoCodecContext.create("png", "w")
    encoder.height, encoder.width = grey.shape
    encoder.pix_fmt = "gray16be"
    encoder.time_base = Fraction(1)  # asked for, though an image has no time
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(grey), format="gray16be")
    contents = b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])
    # It says nothing of the shape of pixels: FFmpeg takes the two numbers for it in the opposite sense of the PNG
    # specification, so that one of two programs would widen what is to be narrowed. FFmpeg writes 0 and 0.
    at = contents.index(b"pHYs") - 4
    return contents[:at] + contents[at + _PHYS_BYTES :]
