"""The shape of pixels in a Matroska file, which its muxer takes from where PyAV puts nothing."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

# IDs of RFC 9559. The muxer leaves room (a Void) in the entry of a track, after its settings of video.
_SEGMENT, _TRACKS, _TRACK_ENTRY, _VIDEO, _VOID = b"\x18\x53\x80\x67", b"\x16\x54\xae\x6b", b"\xae", b"\xe0", b"\xec"
_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = b"\x54\xb0", b"\x54\xba", b"\x54\xb2"

_HEAD = 1 << 14  # bytes that hold the tracks: those before are headers
_LARGEST = 65535


class _Element(NamedTuple):
    """Where one is: from `start` to `end`, its contents from `body` on."""

    name: bytes
    start: int
    body: int
    end: int


def set_display_size(path: Path, height: int, width: int, sample_aspect_ratio: Fraction) -> None:
    """Have the first track of a finished file, whose checksums are off, shown with pixels of this shape.

    Where a muxer leaves no room for it, the file stays as it is, and is shown with square ones.
    """
    shown = [height, max(round(width * sample_aspect_ratio), 1)]
    if max(shown) > _LARGEST:
        shown = [max(each * _LARGEST // max(shown), 1) for each in shown]
    with path.open("r+b") as file:
        head = file.read(_HEAD)
        entry = _find(head, _find(head, _find(head, _Element(b"", 0, 0, len(head)), _SEGMENT), _TRACKS), _TRACK_ENTRY)
        video = _find(head, entry, _VIDEO)
        room = next((each for each in _children(head, entry) if each.name == _VOID and each.start >= video.end), None)
        kept = (each for each in _children(head, video) if each.name != _DISPLAY_UNIT)
        body = b"".join(head[each.start : each.end] for each in kept)
        body += _number(_DISPLAY_HEIGHT, shown[0]) + _number(_DISPLAY_WIDTH, shown[1])
        growth = len(body) - (video.end - video.body)
        if room is None or room.end - room.start - growth < 2 or len(body) > 126:
            return
        left = room.end - room.start - growth - 2
        file.seek(video.start)
        file.write(_VIDEO + _size(len(body)) + body + head[video.end : room.start] + _VOID + _size(left) + bytes(left))


def _children(data: bytes, parent: _Element) -> Iterator[_Element]:
    """What an element holds (RFC 8794: an ID, a size, contents)."""
    start = parent.body
    while start < min(parent.end, len(data)):
        sized = start + 9 - data[start].bit_length()
        body = sized + 9 - data[sized].bit_length()
        size = int.from_bytes(data[sized:body]) & ((1 << 7 * (body - sized)) - 1)
        yield _Element(data[start:sized], start, body, body + size)
        start = body + size


def _find(data: bytes, parent: _Element, name: bytes) -> _Element:
    return next(each for each in _children(data, parent) if each.name == name)


def _number(name: bytes, value: int) -> bytes:
    return name + _size(2) + value.to_bytes(2)


def _size(length: int) -> bytes:
    return bytes([0x80 | length])
