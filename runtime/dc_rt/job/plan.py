"""What a run will do with a video, before any of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path

from dc_rt.engine import Profile
from dc_rt.errors import UserError, option
from dc_rt.formats import VIDEO_CODECS
from dc_rt.job.events import Planned
from dc_rt.job.targets import result_name, text
from dc_rt.media import Timeline, VideoInfo, frame_stride, output_size, probe
from dc_rt.media.pipe import Pipe
from dc_rt.media.shot_lists import read_starts, taken_starts
from dc_rt.options import Outputs, Sampling, Source
from dc_rt.outputs import STREAM, Output
from dc_rt.parsing import parse_size
from dc_rt.windows import plan_windows


@dataclass(frozen=True)
class Plan:
    """What a run will do: the video, the frames taken from it, and the size that they are processed at.

    Attributes:
        video: what `dc_rt.probe` found out about it.
        stride, num_frames: every `stride`th frame is taken, so many in all; of a pipe whose end has not come, so many
            at most, and 0 for all.
        height, width: of the frames as they are processed.
        shots: the first of these frames of every shot, from 0 on; None where they are found before the model runs.
        called: what the results are called, if not as the video is.
    """

    video: VideoInfo
    stride: int
    num_frames: int
    height: int
    width: int
    shots: tuple[int, ...] | None = (0,)
    called: str = ""

    @property
    def name(self) -> str:
        """What the results are called."""
        return self.called or result_name(self.video.path)

    @property
    def limit(self) -> int | None:
        """Frames to take at most; None for all that come through a pipe."""
        return None if self.video.is_open and not self.num_frames else self.num_frames

    @property
    def fps(self) -> Fraction:
        """Frame rate of the results, on average where it is variable."""
        return self.timeline.fps

    @cached_property
    def timeline(self) -> Timeline:
        """When the frames of the results are shown: when those of the video are, whatever the stride."""
        return self.video.timeline.every(self.stride, self.num_frames)

    def result_size(self, outputs: Outputs) -> tuple[int, int]:
        """Height and width of the results."""
        if outputs.size == "model":
            return self.height, self.width
        return parse_size(outputs.size) or self.video.stored_size

    def sample_aspect_ratio(self, height: int, width: int) -> Fraction:
        """How wide a pixel of results of this size is to its height, so that they lie exactly over the video."""
        return self.video.aspect * height / width

    def rows(self, outputs: Outputs) -> tuple[Output, ...]:
        """The outputs as the options ask for them of this video."""
        return outputs.rows_with(self.video.sound if outputs.copies_sound else None)

    def check_engines(self, profile: Profile, sampling: Sampling) -> None:
        """Raise `UserError` where engines of that profile cannot run the plan's size or the window."""
        profile.check_size(self.height, self.width)
        profile.check_window(sampling.window_size)

    def windows(self, sampling: Sampling) -> Iterator[tuple[int, int]]:
        """First frame and end of every window of every shot; of one shot where these are still to be found."""
        for first, following in pairwise([*(self.shots or (0,)), self.num_frames]):
            for start, end in plan_windows(following - first, sampling.window_size, sampling.overlap):
                yield first + start, first + end

    def num_evaluated(self, sampling: Sampling, after: int = 0) -> int:
        """Frames that go through the denoiser in the windows from frame `after` on, counted at every evaluation."""
        if self.video.is_open:
            return 0
        frames = sum(end - start for start, end in self.windows(sampling) if start >= after)
        return sum(sampling.evaluations) * frames

    @property
    def followed(self) -> Plan:
        """The plan for whoever reads the frames of a pipe while they come, from where they are kept."""
        if not isinstance(self.video.pipe, Pipe):
            return self
        return replace(self, video=replace(self.video, pipe=self.video.pipe.kept))

    def settled(self) -> Plan:
        """The plan for a pipe once its end has come: its frames are read from where they are kept from now on."""
        assert isinstance(self.video.pipe, Pipe)
        num_kept = self.video.pipe.num_kept
        num_frames = len(range(0, num_kept, self.stride)[: self.limit])
        video = replace(self.video, timeline=Timeline.even(num_kept, self.video.fps), pipe=self.video.pipe.kept)
        shots = self.shots and tuple(start for start in self.shots if start < num_frames)
        return replace(self, video=video, num_frames=num_frames, shots=shots)

    def described(self, sampling: Sampling, outputs: Outputs, demonstration: str) -> Planned:
        """The plan as an event."""
        return Planned(
            text(self.video.path),
            self.video.num_frames,
            self.video.height,
            self.video.width,
            float(self.video.fps),
            0 if self.video.is_open else self.num_frames,
            self.height,
            self.width,
            float(self.fps),
            self.num_evaluated(sampling),
            (*self.video.notes, *sampling.notes, *outputs.notes, *self._notes(outputs)),
            demonstration,
        )

    def _notes(self, outputs: Outputs) -> Iterator[str]:
        """What is to be said of the shots, and of what will be written, before it is."""
        if self.shots is None:
            yield "its shots are found first, in a pass over all frames"
        elif len(self.shots) > 1:
            yield f"{len(self.shots)} shots, each estimated by itself"
        yield from self.notes_on_results(outputs)

    def notes_on_results(self, outputs: Outputs) -> Iterator[str]:
        """What is to be said of what will be written."""
        height, width = self.result_size(outputs)
        if (height, width) != (self.height, self.width):
            yield f"results of {width}x{height}"
        yield from self.notes_on_outputs(outputs)

    def notes_on_outputs(self, outputs: Outputs) -> Iterator[str]:
        """The same, but for their size."""
        yield from outputs.without_use
        height, width = self.result_size(outputs)
        if outputs.values == "raw" and (cut := [row.name for row in self.rows(outputs) if row.cuts_values]):
            yield f"raw depth beyond 0 and 1 is cut to these in {', '.join(cut)}"
        videos = [row for row in self.rows(outputs) if row.codec]
        for name, wide in dict.fromkeys((row.codec, row.beside * width) for row in videos):
            codec = VIDEO_CODECS[name]
            if codec.stored_as(height, wide) != codec.pixel_format:
                name, stored = codec.words.split(",")[0], codec.stored_as(height, wide)
                yield f"{wide}x{height} is odd: {name} is stored as {stored}, which some players do not show"
        if STREAM in outputs.names and outputs.pipe_format == "yuv4mpeg" and not self.timeline.is_constant:
            yield f"{float(self.fps):.6g} frames/s on standard output, evenly, since yuv4mpeg has one rate"
        if outputs.copies_sound and self.video.sound is None:
            yield "no sound to copy"
        usual = {row.name: row.suffix for row in outputs.rows}
        for row in videos:
            if row.suffix != usual[row.name]:
                container = usual[row.name].rpartition(".")[2].upper()
                yield f"{text(self.name)}{row.suffix}, since {container} does not hold its sound, {self.video.sound}"


