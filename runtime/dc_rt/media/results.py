"""The writers of `dc_rt.outputs`: what each of them is handed of every frame, and what it makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from numpy.typing import NDArray

from dc_rt.depth import ShotDepth
from dc_rt.media.colormap import inferno, to_uint8
from dc_rt.media.read import VideoInfo
from dc_rt.media.timeline import Timeline
from dc_rt.media.write import ExrWriter, Mp4Writer, NpzWriter, PngWriter
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
    """A writer of `dc_rt.media.write`, given what it takes of each frame."""

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
    """Depth in grey, H.264."""
    return Adapted(_mp4(path, result), lambda frame: (to_uint8(frame.depth), frame.number))


def colour_video(path: Path, result: Result) -> Writer:
    """Depth in colours, H.264."""
    return Adapted(_mp4(path, result), lambda frame: (inferno(frame.depth), frame.number))


def input_video(path: Path, result: Result) -> Writer:
    """The source's frames at the size of the depth, H.264."""
    return Adapted(_mp4(path, result), lambda frame: (frame.image, frame.number))


def npz(path: Path, result: Result) -> Writer:
    """All depth in one array, `depth`."""
    return Adapted(NpzWriter(path, (result.num_frames, result.height, result.width)), _depth)


def exr(folder: Path, result: Result) -> Writer:
    """Depth in a file a frame, channel Z."""
    return Adapted(ExrWriter(folder, result.sample_aspect_ratio), _depth)


def png(folder: Path, result: Result) -> Writer:
    """Depth in a 16-bit file a frame."""
    return Adapted(PngWriter(folder), _depth)


def _depth(frame: ResultFrame) -> tuple[NDArray[np.float32]]:
    return (frame.depth,)


def _mp4(path: Path, result: Result) -> Mp4Writer:
    size = (result.height, result.width)
    return Mp4Writer(path, result.timeline, *size, sample_aspect_ratio=result.sample_aspect_ratio)
