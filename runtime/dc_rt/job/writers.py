"""The writers of a run's outputs, of whichever pass: each in a thread of its own, handed one frame after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from av.audio.stream import AudioStream

from dc_rt.depth import ShotDepth
from dc_rt.job.plan import Plan
from dc_rt.job.threads import Behind
from dc_rt.media import check_video
from dc_rt.media.results import Result, ResultFrame
from dc_rt.options import Outputs
from dc_rt.outputs import STREAM, Output

# Frames between what makes them and a writer: enough to even out, little beside a window.
WRITE_BEHIND = 16
_FEWEST, _PIXELS = 2, 2 * 1024 * 576


def check_writers(plan: Plan, outputs: Outputs) -> None:
    """Raise `UserError` where this build of PyAV cannot write a video that is asked for, or its sound."""
    height, width = plan.result_size(outputs)
    for row in plan.rows(outputs):
        if row.codec:
            sound_of = plan.video.path if "audio" in row.needs else None
            check_video(row.codec, height, row.beside * width, sound_of, plan.fps)


def open_writers(
    stack: ExitStack, rows: Iterable[Output], folder: Path, name: str, result: Result
) -> Callable[[ResultFrame], None]:
    """Open the writers of `rows` in a folder; gives what hands a frame to all of them. `stack` closes them."""
    writers = []
    for row in rows:
        path = folder / name if row.is_frames else folder / f"{name}{row.suffix}"
        writer = stack.enter_context(row.open_writer()(path, result))
        behind = stack.enter_context(Behind(frames_between(result.height, result.width)))
        writers.append((behind.submit, writer.write))

    def hand(frame: ResultFrame) -> None:
        for submit, write in writers:
            submit(write, frame)

    return hand


def stream_of(outputs: Outputs, given: BinaryIO | None) -> BinaryIO | None:
    """Where the output `-` goes: standard output unless something else is given; None where it is not asked for."""
    return (given or sys.stdout.buffer) if STREAM in outputs.names else None


def result_of(
    plan: Plan,
    outputs: Outputs,
    num_frames: int,
    shots: tuple[ShotDepth, ...] = (),
    audio: AudioStream | None = None,
    about: Mapping[str, Any] | None = None,
    stream: BinaryIO | None = None,
) -> Result:
    """What writers are told of all frames."""
    height, width = plan.result_size(outputs)
    return Result(
        num_frames=num_frames,
        height=height,
        width=width,
        model_height=plan.height,
        model_width=plan.width,
        timeline=plan.timeline,
        sample_aspect_ratio=plan.sample_aspect_ratio(height, width),
        shots=shots,
        video=plan.video,
        outputs=outputs,
        audio=audio,
        about=about or {},
        stream=stream,
    )


def frames_between(height: int, width: int) -> int:
    """How many frames of results may wait for a reader's or a writer's other side: fewer the larger they are."""
    return min(max(_PIXELS // (height * width), _FEWEST), WRITE_BEHIND)
