"""The sound of a video, packet for packet, beside its frames."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from typing import Self

from av.audio.stream import AudioStream
from av.packet import Packet

from dc_rt.media.container import open_video, video_streams
from dc_rt.media.read import VideoInfo


class AudioPackets:
    """Gives the packets of a video's sound in order, up to a time; a context manager."""

    def __init__(self, video: VideoInfo) -> None:
        """Opens the file; images have no sound, and no pipe that is read here."""
        self.stream: AudioStream | None = None
        self._container = None if video.images or video.pipe else open_video(video.path)
        if self._container and self._container.streams.audio:
            self.stream = self._container.streams.audio[0]
            shown = video_streams(self._container)[0]
            first = shown.start_time if video.stamps is None else int(video.stamps[0])
            self._start = Fraction(first or 0) * (shown.time_base or 1)
            self._packets: Iterator[Packet] = self._container.demux(self.stream)

    def until(self, seconds: Fraction | None) -> tuple[Packet, ...]:
        """The next packets, those that begin before a time from the first frame's; all that are left for None."""
        found: list[Packet] = []
        for packet in self._packets if self.stream else ():
            if packet.pts is None:  # the end
                continue
            time = packet.pts * Fraction(packet.time_base or 1) - self._start
            if seconds is not None and time >= seconds:
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
