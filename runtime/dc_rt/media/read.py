"""Videos in: what one holds, and its frames as they are shown, from a video file, images or a pipe."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from av.container import InputContainer
from av.format import Flags
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from dc_rt.errors import UserError, option
from dc_rt.media.container import (
    MAX_PIXELS,
    Clock,
    encrypted,
    is_hidden,
    is_of_kind,
    may_start_anywhere,
    open_video,
    read_packets,
    sound_of,
    time_code_of,
    video_stream,
    video_streams,
)
from dc_rt.media.decode import Damage, Fed, decoded_frames, numbered_frames
from dc_rt.media.orientation import Orientation, Orientations
from dc_rt.media.pipe import Kept, Pipe, is_pipe, open_pipe, standard_input
from dc_rt.media.pyav import to_fraction
from dc_rt.media.read_exr import View
from dc_rt.media.read_images import ALPHA, Images, is_transparent, list_images, look_through, oriented_images
from dc_rt.media.sequence import find_sequence, is_pattern
from dc_rt.media.structure import ends_early, is_animated_webp, is_heif, says_encrypted
from dc_rt.media.timeline import LONGEST_PAUSE, Timeline, exact_rate, timeline_of, unevenness
from dc_rt.options import Source
from dc_rt.outputs import RAW_SUFFIX
from dc_rt.parsing import parse_raw_size

# Images carry no frame rate.
IMAGE_FOLDER_FPS = Fraction(24)

# What bare streams are taken at that state no rate; FFmpeg's own choice.
_BARE_STREAM_FPS = Fraction(25)
_NONE = np.iinfo(np.int64).min  # where a packet or a frame has no time stamp, as in FFmpeg
_TRIAL_FRAMES = 24  # that are decoded to see whether each packet is one, and how they are told
_FULL_RANGE = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)  # of black 16, white 235
_CLOCK_SET_ANEW = ("joined from recordings of several times, read one after the other",)
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # ISO/IEC 23091-2, transfer characteristics


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """A video that can be read, as a player shows it.

    Attributes:
        path: the file, the folder, the pattern of a sequence, or `-`.
        height, width: in square pixels, turned as it is shown: what is stored with wide pixels is wider here.
        aspect: width to height as shown, exactly.
        timeline: when the frames are shown that should be there.
        stamps: what `numbered_frames` tells frames by.
        notes: what is to be said of it.
        stored: height and width in pixels as they are stored, turned as it is shown; None where these are square.
        sound: FFmpeg's name of the codec of its sound; None where it has none.
        time_code: of its first frame, as the file has it; "" where it has none.
        images: that are its frames; None where these come from a video file or a pipe.
        pipe: that its frames come from, or are kept of; None where they come from files.
    """

    path: Path
    height: int
    width: int
    aspect: Fraction
    timeline: Timeline
    stamps: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()
    stored: tuple[int, int] | None = None
    sound: str | None = None
    time_code: str = ""
    images: Images | None = None
    pipe: Pipe | Kept | None = None

    @property
    def stored_size(self) -> tuple[int, int]:
        """Height and width in pixels as they are stored, turned as it is shown."""
        return self.stored or (self.height, self.width)

    @property
    def num_frames(self) -> int:
        """Frames that should be there; decoding has the last word. 0 of a pipe whose end has not come."""
        return len(self.timeline)

    @property
    def is_open(self) -> bool:
        """Whether it is a pipe whose end has not come: how many frames there are is not known."""
        return self.pipe is not None and not self.num_frames

    @property
    def fps(self) -> Fraction:
        """Frames a second, on average where the rate is variable."""
        return self.timeline.fps


def probe(path: str | Path, source: Source | None = None) -> VideoInfo:
    """Look a video file, a folder or a sequence of images, or what comes through a pipe, before any work is done on it.

    A file is read to its end, and its first frames are decoded: frames are counted, since containers' own counts and
    rates are missing or wrong often enough. An end that is missing is found now in MP4, MOV, Matroska and WebM, which
    tell; in other formats, where it is missing amid a frame. Of a pipe (`-`) the start is read, which is so lost to
    anything else that reads it.

    Args:
        path: the file, the folder, a pattern (`dc_rt.media.sequence`), or `-` for standard input.
        source: what images and raw frames do not say themselves: their rate, view, size and format.

    Raises:
        UserError: for what is not there, is no video, is empty, is encrypted, has no video stream or no frame, is cut
            short, or cannot be decoded; and for an option in `source` that it has no use for.
    """
    path, source = Path(path), source or Source()
    try:
        if is_pipe(path):
            return _probe_pipe(path, source)
        _check_no_pipe(path, source)
        if path.is_dir() or is_pattern(path):
            return _probe_images(path, source)
        _check_states_all(path, source)
        return _probe_file(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check the name and the permissions.") from error


def read_frames(
    video: str | Path | VideoInfo,
    height: int,
    width: int,
    stride: int = 1,
    limit: int | None = None,
    start: int = 0,
    damage: Damage | None = None,
) -> Generator[NDArray[np.uint8], None, None]:
    """The frames that `read_at_sizes` gives, at one size and without their numbers."""
    with closing(read_at_sizes(video, [(height, width)], stride, limit, start, damage)) as frames:
        for _, (frame,) in frames:
            yield frame


def read_at_sizes(
    video: str | Path | VideoInfo,
    sizes: Sequence[tuple[int, int]],
    stride: int = 1,
    limit: int | None = None,
    start: int = 0,
    damage: Damage | None = None,
) -> Generator[tuple[int, list[NDArray[np.uint8]]], None, None]:
    """Frames 0, stride, 2*stride, ... of a video file or a folder of images: the first `limit` of them.

    Args:
        video: its path, or what `probe` found out about it.
        sizes: heights and widths to give each frame in.
        stride, limit: which frames to give; None for all.
        start: how many of those that can be decoded to leave out at the beginning.
        damage: is kept up to date with what cannot be decoded. Such a frame is left out; no other takes its place.

    Yields:
        n and frame n * stride, once a size: uint8 [height,width,3] RGB, turned and mirrored as it is shown. One frame
        is held at a time, and the file is closed when the iterator is exhausted or closed, or fails.

    Raises:
        UserError: what cannot be opened; and all that `probe` raises, for a path.
    """
    source = video if isinstance(video, VideoInfo) else probe(video)
    count = None if source.is_open else len(range(0, source.num_frames, stride))
    count = limit if count is None else count if limit is None else min(count, limit)
    # One for all frames of a size: making its tables takes longer than converting a small frame.
    reformatters = [VideoReformatter() for _ in sizes]
    given = 0
    if count == 0:
        return
    with closing(_stored_frames(source, stride, count, damage or Damage())) as frames:
        for number, frame, orientation in frames:
            given += 1
            if given > start:
                sized = zip(sizes, reformatters, strict=True)
                yield number, [_to_rgb(frame, orientation, *size, reformatter) for size, reformatter in sized]


def _stored_frames(
    source: VideoInfo, stride: int, count: int | None, damage: Damage
) -> Generator[tuple[int, VideoFrame, Orientation], None, None]:
    """n, frame n * stride as it is stored, and how it is turned, for n below `count`; all that come for None."""
    if source.pipe:
        with closing(source.pipe.frames()) as frames:
            # To the end of the last that is taken: until then it is shown.
            for number, frame in enumerate(islice(frames, None if count is None else count * stride)):
                if number % stride == 0:
                    yield number // stride, frame, Orientation()
        return
    assert count is not None  # of files it is known
    if source.images:
        taken = Images(source.images.files[: count * stride : stride], source.images.view)
        with closing(oriented_images(taken)) as images:
            for number, (image, orientation) in enumerate(images):
                yield number, image, orientation
        return
    orientations = Orientations()
    # Frames in between are decoded too: seeking is not exact in every container.
    with closing(numbered_frames(source.path, source.stamps, source.num_frames, damage)) as frames:
        for number, frame in frames:
            if number > (count - 1) * stride:
                return
            if number % stride == 0:
                yield number // stride, frame, orientations.of(frame)
            if number == (count - 1) * stride:
                return


def _to_rgb(
    frame: VideoFrame, orientation: Orientation, height: int, width: int, reformatter: VideoReformatter
) -> NDArray[np.uint8]:
    """The frame as it is shown, uint8 [height,width,3]."""
    stored_height, stored_width = orientation.shown_size(height, width)
    # Bilinear, straight to RGB in one pass, is nearest to what the original's reader (decord) does.
    rgb = reformatter.reformat(
        frame, stored_width, stored_height, format="rgb24", interpolation="BILINEAR"
    ).to_ndarray()
    rgb = rgb.astype(np.uint8, copy=False)
    # swscale takes grey for full range, whatever it is.
    if frame.format.name.startswith("gray") and frame.color_range == ColorRange.MPEG.value:
        rgb = _FULL_RANGE[rgb]
    return np.ascontiguousarray(orientation.apply(rgb))


def _probe_images(path: Path, source: Source) -> VideoInfo:
    """Of a folder, or of a sequence."""
    sequence = None if path.is_dir() else find_sequence(path)
    files = sequence.images if sequence else tuple(list_images(path))
    images = Images(files, View(source.view, source.exposure))
    found = look_through(images)
    fps = exact_rate(source.fps) if source.fps > 0 else IMAGE_FOLDER_FPS
    timeline = _numbered_at(sequence.times, fps) if sequence else Timeline.even(len(files), fps)
    notes = found.notes
    if num_missing := timeline.end - len(files):
        notes = (*notes, f"{num_missing} frames are left out by the range; the others keep their times")
    aspect = Fraction(found.width, found.height) * found.pixel_aspect
    width = max(round(found.height * aspect), 1)
    if found.pixel_aspect != 1:
        notes = (*notes, _of_wide_pixels(found.pixel_aspect))
    stored = (found.height, found.width)
    return VideoInfo(path, found.height, width, aspect, timeline, None, notes, stored, images=images)


def _numbered_at(times: NDArray[np.int64], fps: Fraction) -> Timeline:
    """That of frames with these numbers, counted from 0: every second one, say, is shown for as long as two."""
    step = int(np.gcd.reduce(np.diff(times))) if len(times) > 1 else 1
    return Timeline(step / fps, times // step, int(times[-1]) // step + 1, fps / step, True)


def _probe_pipe(path: Path, source: Source) -> VideoInfo:
    if source.view != Source.view or source.exposure != Source.exposure:
        raise UserError(f"{option('view')} and {option('exposure')} are of EXR files alone; leave them out.")
    pipe = open_pipe(standard_input(), parse_raw_size(source.raw_size), source.raw_format, source.pipe_matrix)
    form = pipe.form
    if form.height * form.width > MAX_PIXELS:
        raise UserError(
            f"The frames on standard input have {form.width}x{form.height} pixels, and at most {MAX_PIXELS:,} are "
            "read; make them smaller first."
        )
    if form.fps and source.fps > 0:
        raise UserError(
            f"The stream on standard input states its rate, {float(form.fps):.4g} frames/s; leave {option('fps')} out, "
            "or have it written with another."
        )
    notes = ["interlaced, read without deinterlacing"] if form.is_interlaced else []
    if not form.fps and source.fps <= 0:
        notes.append(f"a pipe that states no rate: taken at {float(IMAGE_FOLDER_FPS):.4g} frames/s")
    if form.pixel_aspect != 1:
        notes.append(_of_wide_pixels(form.pixel_aspect))
    fps = form.fps or (exact_rate(source.fps) if source.fps > 0 else IMAGE_FOLDER_FPS)
    aspect = Fraction(form.width, form.height) * form.pixel_aspect
    width = max(round(form.height * aspect), 1)
    stored = (form.height, form.width)
    return VideoInfo(path, form.height, width, aspect, Timeline.even(0, fps), None, tuple(notes), stored, pipe=pipe)


def _check_no_pipe(path: Path, source: Source) -> None:
    for name in ("raw_size", "pipe_matrix"):
        if getattr(source, name) != getattr(Source, name):
            raise UserError(
                f"{option(name)} is of frames that come through a pipe, and {path} is none; leave it out, or give - in "
                "its place."
            )


def _check_states_all(path: Path, source: Source) -> None:
    """Raise `UserError` for options that a video file has no use for."""
    for name, value, default in (
        ("fps", source.fps, Source.fps),
        ("view", source.view, Source.view),
        ("exposure", source.exposure, Source.exposure),
    ):
        if value != default:
            of = "images and raw frames" if name == "fps" else "EXR files"
            raise UserError(f"{path} is a video file, and {option(name, value)} is of {of} alone; leave it out.")


def _probe_file(path: Path) -> VideoInfo:
    _check_whole_file(path)
    packets = _scan(path)
    trial = _try(path)
    first = trial.first
    stamps, timeline = _time(path, packets, trial)
    orientation = Orientation.of(first)
    aspect = Fraction(first.width, first.height) * packets.pixel_aspect
    height, width = orientation.shown_size(first.height, max(round(first.height * aspect), 1))
    notes = (*packets.notes, *_notes(first, orientation, packets.pixel_aspect), *_timing(timeline))
    stored = orientation.shown_size(first.height, first.width)
    return VideoInfo(
        path,
        height,
        width,
        1 / aspect if orientation.transposed else aspect,
        timeline,
        stamps,
        notes,
        stored,
        packets.sound,
        packets.time_code,
    )


@dataclass(frozen=True)
class _Packets:
    """What the packets of a video say of its frames, hidden ones and those before the first keyframe left out.

    Attributes:
        shown: time stamps of presentation, in decoding order: int64, `_NONE` where there are none.
        decoded: likewise, of decoding.
        last_duration: ticks that the last frame is shown for; 0 where the file does not say.
        tick: seconds.
        rates: what the file says of its rate.
        pixel_aspect: width to height of a stored pixel.
        notes: what is to be said of the file.
        sound, time_code: of `VideoInfo`.
    """

    shown: NDArray[np.int64]
    decoded: NDArray[np.int64]
    last_duration: int
    tick: Fraction
    rates: tuple[Fraction | None, ...]
    pixel_aspect: Fraction
    notes: tuple[str, ...]
    sound: str | None
    time_code: str


def _scan(path: Path) -> _Packets:
    """Read a file to its end, decoding nothing."""
    # Eight bytes a number: a film has hundreds of thousands of frames.
    shown, decoded, durations = array("q"), array("q"), array("q")
    num_packets = 0
    last_is_corrupt = False
    clock = Clock()
    with open_video(path) as container:
        stream = video_stream(container, path)
        codec = stream.codec_context
        from_keyframe = may_start_anywhere(container)
        if codec.height * codec.width > MAX_PIXELS:
            raise UserError(
                f"The pictures of {path} have {codec.width}x{codec.height} pixels, and at most {MAX_PIXELS:,} are "
                "read; make them smaller first."
            )
        for packet in read_packets(container, stream, all_streams=True, clock=clock):
            if packet is None or packet.size == 0:
                continue
            # A packet that was cut is marked; one amid the file, as in broadcasts, says nothing of the file's end.
            last_is_corrupt = packet.is_corrupt
            if packet.stream_index != stream.index or not (num_packets or packet.is_keyframe or not from_keyframe):
                continue
            if packet.has_sidedata("encryption_info"):
                raise encrypted(path)
            num_packets += 1
            # An edit list hides frames that others are predicted from.
            if not packet.is_discard and not is_hidden(packet, codec.name):
                shown.append(_NONE if packet.pts is None else packet.pts)
                decoded.append(_NONE if packet.dts is None else packet.dts)
                durations.append(packet.duration or 0)
        if last_is_corrupt:
            raise _truncated(path)
        if not shown:
            raise UserError(
                f"{path} has a video stream without a frame that can be decoded; record or export it again."
            )
        # In ISO media files a sample's duration is the time to the next one to be decoded, whatever is shown when.
        stamps = np.array(shown, np.int64)
        last = -1 if container.format.name.startswith("mov") or _NONE in stamps else int(np.argmax(stamps))
        rates = tuple(map(to_fraction, (stream.guessed_rate, stream.base_rate, stream.average_rate)))
        return _Packets(
            stamps,
            np.array(decoded, np.int64),
            durations[last],
            to_fraction(stream.time_base) or Fraction(1),
            rates,
            to_fraction(stream.sample_aspect_ratio) or Fraction(1),
            (*_container_notes(path, container, stream), *_CLOCK_SET_ANEW[: clock.num_jumps]),
            sound_of(container),
            time_code_of(container),
        )


@dataclass(frozen=True)
class _Trial:
    """What decoding the first frames gives: the first of them, their time stamps, the number of packets that are shown
    and had to be read for them, and whether all went well."""

    first: VideoFrame
    stamps: NDArray[np.int64]
    num_packets: int
    is_clean: bool


def _try(path: Path) -> _Trial:
    """Raises `UserError` where no frame of the file can be decoded."""
    first = None
    stamps = array("q")
    is_clean = True
    fed = Fed()
    with closing(decoded_frames(path, one_thread=True, num_frames=_TRIAL_FRAMES, fed=fed)) as frames:
        for frame in frames:
            is_clean &= frame is not None and not frame.is_corrupt
            if frame is not None:
                first = first or frame
                stamps.append(_NONE if frame.pts is None else frame.pts)
    if first is not None:
        return _Trial(first, np.array(stamps, np.int64), fed.num_shown, is_clean)
    if is_animated_webp(path):
        raise UserError(
            f"{path} is an animated WebP, which there is no decoder for here; convert it to a video or a GIF."
        )
    raise UserError(f"No frame of {path} can be decoded: it is damaged or encrypted; copy or download it again.")


def _time(path: Path, packets: _Packets, trial: _Trial) -> tuple[NDArray[np.int64] | None, Timeline]:
    """What frames are told by, and when they are shown; raises `UserError` for a pause that no video has."""
    stamps, seen, tried = np.sort(packets.shown), trial.stamps, packets.shown[: trial.num_packets]
    if _tell_apart(stamps) and _tell_apart(seen) and np.isin(seen, tried).all():
        if trial.is_clean:
            # Frames that refer to some before the first keyframe cannot be had: a recording may start anywhere.
            stamps = stamps[stamps >= seen[0]]
            if np.count_nonzero(tried >= seen[0]) != len(seen):
                # Not every packet is a frame, as where the two fields of a frame come one by one.
                stamps = _decoded_stamps(path)
        if _tell_apart(stamps):
            _check_pauses(path, stamps, packets.tick)
            return stamps, timeline_of(stamps, packets.last_duration, packets.tick, packets.rates)
    # The decoder gives other times than the container, or none: frames are shown one after the other.
    num_frames = len(packets.shown)
    if trial.is_clean and len(trial.stamps) != trial.num_packets:
        num_frames = len(_decoded_stamps(path))
    for times in (packets.decoded, packets.shown):
        known = times[times != _NONE]
        if len(known) == num_frames:
            # Strictly increasing: of two frames with one time, the second is shown a tick later.
            _check_pauses(path, np.sort(known), packets.tick)
            known = np.maximum.accumulate(np.sort(known) - np.arange(num_frames)) + np.arange(num_frames)
            return None, timeline_of(known, packets.last_duration, packets.tick, packets.rates)
    fps = next((rate for rate in packets.rates if rate), _BARE_STREAM_FPS)
    return None, Timeline.even(num_frames, fps)


def _check_pauses(path: Path, stamps: NDArray[np.int64], tick: Fraction) -> None:
    # As numbers of Python, since the difference may not fit into 64 bits.
    span = int(stamps[-1]) - int(stamps[0])
    if span >= 2**53 or (len(stamps) > 1 and int(np.diff(stamps).max()) * tick > LONGEST_PAUSE):
        raise UserError(
            f"{path} has a pause of more than a day between two frames: its times are damaged; "
            "write it anew with a program that mends them, or cut it in two."
        )


def _tell_apart(stamps: NDArray[np.int64]) -> bool:
    """Whether there are stamps, none is missing, and each is greater than the one before."""
    return len(stamps) > 0 and _NONE not in stamps and bool(np.all(np.diff(stamps) > 0))


def _decoded_stamps(path: Path) -> NDArray[np.int64]:
    """The time stamps of all frames that can be decoded, at the cost of decoding them all."""
    stamps = array("q")
    for one_thread in (False, True):
        del stamps[:]
        num_errors = 0
        with closing(decoded_frames(path, one_thread=one_thread)) as frames:
            for frame in frames:
                if frame is None:
                    num_errors += 1
                else:
                    stamps.append(_NONE if frame.pts is None else frame.pts)
        if num_errors == 0:
            break
    return np.array(stamps, np.int64)


def _container_notes(path: Path, container: InputContainer, stream: VideoStream) -> Iterator[str]:
    """What is to be said of the file."""
    streams = video_streams(container)
    if is_heif(path):
        # The others are the picture's alpha channel, in its size, or a thumbnail.
        size = (stream.height, stream.width)
        if any((other.height, other.width) == size for other in streams if other.index != stream.index):
            yield ALPHA
    elif len(streams) > 1:
        which = "the default" if stream.disposition & Disposition.default else "the first"
        yield f"{len(streams)} video streams, of which {which} one is read"
    if is_of_kind(container, Flags.no_timestamps):
        fps = to_fraction(stream.guessed_rate or stream.average_rate) or _BARE_STREAM_FPS
        assumed = "an assumed " if fps == _BARE_STREAM_FPS else ""  # or else it states it
        yield f"a bare stream, which has no times: taken at {assumed}{float(fps):.4g} frames/s"
    if stream.metadata.get("alpha_mode") == "1":
        yield ALPHA


def _notes(frame: VideoFrame, orientation: Orientation, pixel_aspect: Fraction) -> Iterator[str]:
    """What a player would do to such frames and this reader does not, or does differently."""
    if transfer := _HDR_TRANSFERS.get(int(frame.color_trc or 0)):
        yield f"high dynamic range ({transfer}), read without tone mapping"
    if frame.interlaced_frame:
        yield "interlaced, read without deinterlacing"
    if is_transparent(frame):
        yield ALPHA
    if pixel_aspect != 1:
        yield _of_wide_pixels(pixel_aspect)
    if not orientation.is_exact:
        yield "turned by an angle that is no multiple of 90 degrees, read at the nearest"


def _of_wide_pixels(aspect: Fraction) -> str:
    return f"stored with pixels of {aspect.numerator}:{aspect.denominator}, read as it is shown"


def _timing(timeline: Timeline) -> Iterator[str]:
    """Whether frames come at uneven times, as from a phone or a screen recorder."""
    if uneven := unevenness(timeline):
        low, high = uneven
        yield f"variable frame rate ({low:.0f} to {high:.0f} ms a frame); the results keep its times"


def _check_whole_file(path: Path) -> None:
    if not path.exists():
        raise UserError(f"There is no file {path}; check the name.")
    if not path.is_file():
        raise UserError(f"{path} is neither a file nor a folder; give a video file or a folder of images.")
    if path.name.endswith(RAW_SUFFIX):
        raise UserError(f"{path} holds kept depth and no video; write results from it with dc-rt deliver {path}.")
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty (0 bytes); copy or download it again.")
    if ends_early(path):
        raise _truncated(path)
    # Asked of the file itself, once: FFmpeg cannot open some such files, and of others but a part is encrypted.
    if says_encrypted(path):
        raise encrypted(path)


def _truncated(path: Path) -> UserError:
    return UserError(f"{path} is cut short: its end is missing; copy or download it again.")
