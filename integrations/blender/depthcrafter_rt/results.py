"""What a run has left, by its `NAME.json`, as far as a scene needs it. Knows nothing of Blender."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from .errors import Problem

_COLOUR_PRESETS = ("rgb", "fusion")
_NUMBER = re.compile(r"(\d+)\.exr$")
_HOW_TO = "run it again from this add-on, or with --save-exr --exr rgb"


@dataclass(frozen=True)
class Result:
    """Depth on disk, and the pictures that it is of.

    Attributes:
        name: what it is called.
        depth: the EXR files, in order; their numbers have no gaps.
        picture: the video of the frames that were taken, frame by frame those of `depth`; None where there is none.
        height, width: of the depth, in pixels.
        shape: how high the picture is to its width when it is shown, pixels of other shapes counted.
        source_height, source_width: of the video, as a player shows it.
        fps: frames a second.
        is_far_white: whether large is far.
        shown: for every frame at a constant rate, which of `depth` is shown, counted from 0.
    """

    name: str
    depth: tuple[Path, ...]
    picture: Path | None
    height: int
    width: int
    shape: float
    source_height: int
    source_width: int
    fps: Fraction
    is_far_white: bool
    shown: tuple[int, ...]

    @property
    def first_number(self) -> int:
        """Of the first file's name."""
        return number_of(self.depth[0])

    @property
    def is_constant(self) -> bool:
        """Whether the nth frame of a constant rate is the nth file."""
        return self.shown == tuple(range(len(self.depth)))


def number_of(path: Path) -> int:
    """The number in the name of a frame's file."""
    found = _NUMBER.search(path.name)
    if not found:
        raise Problem(f"{path} has no number in its name; {_HOW_TO}.")
    return int(found[1])


def read_result(path: Path) -> Result:
    """The result whose record is `NAME.json`.

    Raises:
        Problem: it is no such record, or the depth is not there in a form that Blender reads as an image.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        about, source, options = record["result"], record["source"], record["options"]
        files = [str(name) for name in record["files"]]
        times = [float(time) for time in record["times"]]
        fps = Fraction(about["fps"]).limit_denominator(1001)
        width, height = int(about["width"]), int(about["height"])
        aspect = Fraction(about["sample_aspect_ratio"].replace(":", "/"))
    except OSError as error:
        raise Problem(
            f"{path} cannot be read ({error.strerror or error}); choose the NAME.json of a result."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise Problem(f"{path} is no record of a result of dc-rt; choose its NAME.json.") from error
    depth = _depth_files(path, files, options)
    if len(depth) != len(times) or not fps:
        raise Problem(f"{path} speaks of {len(times)} frames, and {len(depth)} EXR files; {_HOW_TO}.")
    pictures = [path.parent / name for name in files if name.endswith("_input.mp4")]
    return Result(
        path.stem,
        depth,
        pictures[0] if pictures and pictures[0].is_file() else None,
        height,
        width,
        float(height / (width * aspect)),
        int(source["height"]),
        int(source["width"]),
        fps,
        options.get("polarity") == "far-white",
        shown_at(times, float(about["seconds"]), fps),
    )


def _depth_files(path: Path, files: Sequence[str], options: Mapping[str, Any]) -> tuple[Path, ...]:
    """The EXR files of a result, all of which are there."""
    depth = tuple(path.parent / name for name in files if name.endswith(".exr"))
    if not depth:
        raise Problem(f"{path} has no EXR files; {_HOW_TO}.")
    if options.get("exr") not in _COLOUR_PRESETS:
        raise Problem(
            f"The EXR files of {path} have no red, green and blue, so that Blender's image textures show nothing of "
            f"them; {_HOW_TO}."
        )
    if options.get("values", "normalised") != "normalised" or options.get("gamma", 1.0) != 1.0:
        raise Problem(f"The depth of {path} is raw or has a gamma, and is not what distances follow from; {_HOW_TO}.")
    folder = depth[0].parent
    there = {each.name for each in folder.iterdir()} if folder.is_dir() else set()
    missing = [each for each in depth if each.name not in there]
    if missing:
        raise Problem(f"{missing[0]} is missing; {_HOW_TO}.")
    return depth


def shown_at(times: Sequence[float], seconds: float, fps: Fraction) -> tuple[int, ...]:
    """For each frame of a constant rate, which of frames with these times is shown then.

    Args:
        times: from 0 on, in seconds, rising.
        seconds: how long all of them are shown.
        fps: the constant rate.
    """
    half = 0.5 / float(fps)
    if all(abs(time - index / fps) < half / 100 for index, time in enumerate(times)):
        return tuple(range(len(times)))
    # A frame is on show in the middle of the constant one.
    count = max(round(seconds * fps), 1)
    return tuple(max(bisect.bisect_right(times, index / fps + half) - 1, 0) for index in range(count))
