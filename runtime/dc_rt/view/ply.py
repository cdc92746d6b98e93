"""Point clouds, a binary PLY file a frame (docs/scene.md)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from dc_rt.geometry import Lens
from dc_rt.outputs import frame_name, is_frame_name
from dc_rt.stored import Stored
from dc_rt.view.frames import PROGRAM, Frame, check_ours, frames_of, unwritable, write_file

_SUFFIX = ".ply"
_POINT = np.dtype([(name, "<f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue")])
_TYPES = {"<f4": "float", "|u1": "uchar"}


def write_ply(stored: Stored, folder: Path, lens: Lens, frames: range) -> None:
    """Write `frame_0000.ply` and so on into a folder: a point for each pixel, row by row.

    They are called by their frames' numbers in the result, and replace what an earlier call wrote there. Memory does
    not grow with their number.

    Raises:
        UserError: the result cannot be read, something else is in their place, or the disk refuses.
    """
    names = [frame_name(number, _SUFFIX) for number in frames]
    try:
        there = sorted(os.listdir(folder)) if folder.exists() else []  # noqa: PTH208 - there may be very many
    except OSError as error:
        raise unwritable(folder, "ply", error) from error
    earlier = [folder / name for name in there if is_frame_name(name, [_SUFFIX])]
    for path in earlier:
        check_ours(path, "ply")
    for frame in frames_of(stored, frames):
        write_file(folder / frame_name(frame.number, _SUFFIX), _contents(stored, frame, lens), "ply")
    for path in earlier:
        if path.name not in names:
            path.unlink()


def _contents(stored: Stored, frame: Frame, lens: Lens) -> bytes:
    points = np.empty(frame.depth.shape, _POINT)
    where = lens.points(frame.depth, float(stored.pixel_aspect))
    for axis, name in enumerate("xyz"):
        points[name] = where[..., axis]
    for channel, name in enumerate(("red", "green", "blue")):
        points[name] = frame.image[..., channel]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment {PROGRAM}: frame {frame.number} at {stored.times[frame.number]:.6f} s",
        f"comment {frame.depth.shape[1]} x {frame.depth.shape[0]} pixels, row by row from the upper left",
        f"comment focal {lens.focal:g} widths of the picture, near {lens.near:g}, far {lens.far:g}",
        "comment the camera is at the origin and looks along -z, x is to the right and y up",
        f"element vertex {points.size}",
        *(f"property {_TYPES[_POINT[name].str]} {name}" for name in _POINT.names or ()),
        "end_header",
        "",
    ]
    return "\n".join(header).encode("ascii") + points.tobytes()
