"""Whether a video file is cut short, by what its container says of its own length.

FFmpeg plays what is there of a Matroska file whose end is missing, and gives no sign; an MP4 file that lost its index
it takes for no video at all. Both formats state their lengths up front.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

# ISO/IEC 14496-12: the boxes that frames need. What else is behind them, or junk that a camera appended, may be cut.
_FRAME_BOXES = (b"moov", b"moof", b"mdat")
_INDEX_BOXES = (b"moov", b"meta")  # the second in AVIF and HEIF, which are images

# RFC 8794 and RFC 9559.
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def ends_early(path: Path) -> bool:
    """Whether an MP4/MOV or Matroska/WebM file ends before it says it does; False for all other files.

    Reads headers only. Raises `OSError` where the file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start[4:] == b"ftyp":
            return _mp4_ends_early(file, size)
        if start.startswith(_EBML):
            return _matroska_ends_early(file, size)
    return False


def _mp4_ends_early(file: BinaryIO, size: int) -> bool:
    has_index = False
    offset = 0
    while offset < size:
        file.seek(offset)
        header = file.read(16)
        kind = header[4:8]
        has_index |= kind in _INDEX_BOXES
        length = int.from_bytes(header[:4])
        if length == 1:
            length = int.from_bytes(header[8:])
        if length < 8:  # 0 stands for the rest of the file; anything else is no box
            break
        offset += length
        if offset > size and kind in _FRAME_BOXES:
            return True
    return not has_index


def _matroska_ends_early(file: BinaryIO, size: int) -> bool:
    file.seek(len(_EBML))
    header_length = _read_vint(file)
    if header_length is None:
        return False
    file.seek(header_length, 1)
    if file.read(len(_SEGMENT)) != _SEGMENT:
        return False
    segment_length = _read_vint(file)
    return segment_length is not None and file.tell() + segment_length > size


def _read_vint(file: BinaryIO) -> int | None:
    """A variable-length size of EBML; None for "unknown", as live streams have it, and where there is none."""
    first = file.read(1)
    if first in (b"", b"\0"):
        return None
    num_bytes = 9 - first[0].bit_length()
    value_mask = (1 << (7 * num_bytes)) - 1
    value = int.from_bytes(first + file.read(num_bytes - 1)) & value_mask
    return None if value == value_mask else value
