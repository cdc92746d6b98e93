"""The second pass: all results from the spooled depth and the video, whole or absent.

They are written into the spool's folder, and moved into place when all are there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from dc_rt.errors import UserError, option
from dc_rt.job.early import take_early
from dc_rt.job.plan import Plan
from dc_rt.job.record import Clock
from dc_rt.job.spool import Spool
from dc_rt.job.threads import ahead
from dc_rt.job.writers import open_writers
from dc_rt.media import read_at_sizes
from dc_rt.media.audio import AudioPackets
from dc_rt.media.results import NO_IMAGE, ResultFrame
from dc_rt.options import Outputs
from dc_rt.outputs import is_frame_name

# Frames between the reader and what it reads for: enough to even out, little beside a window.
READ_AHEAD = 16


def write_results(staging: Path, plan: Plan, outputs: Outputs, spool: Spool, clock: Clock) -> list[int]:
    """Write all results into a folder, a frame at a time, each in a thread of its own; gives the frames' numbers.

    The video is read again where that is needed, which costs less than to keep it.
    """
    written = take_early(spool.folder, (spool.progress.notes or {}).get("early", {}), plan, outputs, staging)
    rows = [row for row in outputs.rows if row not in written]
    needs = frozenset[str]().union(*(row.needs for row in rows))
    # Which frames there are is known without reading if none is missing.
    is_read = any(row.takes_image for row in rows) or bool(needs) or spool.num_frames != plan.num_frames
    numbers: list[int] = []
    with ExitStack() as stack:
        audio = stack.enter_context(AudioPackets(plan.video)) if "audio" in needs else None
        hand = open_writers(stack, rows, staging, plan, spool.num_frames, spool.range, audio.stream if audio else None)
        frames = _joined(plan, spool, "source" in needs, audio, stack) if is_read else _depth_alone(plan, spool)
        for frame in frames:
            with clock.measure("write", frames=1):
                hand(frame)
            numbers.append(frame.number)
    return numbers


def _depth_alone(plan: Plan, spool: Spool) -> Iterator[ResultFrame]:
    """Every frame with its depth, for outputs that take nothing else."""
    for index, (raw, depth) in enumerate(spool.frames()):
        yield ResultFrame(index, index, plan.timeline.time(index), raw, depth, NO_IMAGE)


def _joined(
    plan: Plan, spool: Spool, with_source: bool, audio: AudioPackets | None, stack: ExitStack
) -> Iterator[ResultFrame]:
    """Every frame with all that belongs to it."""
    sizes = [(plan.height, plan.width), *([(plan.video.height, plan.video.width)] if with_source else [])]
    frames = read_at_sizes(plan.video, sizes, plan.stride, plan.num_frames)
    read = stack.enter_context(ahead(frames, READ_AHEAD))
    index = -1
    # The depth first: when it ends, no frame is taken for nothing.
    for index, ((raw, depth), (number, images)) in enumerate(zip(spool.frames(), read, strict=False)):
        last = index + 1 == spool.num_frames
        following = None if last or number + 1 == len(plan.timeline) else plan.timeline.time(number + 1)
        packets = audio.until(following) if audio else ()
        source = images[1] if with_source else None
        yield ResultFrame(index, number, plan.timeline.time(number), raw, depth, images[0], source, packets)
    if index + 1 != spool.num_frames or next(read, None) is not None:
        raise UserError(
            f"{plan.video.path} has other frames than when its depth was estimated; has it changed? "
            f"Start over with {option('restart', True)}."
        )


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
