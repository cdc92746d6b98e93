"""Images as a video, one frame a file: a folder's in natural order of the names, or those of a sequence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from av.video.frame import VideoFrame

from dc_rt.errors import UserError, option
from dc_rt.media.container import MAX_PIXELS, video_stream
from dc_rt.media.orientation import Orientation
from dc_rt.media.pyav import DECODING_ERRORS, open_input, to_fraction
from dc_rt.media.read_exr import View, read_exr
from dc_rt.media.structure import is_animated_webp, is_heif
from dc_rt.media.tiff import NEXT_PAGE, read_tags, unread_kind, webp_orientation

ALPHA = "transparent, read without its alpha channel"

_FORMATS_OF_PALETTES = ("bgra", "pal8")  # as FFmpeg gives GIF, and PNG with a palette

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".exr", ".dpx", ".avif")

_EXR = ".exr"
# Formats that state a pixel's shape in one sense. Programs take the two densities of others in opposite senses, and
# most take no notice of them.
_WITH_ASPECT = (_EXR, ".dpx")
_WIDEST_PIXEL = 16  # to its height: what states more is damaged
# SMPTE 268M: the transfer characteristic of the first image element, and those that are logarithmic.
_DPX_MAGIC, _DPX_TRANSFER, _DPX_LOGARITHMIC = (b"SDPX", b"XPDS"), 801, (1, 3)


_AS_SRGB = View()


@dataclass(frozen=True)
class Images:
    """Images that are the frames of a video, and how the linear ones among them are seen."""

    files: tuple[Path, ...]
    view: View = _AS_SRGB


@dataclass(frozen=True)
class LookedThrough:
    """What all images share as they are shown: the size in pixels, a pixel's width to its height; and what is to be
    said of them."""

    height: int
    width: int
    pixel_aspect: Fraction
    notes: tuple[str, ...]


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name. Names that start with a dot are a file manager's, as "._1.png" is."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def list_images(folder: Path) -> list[Path]:
    """The images in `folder` itself, frame2 before frame10; raises `UserError` if there is none."""
    images = [path for path in folder.iterdir() if is_image(path) and path.is_file()]
    if not images:
        raise UserError(f"There are no images in the folder {folder}; it takes {', '.join(IMAGE_SUFFIXES)} files.")
    return sorted(images, key=natural_key)


def look_through(images: Images) -> LookedThrough:
    """What the images share, which all must, as they are shown.

    Decodes every image, so that a broken one is found before any work is done; raises `UserError` naming it, or where
    a view is asked for that there is no linear image for.
    """
    files, view = images.files, images.view
    if view.is_asked_for and not any(file.suffix.lower() == _EXR for file in files):
        asked = option("exposure", view.exposure) if view.exposure else option("view", view.name)
        raise UserError(f"{files[0]} is no EXR file, which alone has {asked}; leave the option out.")
    shared: tuple[tuple[int, int], Fraction] | None = None
    counts: Counter[str] = Counter()
    for file in files:
        image = _decode_image(file, view)
        frame = image.frame
        size = image.orientation.shown_size(frame.height, frame.width)
        if shared is None:
            shared = size, image.pixel_aspect
        elif size != shared[0]:
            height, width = shared[0]
            raise UserError(
                f"{file} is {size[1]}x{size[0]} pixels where {files[0].name} is {width}x{height}; "
                "the images of a folder or sequence must be of one size."
            )
        elif image.pixel_aspect != shared[1]:
            raise UserError(
                f"{file} has pixels of {image.pixel_aspect} where {files[0].name} has {shared[1]}; "
                "the images of a folder or sequence must be of one shape."
            )
        counts.update(image.notes)
    assert shared is not None  # there is one at least
    (height, width), pixel_aspect = shared
    of_all = f" of {len(files)} images:" if len(files) > 1 else ""
    said = tuple(f"{count}{of_all} {note}" if count < len(files) else note for note, count in counts.items())
    return LookedThrough(height, width, pixel_aspect, said)


def is_transparent(frame: VideoFrame) -> bool:
    """Whether a frame has an alpha channel; one with a palette, as in GIF, if it makes use of it."""
    if not any(component.is_alpha for component in frame.format.components):
        return False
    return frame.format.name not in _FORMATS_OF_PALETTES or bool((frame.to_ndarray(format="rgba")[..., 3] < 255).any())


def decode_images(images: list[Path]) -> Generator[VideoFrame, None, None]:
    """Each image in turn, in its own pixel format; raises `UserError` naming one that cannot be decoded."""
    for image in images:
        yield _decode_image(image, View()).frame


def oriented_images(images: Images) -> Generator[tuple[VideoFrame, Orientation], None, None]:
    """As `decode_images`, with how each is to be turned."""
    for file in images.files:
        image = _decode_image(file, images.view)
        yield image.frame, image.orientation


@dataclass(frozen=True)
class _Image:
    """A picture, the width of its pixels to their height, and what is to be said of it."""

    frame: VideoFrame
    orientation: Orientation
    pixel_aspect: Fraction
    notes: tuple[str, ...]


def _decode_image(path: Path, view: View) -> _Image:
    try:
        return _decode_exr(path, view) if path.suffix.lower() == _EXR else _decode_by_ffmpeg(path)
    except (*DECODING_ERRORS, OSError, OverflowError, StopIteration, IndexError, RuntimeError) as error:
        if isinstance(error, DECODING_ERRORS) and is_animated_webp(path):
            raise UserError(
                f"{path} is an animated WebP, which there is no decoder for here; take it out of the folder."
            ) from error
        raise UserError(f"{path} is not an image that can be read; replace it or take it out of the folder.") from error


def _decode_exr(path: Path, view: View) -> _Image:
    image = read_exr(path, view)
    notes = (*([ALPHA] if image.has_alpha else []), *image.notes)
    return _Image(
        VideoFrame.from_ndarray(image.rgb, format="rgb24"), Orientation(), _sane(Fraction(image.pixel_aspect)), notes
    )


def _decode_by_ffmpeg(path: Path) -> _Image:
    tags = read_tags(path)
    if kind := unread_kind(tags):
        raise UserError(f"{path} is a TIFF file {kind}, a kind that is not read here; save it as PNG.")
    # An open file rather than a name: FFmpeg would take "%d" in a name for a pattern.
    with path.open("rb") as file, open_input(file) as container:
        stream = video_stream(container, path) if is_heif(path) else container.streams.video[0]
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
        # Behind a JPEG there may be another, such as the map of a photo's brightness, which is no picture.
        has_more = "jpeg" not in container.format.name and (_has_another(frames) or bool(tags.get(NEXT_PAGE)))
        aspect = _sane(to_fraction(codec.sample_aspect_ratio) or Fraction(1))
        is_aspect_read = path.suffix.lower() in _WITH_ASPECT
        has_alpha = is_transparent(frame) or len(container.streams.video) > 1  # of AVIF, a picture of its own
        notes = (
            (has_alpha, ALPHA),
            (has_more, "of several pages or frames, of which the first is read"),
            (aspect != 1 and not is_aspect_read, "of pixels that are said not to be square, read as if they were"),
            (_is_logarithmic(path), "in DPX's logarithmic densities, read as they are, without a conversion"),
        )
        return _Image(
            frame, orientation, aspect if is_aspect_read else Fraction(1), tuple(note for given, note in notes if given)
        )


def _sane(pixel_aspect: Fraction) -> Fraction:
    """What a file states of its pixels' shape, rounded as headers are; 1 where it cannot be."""
    if not Fraction(1, _WIDEST_PIXEL) <= pixel_aspect <= _WIDEST_PIXEL:
        return Fraction(1)
    return pixel_aspect.limit_denominator(1000)


def _is_logarithmic(path: Path) -> bool:
    """Whether a DPX file says that its values are; False for all other files."""
    with path.open("rb") as file:
        header = file.read(_DPX_TRANSFER + 1)
    return header[:4] in _DPX_MAGIC and len(header) > _DPX_TRANSFER and header[_DPX_TRANSFER] in _DPX_LOGARITHMIC


def _has_another(frames: Iterator[VideoFrame]) -> bool:
    try:
        return next(frames, None) is not None
    except DECODING_ERRORS:
        return False


def natural_key(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Numbers compare as numbers, the rest ignoring case; the name itself settles ties such as 1 and 01."""
    parts = re.split(r"([0-9]+)", path.name.lower())
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)], path.name
