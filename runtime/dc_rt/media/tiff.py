"""What the tags of a TIFF file say, those that FFmpeg passes over: it makes black or grey pictures of some, unsaid.

EXIF is written in the same way, so that a photo's orientation is found here too where FFmpeg does not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Literal

NEXT_PAGE = 0
"""In the place of a tag, which it is not: where the second page is, 0 if there is none."""

# TIFF 6.0, sections 8 and 15; technical note 2 for the new JPEG.
_BITS_PER_SAMPLE, _COMPRESSION, _FILL_ORDER, _ORIENTATION, _PLANAR, _TILE_WIDTH = 258, 259, 266, 274, 284, 322
_FAX = (2, 3, 4)
_OLD_JPEG, _JPEG = 6, 7
# Bytes of a value by its type; those of integers alone.
_SIZES = {1: 1, 3: 2, 4: 4, 16: 8}
_MOST_TAGS = 4096


def read_tags(path: Path) -> dict[int, int]:
    """The first value of each integer tag of a TIFF file's first page; none of another kind of file."""
    with path.open("rb") as file:
        return _tags(file)


def unread_kind(tags: Mapping[int, int]) -> str:
    """What of a TIFF file FFmpeg cannot read and does not say so, to go on from "a TIFF file"; else nothing."""
    compression, bits = tags.get(_COMPRESSION, 1), tags.get(_BITS_PER_SAMPLE, 1)
    if _TILE_WIDTH in tags:
        return "in tiles"
    if compression in (_OLD_JPEG, _JPEG):
        return "compressed as JPEG"
    if tags.get(_PLANAR, 1) == 2 and bits != 8:
        return f"of {bits} bits with its channels apart"
    if tags.get(_FILL_ORDER, 1) == 2 and bits in (2, 4) and compression not in _FAX:
        return "of reversed bits"
    return ""


def webp_orientation(path: Path) -> int:
    """The orientation that the EXIF of a WebP file states, 1 to 8; 1 if none does."""
    with path.open("rb") as file:
        header = file.read(12)
        if header[:4] != b"RIFF" or header[8:] != b"WEBP":
            return 1
        while len(chunk := file.read(8)) == 8:
            size = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"EXIF":
                exif = file.read(min(size, 1 << 20)).removeprefix(b"Exif\0\0")
                return _tags(BytesIO(exif)).get(_ORIENTATION, 1)
            file.seek(size + size % 2, os.SEEK_CUR)
    return 1


def _tags(file: BinaryIO) -> dict[int, int]:
    start = file.read(16)
    order: Literal["little", "big"] = "little" if start[:2] == b"II" else "big"
    version = int.from_bytes(start[2:4], order)
    if start[:2] not in (b"II", b"MM") or version not in (42, 43):  # BigTIFF is 43
        return {}
    offset, count_size, field = (start[4:8], 2, 4) if version == 42 else (start[8:16], 8, 8)
    file.seek(int.from_bytes(offset, order))
    tags = {}
    num_tags = int.from_bytes(file.read(count_size), order)
    for _ in range(min(num_tags, _MOST_TAGS)):
        entry = file.read(4 + 2 * field)
        tag, kind = (int.from_bytes(entry[at : at + 2], order) for at in (0, 2))
        count = int.from_bytes(entry[4 : 4 + field], order)
        if (size := _SIZES.get(kind)) and count:
            value = entry[4 + field :]
            if size * count > field:  # elsewhere in the file
                place = file.tell()
                file.seek(int.from_bytes(value, order))
                value = file.read(size)
                file.seek(place)
            tags[tag] = int.from_bytes(value[:size], order)
    tags[NEXT_PAGE] = int.from_bytes(file.read(field), order) if num_tags <= _MOST_TAGS else 0
    return tags
