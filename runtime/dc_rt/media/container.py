"""Opening video files: the stream that a player shows, and its packets on one continuous clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.format import Flags
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from dc_rt.errors import UserError
from dc_rt.media.pyav import open_input, to_fraction
from dc_rt.media.structure import ENCRYPTED_ENTRIES
from dc_rt.parsing import MAX_PIXELS as MAX_PIXELS

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".divx", ".wmv", ".asf", ".flv", ".f4v"),
    *(
        ".mpg",
        ".mpeg",
        ".m2v",
        ".vob",
        ".ts",
        ".mts",
        ".m2ts",
        ".m2t",
        ".mxf",
        ".ogv",
        ".ogm",
        ".dv",
        ".mjpeg",
        ".mjpg",
    ),
    *(".nut", ".rm", ".rmvb", ".ivf", ".obu", ".h264", ".264", ".hevc", ".265", ".y4m", ".gif"),
)
"""By which files are taken for videos where a folder is searched; one that is named may have any, or none."""

_HOPELESS = 20  # unreadable packets in a row after which the rest of a file is given up

# Not pictures to be played: covers of songs, previews of a player's time line, single pictures.
_NOT_PLAYED = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image

# Seconds forward and backward from where it should be, after which a clock that may be set anew is taken to have been.
# Less is a pause, which is kept: the sound may go on.
_LONGEST_PAUSE, _LONGEST_OVERLAP = 3600, 0.1


def is_video(path: Path) -> bool:
    """Whether a file is a video by its name. Names that start with a dot are a file manager's."""
    return path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")


def open_video(path: Path) -> InputContainer:
    """Open a video file; raises `UserError` where it is none."""
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


def is_of_kind(container: InputContainer, kind: Flags) -> bool:
    """Whether FFmpeg says this of the container's format."""
    return bool(int(container.format.flags) & int(kind.value))  # type: ignore[call-overload]  # numbers, in truth


def video_streams(container: InputContainer) -> list[VideoStream]:
    """The streams that could be played, the one that a player takes first: the default one, or else the first.

    Of several that the file calls its default, those of a single picture come last: an animated AVIF file has one too.
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & _NOT_PLAYED]
    return sorted(streams, key=lambda stream: (not stream.disposition & Disposition.default, stream.frames == 1))


def video_stream(container: InputContainer, path: Path) -> VideoStream:
    """The stream that a player shows; raises `UserError` without one, without a decoder or without the key for it."""
    streams = video_streams(container)
    if not streams:
        raise UserError(f"{path} has no video stream, only sound or other data; give a file with a picture.")
    stream = streams[0]
    if is_encrypted(stream):
        raise encrypted(path)
    if stream.frames == 1 and any(part.disposition & Disposition.dependent for part in container.streams.video):
        raise UserError(f"{path} is a picture made of tiles, which are not put together here; save it as PNG or JPEG.")
    # Older versions of PyAV (18.0 for one) crash on decoding a stream that they have no decoder for.
    if stream.codec_context is None:
        raise UserError(f"There is no decoder here for {path}; convert it to H.264 first.")
    return stream


def codec_name(stream: AudioStream) -> str:
    """FFmpeg's name of a stream's codec, "mp3" for example, whatever decodes it; "" where nothing does."""
    return "" if stream.codec_context is None else stream.codec_context.codec.canonical_name


def sound_of(container: InputContainer) -> str | None:
    """FFmpeg's name of the codec of the first sound; None where there is none."""
    return codec_name(container.streams.audio[0]) if container.streams.audio else None


def time_code_of(container: InputContainer) -> str:
    """The time code that the container, its video or a track for it begins with; "" without one."""
    tagged = (container.metadata, *(stream.metadata for stream in container.streams))
    texts = (value for metadata in tagged for key, value in metadata.items() if key.lower() == "timecode")
    return next(texts, "")


