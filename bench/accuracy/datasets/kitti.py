"""KITTI's depth benchmark, validation drives: streets, by a laser scanner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.accuracy.dataset import DataSet, Recording, files, folders, read_png_depth

LENGTH = 110


def recordings(root: Path, depth_root: Path) -> Iterator[Recording]:
    for folder in folders(depth_root):
        # Scans are missing for the first and last frames of a drive: the depth says which images are taken.
        depths = files(folder / "proj_depth/groundtruth/image_02", ".png")[:LENGTH]
        images = root / folder.name[:10] / folder.name / "image_02/data"
        yield Recording(folder.name, [images / depth.name for depth in depths], depths)


DATASET = DataSet(
    name="KITTI",
    length=LENGTH,
    max_depth=80,
    where="the raw data (DATE/DRIVE/image_02/data), its depth in data_depth_annotated/val\n"
    "(DRIVE/proj_depth/groundtruth/image_02)",
    recordings=recordings,
    read_depth=lambda path: read_png_depth(path, 256),
    depth_root=lambda root: None,
    published=(0.104, 0.896),
)
