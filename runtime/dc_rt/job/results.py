"""The second pass: all results from the spooled depth and the video, whole or absent.

They are written into the spool's folder, and moved into place when all are there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

from dc_rt.errors import UserError, option
from dc_rt.job.early import take_early
from dc_rt.job.plan import Plan
from dc_rt.job.record import Clock
from dc_rt.job.spool import Spool
from dc_rt.job.threads import Behind, ahead
from dc_rt.media import read_at_sizes
from dc_rt.media.audio import AudioPackets
from dc_rt.media.results import NO_IMAGE, Result, ResultFrame
from dc_rt.options import Outputs
from dc_rt.outputs import is_frame_name

# Frames between the reader, the writers and what is between them: enough to even out, little beside a window.
READ_AHEAD = 16
WRITE_BEHIND = 16


def write_results(staging: Path, plan: Plan, outputs: Outputs, spool: Spool, clock: Clock) -> list[int]:
    """Write all results into a folder, a frame at a time, each in a thread of its own; gives the frames' numbers.

    The video is read again where that is needed, which costs less than to keep it.
    """
    early = take_early(spool.folder, (spool.progress.notes or {}).get("early", {}), staging)
    rows = [row for row in outputs.rows if f"{plan.name}{row.suffix}" not in early]
    needs = frozenset[str]().union(*(row.needs for row in rows))
    # Which frames there are is known without reading if none is missing.
    is_read = any(row.takes_image for row in rows) or bool(needs) or spool.num_frames != plan.num_frames
    numbers: list[int] = []
    with ExitStack() as stack:
        audio = stack.enter_context(AudioPackets(plan.video)) if "audio" in needs else None
        result = Result(
            num_frames=spool.num_frames,
            height=plan.height,
            width=plan.width,
            timeline=plan.timeline,
            sample_aspect_ratio=plan.sample_aspect_ratio,
            depth_range=spool.range,
            video=plan.video,
            audio=audio.stream if audio else None,
        )
        writers = []
        for row in rows:
            path = staging / plan.name if row.is_frames else staging / f"{plan.name}{row.suffix}"
            writer = stack.enter_context(row.open_writer()(path, result))
            writers.append((stack.enter_context(Behind(WRITE_BEHIND)).submit, writer.write))
        frames = _joined(plan, spool, "source" in needs, audio, stack) if is_read else _depth_alone(plan, spool)
        for frame in frames:
            with clock.measure("write", frames=1):
                for submit, write in writers:
                    submit(write, frame)
            numbers.append(frame.number)
    return numbers


def _depth_alone(plan: Plan, spool: Spool) -> Iterator[ResultFrame]:
    """Every frame with its depth, for outputs that take nothing else."""
    for index, (raw, depth) in enumerate(spool.frames()):
        time = int(plan.timeline.times[index]) * plan.timeline.tick
        yield ResultFrame(index, index, time, raw, depth, NO_IMAGE)


def _joined(
    plan: Plan, spool: Spool, with_source: bool, audio: AudioPackets | None, stack: ExitStack
) -> Iterator[ResultFrame]:
    """Every frame with all that belongs to it."""
    sizes = [(plan.height, plan.width), *([(plan.video.height, plan.video.width)] if with_source else [])]
    frames = read_at_sizes(plan.video, sizes, plan.stride, plan.num_frames)
    read = stack.enter_context(ahead(frames, READ_AHEAD))
    times = plan.timeline.times
    index = -1
    # The depth first: when it ends, no frame is taken for nothing.
    for index, ((raw, depth), (number, images)) in enumerate(zip(spool.frames(), read, strict=False)):
        last = index + 1 == spool.num_frames
        packets = audio.until(None if last else _seconds(plan, number + 1)) if audio else ()
        time = int(times[number]) * plan.timeline.tick
        yield ResultFrame(index, number, time, raw, depth, images[0], images[1] if with_source else None, packets)
    if index + 1 != spool.num_frames or next(read, None) is not None:
        raise UserError(
            f"{plan.video.path} has other frames than when its depth was estimated; has it changed? "
            f"Start over with {option('restart', True)}."
        )


def _seconds(plan: Plan, number: int) -> Fraction | None:
    times = plan.timeline.times
    return int(times[number]) * plan.timeline.tick if number < len(times) else None


def empty_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def move_into_place(staging: Path, save_folder: Path) -> list[Path]:
    """Move every result to where the user looks for it, replacing those of an earlier run; the record comes last."""
    results = []
    for source in sorted(staging.iterdir(), key=lambda path: (path.suffix == ".json", path.name)):
        target = save_folder / source.name
        if source.is_dir():
            _move_frames(source, target)
        else:
            source.replace(target)
        results.append(target)
    return results


def _move_frames(source: Path, target: Path) -> None:
    """Move numbered frames into a folder, where an earlier, longer run's go and anything else stays."""
    if not target.is_dir():
        target.unlink(missing_ok=True)
    target.mkdir(exist_ok=True)
    frames = sorted(source.iterdir())
    suffixes = {frame.suffix for frame in frames}
    for stale in list(target.iterdir()):
        if is_frame_name(stale.name, suffixes):
            stale.unlink()
    for frame in frames:
        frame.replace(target / frame.name)
