"""Results as videos, a frame at a time: every codec of `dc_rt.formats`, in MP4, MOV or Matroska.

The writer is a context manager with a `write` method, and writes to the very path that it is given: replacing what is
already there in one step is the caller's. What the disk refuses is raised as an `OSError`; the incomplete file is left
to the caller too.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any, Self, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.plane import VideoPlane
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dc_rt.cores import keep_scheduling
from dc_rt.errors import UserError, option
from dc_rt.formats import VIDEO_CODECS, VideoCodec, container_for
from dc_rt.installation import pip_install
from dc_rt.media.audio import AudioCopy
from dc_rt.media.colormap import thresholds
from dc_rt.media.container import codec_name, open_video
from dc_rt.media.matroska import set_display_size
from dc_rt.media.timeline import Timeline

SQUARE = Fraction(1)
"""The sample aspect ratio of square pixels: how wide one is to its height."""

# MP4 counts ticks a second in 32 bits, and players in fewer: clocks of a nanosecond are cut down to a microsecond.
_SHORTEST_TICK = Fraction(1, 1_000_000)
_SIDE_BY_SIDE = ":frame-packing=3"  # ITU-T H.264, Annex D: side by side
_LARGEST_FIELD = 65535  # of numbers in H.264's headers
_USUAL_RATE = Fraction(25)  # which no encoder refuses

# FFmpeg's names by the suffix. Matroska's files otherwise begin with a number drawn at random; their checksums would
# not fit what `set_display_size` changes.
_FORMATS = {"mp4": "mp4", "mov": "mov", "mkv": "matroska"}
_FORMAT_OPTIONS = {
    "mp4": {"movflags": "+faststart"},
    "mov": {"movflags": "+faststart"},
    "mkv": {"fflags": "+bitexact", "write_crc32": "0"},
}


def fitting(sample_aspect_ratio: Fraction) -> Fraction:
    """The nearest sample aspect ratio that files can hold, whose numbers have 16 bits."""
    if sample_aspect_ratio > 1:
        return 1 / fitting(1 / sample_aspect_ratio)
    return max(sample_aspect_ratio.limit_denominator(_LARGEST_FIELD), Fraction(1, _LARGEST_FIELD))


def check_video(name: str, height: int, width: int, sound_of: Path | None = None, fps: Fraction = _USUAL_RATE) -> None:
    """Raise `UserError` where this build of PyAV cannot write a video.

    Args:
        name: its codec, a key of `VIDEO_CODECS`.
        height, width: of its pictures.
        sound_of: a video whose sound is to be copied into it.
        fps: frames a second.
    """
    _check_encoder(name, height, width, fps)
    if sound_of is None or not sound_of.is_file():
        return
    with open_video(sound_of) as source:
        if source.streams.audio:
            template = source.streams.audio[0]
            suffix = container_for(name, codec_name(template))
            with av.open(io.BytesIO(), "w", format=_FORMATS[suffix]) as container:
                AudioCopy(container, template)


def _check_encoder(name: str, height: int, width: int, fps: Fraction) -> None:
    codec = VIDEO_CODECS[name]
    if codec.encoder not in av.codecs_available:
        kind = codec.words.split(",")[0]
        instead = "" if name == "h264" else f", or choose another {option('depth_codec')}"
        raise UserError(
            f"This build of PyAV has no {kind} encoder; get one that has with `{pip_install('--upgrade', 'av')}`"
            f"{instead}."
        )
    _quiet(codec)
    instead = "" if name == "h264" else f"{option('depth_codec')} or "
    if not _opens(codec, height, width, _USUAL_RATE):
        raise UserError(
            f"The encoder of {codec.words} takes no pictures of {width}x{height}; choose another {instead}"
            f"{option('size')}."
        )
    if not _opens(codec, height, width, fps):
        raise UserError(
            f"The encoder of {codec.words} takes no {float(fps):.6g} frames/s; choose another {instead}"
            f"{option('target_fps')}."
        )


def _opens(codec: VideoCodec, height: int, width: int, fps: Fraction) -> bool:
    """Whether the encoder takes such pictures."""
    encoder = cast("av.VideoCodecContext", av.VideoCodecContext.create(codec.encoder, "w"))
    encoder.height, encoder.width = height, width
    encoder.pix_fmt = codec.stored_as(height, width)
    encoder.framerate = _stated(fps)
    encoder.time_base = 1 / encoder.framerate
    encoder.options = dict(codec.options)
    try:
        with keep_scheduling():
            encoder.open()
    except av.FFmpegError:
        return False
    return True


def _stated(fps: Fraction) -> Fraction:
    """The frame rate that streams state: the nearest that their headers hold."""
    return max(fps.limit_denominator(_LARGEST_FIELD), Fraction(1, _LARGEST_FIELD))


class VideoWriter:
    """A video of one codec; frames are shown at a constant rate, or when a timeline says. The default is H.264 in MP4,
    quality as the original's (crf 18), playable while it downloads.
    """

    def __init__(
        self,
        path: str | Path,
        timing: Fraction | Timeline,
        height: int,
        width: int,
        crf: int | None = None,
        *,
        codec: str = "h264",
        sample_aspect_ratio: Fraction = SQUARE,
        audio: AudioStream | None = None,
        dither: bool = False,
        is_side_by_side: bool = False,
    ) -> None:
        """Open the file.

        Args:
            path: any name: what is written follows from the codecs (`dc_rt.formats.container_for`).
            timing: a frame rate, or a timeline.
            height, width: of every frame. Where one is odd, H.264 and HEVC keep colour at the full resolution.
            crf: of the encoders that have it, 0 to 51: the codec's own unless given.
            codec: a key of `VIDEO_CODECS`.
            sample_aspect_ratio: how wide a pixel is to its height.
            audio: a stream whose packets are copied, those given to `write`.
            dither: whether grey of 16 bits is brought to 8 with a pattern (`dc_rt.media.colormap.thresholds`), so that
                slopes show no bands; more bits have none.
            is_side_by_side: whether H.264 tells players that its left half is the left eye's view.

        Raises:
            UserError: this PyAV cannot write such a video.
        """
        fps = timing.fps if isinstance(timing, Timeline) else timing
        _check_encoder(codec, height, width, fps)
        self._codec = VIDEO_CODECS[codec]
        self._dither = dither and self._codec.bits == 8
        self._shape = (height, width, 3)
        self._timeline = timing if isinstance(timing, Timeline) else None
        self._tick = _tick_for(self._timeline) if self._timeline else 1 / fps
        self._num_frames = 0
        self._last_time = -1
        self._reformatter = VideoReformatter()
        suffix = container_for(codec, codec_name(audio) if audio else None)
        self._path = Path(path)
        self._sample_aspect_ratio = fitting(sample_aspect_ratio)
        # In Matroska; streams of H.264, HEVC and AV1 say it themselves.
        self._must_set_aspect = suffix == "mkv" and codec in ("ffv1", "prores") and sample_aspect_ratio != SQUARE
        # The name may end in anything, and "file:" keeps FFmpeg from taking a part of it for a protocol.
        self._container = av.open(f"file:{path}", "w", format=_FORMATS[suffix], options=_FORMAT_OPTIONS[suffix])
        options = {**self._codec.options, **({} if crf is None else {"crf": str(crf)})}
        if is_side_by_side:
            options["x264-params"] += _SIDE_BY_SIDE
        self._stream = cast(
            "VideoStream", self._container.add_stream(self._codec.encoder, rate=_stated(fps), options=options)
        )
        if is_side_by_side:
            self._stream.metadata["stereo_mode"] = "left_right"  # in Matroska; MP4 has no place that PyAV can write to
        self._stream.height, self._stream.width = height, width
        self._pixel_format = self._codec.stored_as(height, width)
        self._stream.pix_fmt = self._pixel_format
        if self._codec.tag and suffix in ("mp4", "mov"):
            self._stream.codec_context.codec_tag = self._codec.tag
        self._stream.codec_context.time_base = self._tick
        self._stream.codec_context.sample_aspect_ratio = self._sample_aspect_ratio
        # Players guess the matrix of an untagged file from its size, and guess differently.
        self._stream.colorspace = Colorspace.ITU709
        self._stream.color_range = ColorRange.JPEG if self._is_grey else ColorRange.MPEG
        self._stream.color_primaries = ColorPrimaries.BT709
        self._stream.color_trc = ColorTrc.BT709
        self._sound = AudioCopy(self._container, audio) if audio else None
        with keep_scheduling():
            self._container.start_encoding()  # opens the file now, not when the encoder gives its first packet

    def write(
        self, frame: NDArray[np.uint8] | NDArray[np.uint16], number: int | None = None, audio: Iterable[Packet] = ()
    ) -> None:
        """Append a frame, and packets of the sound.

        Args:
            frame: uint8 [H,W,3] RGB; or grey [H,W], uint8 or, which keeps what the codec's bits can hold, uint16.
            number: of the timeline's frames; the next one unless given.
            audio: packets whose times count from the first frame's.
        """
        picture = self._grey(frame) if frame.dtype == np.uint16 or self._is_grey else self._rgb(frame)
        picture.pts, picture.time_base = self._time(self._num_frames if number is None else number), self._tick
        # ProRes takes them from its frames, not from the stream.
        picture.colorspace, picture.color_range = self._stream.colorspace, self._stream.color_range
        picture.color_primaries, picture.color_trc = self._stream.color_primaries, self._stream.color_trc
        self._container.mux(self._stream.encode(picture))
        self._num_frames += 1
        if self._sound:
            self._sound.mux(audio)

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
            # x265 may leave a thread's floating-point registers in a state in which FFmpeg 9 writes the duration into a
            # Matroska file as "nan": another thread has its own.
            with ThreadPoolExecutor(1) as fresh:
                fresh.submit(self._container.close).result()
        if kind is None and self._must_set_aspect:
            set_display_size(self._path, *self._shape[:2], self._sample_aspect_ratio)

    @property
    def _is_grey(self) -> bool:
        """Whether pictures are stored without colour, at the full range of their bits."""
        return self._codec.pixel_format.startswith("gray")

    def _rgb(self, frame: NDArray[np.uint8] | NDArray[np.uint16]) -> av.VideoFrame:
        """What is stored of a picture of 8 bits: RGB, or grey as RGB."""
        rgb = np.ascontiguousarray(np.broadcast_to(frame if frame.ndim == 3 else frame[..., None], self._shape))
        return self._reformatter.reformat(
            av.VideoFrame.from_ndarray(rgb, format="rgb24"),
            format=self._pixel_format,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
        )

    def _grey(self, frame: NDArray[np.uint8] | NDArray[np.uint16]) -> av.VideoFrame:
        """What is stored of a grey picture, each value rounded once: no conversion of FFmpeg's is that exact."""
        if frame.shape != self._shape[:2]:
            raise ValueError(f"a picture of shape {frame.shape} is not one in grey of {self._shape[:2]}")
        codes = frame if frame.dtype == np.uint16 else frame.astype(np.uint16) * 257
        picture = av.VideoFrame(self._shape[1], self._shape[0], self._pixel_format)
        if self._is_grey:
            _fill(picture.planes[0], codes)
            return picture
        # ITU-R BT.709, the narrow range: black is 16 and white 235, times 2 for each bit beyond 8.
        unit = 1 << (self._codec.bits - 8)
        stored = np.dtype(np.uint8 if unit == 1 else np.uint16)
        luma, *chroma = picture.planes
        values = codes * (219 * unit / 65535) + 16 * unit
        rounded = np.floor(values + thresholds(*codes.shape)) if self._dither else np.rint(values)
        _fill(luma, rounded.astype(stored))
        for plane in chroma:
            _fill(plane, np.full((plane.height, plane.width), 128 * unit, stored))
        return picture

    def _time(self, number: int) -> int:
        if self._timeline is None:
            return number
        time = round(int(self._timeline.times[number]) * self._timeline.tick / self._tick)
        self._last_time = max(time, self._last_time + 1)  # frames that are nearer than a tick
        return self._last_time


def _tick_for(timeline: Timeline) -> Fraction:
    """The timeline's tick, or one so long that none of its steps is too large for MP4, which has 31 bits for it."""
    longest = max(int(np.diff(timeline.times, append=timeline.end).max()), 1) * timeline.tick
    if longest <= max(timeline.tick, _SHORTEST_TICK) * 2**30:
        return max(timeline.tick, _SHORTEST_TICK)
    return Fraction(1, int(2**30 / longest))


def _fill(plane: VideoPlane, values: NDArray[Any]) -> None:
    """Put values [H,W], uint8 or uint16, into a plane, whose lines may be longer."""
    lines = np.zeros((plane.height, plane.line_size), np.uint8)
    stored = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).view(np.uint8)
    lines[:, : stored.shape[1]] = stored
    plane.update(lines.tobytes())


def _quiet(codec: VideoCodec) -> None:
    """Keep SVT-AV1 from writing its settings to standard error: nothing but its environment tells it to."""
    if codec.encoder == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")
