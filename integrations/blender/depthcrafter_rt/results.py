"""What a run has left, by its `NAME.json`, as far as a scene needs it. Knows nothing of Blender."""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePath
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
        fps: frames a second, on average where the rate varies.
        is_far_white: whether large is far.
        times: when each of `depth` is shown, in seconds from the first.
        seconds: that all of it takes.
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
    times: tuple[float, ...]
    seconds: float

    @property
    def first_number(self) -> int:
        """Of the first file's name."""
        return number_of(self.depth[0])

    @property
    def is_constant(self) -> bool:
        """Whether each frame is shown when it is at a constant rate, to a hundredth of a frame."""
        return all(abs(time * self.fps - index) < 0.01 for index, time in enumerate(self.times))

    def shown_at(self, fps: float) -> tuple[int, ...]:
        """For each frame of a constant rate, from time 0 on, which of `depth` is shown then, counted from 0."""
        count = max(round(self.seconds * fps), 1)
        return tuple(max(bisect.bisect_right(self.times, index / fps + 1e-6) - 1, 0) for index in range(count))


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
        times = tuple(float(time) for time in record["times"])
        seconds = float(about["seconds"])
        fps = Fraction(about["fps"]).limit_denominator(1001)
        width, height = int(about["width"]), int(about["height"])
        aspect = Fraction(about["sample_aspect_ratio"].replace(":", "/"))
        if any(PurePath(name).anchor or ".." in PurePath(name).parts for name in files):
            raise ValueError("a file of a result is elsewhere")
    except OSError as error:
        raise Problem(
            f"{path} cannot be read ({error.strerror or error}); choose the NAME.json of a result."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise Problem(f"{path} is no record of a result of dc-rt; choose its NAME.json.") from error
    depth = _depth_files(path, files, options)
    if len(depth) != len(times) or not fps:
        raise Problem(f"{path} speaks of {len(times)} frames, and {len(depth)} EXR files; {_HOW_TO}.")
    # MOV where MP4 does not hold the sound that was copied.
    pictures = [path.parent / name for name in files if name.endswith(("_input.mp4", "_input.mov"))]
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
        times,
        seconds,
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
