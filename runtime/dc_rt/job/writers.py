"""The writers of a run's outputs, of whichever pass: each in a thread of its own, handed one frame after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from av.audio.stream import AudioStream

from dc_rt.depth import ShotDepth
from dc_rt.job.plan import Plan
from dc_rt.job.threads import Behind
from dc_rt.media.results import Result, ResultFrame
from dc_rt.options import Outputs
from dc_rt.outputs import Output

# Frames between what makes them and a writer: enough to even out, little beside a window.
WRITE_BEHIND = 16
_FEWEST, _PIXELS = 2, 2 * 1024 * 576


def open_writers(
    stack: ExitStack,
    rows: Iterable[Output],
    folder: Path,
    plan: Plan,
    outputs: Outputs,
    num_frames: int,
    shots: tuple[ShotDepth, ...] = (),
    audio: AudioStream | None = None,
) -> Callable[[ResultFrame], None]:
    """Open the writers of `rows` in a folder; gives what hands a frame to all of them. `stack` closes them."""
    height, width = plan.result_size(outputs)
    result = Result(
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
    )
    writers = []
    for row in rows:
        path = folder / plan.name if row.is_frames else folder / f"{plan.name}{row.suffix}"
        writer = stack.enter_context(row.open_writer()(path, result))
        behind = stack.enter_context(Behind(frames_between(height, width)))
        writers.append((behind.submit, writer.write))

    def hand(frame: ResultFrame) -> None:
        for submit, write in writers:
            submit(write, frame)

    return hand


def frames_between(height: int, width: int) -> int:
    """How many frames of results may wait for a reader's or a writer's other side: fewer the larger they are."""
    return min(max(_PIXELS // (height * width), _FEWEST), WRITE_BEHIND)
