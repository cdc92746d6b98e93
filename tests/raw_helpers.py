"""Runs that keep their raw depth, for tests of what is made from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from command_helpers import contents
from dc_rt import DepthCrafter, Outputs
from dc_rt.outputs import RAW_SUFFIX
from job_helpers import choose, run_job
from media_helpers import real_clip

EVERYTHING = ("depth.mp4", "vis.mp4", "input.mp4", "npz", "exr", "png")
"""All outputs that are built in but the raw one."""

CHOSEN = {"steps": 1, "window_size": 8, "overlap": 2, "max_res": 128, "process_length": 12}


class Kept(NamedTuple):
    """A video, the folder of its results, and its raw file there."""

    video: Path
    folder: Path
    raw: Path


def run_kept(model: DepthCrafter, video: Path, folder: Path, **options: Any) -> Kept:
    """Run a video with these options, writing everything and keeping the raw depth."""
    outputs = {name: options.pop(name) for name in list(options) if name in vars(Outputs())}
    chosen = choose(**CHOSEN | options)._replace(outputs=Outputs(EVERYTHING, keep="raw", **outputs))
    run_job(model, video, folder, chosen)
    return Kept(video, folder, folder / f"{video.stem}{RAW_SUFFIX}")


def make_kept(model: DepthCrafter, folder: Path) -> Kept:
    """Of a real clip."""
    video = folder / "clip.mp4"
    video.write_bytes(real_clip("bikes.mp4").read_bytes())
    return run_kept(model, video, folder / "direct")


def results(folder: Path) -> dict[str, bytes]:
    """All files but the record, which says when it was made, and the raw file."""
    return {name: data for name, data in contents(folder, without=".json").items() if not name.endswith(RAW_SUFFIX)}
