"""MPI Sintel: rendered scenes, whose depth is exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.accuracy.dataset import DataSet, Recording, files, folders, read
from dc_rt.errors import UserError


def recordings(root: Path, depth_root: Path) -> Iterator[Recording]:
    for folder in folders(root):
        images = files(folder, ".png")
        yield Recording(folder.name, images, [depth_root / folder.name / f"{image.stem}.dpt" for image in images])


def read_depth(path: Path) -> NDArray[np.float32]:
    """Depth of a .dpt file, [H,W]: the tag 202021.25, width and height, values, all little-endian."""
    contents = read(path)
    if len(contents) < 12 or np.frombuffer(contents, "<f4", 1)[0] != np.float32(202021.25):
        raise UserError(f"{path} is not a depth file of Sintel; copy or download it again.")
    width, height = (int(side) for side in np.frombuffer(contents, "<i4", 2, offset=4))
    if width <= 0 or height <= 0 or len(contents) != 12 + 4 * width * height:
        raise UserError(f"{path} is cut short or damaged; copy or download it again.")
    return np.frombuffer(contents, "<f4", offset=12).reshape(height, width).astype(np.float32)


DATASET = DataSet(
    name="sintel",
    length=50,
    max_depth=70,
    where="training/clean (SCENE/frame_0001.png), its depth in training/depth (SCENE/frame_0001.dpt)",
    recordings=recordings,
    read_depth=read_depth,
    depth_root=lambda root: root.parent / "depth",
    published=(0.270, 0.697),
)