def encrypted(path: Path) -> UserError:
    """What to raise for a file whose pictures are encrypted."""
    return UserError(f"{path} is encrypted (DRM) and cannot be decoded without its key; give an unprotected copy.")


def is_encrypted(stream: VideoStream) -> bool:
    """Whether the container says that the stream's packets are encrypted."""
    if "enc_key_id" in stream.metadata:  # Matroska and WebM
        return True
    try:
        return stream.codec_context is not None and stream.codec_context.codec_tag.lower() in ENCRYPTED_ENTRIES
    except UnicodeDecodeError:  # a tag need not be text
        return False


def may_start_anywhere(container: InputContainer) -> bool:
    """Whether the first packets may refer to frames that are not there, as in a recording of a broadcast.

    Other files start with what can be decoded, whatever they say of keyframes: what an edit list cuts off is there, and
    some formats mark none.
    """
    return is_of_kind(container, Flags.ts_discont) or is_of_kind(container, Flags.no_timestamps)


def read_packets(
    container: InputContainer, stream: VideoStream, *, all_streams: bool = False, clock: Clock | None = None
) -> Iterator[Packet | None]:
    """The packets of a stream, or of all, in the file's order; None for each that cannot be read.

    The stream's packets come on one continuous clock, also where the file's own is set anew in the middle, as it is in
    a broadcast recording that was joined from several; `clock` then knows of it.
    """
    tick = to_fraction(stream.time_base)
    clock = clock or Clock()
    second = round(1 / tick) if tick and is_of_kind(container, Flags.ts_discont) else None
    in_a_row = 0
    while True:
        try:
            for packet in container.demux() if all_streams else container.demux(stream):
                in_a_row = 0
                if second and packet.stream_index == stream.index:
                    clock.correct(packet, second)
                yield packet
            return
        except av.FFmpegError:
            in_a_row += 1
            if in_a_row == _HOPELESS:
                return
            yield None


class Clock:
    """Takes the jumps out of packets' times; `num_jumps` of them so far."""

    def __init__(self) -> None:
        self.num_jumps = 0
        self._shift = 0
        self._last: int | None = None
        self._step = 0

    def correct(self, packet: Packet, second: int) -> None:
        """Give a packet the times of a clock that is never set anew; `second` is in ticks."""
        if packet.dts is None:
            return
        if self._last is not None:
            jump = packet.dts + self._shift - self._last - self._step
            if not -_LONGEST_OVERLAP * second <= jump <= _LONGEST_PAUSE * second:
                self._shift -= jump
                self.num_jumps += 1
            # Where packets have no duration: the shortest time between two.
            step = packet.duration or packet.dts + self._shift - self._last
            self._step = packet.duration or min(step, self._step or step)
        packet.dts += self._shift
        if packet.pts is not None:
            packet.pts += self._shift
        self._last = packet.dts


def is_hidden(packet: Packet, codec: str) -> bool:
    """Whether a packet of VP8 or VP9 holds a frame that is decoded for others to refer to, and never shown."""
    data = memoryview(packet)
    first = data[0]
    if codec == "vp8":  # RFC 6386, 9.1: the frame tag
        return not first & 0b10000
    # Appendix B and 6.2 of the VP9 specification, for profiles 0 to 2: the frame marker, two bits of profile, one that
    # is 0, then show_existing_frame, frame_type and show_frame.
    if codec == "vp9" and first >> 6 == 0b10 and first >> 4 & 0b11 != 0b11 and not _is_superframe(data):
        return not first & 0b1000 and not first & 0b10
    return False


def _is_superframe(data: memoryview) -> bool:
    """Whether a packet of VP9 holds several frames, the last of which is shown."""
    marker = data[-1]
    size_of_index = 2 + ((marker >> 3 & 0b11) + 1) * ((marker & 0b111) + 1)
    return marker >> 5 == 0b110 and len(data) >= size_of_index and data[-size_of_index] == marker
