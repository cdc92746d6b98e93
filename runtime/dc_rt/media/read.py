"""Videos in: what one holds, and its frames, from a video file or a folder of images."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, dropwhile, islice
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dc_rt.errors import UserError
from dc_rt.media.read_images import common_size, decode_images, list_images
from dc_rt.media.truncation import ends_early

# Images carry no frame rate.
IMAGE_FOLDER_FPS = Fraction(24)


@dataclass(frozen=True)
class VideoInfo:
    """A video that can be read: height and width in pixels as stored, frames a second, frames counted."""

    path: Path
    height: int
    width: int
    fps: Fraction
    num_frames: int


def probe(path: str | Path) -> VideoInfo:
    """Look a video file, or a folder of images, through before any work is done on it.

    A file is read to its end without decoding more than the first frame: frames are counted, since containers' own
    counts are missing or wrong often enough, and a missing end is found now. MPEG program and transport streams and
    bare streams do not tell that their end is missing.
    Raises `UserError` for what is not there, is no video, is empty, has no video stream or no frame, is cut short,
    or cannot be decoded.
    """
    path = Path(path)
    try:
        return _probe_folder(path) if path.is_dir() else _probe_file(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check the name and the permissions.") from error


def read_frames(
    path: str | Path, height: int, width: int, stride: int = 1, limit: int | None = None
) -> Iterator[NDArray[np.uint8]]:
    """At most `limit` of the frames 0, stride, 2*stride, ... of a video file or a folder of images.

    Yields uint8 [height,width,3] RGB. One frame is held at a time, and the file is closed when the iterator is
    exhausted or closed, or fails.
    Raises `UserError` if the file cannot be opened, or naming the frame that cannot be decoded.
    """
    path = Path(path)
    stop = None if limit is None else limit * stride
    frames = decode_images(list_images(path)[:stop:stride]) if path.is_dir() else _decode_video(path, stride, stop)
    with closing(frames):
        for frame in frames:
            # Bilinear, straight to RGB in one pass, is nearest to what the original's reader (decord) does.
            rgb = frame.reformat(width=width, height=height, format="rgb24", interpolation="BILINEAR")
            yield rgb.to_ndarray().astype(np.uint8, copy=False)


def _probe_folder(folder: Path) -> VideoInfo:
    images = list_images(folder)
    height, width = common_size(images)
    return VideoInfo(folder, height, width, IMAGE_FOLDER_FPS, len(images))


def _probe_file(path: Path) -> VideoInfo:
    _check_whole_file(path)
    num_frames, fps = _count_frames(path)
    with closing(_decode_video(path)) as frames:
        first = next(frames, None)
    if first is None:
        raise UserError(f"No frame of {path} can be decoded; convert it to H.264 first.")
    return VideoInfo(path, first.height, first.width, fps, num_frames)


def _check_whole_file(path: Path) -> None:
    if not path.exists():
        raise UserError(f"There is no file {path}; check the name.")
    if not path.is_file():
        raise UserError(f"{path} is neither a file nor a folder; give a video file or a folder of images.")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes); copy or download it again.")
    if ends_early(path):
        raise _truncated(path)


def _count_frames(path: Path) -> tuple[int, Fraction]:
    """Number of frames that decoding will give, and the frame rate, from one pass over the packets."""
    num_frames = 0
    has_keyframe = last_is_corrupt = False
    with _open(path) as container:
        stream = _video_stream(container, path)
        fps = stream.average_rate or stream.guessed_rate or stream.base_rate
        try:
            for packet in container.demux():
                if packet.size == 0:
                    continue
                # A packet that was cut is marked; one amid the file, as in broadcasts, says nothing of the file's end.
                last_is_corrupt = packet.is_corrupt
                if packet.stream_index == stream.index:
                    has_keyframe |= packet.is_keyframe
                    # An edit list hides frames that others are predicted from.
                    num_frames += has_keyframe and not packet.is_discard
        except av.FFmpegError as error:
            raise UserError(f"{path} is damaged after frame {num_frames}; copy or download it again.") from error
    if last_is_corrupt:
        raise _truncated(path)
    if num_frames == 0:
        raise UserError(f"{path} has a video stream without a frame that can be decoded; record or export it again.")
    if not fps:
        raise UserError(f"{path} states no frame rate; put it into an MP4 file with the rate that it has.")
    return num_frames, fps


def _decode_video(path: Path, stride: int = 1, stop: int | None = None) -> Generator[VideoFrame, None, None]:
    """Frames 0, stride, 2*stride, ... below `stop`, in the order they are shown and in the file's own pixel format.

    Frame 0 is the first that can be decoded: a recording of a broadcast may start before its first keyframe.
    """
    num_decoded = 0
    with _open(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        try:
            packets = dropwhile(lambda packet: not packet.is_keyframe, container.demux(stream))
            for frame in islice(chain.from_iterable(packet.decode() for packet in packets), stop):
                if num_decoded % stride == 0:
                    yield frame
                num_decoded += 1
        except av.FFmpegError as error:
            raise UserError(
                f"Frame {num_decoded} of {path} cannot be decoded: the file is damaged; copy or download it again."
            ) from error


def _open(path: Path) -> InputContainer:
    try:
        # The protocol is named, so that FFmpeg does not take the start of a name such as "take:2.mp4" for one.
        container = av.open(f"file:{path}")
    except av.FFmpegError as error:
        raise UserError(f"{path} is not a video that can be read; give a video file or a folder of images.") from error
    # FFmpeg would draw a text file as a terminal does.
    if container.format.name == "tty":
        container.close()
        raise UserError(f"{path} is a text file, not a video; give a video file or a folder of images.")
    return container


def _video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The first video stream that is not a cover picture; raises `UserError` without one or a decoder for it."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise UserError(f"{path} has no video stream, only sound or other data; give a file with a picture.")
    # Older versions of PyAV (18.0 for one) crash on decoding a stream that they have no decoder for.
    if streams[0].codec_context is None:
        raise UserError(f"There is no decoder here for {path}; convert it to H.264 first.")
    return streams[0]


def _truncated(path: Path) -> UserError:
    return UserError(f"{path} is cut short: its end is missing; copy or download it again.")
