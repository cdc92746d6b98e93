"""Videos in: what one holds, and its frames, from a video file or a folder of images."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import dropwhile
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dc_rt.errors import UserError
from dc_rt.media.pyav import DECODING_ERRORS, open_input, to_fraction
from dc_rt.media.read_images import common_size, decode_images, list_images
from dc_rt.media.truncation import ends_early

# Images carry no frame rate.
IMAGE_FOLDER_FPS = Fraction(24)

MAX_PIXELS = 16384 * 8192

_TIMED_FRAMES = 10_000  # enough to tell an uneven frame rate
_HOPELESS = 20  # unreadable packets in a row after which the rest of a file is given up
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # ISO/IEC 23091-2, transfer characteristics


@dataclass(frozen=True)
class VideoInfo:
    """A video that can be read: height and width in pixels as stored, frames a second, frames counted."""

    path: Path
    height: int
    width: int
    fps: Fraction
    num_frames: int
    notes: tuple[str, ...] = ()


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


@dataclass
class Damage:
    """What a decoder could not make of a video: packets it refused, and frames that it had to patch."""

    num_errors: int = 0
    num_patched: int = 0


def read_frames(
    path: str | Path,
    height: int,
    width: int,
    stride: int = 1,
    limit: int | None = None,
    start: int = 0,
    damage: Damage | None = None,
) -> Iterator[NDArray[np.uint8]]:
    """Frames 0, stride, 2*stride, ... of a video file or a folder of images: the first `limit` of them, less `start`.

    Yields uint8 [height,width,3] RGB, turned as the file asks for. One frame is held at a time, and the file is closed
    when the iterator is exhausted or closed, or fails. What cannot be decoded is left out and counted in `damage`.
    Raises `UserError` if the file cannot be opened.
    """
    path = Path(path)
    first, stop = start * stride, None if limit is None else limit * stride
    if path.is_dir():
        frames = decode_images(list_images(path)[first:stop:stride])
    else:
        # Frames before the first are decoded too: seeking is not exact in every container.
        frames = _decode_video(path, range(first, sys.maxsize if stop is None else stop, stride), damage or Damage())
    reformatter = VideoReformatter()  # one for all frames: making its tables takes longer than converting a small frame
    with closing(frames):
        for frame in frames:
            yield _to_rgb(frame, height, width, reformatter)


def _to_rgb(frame: VideoFrame, height: int, width: int, reformatter: VideoReformatter) -> NDArray[np.uint8]:
    """The frame as it is shown, uint8 [height,width,3]."""
    quarter_turns = round(frame.rotation / 90)
    if quarter_turns % 2:
        height, width = width, height
    # Bilinear, straight to RGB in one pass, is nearest to what the original's reader (decord) does.
    rgb = reformatter.reformat(frame, width, height, format="rgb24", interpolation="BILINEAR").to_ndarray()
    return np.ascontiguousarray(np.rot90(rgb, quarter_turns)).astype(np.uint8, copy=False)


def _probe_folder(folder: Path) -> VideoInfo:
    images = list_images(folder)
    height, width = common_size(images)
    return VideoInfo(folder, height, width, IMAGE_FOLDER_FPS, len(images))


def _probe_file(path: Path) -> VideoInfo:
    _check_whole_file(path)
    num_frames, fps, timing = _count_frames(path)
    with closing(_decode_video(path, range(sys.maxsize), Damage())) as frames:
        first = next(frames, None)
    if first is None:
        raise UserError(f"No frame of {path} can be decoded; convert it to H.264 first.")
    height, width = first.height, first.width
    if round(first.rotation / 90) % 2:
        height, width = width, height
    return VideoInfo(path, height, width, fps, num_frames, (*_notes(first), *timing))


def _notes(frame: VideoFrame) -> Iterator[str]:
    """What a player would do to such frames and this reader does not."""
    if transfer := _HDR_TRANSFERS.get(int(frame.color_trc or 0)):
        yield f"high dynamic range ({transfer}), read without tone mapping"
    if frame.interlaced_frame:
        yield "interlaced, read without deinterlacing"
    if any(component.is_alpha for component in frame.format.components):
        yield "transparent, read without its alpha channel"


def _check_whole_file(path: Path) -> None:
    if not path.exists():
        raise UserError(f"There is no file {path}; check the name.")
    if not path.is_file():
        raise UserError(f"{path} is neither a file nor a folder; give a video file or a folder of images.")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes); copy or download it again.")
    if ends_early(path):
        raise _truncated(path)


def _count_frames(path: Path) -> tuple[int, Fraction, list[str]]:
    """Number of frames that decoding will give, the frame rate and what is to be said of it, from one pass."""
    num_frames = 0
    has_keyframe = last_is_corrupt = False
    times: list[int] = []
    with _open(path) as container:
        stream = _video_stream(container, path)
        fps = to_fraction(stream.average_rate or stream.guessed_rate or stream.base_rate)
        for packet in _packets(container, None, Damage()):
            if packet.size == 0:
                continue
            # A packet that was cut is marked; one amid the file, as in broadcasts, says nothing of the file's end.
            last_is_corrupt = packet.is_corrupt
            if packet.stream_index == stream.index:
                has_keyframe |= packet.is_keyframe
                # An edit list hides frames that others are predicted from.
                num_frames += has_keyframe and not packet.is_discard
                if packet.pts is not None and len(times) < _TIMED_FRAMES:
                    times.append(packet.pts)
        tick = to_fraction(stream.time_base)
    if last_is_corrupt:
        raise _truncated(path)
    if num_frames == 0:
        raise UserError(f"{path} has a video stream without a frame that can be decoded; record or export it again.")
    if not fps:
        raise UserError(f"{path} states no frame rate; put it into an MP4 file with the rate that it has.")
    return num_frames, fps, list(_timing(times, tick))


def _timing(times: list[int], tick: Fraction | None) -> Iterator[str]:
    """Whether frames come at uneven times, as from a phone or a screen recorder."""
    steps = np.diff(np.sort(np.array(times)))
    steps = steps[steps > 0]
    if tick is None or len(steps) == 0:
        return
    low, high = (float(1000 * tick * int(step)) for step in (steps.min(), steps.max()))
    # Containers round times to their ticks, and to milliseconds in Matroska.
    if high > 1.2 * low and high - low > 2:
        yield f"variable frame rate ({low:.0f} to {high:.0f} ms a frame), taken at its average"


def _decode_video(path: Path, wanted: range, damage: Damage) -> Generator[VideoFrame, None, None]:
    """The frames of those numbers, in the order they are shown and in the file's own pixel format.

    Frame 0 is the first that can be decoded: a recording of a broadcast may start before its first keyframe.
    """
    if not wanted:
        return
    with _open(path) as container:
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        # A damaged header can ask for a picture that no memory holds.
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        packets = dropwhile(lambda packet: not packet.is_keyframe, _packets(container, stream, damage))
        for number, frame in enumerate(_decode(packets, damage)):
            if number in wanted:
                yield frame
            if number >= wanted[-1]:
                return


def _decode(packets: Iterator[Packet], damage: Damage) -> Iterator[VideoFrame]:
    for packet in packets:
        try:
            frames = packet.decode()
        except DECODING_ERRORS:
            damage.num_errors += 1
            continue
        for frame in frames:
            if isinstance(frame, VideoFrame):
                damage.num_patched += frame.is_corrupt
                yield frame


def _packets(container: InputContainer, stream: VideoStream | None, damage: Damage) -> Iterator[Packet]:
    """The packets of one stream or of all, going on after those that cannot be read."""
    in_a_row = 0
    while True:
        try:
            for packet in container.demux(stream) if stream else container.demux():
                in_a_row = 0
                yield packet
            return
        except av.FFmpegError:
            damage.num_errors += 1
            in_a_row += 1
            if in_a_row == _HOPELESS:
                return


def _open(path: Path) -> InputContainer:
    try:
        # The protocol is named, so that FFmpeg does not take the start of a name such as "take:2.mp4" for one.
        container = open_input(f"file:{path}")
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
