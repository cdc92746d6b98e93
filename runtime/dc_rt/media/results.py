"""The writers of `dc_rt.outputs`: what each of them is handed of every frame, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from numpy.typing import NDArray

from dc_rt.depth import ShotDepth, range_of
from dc_rt.formats import EXR_PRESETS, VIDEO_CODECS
from dc_rt.media.colormap import coloured
from dc_rt.media.convention import FAR_WHITE, NEAR_WHITE, shown_range, shown_uint8, shown_uint16, shown_values
from dc_rt.media.raw import RawWriter
from dc_rt.media.read import VideoInfo
from dc_rt.media.timecode import TimeCodes
from dc_rt.media.timeline import Timeline
from dc_rt.media.write_frames import ExrWriter, FramesWriter, PngWriter, TiffWriter, check_half
from dc_rt.media.write_npz import NpzWriter
from dc_rt.media.write_video import VideoWriter
from dc_rt.options import Outputs

NO_DEPTH = np.empty((0, 0), np.float32)
"""In the place of depth, for outputs that are written before there is any."""
NO_IMAGE = np.empty((0, 0, 3), np.uint8)


@dataclass(frozen=True)
class Result:
    """What is known of all frames when the first is written.

    Attributes:
        num_frames: of all outputs.
        height, width: of the results.
        model_height, model_width: that the model ran at.
        timeline: when frames are shown, by their `ResultFrame.number`.
        sample_aspect_ratio: how wide a pixel of the results is to its height, so that they lie exactly over the source.
        shots: with their ranges of depth; none for outputs that are written before these are known.
        video: the source.
        outputs: the options.
        audio: its sound, as a template of a stream; None where it has none, or no output needs "audio".
        about: what a raw file says of the run (docs/raw.md).
        stream: where an output goes that is no file; None where there is none.
    """

    num_frames: int
    height: int
    width: int
    model_height: int
    model_width: int
    timeline: Timeline
    sample_aspect_ratio: Fraction
    shots: tuple[ShotDepth, ...]
    video: VideoInfo
    outputs: Outputs
    audio: AudioStream | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    stream: BinaryIO | None = None


@dataclass(frozen=True)
class ResultFrame:
    """One frame of the results, handed to every writer.

    Attributes:
        index: counted from 0, without a gap.
        number: which of the timeline's it is: a frame that could not be decoded leaves a gap.
        time: seconds from the first frame's.
        model_raw: depth as the model gave it, at its size: float32 [h,w]; empty, as `raw` and `depth` are, for outputs
            that take none.
        raw: the same at the size of the results: float32 [H,W].
        depth: that normalised over the video, the shot or a given range: float32 [H,W] in [0,1], larger is nearer.
        image: the source's frame at the size of the results: uint8 [H,W,3]; empty where no output takes it.
        source_image: in square pixels, as it is shown, for outputs that need "source": uint8 [H',W',3].
        audio: packets of its sound until the next frame, for outputs that need "audio".
        shot: which of the shots it is of, counted from 0.
    """

    index: int
    number: int
    time: Fraction
    model_raw: NDArray[np.float32]
    raw: NDArray[np.float32]
    depth: NDArray[np.float32]
    image: NDArray[np.uint8]
    source_image: NDArray[np.uint8] | None = None
    audio: tuple[Packet, ...] = ()
    shot: int = 0


class Writer(Protocol):
    """Writes a result frame by frame; whole only once its context was left without an error."""

    def write(self, frame: ResultFrame, /) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...


OpenWriter = Callable[[Path, Result], Writer]
"""Opens a writer of the file, or for an output of frames of the folder, at the path that it is given."""


class Adapted:
    """A writer of `dc_rt.media`, given what it takes of each frame."""

    def __init__(self, writer: Any, taken: Callable[[ResultFrame], tuple[Any, ...]]) -> None:
        self._writer = writer
        self._taken = taken

    def write(self, frame: ResultFrame) -> None:
        """Write what it takes of the frame."""
        self._writer.write(*self._taken(frame))

    def __enter__(self) -> Self:
        self._writer.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.__exit__(kind, error, traceback)


def grey_video(path: Path, result: Result) -> Writer:
    """Depth in grey, of the codec that is asked for."""
    outputs = result.outputs
    # Of 8 bits the original's, unless they are dithered, which starts from more.
    shown = shown_uint8 if VIDEO_CODECS[outputs.depth_codec].bits == 8 and not outputs.dither else shown_uint16
    return _video(path, result, lambda frame: shown(frame, outputs), outputs.depth_codec)


def colour_video(path: Path, result: Result) -> Writer:
    """Depth in colours, H.264: near is what the colour map ends with, whatever the polarity."""
    outputs = result.outputs
    return _video(path, result, lambda frame: coloured(frame.depth, outputs.colormap, dither=outputs.dither))


def input_video(path: Path, result: Result) -> Writer:
    """The source's frames at the size of the depth, H.264."""
    return _video(path, result, lambda frame: frame.image)


