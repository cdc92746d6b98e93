"""Results read back: depth from NPZ files, folders of EXR or PNG files, and grey videos, one picture at a time."""

from __future__ import annotations

import errno
import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange
from numpy.typing import NDArray

from dc_rt.errors import UserError
from dc_rt.media.container import MAX_PIXELS
from dc_rt.media.decode import Damage, numbered_frames
from dc_rt.media.read import IMAGE_FOLDER_FPS, probe
from dc_rt.media.read_images import decode_images, list_images, natural_key
from dc_rt.media.timeline import Timeline

# Of 8 bits: what lossy encoders make of grey.
_LARGEST_TINT = 3


@dataclass(frozen=True)
class DepthFile:
    """Depth of a clip, in a file or a folder.

    Attributes:
        path: of it.
        num_frames, height, width: of all of it, in pixels as they are stored.
        timeline: when frames are shown; at a folder's rate where nothing says so.
        pictures: begins to read it: float32 [H,W], one after the other. Integers and videos are in [0,1].
        pixel_aspect: width of a pixel to its height, as a video has it; None where nothing is read that says so.
    """

    path: Path
    num_frames: int
    height: int
    width: int
    timeline: Timeline
    pictures: Callable[[], Iterator[NDArray[np.float32]]]
    pixel_aspect: Fraction | None = None


def open_depth(path: Path) -> DepthFile:
    """Look at a result: an NPZ file of one array [T,H,W], a folder of EXR or PNG files, or a video in grey.

    Raises:
        UserError: it is none of these, or cannot be read.
    """
    try:
        if path.is_dir():
            return open_pictures(path, picture_files(path))
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "there is no such file")
        return _open_npz(path) if path.suffix.lower() == ".npz" else _open_video(path)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{path} cannot be read ({reason}); check the name and the permissions.") from error


def open_pictures(folder: Path, files: Sequence[Path]) -> DepthFile:
    """Depth in a file a frame; raises `UserError` where the first cannot be read."""
    height, width = _read_picture(files[0]).shape

    def pictures() -> Iterator[NDArray[np.float32]]:
        for file in files:
            picture = _read_picture(file)
            if picture.shape != (height, width):
                raise UserError(
                    f"{file} is {picture.shape[1]}x{picture.shape[0]} pixels where {files[0].name} is "
                    f"{width}x{height}; the pictures of a folder must be of one size."
                )
            yield picture

    return DepthFile(folder, len(files), height, width, Timeline.even(len(files), IMAGE_FOLDER_FPS), pictures)


def picture_files(folder: Path) -> list[Path]:
    """A folder's EXR files, or else its images, in natural order; raises `UserError` where there are none."""
    files = sorted((path for path in folder.iterdir() if path.suffix.lower() == ".exr"), key=natural_key)
    return files or list_images(folder)


def _read_picture(path: Path) -> NDArray[np.float32]:
    if path.suffix.lower() == ".exr":
        return np.asarray(read_exr(path), np.float32)
    (frame,) = decode_images([path])
    return _depth_of(frame, path)


def read_exr(path: Path) -> NDArray[Any]:
    """Depth in an EXR file, [H,W], of any preset: channel Z, that of a layer, the only one, or R that is G and B too.

    Raises:
        UserError: it cannot be read, or it is not known which channel is depth.
        OSError: there is no such file.
    """
    import OpenEXR  # a large library that few runs need

    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "there is no such file", str(path))
    try:
        channels = OpenEXR.File(str(path), separate_channels=True).channels()
    except RuntimeError as error:
        raise UserError(f"{path} is no EXR file that can be read ({error}); write it again.") from error
    named = [name for name in channels if name.rpartition(".")[2] == "Z"] or list(channels)
    if set(named) == {"R", "G", "B"} and all(np.array_equal(channels["R"].pixels, channels[c].pixels) for c in "GB"):
        named = ["R"]
    if len(named) != 1:
        raise UserError(
            f"{path} has the channels {', '.join(channels)}, and none of them alone is Z; write depth in channel Z."
        )
    pixels: NDArray[Any] = channels[named[0]].pixels
    return pixels


def _open_npz(path: Path) -> DepthFile:
    shape, dtype, pictures = npz_pictures(path)
    if len(shape) != 3 or dtype.kind != "f":
        raise UserError(f"{path} holds an array {dtype} {shape}; write depth as floats [T,H,W].")
    count, height, width = shape
    if height * width > MAX_PIXELS:
        raise UserError(f"{path} has {width}x{height} pixels, and at most {MAX_PIXELS:,} are read; make it smaller.")

    def as_floats() -> Iterator[NDArray[np.float32]]:
        for picture in pictures():
            yield picture.astype(np.float32, copy=False)

    return DepthFile(path, count, height, width, Timeline.even(count, IMAGE_FOLDER_FPS), as_floats)


