"""The second pass: all results from the spooled depth and the video, whole or absent.

They are written into the spool's folder, and moved into place when all are there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO

from dc_rt.depth import DepthSource, normalised, range_of
from dc_rt.errors import UserError, option
from dc_rt.heap import give_back_freed
from dc_rt.job.early import Early
from dc_rt.job.plan import Plan
from dc_rt.job.record import Clock, as_text
from dc_rt.job.spool import STALE
from dc_rt.job.targets import Targets, laid_out
from dc_rt.job.threads import ahead
from dc_rt.job.writers import frames_between, open_writers, result_of
from dc_rt.media import read_at_sizes
from dc_rt.media.audio import AudioPackets
from dc_rt.media.results import NO_DEPTH, NO_IMAGE, ResultFrame
from dc_rt.media.upsample import Upsampler, takes_guide
from dc_rt.options import Outputs
from dc_rt.outputs import Output, is_frame_name

GIVE_BACK_EVERY = 16  # frames


def write_results(
    staging: Path,
    plan: Plan,
    outputs: Outputs,
    source: DepthSource,
    early: Early,
    clock: Clock,
    about: Mapping[str, Any] | None = None,
    stream: BinaryIO | None = None,
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
        about: what a raw file says of the run.
        stream: where the output `-` goes; None where it is written already.
    """
    written = early.take(plan, outputs, staging)
    rows = [row for row in plan.rows(outputs) if row not in written and (row.kind != "stream" or stream)]
    needs = frozenset[str]().union(*(row.needs for row in rows))
    numbers: list[int] = []
    with ExitStack() as stack:
        audio = stack.enter_context(AudioPackets(plan.video)) if "audio" in needs else None
        sound = audio.stream if audio else None
        result = result_of(plan, outputs, source.num_frames, source.shots, sound, about, stream)
        hand = open_writers(stack, rows, staging, plan.name, result)
        is_read = bool(takers_of_video(plan, outputs, rows))
        for frame in result_frames(stack, plan, outputs, source, clock, is_read, "source" in needs, audio):
            hand(frame)
            numbers.append(frame.number)
            if len(numbers) % GIVE_BACK_EVERY == 0:
                give_back_freed()
    return numbers


def takers_of_video(plan: Plan, outputs: Outputs, rows: Iterable[Output]) -> tuple[str, ...]:
    """What takes pictures or sound of the video: names of outputs, and how depth is brought to its size."""
    rows = tuple(rows)
    names = tuple(f"the output {row.name}" for row in rows if row.takes_image or row.needs)
    is_guided = takes_guide((plan.height, plan.width), plan.result_size(outputs), outputs.upscale)
    is_guided = is_guided and any(row.takes_depth for row in rows)
    return (*names, option("size", outputs.size)) if is_guided else names


def result_frames(
    stack: ExitStack,
    plan: Plan,
    outputs: Outputs,
    source: DepthSource,
    clock: Clock,
    is_read: bool,
    with_source: bool = False,
    audio: AudioPackets | None = None,
) -> Iterator[ResultFrame]:
    """Every frame of the results, for all writers.

    Args:
        stack: closes what is opened for it.
        plan, outputs, source, clock: as of `write_results`, except that the clock is told of what it takes to make and
            to hand a frame over.
        is_read: whether pictures of the video are needed.
        with_source: whether these are needed at their own size too.
        audio: its sound.
    """
    upsample = upsampler_of(plan, outputs)
    # Which frames there are is known without reading if none is missing.
    numbers = source.numbers or (range(source.num_frames) if source.num_frames == plan.num_frames else None)
    if is_read or numbers is None:
        pictures = _pictures(plan, source.num_frames, plan.result_size(outputs), with_source, audio, stack)
    else:
        pictures = _no_pictures(plan, numbers)
    ranges = _ranges(source, outputs)
    # The depth first: when it ends, no frame is taken for nothing.
    for model_raw, shot, picture in zip(source.frames(), _shot_of_each(source), pictures, strict=True):
        with clock.measure("write", frames=1):
            raw = upsample(model_raw, picture.image if upsample.takes_guide else None)
            depth = normalised(raw, ranges[shot])
            yield replace(picture, model_raw=model_raw, raw=raw, depth=depth, shot=shot)


def upsampler_of(plan: Plan, outputs: Outputs) -> Upsampler:
    """What brings depth of a run to the size of its results."""
    return Upsampler((plan.height, plan.width), plan.result_size(outputs), outputs.upscale)


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


def _no_pictures(plan: Plan, numbers: Sequence[int]) -> Iterator[ResultFrame]:
    """Every frame without its depth, for outputs that take nothing else."""
    for index, number in enumerate(numbers):
        yield ResultFrame(index, number, plan.timeline.time(number), NO_DEPTH, NO_DEPTH, NO_DEPTH, NO_IMAGE)


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
        last = last or number + 1 == len(plan.timeline)
        following = plan.timeline.duration if last else plan.timeline.time(number + 1)
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


def finish(
    staging: Path,
    targets: Targets,
    contents: dict[str, Any],
    overwrite: bool,
    is_kept: bool,
) -> list[Path]:
    """Write the record beside the results, and move all of them into place; gives their paths.

    Args:
        staging: the folder of the results.
        targets: where they go.
        contents: of the record, but for the list of files.
        overwrite: whether files are replaced that dc-rt did not write.
        is_kept: whether what was done is kept where that fails.
    """
    record = contents | {"files": targets.list_files(staging)}
    (staging / targets.record.name).write_text(as_text(record))
    targets.check(overwrite, at_the_end=is_kept)  # something may have appeared meanwhile
    return move_into_place(staging, targets)


def empty_folder(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def move_into_place(staging: Path, targets: Targets) -> list[Path]:
    """Move every result to where the user looks for it, replacing those of an earlier run; the record comes last.

    All that changes beside the spool is moved out of its folder or into it. Whoever takes that folder away from this
    process (`dc_rt.job.spool.fence`) has nothing changed by it from then on.
    """
    stale = empty_folder(staging.with_name(STALE))
    results = []
    for source in sorted(staging.iterdir(), key=lambda path: (path.suffix == ".json", path.name)):
        target = targets.save_folder / source.name
        if layout := targets.folders.get(source.name):
            _move_folder(source, target, layout, stale)
        elif source.is_dir():
            _move_frames(source, target, stale)
        else:
            source.replace(target)
        results.append(target)
    shutil.rmtree(stale, ignore_errors=True)
    return results


def _move_frames(source: Path, target: Path, stale: Path) -> None:
    """Move numbered frames into a folder, where an earlier, longer run's go and anything else stays."""
    if not target.is_dir():
        if os.path.lexists(target):
            _set_aside([target], stale)
        target.mkdir(exist_ok=True)
    frames = sorted(source.iterdir())
    suffixes = {frame.suffix for frame in frames}
    _set_aside([path for path in target.iterdir() if is_frame_name(path.name, suffixes)], stale)
    for frame in frames:
        frame.replace(target / frame.name)


def _move_folder(source: Path, target: Path, layout: Sequence[str], stale: Path) -> None:
    """Move a folder's files into another one, where those of an earlier run go and anything else stays.

    What tells of the others goes first, and comes last.
    """
    _set_aside(reversed([*laid_out(target, layout)]), stale)
    for file in laid_out(source, layout):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)


def _set_aside(paths: Iterable[Path], stale: Path) -> None:
    """Move files into the folder of what is stale, in the order that they are given in."""
    for number, path in enumerate(paths, len(os.listdir(stale))):  # noqa: PTH208 - there may be very many
        path.replace(stale / str(number))