def npz(path: Path, result: Result) -> Writer:
    """All depth in one array, `depth`."""
    writer = NpzWriter(path, (result.num_frames, result.height, result.width))
    return Adapted(writer, lambda frame: (shown_values(frame, result.outputs),))


def exr(folder: Path, result: Result) -> Writer:
    """Depth in a file a frame, in the channels and with the polarity of a preset.

    Raises `UserError` where raw depth does not fit into half floats.
    """
    outputs = result.outputs
    check_values(outputs, result.shots)
    writer = ExrWriter(
        folder,
        result.sample_aspect_ratio,
        preset=outputs.exr,
        half=outputs.exr_type == "half",
        compression=outputs.exr_compression,
        fps=result.timeline.fps,
        time_codes=TimeCodes.of(result.video),
        start_number=outputs.start_number,
        padding=outputs.digits(result.num_frames),
    )
    preset = _polarity_of(outputs)
    return Adapted(writer, lambda frame: (shown_values(frame, outputs, preset), frame.time))


def check_values(outputs: Outputs, shots: tuple[ShotDepth, ...]) -> None:
    """Raise `UserError` where depth of these shots, as EXR files are to hold it, does not fit into half floats."""
    if "exr" in outputs.names and outputs.exr_type == "half" and outputs.values == "raw":
        check_half(*shown_range(range_of(shots), outputs, _polarity_of(outputs)))


def _polarity_of(outputs: Outputs) -> str:
    """That of EXR files, where none is asked for."""
    return FAR_WHITE if EXR_PRESETS[outputs.exr].is_far_white else NEAR_WHITE


def png(folder: Path, result: Result) -> Writer:
    """Depth in a 16-bit PNG file a frame."""
    return _grey_frames(PngWriter, folder, result)


def tiff(folder: Path, result: Result) -> Writer:
    """Depth in a 16-bit TIFF file a frame."""
    return _grey_frames(TiffWriter, folder, result)


def raw_file(path: Path, result: Result) -> Writer:
    """Depth as the model gave it, at its size, with all that `dc-rt deliver` has to know."""
    shape = (result.num_frames, result.model_height, result.model_width)
    return Adapted(RawWriter(path, shape, result.about), lambda frame: (frame.model_raw, frame.number))


def _grey_frames(kind: type[PngWriter] | type[TiffWriter], folder: Path, result: Result) -> Writer:
    outputs = result.outputs
    writer: FramesWriter = kind(folder, outputs.start_number, outputs.digits(result.num_frames))
    return Adapted(writer, lambda frame: (shown_uint16(frame, outputs),))


def _video(path: Path, result: Result, shown: Callable[[ResultFrame], NDArray[Any]], codec: str = "h264") -> Writer:
    """A video of what is shown of each frame, with sound if any is copied."""
    writer = VideoWriter(
        path,
        result.timeline,
        result.height,
        result.width,
        codec=codec,
        sample_aspect_ratio=result.sample_aspect_ratio,
        audio=result.audio if result.outputs.audio else None,
        dither=result.outputs.dither,
    )
    return Adapted(writer, lambda frame: (shown(frame), frame.number, frame.audio))
