"""The benchmark's clips out of the data sets as they are published.

Each clip becomes `DATASET/NAME_rgb_left.mp4`, `DATASET/NAME_disparity.npz` (which holds depth in metres, key
`disparity`, float32 [T,1,H,W]) and a line of the meta CSV. Frames, crops and names are those of the original's scripts
(`benchmark/dataset_extract/`).
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.accuracy.dataset import DataSet, Recording
from bench.accuracy.datasets import DATASETS
from dc_rt.errors import UserError
from dc_rt.media import VideoWriter

T = TypeVar("T", np.uint8, np.float32)

FPS = Fraction(15)


def find_recordings(
    dataset: DataSet, root: Path, depth_root: Path | None, wanted: list[str] | None = None
) -> list[Recording]:
    """The scenes of a data set, or those of the names `wanted`.

    Raises:
        UserError: a folder or a wanted scene is not there, or KITTI's depth is not named.
    """
    name = dataset.name
    depth_root = depth_root or dataset.depth_root(root)
    if depth_root is None:
        raise UserError(f"The depth of {name} lies apart from its images; name its folder with --depth-root.")
    for folder in (root, depth_root):
        if not folder.is_dir():
            raise UserError(f"There is no folder {folder}; check --root and --depth-root.")
    found = [each for each in dataset.recordings(root, depth_root) if wanted is None or each.name in wanted]
    if missing := sorted(set(wanted or ()) - {each.name for each in found}):
        raise UserError(f"There is no scene {', '.join(missing)} of {name} in {depth_root}; check --scenes.")
    if not found:
        raise UserError(f"There is no scene of {name} in {depth_root}; see --help for where it should lie.")
    return found


def extract_clip(name: str, recording: Recording, out: Path) -> dict[str, str]:
    """Write the clip of a recording of the data set `name` below `out`; the line of the meta CSV.

    Raises:
        UserError: a file of it is missing, is not what it should be, or differs in size; nothing is left then.
    """
    row = {
        "filepath_left": f"{name}/{recording.name}_rgb_left.mp4",
        "filepath_disparity": f"{name}/{recording.name}_disparity.npz",
    }
    video, truth = (out / path for path in row.values())
    video.parent.mkdir(parents=True, exist_ok=True)
    parts = [path.with_name(f".{path.name}.part") for path in (video, truth)]
    try:
        _write(DATASETS[name], recording, *parts)
        parts[0].replace(video)
        parts[1].replace(truth)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return row


def _write(dataset: DataSet, recording: Recording, video: Path, truth: Path) -> None:
    """The frames, cropped, each side even as H.264 needs it."""
    frames = ((_crop(image, dataset.crop), _crop(depth, dataset.crop)) for image, depth in dataset.frames(recording))
    image, depth = next(frames)
    height, width = image.shape[:2]
    depths = [depth]
    with VideoWriter(video, FPS, height, width, crf=dataset.crf) as writer:
        writer.write(image)
        for number, (other, depth) in enumerate(frames, 1):
            if other.shape != image.shape or depth.shape != depths[0].shape:
                file = recording.images[number]
                raise UserError(f"{file} or its depth is of another size than the first; copy or download it again.")
            writer.write(other)
            depths.append(depth)
    with truth.open("wb") as contents:
        np.savez_compressed(contents, disparity=np.stack(depths)[:, None])


def _crop(image: NDArray[T], crop: tuple[slice, slice]) -> NDArray[T]:
    cropped = image[crop]
    height, width = (side // 2 * 2 for side in cropped.shape[:2])
    if not height or not width:
        raise UserError(f"An image of {image.shape[1]}x{image.shape[0]} pixels is too small to be cropped.")
    return cropped[:height, :width]