def npz_pictures(
    path: Path,
) -> tuple[tuple[int, ...], np.dtype[Any], Callable[[], Iterator[NDArray[Any]]]]:
    """Shape and type of the first array of an NPZ file, [T,H,W] or [H,W], and what begins to read its pictures.

    One at a time is held. Raises `UserError` for another array, or a file that cannot be read, also amid the pictures.
    """
    with _first_array(path) as member:
        shape, is_fortran, dtype = _read_array_header(member)
    if is_fortran or len(shape) not in (2, 3) or dtype.kind not in "fui" or 0 in shape:
        raise UserError(f"{path} holds an array {dtype} {shape}; write depth as numbers [T,H,W], in C order.")

    def pictures() -> Iterator[NDArray[Any]]:
        with _first_array(path) as member:
            _read_array_header(member)
            for _ in range(shape[0] if len(shape) == 3 else 1):
                contents = member.read(dtype.itemsize * math.prod(shape[-2:]))
                yield np.frombuffer(contents, dtype).reshape(shape[-2:])

    return shape, dtype, pictures


@contextmanager
def _first_array(path: Path) -> Iterator[IO[bytes]]:
    """The first .npy file of an NPZ file; raises `UserError` where what is done with it shows that it is damaged."""
    try:
        with zipfile.ZipFile(path) as file, file.open(file.namelist()[0]) as member:
            yield member
    except (zipfile.BadZipFile, zlib.error, ValueError, IndexError, EOFError) as error:
        raise UserError(f"{path} is no NPZ file that can be read ({error}); write it again.") from error


def _read_array_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type of a .npy file, which is read up to its numbers."""
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(member)
    if version not in read:
        raise ValueError(f"its array has version {version}")
    return read[version](member)


def _open_video(path: Path) -> DepthFile:
    video = probe(path)
    # A result at the model's size has pixels that are not square: depth is compared as it is stored.
    height, width = video.stored_size

    def pictures() -> Iterator[NDArray[np.float32]]:
        with closing(numbered_frames(path, video.stamps, video.num_frames, Damage())) as frames:
            for _, frame in frames:
                if (frame.height, frame.width) != (height, width):
                    raise UserError(f"{path} is turned, or changes its size, which no result does; write it again.")
                yield _depth_of(frame, path)

    pixel_aspect = video.aspect * Fraction(height, width)
    return DepthFile(path, video.num_frames, height, width, video.timeline, pictures, pixel_aspect)


def _depth_of(frame: VideoFrame, path: Path) -> NDArray[np.float32]:
    """The luma of a picture in grey, in [0,1], with all of its bits."""
    if not frame.format.name.startswith(("gray", "yuv")):
        raise UserError(f"{path} is in {frame.format.name}, and depth is in grey; give NAME_depth, a folder or an NPZ.")
    bits = frame.format.components[0].bits
    unit = 1 << (bits - 8)
    big = frame.format.name.endswith("be")
    luma, *chroma = (_values(plane, bits, big) for plane in frame.planes[:3])
    tint = max((int(np.abs(plane.astype(np.int32) - 128 * unit).max()) for plane in chroma), default=0)
    if tint > _LARGEST_TINT * unit:
        raise UserError(f"{path} is in colours, and depth is in grey; give NAME_depth, a folder or an NPZ.")
    # ITU-R BT.709, the narrow range: black is 16 and white 235, times 2 for each bit beyond 8.
    is_full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    if is_full or (frame.format.name.startswith("gray") and frame.color_range != ColorRange.MPEG):
        return np.asarray(luma.astype(np.float32) / np.float32((1 << bits) - 1), np.float32)
    return np.asarray(np.clip((luma.astype(np.float32) - 16 * unit) / np.float32(219 * unit), 0, 1), np.float32)


def _values(plane: VideoPlane, bits: int, big: bool) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """A plane's values [H,W], whose lines may be longer."""
    dtype = np.dtype(np.uint8 if bits <= 8 else ">u2" if big else "<u2")
    lines = np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)
    values: NDArray[np.uint8] | NDArray[np.uint16]
    values = np.ascontiguousarray(lines[:, : plane.width * dtype.itemsize]).view(dtype)
    return values
