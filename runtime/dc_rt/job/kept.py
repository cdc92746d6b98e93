"""What a raw file says of the run that it is of, and that run's plan, made again from it (docs/raw.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from dc_rt.depth import DepthSource
from dc_rt.errors import UserError, option
from dc_rt.job.fingerprint import content_hash
from dc_rt.job.plan import Plan, plan_video
from dc_rt.job.targets import result_name
from dc_rt.media import Damage, Timeline, VideoInfo
from dc_rt.media.pipe import is_pipe
from dc_rt.media.raw import RawFile
from dc_rt.media.sequence import is_pattern
from dc_rt.options import Source


def attributes_of(
    origin: Mapping[str, Any],
    plan: Plan,
    options: Mapping[str, Any],
    damage: Damage,
    depth: DepthSource,
    video_sha256: str,
) -> dict[str, Any]:
    """The attributes of a raw file, but for those that its writer adds.

    Args:
        origin: what `dc_rt.job.record.origin_of` gives.
        plan: of the run.
        options: of sampling and source, by name.
        damage: of the video.
        depth: that is kept.
        video_sha256: what `content_hash` gives of the video.
    """
    video = plan.video
    return {
        "shots": [asdict(shot) for shot in depth.shots],
        "plan": {
            "num_frames": plan.num_frames,
            "stride": plan.stride,
            "height": plan.height,
            "width": plan.width,
        },
        "video": {
            # The folder may be another one when it is looked for.
            "path": "-" if video.pipe else os.path.abspath(video.path),  # noqa: PTH100 - links stay as they are
            "sha256": video_sha256,
            "height": video.height,
            "width": video.width,
            "stored": list(video.stored_size),
            "aspect": str(video.aspect),
            "notes": list(video.notes),
            "sound": video.sound,
            "time_code": video.time_code,
            "timeline": _timeline_as_json(video.timeline),
        },
        "damage": vars(damage),
        "options": dict(options),
        **origin,
    }


def plan_of(file: RawFile) -> Plan:
    """The plan of the run that a raw file is of, called as the file is; of its video without what decoding it takes.

    Raises:
        UserError: the file does not say all of it.
    """
    try:
        video, plan = file.attributes["video"], file.attributes["plan"]
        height, width = map(int, video["stored"])
        info = VideoInfo(
            path=Path(video["path"]),
            height=int(video["height"]),
            width=int(video["width"]),
            aspect=Fraction(video["aspect"]),
            timeline=_timeline_of(video["timeline"]),
            notes=tuple(map(str, video["notes"])),
            stored=(height, width),
            sound=None if video["sound"] is None else str(video["sound"]),
            time_code=str(video["time_code"]),
        )
        size = (file.height, file.width)
        made = Plan(info, int(plan["stride"]), int(plan["num_frames"]), *size, called=result_name(file.path))
        if file.numbers[-1] >= len(made.timeline):
            raise ValueError("frames beyond the end of the video")
        return made
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise incomplete(file) from error


def damage_of(file: RawFile) -> Damage:
    """What could not be decoded of the video."""
    try:
        return Damage(**file.attributes["damage"])
    except (KeyError, TypeError) as error:
        raise incomplete(file) from error


def origin_of_kept(file: RawFile) -> dict[str, Any]:
    """What `dc_rt.job.record.origin_of` gave of the run."""
    found = {name: file.attributes.get(name) for name in ("model", "demonstration", "engines", "source")}
    if not all(isinstance(found[name], dict) for name in ("model", "engines", "source")):
        raise incomplete(file)
    return found


def options_of(file: RawFile) -> dict[str, Any]:
    """The options of sampling and source, by name."""
    options = file.attributes.get("options")
    if not isinstance(options, dict):
        raise incomplete(file)
    return options


def with_video(plan: Plan, file: RawFile, given: Path | None, needed_for: str) -> Plan:
    """The plan with the video that the file is of, ready to be decoded.

    Args:
        plan: what `plan_of` gives.
        file: the raw file.
        given: where the video is now; None for where it was.
        needed_for: what takes it, in words.

    Raises:
        UserError: it is not there, is another one or has changed.
    """
    if is_pipe(plan.video.path):
        raise UserError(
            f"{file.path} is of frames that came through a pipe and are gone, and they are needed for {needed_for}; "
            "leave that out, or estimate the depth of a file."
        )
    path = given or plan.video.path
    if not os.path.lexists(path) and not is_pattern(path):
        raise UserError(
            f"{path}, the video of {file.path}, is not there, and is needed for {needed_for}; say where it is with "
            f"{option('source', 'FILE')}."
        )
    known = {name: value for name, value in options_of(file).items() if name in vars(Source())}
    found = plan_video(path, Source(**known | {"shots": "none"}))
    try:
        sha256 = content_hash(found.video)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check the name and the permissions.") from error
    if sha256 != file.attributes["video"].get("sha256"):
        raise UserError(
            f"{path} is not the video that {file.path} is of, or was changed since; give that one with "
            f"{option('source', 'FILE')}, or estimate its depth again."
        )
    return replace(plan, video=replace(found.video, timeline=plan.video.timeline))


def incomplete(file: RawFile) -> UserError:
    """For a raw file that does not say what every one does."""
    return UserError(f"{file.path} does not say what a raw file does of its run; make it anew.")


def _timeline_as_json(timeline: Timeline) -> dict[str, Any]:
    is_even = np.array_equal(timeline.times, np.arange(len(timeline)))
    return {
        "num_frames": len(timeline),
        "tick": str(timeline.tick),
        "end": timeline.end,
        "fps": str(timeline.fps),
        "is_constant": timeline.is_constant,
        "times": None if is_even else timeline.times.tolist(),
    }


def _timeline_of(values: Mapping[str, Any]) -> Timeline:
    times = values["times"]
    return Timeline(
        Fraction(values["tick"]),
        np.arange(values["num_frames"], dtype=np.int64) if times is None else np.array(times, np.int64),
        int(values["end"]),
        Fraction(values["fps"]),
        bool(values["is_constant"]),
    )
