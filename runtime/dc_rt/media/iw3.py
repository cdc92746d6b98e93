"""A folder of pictures and depth that iw3 makes 3D videos of (nagadomi/nunif, iw3/export_config.py).

iw3 takes its `iw3_export.yml` for an input file: pictures in `rgb/`, their depth in `depth/`, in the order of their
names, 16-bit grey where white is near, and the sound. It plays frames at one rate.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dc_rt.media.png import write_png
from dc_rt.media.results import Result, ResultFrame
from dc_rt.media.write import FramesWriter, PngWriter
from dc_rt.outputs import frame_name

CONFIG, RGB, DEPTH = "iw3_export.yml", "rgb", "depth"
"""Names in the folder that iw3 gives them too."""

# Names are compared as text, so that their numbers must be of one width.
_PADDING = 8
# FFmpeg's numbers (AVColorSpace, AVColorRange): the video that iw3 makes is BT.709 of the narrow range.
_BT709, _NARROW = 1, 1
_LARGEST_RATE = 1 << 20


class Iw3Folder:
    """Writes such a folder, a frame at a time; a context manager. The file that iw3 opens is written last."""

    def __init__(self, folder: Path, result: Result) -> None:
        """Creates the folder."""
        self._folder = folder
        self._result = result
        self._shots: list[str] = []
        self._shot = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._rgb = RgbWriter(folder / RGB, padding=_PADDING)
        self._depth = PngWriter(folder / DEPTH, padding=_PADDING)

    def write(self, frame: ResultFrame) -> None:
        """Append a frame: its picture, and its depth normalised."""
        self._rgb.write(frame.image)
        self._depth.write(frame.depth)
        if frame.shot != self._shot:
            self._shot = frame.shot
            self._shots.append(frame_name(frame.index, "", _PADDING))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for all files and raise the error of one; after an error of the caller's own, that one prevails."""
        try:
            self._rgb.__exit__(kind)
        finally:
            self._depth.__exit__(kind)
        if kind is None:
            contents = config(self._result.video.path.stem, self._result.timeline.fps, self._shots)
            (self._folder / CONFIG).write_text(contents, encoding="utf-8", newline="\n")


class RgbWriter(FramesWriter):
    """8-bit RGB in PNG."""

    def __init__(self, folder: str | Path, padding: int = 4) -> None:
        super().__init__(folder, ".png", padding=padding)

    def _write(self, path: Path, picture: NDArray[np.uint8]) -> None:
        write_png(path, picture)


def config(name: str, fps: Fraction, shots: Sequence[str] = (), audio: str | None = None) -> str:
    """What iw3's file of a video says, in YAML.

    Args:
        name: what iw3 calls the video that it makes.
        fps: frames a second.
        shots: names without their suffix of the pictures that begin another shot, where iw3 forgets what was before.
        audio: name of the file of sound, if there is one.
    """
    rate = fps.limit_denominator(_LARGEST_RATE)
    entries = {
        "type": "video",
        "basename": name,
        "fps": rate.numerator if rate.denominator == 1 else f"{rate.numerator}/{rate.denominator}",
        "rgb_dir": RGB,
        "depth_dir": DEPTH,
        **({"audio_file": audio} if audio else {}),
        # Depth is a disparity already; what iw3 does to its edges is left to its own options.
        "mapper": "none",
        "skip_mapper": False,
        "skip_edge_dilation": False,
        "source_color_range": _NARROW,
        "output_colorspace": _BT709,
        "user_data": {"export_options": {"depth_model": "DepthCrafter"}, "scene_boundary": ",".join(shots)},
    }
    # What JSON writes is YAML.
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in entries.items())
