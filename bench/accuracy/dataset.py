"""What a data set is to the benchmark; each is a file in datasets/, which says all that is known of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dc_rt.errors import UserError
from dc_rt.media.read_images import decode_images
from dc_rt.options import DATASET_SIZES

ImageAndDepth = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""An image, RGB [H,W,3], and its depth in metres, [H,W]; 0 where there is none."""


@dataclass(frozen=True)
class Recording:
    """What a clip is made of: its name and the files of its frames."""

    name: str
    images: list[Path]
    depths: list[Path]


@dataclass(frozen=True)
class DataSet:
    """A data set's part of the protocol, how it is published, and what is taken of it.

    Attributes:
        name: of it, and of its size in `dc_rt.options.DATASET_SIZES`; without one there, videos keep their own.
        length: frames of a clip that are scored, at most.
        max_depth: in metres; true depth counts below it.
        where: in words, where its files lie, for `extract --help`.
        recordings: finds them, given the folders of its images and of its depth.
        read_depth: of a file, [H,W] in metres.
        crop: rows and columns that are taken.
        crf: how well the clips are encoded; 0 is lossless.
        depth_root: where the depth lies if nothing is said, given the folder of the images; None where that must be.
        overlap: frames that windows share.
        published: AbsRel and delta1 of DepthCrafter v1.0.1.
        also: another name, as the original's evaluation calls it.
        generate: gives the frames of a recording that has no files.
    """

    name: str
    length: int
    max_depth: float
    where: str
    recordings: Callable[[Path, Path], Iterator[Recording]]
    read_depth: Callable[[Path], NDArray[np.float32]]
    crop: tuple[slice, slice] = (slice(None), slice(None))
    crf: int = 0
    depth_root: Callable[[Path], Path | None] = lambda root: root
    overlap: int = 1
    published: tuple[float, float] | None = None
    also: str | None = None
    generate: Callable[[Recording], Iterator[ImageAndDepth]] | None = None

    @property
    def preset(self) -> str:
        """What `dc_rt.Source` calls its size."""
        return self.name if self.name in DATASET_SIZES else "open"

    def frames(self, recording: Recording) -> Iterator[ImageAndDepth]:
        """Images and depths of a recording, not yet cropped; raises `UserError` for a wrong file."""
        if self.generate:
            yield from self.generate(recording)
            return
        if not recording.images:
            raise UserError(f"There are no images of {recording.name}; check --root.")
        if len(recording.depths) != len(recording.images):
            count = f"{len(recording.images)} images and {len(recording.depths)} depths"
            raise UserError(f"{recording.name} has {count}; check --root.")
        for image, depth in zip(recording.images, recording.depths, strict=True):
            yield read_image(image), self.read_depth(depth)


def read_png_depth(path: Path, per_metre: float) -> NDArray[np.float32]:
    """Depth of a 16-bit grey PNG, [H,W] in metres; 0 where there is none."""
    check_there(path)
    with closing(decode_images([path])) as frames:
        frame = next(frames)
    if not frame.format.name.startswith("gray16"):
        raise UserError(f"{path} is a picture of format {frame.format.name}, not 16-bit depth; check --depth-root.")
    return (frame.to_ndarray().astype(np.float64) / per_metre).astype(np.float32)


def read_image(path: Path) -> NDArray[np.uint8]:
    check_there(path)
    with closing(decode_images([path])) as frames:
        return next(frames).to_ndarray(format="rgb24").astype(np.uint8, copy=False)


def read(path: Path) -> bytes:
    check_there(path)
    return path.read_bytes()


def check_there(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"There is no file {path}; copy or download it again.")


def folders(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.iterdir()) if path.is_dir())


def files(folder: Path, suffix: str) -> list[Path]:
    """By name, without those that a file manager hides; none if there is no such folder."""
    return sorted(path for path in folder.glob(f"*{suffix}") if not path.name.startswith("."))
