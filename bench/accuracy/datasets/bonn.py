"""Bonn RGB-D Dynamic: people moving in a room, by a depth camera. The paper's figures are of five scenes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.accuracy.dataset import DataSet, Recording, files, folders, read_png_depth

FIRST, LENGTH = 30, 110


def recordings(root: Path, depth_root: Path) -> Iterator[Recording]:
    for folder in folders(depth_root):
        # Files are named after their times, which differ: an image goes with the depth of the same rank.
        images, depths = (
            files(path, ".png")[FIRST : FIRST + LENGTH] for path in (root / folder.name / "rgb", folder / "depth")
        )
        yield Recording(folder.name, images, depths[: len(images)])


DATASET = DataSet(
    name="bonn",
    length=LENGTH,
    max_depth=10,
    where="rgbd_bonn_dataset (SCENE/rgb, SCENE/depth)",
    recordings=recordings,
    read_depth=lambda path: read_png_depth(path, 5000),
    crf=5,
    published=(0.071, 0.972),
)
