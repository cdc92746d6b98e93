"""The second pass: all results from the spooled depth and the video, whole or absent.

They are written into the spool's folder, and moved into place when all are there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import repeat
from pathlib import Path

from dc_rt.depth import DepthSource, normalised, range_of
from dc_rt.errors import UserError, option
from dc_rt.heap import give_back_freed
from dc_rt.job.early import Early
from dc_rt.job.plan import Plan
from dc_rt.job.record import Clock
from dc_rt.job.threads import ahead
from dc_rt.job.writers import frames_between, open_writers
from dc_rt.media import read_at_sizes
from dc_rt.media.audio import AudioPackets
from dc_rt.media.results import NO_DEPTH, NO_IMAGE, ResultFrame
from dc_rt.media.upsample import Upsampler
from dc_rt.options import Outputs
from dc_rt.outputs import is_frame_name

GIVE_BACK_EVERY = 16  # frames


def write_results(
    staging: Path, plan: Plan, outputs: Outputs, source: DepthSource, early: Early, clock: Clock
) -> list[int]:
    """Write all results into a folder, a frame at a time, each in a thread of its own; gives the frames' numbers.

    The video is read again where that is needed, which costs less than to keep it.

    Args:
        staging: the folder.
        plan: of the run that the depth is of.
        outputs: what to write, and how.
        source: of the depth.
        early: what was written while the model ran.
        clock: is told of every frame.
    """
    written = early.take(plan, outputs, staging)
    rows = [row for row in outputs.rows if row not in written]
    needs = frozenset[str]().union(*(row.needs for row in rows))
    size = plan.result_size(outputs)
    upsample = Upsampler((plan.height, plan.width), size, outputs.upscale)
    takes_image = any(row.takes_image for row in rows) or (
        upsample.takes_guide and any(row.takes_depth for row in rows)
    )
    # Which frames there are is known without reading if none is missing.
    is_read = takes_image or bool(needs) or source.num_frames != plan.num_frames
    numbers: list[int] = []
    with ExitStack() as stack:
        audio = stack.enter_context(AudioPackets(plan.video)) if "audio" in needs else None
        sound = audio.stream if audio else None
        hand = open_writers(stack, rows, staging, plan, outputs, source.num_frames, source.shots, sound)
        pictures = (
            _pictures(plan, source.num_frames, size, "source" in needs, audio, stack)
            if is_read
            else _no_pictures(plan, source.num_frames)
        )
        shots = _shot_of_each(source)
        ranges = _ranges(source, outputs)
        # The depth first: when it ends, no frame is taken for nothing.
        for model_raw, shot, picture in zip(source.frames(), shots, pictures, strict=True):
            with clock.measure("write", frames=1):
                raw = upsample(model_raw, picture.image if upsample.takes_guide else None)
                depth = normalised(raw, ranges[shot])
                hand(replace(picture, model_raw=model_raw, raw=raw, depth=depth, shot=shot))
            numbers.append(picture.number)
            if len(numbers) % GIVE_BACK_EVERY == 0:
                give_back_freed()
    return numbers


def _ranges(source: DepthSource, outputs: Outputs) -> list[tuple[float, float]]:
    """What becomes 0 and 1 in each shot."""
    if outputs.range == "shot":
        return [(shot.low, shot.high) for shot in source.shots]
    return [outputs.fixed_range or range_of(source.shots)] * len(source.shots)


def _shot_of_each(source: DepthSource) -> Iterator[int]:
    """The shot of every frame."""
    ends = [*(shot.start for shot in source.shots[1:]), source.num_frames]
    for shot, (begun, end) in enumerate(zip(source.shots, ends, strict=True)):
        yield from repeat(shot, end - begun.start)


def _no_pictures(plan: Plan, num_frames: int) -> Iterator[ResultFrame]:
    """Every frame without its depth, for outputs that take nothing else."""
    for index in range(num_frames):
        yield ResultFrame(index, index, plan.timeline.time(index), NO_DEPTH, NO_DEPTH, NO_DEPTH, NO_IMAGE)


def _pictures(
    plan: Plan,
    num_frames: int,
    size: tuple[int, int],
    with_source: bool,
    audio: AudioPackets | None,
    stack: ExitStack,
) -> Iterator[ResultFrame]:
    """Every frame with all that belongs to it but its depth."""
    sizes = [size, *([(plan.video.height, plan.video.width)] if with_source else [])]
    frames = read_at_sizes(plan.video, sizes, plan.stride, plan.num_frames)
    read = stack.enter_context(ahead(frames, frames_between(*size)))
    index = -1
    for index, (number, images) in zip(range(num_frames), read, strict=False):
        last = index + 1 == num_frames
        following = None if last or number + 1 == len(plan.timeline) else plan.timeline.time(number + 1)
        yield ResultFrame(
            index,
            number,
            plan.timeline.time(number),
            NO_DEPTH,
            NO_DEPTH,
            NO_DEPTH,
            images[0],
            images[1] if with_source else None,
            audio.until(following) if audio else (),
        )
    if index + 1 != num_frames or next(read, None) is not None:
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
