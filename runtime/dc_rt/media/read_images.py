"""A folder of images as a video: one frame a file, in natural order of the names."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path

from av.video.frame import VideoFrame

from dc_rt.errors import UserError
from dc_rt.media.pyav import DECODING_ERRORS, open_input

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


def list_images(folder: Path) -> list[Path]:
    """The images in `folder` itself, frame2 before frame10; raises `UserError` if there is none."""
    # Names that start with a dot are a file manager's, such as the "._frame1.png" of macOS.
    images = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    if not images:
        raise UserError(f"There are no images in the folder {folder}; it takes {', '.join(IMAGE_SUFFIXES)} files.")
    return sorted(images, key=_natural_key)


def common_size(images: list[Path]) -> tuple[int, int]:
    """Height and width of the images, which all must share it.

    Decodes every image, so that a broken one is found before any work is done; raises `UserError` naming it.
    """
    sizes = ((image, (frame.height, frame.width)) for image, frame in zip(images, decode_images(images), strict=True))
    first, size = next(sizes)
    for image, other in sizes:
        if other != size:
            raise UserError(
                f"{image} is {other[1]}x{other[0]} pixels where {first.name} is {size[1]}x{size[0]}; "
                "the images of a folder must be of one size."
            )
    return size


def decode_images(images: list[Path]) -> Generator[VideoFrame, None, None]:
    """Each image in turn, in its own pixel format; raises `UserError` naming one that cannot be decoded."""
    for image in images:
        yield _decode_image(image)


def _decode_image(path: Path) -> VideoFrame:
    try:
        # An open file rather than a name: FFmpeg would take "%d" in a name for a pattern.
        with path.open("rb") as file, open_input(file) as container:
            return next(container.decode(video=0))
    except (*DECODING_ERRORS, OSError, StopIteration, IndexError) as error:
        raise UserError(f"{path} is not an image that can be read; replace it or take it out of the folder.") from error


def _natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Numbers compare as numbers, the rest ignoring case; the name itself settles ties such as 1 and 01."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)], path.name
