"""The benchmark's clips out of the data sets as they are published.

Each clip becomes `DATASET/NAME_rgb_left.mp4`, `DATASET/NAME_disparity.npz` (which holds depth in metres, key
`disparity`, float32 [T,1,H,W]) and a line of the meta CSV. Frames, crops and names are those of the original's scripts
(`benchmark/dataset_extract/`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dc_rt.errors import UserError
from dc_rt.media import Mp4Writer
from dc_rt.media.read_images import decode_images

T = TypeVar("T", np.uint8, np.float32)

FPS = Fraction(15)
ROOT_HELP = """where the data sets' images lie, as published:
sintel: training/clean (SCENE/frame_0001.png), its depth in training/depth (SCENE/frame_0001.dpt);
scannet: scans_test (SCENE/color/0.jpg, SCENE/depth/0.png);
KITTI: the raw data (DATE/DRIVE/image_02/data), its depth in data_depth_annotated/val
(DRIVE/proj_depth/groundtruth/image_02);
bonn: rgbd_bonn_dataset (SCENE/rgb, SCENE/depth);
NYUv2: the folder of filename_list_test.txt, whose lines name an image, a depth and a filled depth"""


@dataclass(frozen=True)
class Scene:
    """A clip to be made: its name and the files of its frames."""

    name: str
    images: list[Path]
    depths: list[Path]


@dataclass(frozen=True)
class Layout:
    """How a data set is published, and what is taken of it."""

    scenes: Callable[[Path, Path], Iterator[Scene]]
    read_depth: Callable[[Path], NDArray[np.float32]]
    crop: tuple[slice, slice] = (slice(None), slice(None))
    crf: int = 0
    depth_root: Callable[[Path], Path | None] = lambda root: root


def find_scenes(dataset: str, root: Path, depth_root: Path | None, wanted: list[str] | None = None) -> list[Scene]:
    """The scenes of a data set, or those of the names `wanted`.

    Raises:
        UserError: a folder or a wanted scene is not there, or KITTI's depth is not named.
    """
    layout = LAYOUTS[dataset]
    depth_root = depth_root or layout.depth_root(root)
    if depth_root is None:
        raise UserError(f"The depth of {dataset} lies apart from its images; name its folder with --depth-root.")
    for folder in (root, depth_root):
        if not folder.is_dir():
            raise UserError(f"There is no folder {folder}; check --root and --depth-root.")
    scenes = [scene for scene in layout.scenes(root, depth_root) if wanted is None or scene.name in wanted]
    if missing := sorted(set(wanted or ()) - {scene.name for scene in scenes}):
        raise UserError(f"There is no scene {', '.join(missing)} of {dataset} in {depth_root}; check --scenes.")
    if not scenes:
        raise UserError(f"There is no scene of {dataset} in {depth_root}; see --help for where it should lie.")
    return scenes


def extract_scene(dataset: str, scene: Scene, out: Path) -> dict[str, str]:
    """Write the clip of a scene below `out`; the line of the meta CSV.

    Raises:
        UserError: a file of it is missing, is not what it should be, or differs in size; nothing is left then.
    """
    row = {
        "filepath_left": f"{dataset}/{scene.name}_rgb_left.mp4",
        "filepath_disparity": f"{dataset}/{scene.name}_disparity.npz",
    }
    video, depth = (out / path for path in row.values())
    video.parent.mkdir(parents=True, exist_ok=True)
    parts = [path.with_name(f".{path.name}.part") for path in (video, depth)]
    try:
        _write_video(parts[0], scene, LAYOUTS[dataset])
        _write_depth(parts[1], scene, LAYOUTS[dataset])
        parts[0].replace(video)
        parts[1].replace(depth)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    return row


def read_sintel_depth(path: Path) -> NDArray[np.float32]:
    """Depth of a .dpt file, [H,W]: the tag 202021.25, width and height, values, all little-endian."""
    contents = _read(path)
    if len(contents) < 12 or np.frombuffer(contents, "<f4", 1)[0] != np.float32(202021.25):
        raise UserError(f"{path} is not a depth file of Sintel; copy or download it again.")
    width, height = (int(side) for side in np.frombuffer(contents, "<i4", 2, offset=4))
    if width <= 0 or height <= 0 or len(contents) != 12 + 4 * width * height:
        raise UserError(f"{path} is cut short or damaged; copy or download it again.")
    return np.frombuffer(contents, "<f4", offset=12).reshape(height, width).astype(np.float32)


def read_png_depth(path: Path, per_metre: float) -> NDArray[np.float32]:
    """Depth of a 16-bit grey PNG, [H,W] in metres; 0 where there is none."""
    _check_there(path)
    with closing(decode_images([path])) as frames:
        frame = next(frames)
    if not frame.format.name.startswith("gray16"):
        raise UserError(f"{path} is a picture of format {frame.format.name}, not 16-bit depth; check --depth-root.")
    return (frame.to_ndarray().astype(np.float64) / per_metre).astype(np.float32)


def _sintel(root: Path, depth_root: Path) -> Iterator[Scene]:
    for folder in _folders(root):
        images = _files(folder, ".png")
        yield Scene(folder.name, images, [depth_root / folder.name / f"{image.stem}.dpt" for image in images])


def _scannet(root: Path, depth_root: Path) -> Iterator[Scene]:
    for folder in islice(_folders(root), 100):
        # Numbers without leading zeros.
        images = sorted(_files(folder / "color", ".jpg"), key=lambda path: (len(path.stem), path.stem))[: 90 * 3 : 3]
        yield Scene(folder.name, images, [depth_root / folder.name / "depth" / f"{image.stem}.png" for image in images])


def _kitti(root: Path, depth_root: Path) -> Iterator[Scene]:
    for folder in _folders(depth_root):
        # Scans are missing for the first and last frames of a drive: the depth says which images are taken.
        depths = _files(folder / "proj_depth/groundtruth/image_02", ".png")[:110]
        images = root / folder.name[:10] / folder.name / "image_02/data"
        yield Scene(folder.name, [images / depth.name for depth in depths], depths)


def _bonn(root: Path, depth_root: Path) -> Iterator[Scene]:
    for folder in _folders(depth_root):
        # Files are named after their times, which differ: an image goes with the depth of the same rank.
        images, depths = (_files(path, ".png")[30:140] for path in (root / folder.name / "rgb", folder / "depth"))
        yield Scene(folder.name, images, depths[: len(images)])


def _nyu(root: Path, depth_root: Path) -> Iterator[Scene]:
    listing = root / "filename_list_test.txt"
    for line in _read(listing).decode().splitlines():
        if line.strip():
            fields = line.split()
            if len(fields) < 3:
                raise UserError(f"{listing} has a line that does not name an image and two depths: '{line}'.")
            image, _, filled = fields[:3]
            yield Scene(image.rsplit(".", 1)[0], [root / image], [depth_root / filled])


LAYOUTS: Mapping[str, Layout] = {
    "sintel": Layout(_sintel, read_sintel_depth, depth_root=lambda root: root.parent / "depth"),
    "scannet": Layout(_scannet, lambda path: read_png_depth(path, 1000), (slice(8, -8), slice(11, -11)), crf=5),
    "KITTI": Layout(_kitti, lambda path: read_png_depth(path, 256), depth_root=lambda root: None),
    "bonn": Layout(_bonn, lambda path: read_png_depth(path, 5000), crf=5),
    "NYUv2": Layout(_nyu, lambda path: read_png_depth(path, 1000), (slice(45, 471), slice(41, 601))),
}


def _write_video(path: Path, scene: Scene, layout: Layout) -> None:
    """The images, cropped, each side even as H.264 needs it."""
    if not scene.images:
        raise UserError(f"There are no images of {scene.name}; check --root.")
    images = (_crop(_read_image(image), layout.crop) for image in scene.images)
    first = next(images)
    height, width = first.shape[:2]
    with Mp4Writer(path, FPS, height, width, crf=layout.crf) as video:
        video.write(first)
        for file, image in zip(scene.images[1:], images, strict=True):
            if image.shape != first.shape:
                raise UserError(f"{file} is of another size than {scene.images[0].name}; copy or download it again.")
            video.write(image)


def _write_depth(path: Path, scene: Scene, layout: Layout) -> None:
    if len(scene.depths) != len(scene.images):
        raise UserError(f"{scene.name} has {len(scene.images)} images and {len(scene.depths)} depths; check --root.")
    depths = [_crop(layout.read_depth(depth), layout.crop) for depth in scene.depths]
    if len({depth.shape for depth in depths}) > 1:
        raise UserError(f"The depths of {scene.name} are not of one size; copy or download it again.")
    with path.open("wb") as file:
        np.savez_compressed(file, disparity=np.stack(depths)[:, None])


def _crop(image: NDArray[T], crop: tuple[slice, slice]) -> NDArray[T]:
    cropped = image[crop]
    height, width = (side // 2 * 2 for side in cropped.shape[:2])
    if not height or not width:
        raise UserError(f"An image of {image.shape[1]}x{image.shape[0]} pixels is too small to be cropped.")
    return cropped[:height, :width]


def _read_image(path: Path) -> NDArray[np.uint8]:
    _check_there(path)
    with closing(decode_images([path])) as frames:
        return next(frames).to_ndarray(format="rgb24").astype(np.uint8, copy=False)


def _read(path: Path) -> bytes:
    _check_there(path)
    return path.read_bytes()


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"There is no file {path}; copy or download it again.")


def _folders(root: Path) -> Iterator[Path]:
    return (path for path in sorted(root.iterdir()) if path.is_dir())


def _files(folder: Path, suffix: str) -> list[Path]:
    """By name, without those that a file manager hides; none if there is no such folder."""
    return sorted(path for path in folder.glob(f"*{suffix}") if not path.name.startswith("."))
