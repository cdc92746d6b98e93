"""Decoding a video file: every frame in the order it is shown, each with its place among those that should be there.

Decoders that work on several frames at once lose some around an error, more or fewer by the number of threads, and not
always with a word. So a file is decoded with all threads until anything is amiss with it, and then again with one: what
can be had of a damaged file, and what is counted of the rest, is the same on every machine.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from dc_rt.media.container import MAX_PIXELS, is_hidden, may_start_anywhere, open_video, read_packets, video_stream
from dc_rt.media.pyav import DECODING_ERRORS


@dataclass
class Damage:
    """What could not be made of a video, of the frames up to where its decoding is.

    Attributes:
        num_frames: frames that should be there.
        num_lost: of these, those that are not.
        num_patched: of these, those with parts that the decoder made up.
        num_errors: packets that could not be read or decoded.
        num_resized: frames that are stored in another size than the first.
        num_surplus: frames beyond those that should be there, which are left out.
        is_counted: whether frames have no times of their own, so that those behind lost ones may be placed too early.
    """

    num_frames: int = 0
    num_lost: int = 0
    num_patched: int = 0
    num_errors: int = 0
    num_resized: int = 0
    num_surplus: int = 0
    is_counted: bool = False

    @property
    def is_any(self) -> bool:
        """Whether anything is damaged; frames of another size are not."""
        return bool(self.num_lost or self.num_patched or self.num_errors or self.num_surplus)

    @property
    def is_hopeless(self) -> bool:
        """Whether more than half of the frames are lost or patched."""
        return 2 * (self.num_lost + self.num_patched) > self.num_frames

    def describe(self) -> Iterator[str]:
        """What is to be said of it: nothing where all is well."""
        of_all = f"of {self.num_frames} frames"
        if self.num_lost:
            others = "those behind them may be shown too early" if self.is_counted else "the others keep their times"
            yield f"damaged: {self.num_lost} {of_all} could not be decoded; {others}"
        if self.num_patched:
            yield f"damaged: {self.num_patched} {of_all} could be decoded in parts alone, and were patched"
        if self.num_errors and not self.num_lost:
            yield f"damaged: {self.num_errors} packets could not be decoded; no frame is missing"
        if self.num_surplus:
            yield f"damaged: {self.num_surplus} more than the {self.num_frames} frames announced were left out"
        if self.num_resized:
            yield f"the size changes in the middle: {self.num_resized} frames were scaled to that of the first one"

    def clear(self) -> None:
        """Begin anew."""
        vars(self).update(vars(Damage()))


def numbered_frames(
    path: Path, stamps: NDArray[np.int64] | None, num_frames: int, damage: Damage
) -> Generator[tuple[int, VideoFrame], None, None]:
    """Number and picture of every frame that can be decoded, numbers increasing, in the file's own pixel format.

    Args:
        path: the video file.
        stamps: by which frames are told, int64 [num_frames], increasing; None where they are only counted.
        num_frames: how many there should be.
        damage: is kept up to date.

    Raises:
        UserError: the file cannot be opened.
    """
    last = -1
    with closing(_numbered(path, False, stamps, num_frames, damage)) as frames:
        for number, frame in frames:
            if damage.is_any:
                break
            last = number
            yield number, frame
    if damage.is_any:
        with closing(_numbered(path, True, stamps, num_frames, damage)) as frames:
            yield from ((number, frame) for number, frame in frames if number > last)


@dataclass
class Fed:
    """What a decoder was given so far: packets, and of those that are shown, the number of the last keyframe's."""

    num_packets: int = 0
    num_shown: int = 0
    last_keyframe: int = 0

    def add(self, packet: av.Packet, codec: str) -> None:
        """Count a packet."""
        self.num_packets += 1
        if not packet.is_discard and not is_hidden(packet, codec):
            if packet.is_keyframe:
                self.last_keyframe = self.num_shown
            self.num_shown += 1


def decoded_frames(
    path: Path, *, one_thread: bool, num_frames: int | None = None, fed: Fed | None = None
) -> Generator[VideoFrame | None, None, None]:
    """The frames of a video file as its decoder gives them; None for each packet that nothing can be made of.

    The first is the first that can be decoded: a recording of a broadcast may start before its first keyframe. With
    `num_frames` no packet is read after so many frames, but those that the decoder still holds are given too. `fed` is
    kept up to date.
    """
    fed = fed or Fed()
    with open_video(path) as container:
        stream = video_stream(container, path)
        decoder = stream.codec_context
        decoder.thread_type = "SLICE" if one_thread else "AUTO"
        if one_thread:
            decoder.thread_count = 1
        # A damaged header can ask for a picture that no memory holds.
        decoder.options = {"max_pixels": str(MAX_PIXELS)}
        num_given = 0
        from_keyframe = may_start_anywhere(container)
        for packet in read_packets(container, stream):
            if packet is None:
                yield None
            # Empty packets stand for frames that are shown for longer, in Theora for one; to a decoder they would be
            # the end of the stream.
            elif packet.size and (fed.num_packets or packet.is_keyframe or not from_keyframe):
                fed.add(packet, decoder.name)
                frames = _decoded(decoder, packet)
                yield from frames
                num_given += len(frames) - frames.count(None)
                if num_frames is not None and num_given >= num_frames:
                    break
        yield from _decoded(decoder, None)


def _decoded(decoder: av.VideoCodecContext, packet: av.Packet | None) -> list[VideoFrame | None]:
    try:
        return [*decoder.decode(packet)]
    except DECODING_ERRORS:
        return [None]


def _numbered(
    path: Path, one_thread: bool, stamps: NDArray[np.int64] | None, num_frames: int, damage: Damage
) -> Generator[tuple[int, VideoFrame], None, None]:
    damage.clear()
    damage.is_counted = stamps is None
    number = -1
    num_missed = 0  # packets since the last frame
    size = None
    fed = Fed()
    with closing(decoded_frames(path, one_thread=one_thread, fed=fed)) as frames:
        for frame in frames:
            if frame is None:
                damage.num_errors += 1
                num_missed += 1
                continue
            following = number + 1
            if stamps is None:
                following += num_missed
                if num_missed and frame.key_frame:  # frames that referred to a lost one are lost without an error
                    following = max(following, fed.last_keyframe)
            elif frame.pts is not None:
                place = int(np.searchsorted(stamps, frame.pts))
                # Some decoders give a frame another time than its packet had: it follows the one before.
                if place < num_frames and stamps[place] == frame.pts:
                    following = max(following, place)
            if following >= num_frames:
                damage.num_surplus += 1
                continue
            size = size or (frame.height, frame.width)
            damage.num_lost += following - number - 1
            damage.num_patched += frame.is_corrupt
            damage.num_resized += size != (frame.height, frame.width)
            damage.num_frames = following + 1
            number, num_missed = following, 0
            yield number, frame
    damage.num_lost += num_frames - number - 1
    damage.num_frames = num_frames
