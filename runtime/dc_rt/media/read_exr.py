"""OpenEXR files as pictures: colour or luminance, laid into the display window, linear light made sRGB.

Read by the OpenEXR library. FFmpeg's decoder reads no luminance with chroma, no deep data and no HTJ2K, takes the first
part of several whatever it is, and gives half floats, which PyAV has no arrays for.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dc_rt.errors import UserError
from dc_rt.media.container import MAX_PIXELS

# IEC 61966-2-1.
_SRGB_KNEE, _SRGB_SLOPE, _SRGB_OFFSET, _SRGB_POWER = 0.0031308, 12.92, 0.055, 1 / 2.4
# Weights of red, green and blue in the luminance of ITU-R BT.709, and its primaries and white as EXR files state them.
_LUMINANCE = (0.2126, 0.7152, 0.0722)
_BT709 = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, 0.3127, 0.329)
_COLOURS = ("R", "G", "B")


@dataclass(frozen=True)
class View:
    """How the values of linear files become those of a screen.

    Attributes:
        name: "srgb", or "none" for values that are taken as they are.
        exposure: in stops: values are multiplied by 2 to its power first.
    """

    name: str = "srgb"
    exposure: float = 0.0

    @property
    def is_asked_for(self) -> bool:
        """Whether it is another than the one that goes without saying."""
        return self != View()


@dataclass(frozen=True)
class ExrImage:
    """A picture: uint8 [H,W,3] RGB of the display window, a pixel's width to its height, and what is to be said."""

    rgb: NDArray[np.uint8]
    pixel_aspect: float
    has_alpha: bool
    notes: tuple[str, ...]


def read_exr(path: Path, view: View) -> ExrImage:
    """Read a file: R, G and B, or Y with or without chroma, of the first part or layer that has them.

    What lies outside of the display window is cut off, and what the data window does not cover is black. Values are
    clipped to [0,1] after the view; those that are no numbers are 0.

    Raises:
        UserError: it has no such channels, they are deep, or there are too many pixels.
        RuntimeError: the library cannot read it.
    """
    import OpenEXR  # a large library that few runs need

    with OpenEXR.File(str(path), header_only=True) as file:
        headers = [dict(part.header) for part in file.parts]  # closing empties its own
    index, layer = _choose(path, headers)
    header = headers[index]
    if header["type"] in (OpenEXR.deepscanline, OpenEXR.deeptile):
        raise UserError(f"{path} holds deep data, several depths a pixel, which is not read here; flatten it.")
    (left, top), (right, bottom) = (corner.tolist() for corner in header["displayWindow"])
    height, width = bottom - top + 1, right - left + 1
    (data_left, data_top), (data_right, data_bottom) = (corner.tolist() for corner in header["dataWindow"])
    if max(height * width, (data_bottom - data_top + 1) * (data_right - data_left + 1)) > MAX_PIXELS:
        raise UserError(f"{path} has {width}x{height} pixels, and at most {MAX_PIXELS:,} are read; make it smaller.")
    with OpenEXR.File(str(path), separate_channels=True) as file:
        shown = _shown(_planes(file.parts[index].channels, layer), view)
    # The pixels of the data window that lie in the display window.
    rows = slice(max(top, data_top), min(bottom, data_bottom) + 1)
    columns = slice(max(left, data_left), min(right, data_right) + 1)
    rgb = np.zeros((height, width, 3), np.uint8)
    if rows.start < rows.stop and columns.start < columns.stop:
        rgb[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = shown[
            rows.start - data_top : rows.stop - data_top, columns.start - data_left : columns.stop - data_left
        ]
    names = [channel.name for channel in header["channels"]]
    return ExrImage(rgb, header.get("pixelAspectRatio", 1.0), f"{layer}A" in names, _notes(header, layer, index))


def _choose(path: Path, headers: list[dict[str, Any]]) -> tuple[int, str]:
    """Number of the part, and the layer in it ("" or "diffuse."), whose channels are the picture."""
    found = []
    for index, header in enumerate(headers):
        names = {channel.name for channel in header["channels"]}
        layers = sorted({name[: -len(name.rpartition(".")[2])] for name in names})
        for layer in layers:
            if all(f"{layer}{colour}" in names for colour in _COLOURS) or f"{layer}Y" in names:
                found.append((layer != "", index, layer))
    if not found:
        others = sorted({channel.name for header in headers for channel in header["channels"]})
        raise UserError(
            f"{path} has neither colour (R, G and B) nor luminance (Y): its channels are {', '.join(others)}; "
            "write the picture's own channels."
        )
    _, index, layer = min(found)
    return index, layer


def _planes(channels: dict[str, Any], layer: str) -> list[NDArray[Any]]:
    """Red, green and blue of a layer, or luminance alone: one or three arrays of one size."""
    if f"{layer}R" in channels:
        return [channels[f"{layer}{colour}"].pixels for colour in _COLOURS]
    luminance = channels[f"{layer}Y"].pixels
    if f"{layer}RY" not in channels:
        return [luminance]
    # "Technical Introduction to OpenEXR", luminance/chroma images: RY is (R - Y) / Y, of every second pixel and row.
    height, width = luminance.shape
    luminance = luminance.astype(np.float32)
    chroma = (channels[f"{layer}{name}"].pixels.astype(np.float32) for name in ("RY", "BY"))
    red, blue = (luminance * (1 + each.repeat(2, 0).repeat(2, 1)[:height, :width]) for each in chroma)
    of_red, of_green, of_blue = _LUMINANCE
    return [red, (luminance - of_red * red - of_blue * blue) / of_green, blue]


def _shown(planes: list[NDArray[Any]], view: View) -> NDArray[np.uint8]:
    """The planes as a screen shows them, uint8 [H,W,3]."""
    shown = [_seen_through(plane, view) for plane in planes]
    return np.stack(shown if len(shown) == 3 else shown * 3, axis=-1)


def _seen_through(values: NDArray[Any], view: View) -> NDArray[np.uint8]:
    if values.dtype == np.float16:
        # There are fewer half floats than pixels.
        table = _seen_through(np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32), view)
        return np.asarray(table[np.ascontiguousarray(values).view(np.uint16)], np.uint8)
    if values.dtype == np.uint32:
        raise RuntimeError("channels of whole numbers are no picture")
    with np.errstate(over="ignore", invalid="ignore"):
        linear = np.nan_to_num(values.astype(np.float32) * np.float32(2.0**view.exposure), nan=0.0)
    linear = linear.clip(0, 1)
    if view.name == "srgb":
        curved = (1 + _SRGB_OFFSET) * linear ** np.float32(_SRGB_POWER) - np.float32(_SRGB_OFFSET)
        linear = np.where(linear <= _SRGB_KNEE, _SRGB_SLOPE * linear, curved)
    return np.asarray(np.rint(linear * np.float32(255)), np.uint8)


def _notes(header: dict[str, Any], layer: str, index: int) -> tuple[str, ...]:
    notes = []
    if layer:
        notes.append(f"without channels of their own: the layer {layer.removesuffix('.')} is read")
    if index:
        notes.append(f"of several parts, of which {header.get('name', index + 1)} is read")
    primaries = header.get("chromaticities")
    if primaries is not None and not np.allclose(primaries, _BT709, atol=1e-3):
        notes.append("of other primaries than those of BT.709, read without converting them")
    return tuple(notes)