def plan_video(video: str | Path | VideoInfo, source: Source) -> Plan:
    """Look at the video and settle what is to be done, whatever engines will do it; nothing is written.

    Raises:
        UserError: the video cannot be read, or no frame is left of it; or the list of its shots is none of it.
    """
    info = video if isinstance(video, VideoInfo) else probe(video, source)
    stride = frame_stride(float(info.fps), source.target_fps)
    num_frames = len(range(0, info.num_frames, stride))
    if source.process_length >= 0:
        num_frames = source.process_length if info.is_open else min(num_frames, source.process_length)
    if num_frames == 0 and not (info.is_open and source.process_length < 0):
        raise UserError(
            f"No frame is left of {info.path} (every {stride}. of {info.num_frames}, at most {source.process_length}); "
            f"try {option('process_length', -1)}."
        )
    height, width = output_size(info.height, info.width, source.max_res, source.dataset)
    return Plan(info, stride, num_frames, height, width, _shots(info, source.shots, stride, num_frames))


def _shots(video: VideoInfo, shots: str, stride: int, num_frames: int) -> tuple[int, ...] | None:
    if shots == "auto":
        return None
    starts = (0,) if shots == "none" else read_starts(Path(shots).expanduser(), video.timeline)
    # How long a pipe is shows at its end.
    return taken_starts(starts, stride, sys.maxsize if video.is_open else num_frames)
