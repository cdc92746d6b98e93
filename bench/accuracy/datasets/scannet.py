"""ScanNet v2, its first hundred test scenes: rooms, by a hand-held depth camera."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from bench.accuracy.dataset import DataSet, Recording, files, folders, read_png_depth

LENGTH = 90


def recordings(root: Path, depth_root: Path) -> Iterator[Recording]:
    for folder in islice(folders(root), 100):
        # Numbers without leading zeros.
        images = sorted(files(folder / "color", ".jpg"), key=lambda path: (len(path.stem), path.stem))[: LENGTH * 3 : 3]
        yield Recording(
            folder.name, images, [depth_root / folder.name / "depth" / f"{image.stem}.png" for image in images]
        )


DATASET = DataSet(
    name="scannet",
    length=LENGTH,
    max_depth=10,
    where="scans_test (SCENE/color/0.jpg, SCENE/depth/0.png)",
    recordings=recordings,
    read_depth=lambda path: read_png_depth(path, 1000),
    crop=(slice(8, -8), slice(11, -11)),
    crf=5,
    published=(0.123, 0.856),
)
