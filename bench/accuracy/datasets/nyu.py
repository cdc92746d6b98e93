"""NYU Depth v2: single frames of rooms, holes in their depth filled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.accuracy.dataset import DataSet, Recording, read, read_png_depth
from dc_rt.errors import UserError


def recordings(root: Path, depth_root: Path) -> Iterator[Recording]:
    listing = root / "filename_list_test.txt"
    for line in read(listing).decode().splitlines():
        if line.strip():
            fields = line.split()
            if len(fields) < 3:
                raise UserError(f"{listing} has a line that does not name an image and two depths: '{line}'.")
            image, _, filled = fields[:3]
            yield Recording(image.rsplit(".", 1)[0], [root / image], [depth_root / filled])


DATASET = DataSet(
    name="NYUv2",
    also="nyu",
    length=1,
    max_depth=10,
    overlap=0,
    where="the folder of filename_list_test.txt, whose lines name an image, a depth and a filled depth",
    recordings=recordings,
    read_depth=lambda path: read_png_depth(path, 1000),
    crop=(slice(45, 471), slice(41, 601)),
)
