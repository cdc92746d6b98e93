"""A folder of images as a video: one frame a file, in natural order of the names."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from av.video.frame import VideoFrame

from dc_rt.errors import UserError
from dc_rt.media.container import MAX_PIXELS
from dc_rt.media.orientation import Orientation
from dc_rt.media.pyav import DECODING_ERRORS, open_input, to_fraction
from dc_rt.media.structure import is_animated_webp
from dc_rt.media.tiff import NEXT_PAGE, read_tags, unread_kind, webp_orientation

ALPHA = "transparent, read without its alpha channel"

_FORMATS_OF_PALETTES = ("bgra", "pal8")  # as FFmpeg gives GIF, and PNG with a palette

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
    return sorted(images, key=natural_key)


def look_through(images: list[Path]) -> tuple[int, int, tuple[str, ...]]:
    """Height and width of the images as they are shown, which all must share, and what is to be said of them.

    Decodes every image, so that a broken one is found before any work is done; raises `UserError` naming it.
    """
    size: tuple[int, int] | None = None
    num_transparent = num_with_more = num_wide = 0
    for image in images:
        decoded = _decode_image(image)
        frame = decoded.frame
        shown = decoded.orientation.shown_size(frame.height, frame.width)
        if size is None:
            size = shown
        elif shown != size:
            raise UserError(
                f"{image} is {shown[1]}x{shown[0]} pixels where {images[0].name} is {size[1]}x{size[0]}; "
                "the images of a folder must be of one size."
            )
        num_transparent += is_transparent(frame)
        num_with_more += decoded.has_more
        num_wide += decoded.has_wide_pixels
    assert size is not None  # `list_images` gives one at least
    notes = (
        (num_transparent, ALPHA),
        (num_with_more, "of several pages or frames, of which the first is read"),
        # Programs take the two densities that an image states in opposite senses, and most take no notice of them.
        (num_wide, "of pixels that are said not to be square, read as if they were"),
    )
    of_all = f" of {len(images)} images:" if len(images) > 1 else ""
    said = tuple(f"{count}{of_all} {note}" if count < len(images) else note for count, note in notes if count)
    return *size, said


def is_transparent(frame: VideoFrame) -> bool:
    """Whether a frame has an alpha channel; one with a palette, as in GIF, if it makes use of it."""
    if not any(component.is_alpha for component in frame.format.components):
        return False
    return frame.format.name not in _FORMATS_OF_PALETTES or bool((frame.to_ndarray(format="rgba")[..., 3] < 255).any())


def decode_images(images: list[Path]) -> Generator[VideoFrame, None, None]:
    """Each image in turn, in its own pixel format; raises `UserError` naming one that cannot be decoded."""
    for image in images:
        yield _decode_image(image).frame


def oriented_images(images: list[Path]) -> Generator[tuple[VideoFrame, Orientation], None, None]:
    """As `decode_images`, with how each is to be turned."""
    for image in images:
        decoded = _decode_image(image)
        yield decoded.frame, decoded.orientation


@dataclass(frozen=True)
class _Image:
    """A picture; whether its pixels are said not to be square, and whether the file has more pictures."""

    frame: VideoFrame
    orientation: Orientation
    has_wide_pixels: bool
    has_more: bool


def _decode_image(path: Path) -> _Image:
    try:
        tags = read_tags(path)
        if kind := unread_kind(tags):
            raise UserError(f"{path} is a TIFF file {kind}, a kind that is not read here; save it as PNG.")
        # An open file rather than a name: FFmpeg would take "%d" in a name for a pattern.
        with path.open("rb") as file, open_input(file) as container:
            stream = container.streams.video[0]
            codec = stream.codec_context
            if codec is None:  # a stream that there is no decoder for
                raise IndexError
            if codec.height * codec.width > MAX_PIXELS:
                raise UserError(
                    f"{path} has {codec.width}x{codec.height} pixels, and at most {MAX_PIXELS:,} are read; "
                    "make it smaller, or take it out of the folder."
                )
            frames = container.decode(stream)
            frame = next(frames)
            orientation = Orientation.of(frame)
            if orientation == Orientation() and container.format.name == "webp_pipe":
                # FFmpeg does not find it behind the six bytes that most programs put before it, as JPEG has them.
                orientation = Orientation.of_exif(webp_orientation(path))
            return _Image(
                frame,
                orientation,
                to_fraction(codec.sample_aspect_ratio) not in (None, 1),
                # Behind a JPEG there may be another, such as the map of a photo's brightness, which is no picture.
                "jpeg" not in container.format.name and (_has_another(frames) or bool(tags.get(NEXT_PAGE))),
            )
    except (*DECODING_ERRORS, OSError, OverflowError, StopIteration, IndexError) as error:
        if isinstance(error, DECODING_ERRORS) and is_animated_webp(path):
            raise UserError(
                f"{path} is an animated WebP, which there is no decoder for here; take it out of the folder."
            ) from error
        raise UserError(f"{path} is not an image that can be read; replace it or take it out of the folder.") from error


def _has_another(frames: Iterator[VideoFrame]) -> bool:
    try:
        return next(frames, None) is not None
    except DECODING_ERRORS:
        return False


def natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Numbers compare as numbers, the rest ignoring case; the name itself settles ties such as 1 and 01."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)], path.name
