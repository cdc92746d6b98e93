"""A frame as a mesh, in a binary glTF file (docs/scene.md)."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dc_rt.errors import UserError, option
from dc_rt.geometry import Lens
from dc_rt.media.png import png_bytes
from dc_rt.stored import Stored
from dc_rt.view.frames import PROGRAM, Frame, check_ours, frames_of, write_file

STEEPEST = 6.0
"""From which slope on there is no surface between two pixels.

In disparity every plane has one slope all over the picture, so that slopes are counted in that of a plane which goes
from the nearest to the farthest across the picture's shorter side. What is steeper by so many times is an edge.
"""

# Of glTF 2.0: sections 3.6.2 (types), 3.7.2.1 (triangles), 4.4 (chunks); all numbers are little-endian.
_FLOAT, _UNSIGNED_INT = 5126, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071
_TRIANGLES = 4


def write_glb(stored: Stored, path: Path, lens: Lens, frame: int) -> None:
    """Write one frame as a mesh with its picture as the texture, and the camera that it is seen through.

    A vertex for each pixel; no triangle goes over an edge of the depth (`STEEPEST`).

    Raises:
        UserError: the result cannot be read, something else is in its place, the disk refuses, or the name does not end
            in .glb, by which programs know what it is.
    """
    if path.suffix.lower() != ".glb":
        raise UserError(
            f"What is written is binary glTF, and not {path.suffix or 'a file without an ending'}; give "
            f"{option('glb', path.with_suffix('.glb'))}."
        )
    check_ours(path, "glb")
    (shown,) = frames_of(stored, range(frame, frame + 1))
    write_file(path, _contents(stored, shown, lens), "glb")


def triangles(depth: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Two triangles for each four pixels, but over edges: numbers of pixels, row by row, uint32 [N,3].

    Counter-clockwise as the camera sees them. `depth` is disparity, float32 [H,W] in [0,1].
    """
    height, width = depth.shape
    number = np.arange(height * width, dtype=np.uint32).reshape(height, width)
    upper_left, upper_right = number[:-1, :-1].ravel(), number[:-1, 1:].ravel()
    lower_left, lower_right = number[1:, :-1].ravel(), number[1:, 1:].ravel()
    all_of_them = np.concatenate(
        [
            np.stack([upper_left, lower_left, upper_right], axis=1),
            np.stack([upper_right, lower_left, lower_right], axis=1),
        ]
    )
    corners = depth.ravel()[all_of_them]
    is_surface = corners.max(axis=1) - corners.min(axis=1) <= STEEPEST / max(min(height, width) - 1, 1)
    return np.asarray(all_of_them[is_surface], np.uint32)


def _contents(stored: Stored, frame: Frame, lens: Lens) -> bytes:
    height, width = frame.depth.shape
    aspect = float(stored.pixel_aspect)
    points = lens.points(frame.depth, aspect).reshape(-1, 3)
    across, down = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    texture = np.stack([across, down], axis=-1).astype("<f4").reshape(-1, 2)
    faces = triangles(frame.depth)
    pieces = [
        points.astype("<f4").tobytes(),
        texture.tobytes(),
        faces.astype("<u4").tobytes(),
        png_bytes(frame.image),
    ]
    views, buffer = _laid_out(pieces, [_ARRAY_BUFFER, _ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER, None])
    low, high = points.min(axis=0), points.max(axis=0)
    primitive = {"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "indices": 2, "material": 0, "mode": _TRIANGLES}
    if not len(faces):  # glTF has no empty accessors: then the vertices are points
        primitive = {"attributes": {"POSITION": 0, "TEXCOORD_0": 1}, "material": 0, "mode": 0}
    description = {
        "asset": {"version": "2.0", "generator": PROGRAM},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0, 1]}],
        "nodes": [{"name": f"frame {frame.number}", "mesh": 0}, {"name": "camera", "camera": 0}],
        "cameras": [_camera(lens, width * aspect / height)],
        "meshes": [{"primitives": [primitive]}],
        "materials": [_material()],
        "textures": [{"source": 0, "sampler": 0}],
        "images": [{"bufferView": 3, "mimeType": "image/png"}],
        "samplers": [
            {
                "magFilter": _LINEAR,
                "minFilter": _LINEAR_MIPMAP_LINEAR,
                "wrapS": _CLAMP_TO_EDGE,
                "wrapT": _CLAMP_TO_EDGE,
            }
        ],
        "accessors": [
            _accessor(0, _FLOAT, "VEC3", len(points)) | {"min": low.tolist(), "max": high.tolist()},
            _accessor(1, _FLOAT, "VEC2", len(texture)),
            *([_accessor(2, _UNSIGNED_INT, "SCALAR", faces.size)] if len(faces) else []),
        ],
        "bufferViews": views,
        "buffers": [{"byteLength": len(buffer)}],
        "extras": {
            "frame": frame.number,
            "seconds": stored.times[frame.number],
            "focal": lens.focal,
            "near": lens.near,
            "far": lens.far,
        },
    }
    return _chunks(json.dumps(description, separators=(",", ":")).encode(), buffer)


def _camera(lens: Lens, aspect: float) -> dict[str, Any]:
    """The one that the points were seen through: with it, the mesh looks as the picture does."""
    view = 2 * math.atan(0.5 / (lens.focal * aspect))
    planes = {"znear": lens.near / 100, "zfar": lens.far * 100}
    return {"type": "perspective", "perspective": {"aspectRatio": aspect, "yfov": view, **planes}}


def _material() -> dict[str, Any]:
    """The picture as it is, with no light on it, from both sides; dull where a program knows only lit materials."""
    surface = {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 1.0}
    return {"pbrMetallicRoughness": surface, "doubleSided": True, "extensions": {"KHR_materials_unlit": {}}}


def _accessor(view: int, component: int, kind: str, count: int) -> dict[str, Any]:
    return {"bufferView": view, "componentType": component, "type": kind, "count": count}


def _laid_out(pieces: list[bytes], targets: list[int | None]) -> tuple[list[dict[str, int]], bytes]:
    """Views of a buffer that has the pieces one after the other, each at a multiple of four bytes; and it."""
    views, buffer = [], bytearray()
    for piece, target in zip(pieces, targets, strict=True):
        view = {"buffer": 0, "byteOffset": len(buffer), "byteLength": len(piece)}
        views.append(view if target is None else {**view, "target": target})
        buffer += piece + bytes(-len(piece) % 4)
    return views, bytes(buffer)


def _chunks(description: bytes, buffer: bytes) -> bytes:
    """The file: a header, the chunk of JSON, and the chunk of the buffer."""
    description += b" " * (-len(description) % 4)
    length = 12 + 8 + len(description) + 8 + len(buffer)
    return b"".join(
        [
            struct.pack("<4sII", b"glTF", 2, length),
            *(struct.pack("<I4s", len(description), b"JSON"), description),
            *(struct.pack("<I4s", len(buffer), b"BIN\0"), buffer),
        ]
    )
