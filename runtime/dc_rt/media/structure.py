"""What a container says of itself where FFmpeg gives no sign: that its end is missing, or that it is encrypted.

FFmpeg plays what is there of a Matroska file whose end is missing; an MP4 file that lost its index it takes for no
video at all, and so it does with some that are encrypted. Both formats state their lengths up front.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

# ISO/IEC 14496-12: the boxes that frames need. What else is behind them, or junk that a camera appended, may be cut.
_FRAME_BOXES = (b"moov", b"moof", b"mdat")
_INDEX_BOXES = (b"moov", b"meta")  # the second in AVIF and HEIF, which are images
# Sample entries of encrypted video: common encryption (ISO/IEC 23001-7), and Apple's own.
ENCRYPTED_ENTRIES = ("encv", "drmi")
_HEIF_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
_LARGEST_INDEX = 1 << 26  # bytes that are searched for these
_MOST_ENTRIES = 64

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
            kinds = set()
            for kind, offset, length in _boxes(file, size):
                if offset + length > size and kind in _FRAME_BOXES:
                    return True
                kinds.add(kind)
            return kinds.isdisjoint(_INDEX_BOXES)
        if start.startswith(_EBML):
            return _matroska_ends_early(file, size)
    return False


def says_encrypted(path: Path) -> bool:
    """Whether an index of an MP4/MOV file names encrypted video; False for all other files."""
    with path.open("rb") as file:
        if file.read(8)[4:] != b"ftyp":
            return False
        for kind, offset, length in _boxes(file, path.stat().st_size):
            if kind == b"moov":
                file.seek(offset)
                index = file.read(min(length, _LARGEST_INDEX))
                if any(entry in ENCRYPTED_ENTRIES for entry in _sample_entries(index)):
                    return True
    return False


def _sample_entries(index: bytes) -> Iterator[str]:
    """The kinds of what the tracks of an index hold, by its sample descriptions."""
    at = index.find(b"stsd")
    while at >= 0:
        entry = at + 12  # behind version, flags and the number of entries
        for _ in range(min(int.from_bytes(index[at + 8 : entry]), _MOST_ENTRIES)):
            yield index[entry + 4 : entry + 8].decode("latin-1").lower()
            entry += max(int.from_bytes(index[entry : entry + 4]), 8)
        at = index.find(b"stsd", at + 4)


def is_heif(path: Path) -> bool:
    """Whether a file is an image, or several, in the manner of HEIF, as AVIF is (ISO/IEC 23008-12)."""
    with path.open("rb") as file:
        start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:12] in _HEIF_BRANDS


def is_animated_webp(path: Path) -> bool:
    """Whether a file is a WebP animation, which FFmpeg decodes no frame of."""
    with path.open("rb") as file:
        start = file.read(21)
    return len(start) == 21 and start[:4] == b"RIFF" and start[8:16] == b"WEBPVP8X" and bool(start[20] & 0b10)


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, offset and length of the outermost boxes; the last one may reach beyond the end."""
    offset = 0
    while offset < size:
        file.seek(offset)
        header = file.read(16)
        length = int.from_bytes(header[:4])
        if length == 1:
            length = int.from_bytes(header[8:])
        elif length == 0:  # the rest of the file
            length = size - offset
        if length < 8:  # no box
            return
        yield header[4:8], offset, length
        offset += length


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
