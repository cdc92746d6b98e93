"""The sound of a video, packet for packet: beside its frames, and into videos that are written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Literal, Self

from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from dc_rt.errors import UserError, option
from dc_rt.media.container import codec_name, open_video, sound_of, video_streams
from dc_rt.media.pipe import is_pipe
from dc_rt.media.read import VideoInfo

# What says how many samples a decoder is to leave out, and how it is set up anew.
_SIDE_DATA: tuple[Literal["skip_samples", "new_extradata"], ...] = ("skip_samples", "new_extradata")


def audio_codec(path: Path) -> str | None:
    """FFmpeg's name of the codec of a video's sound, by the file's header; None where it has none, or is no file.

    Raises `UserError` for a file that is no video.
    """
    if is_pipe(path) or not path.is_file():
        return None
    with open_video(path) as container:
        return sound_of(container)


class AudioPackets:
    """Gives the packets of a video's sound in order, up to a time; a context manager."""

    def __init__(self, video: VideoInfo) -> None:
        """Opens the file; what is none, such as a folder of images or a pipe, has no sound."""
        self.stream: AudioStream | None = None
        self._container = open_video(video.path) if video.path.is_file() and not video.pipe else None
        if self._container and self._container.streams.audio:
            self.stream = self._container.streams.audio[0]
            shown = video_streams(self._container)[0]
            first = shown.start_time if video.stamps is None else int(video.stamps[0])
            self._start = Fraction(first or 0) * (shown.time_base or 1)
            self._packets = self._timed(self._container.demux(self.stream))

    def until(self, seconds: Fraction) -> tuple[Packet, ...]:
        """The next packets, those that begin before a time from the first frame's; so do their own times count."""
        found: list[Packet] = []
        for packet in self._packets if self.stream else ():
            if _time(packet) >= seconds:
                self._packets = chain([packet], self._packets)
                break
            found.append(packet)
        return tuple(found)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._container:
            with suppress(OSError):
                self._container.close()

    def _timed(self, packets: Iterable[Packet]) -> Iterator[Packet]:
        """Those with a time, which is moved to count from the first frame's."""
        for packet in packets:
            if packet.pts is None:  # the end
                continue
            start = round(self._start / Fraction(packet.time_base or 1))
            packet.pts -= start
            if packet.dts is not None:
                packet.dts -= start
            yield packet


class AudioCopy:
    """Copies a source's sound into a video that is being written: packets as they are, in a container that takes them.

    What the container asks for is done by FFmpeg's muxer itself: AAC from a broadcast loses its ADTS headers there.
    Packets that begin before the first frame are kept: MP4 and MOV say where to start in an edit list, and Matroska
    moves everything by as much.
    """

    def __init__(self, container: OutputContainer, template: AudioStream) -> None:
        """Add the stream to a container that no packet was written to.

        Args:
            container: that is written.
            template: the source's stream, of which its codec and its settings are taken.

        Raises:
            UserError: the container cannot hold it.
        """
        try:
            self._stream = container.add_stream_from_template(template)
        except ValueError as error:
            raise UserError(
                f"Sound in {codec_name(template) or 'a codec that is unknown here'} cannot be copied into "
                f"{container.format.name}; leave out {option('audio', True)}, or convert the sound to AAC."
            ) from error
        self._container = container

    def mux(self, packets: Iterable[Packet]) -> None:
        """Append packets whose times count from the first frame's; they stay as they are, for other writers."""
        for packet in packets:
            copy = _copied(packet)
            copy.stream = self._stream
            self._container.mux(copy)


def _copied(packet: Packet) -> Packet:
    copy = Packet(bytes(packet))
    copy.pts, copy.dts, copy.duration, copy.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    copy.is_keyframe = packet.is_keyframe
    for kind in _SIDE_DATA:
        if packet.has_sidedata(kind):
            copy.set_sidedata(packet.get_sidedata(kind))
    return copy


def _time(packet: Packet) -> Fraction:
    return (packet.pts or 0) * Fraction(packet.time_base or 1)
