"""Options that are more than a number or one of a few words, read from text."""

from __future__ import annotations

import math
import re
import struct

LARGEST_SIDE = 16384
MAX_PIXELS = 16384 * 8192


def parse_size(text: str) -> tuple[int, int] | None:
    """Height and width of "WxH"; None for "model" and "source", which depend on the video.

    Raises:
        ValueError: with what it must be.
    """
    if text in ("model", "source"):
        return None
    return _size(text, "model, source or WxH")


def parse_raw_size(text: str) -> tuple[int, int] | None:
    """Height and width of "WxH"; None for "". Raises `ValueError` with what it must be."""
    return _size(text, "WxH") if text else None


def parse_name(text: str) -> str:
    """The name of a file without its suffix, or "". Raises `ValueError` with what it must be."""
    if text.startswith((".", "-")) or any(letter in text for letter in "/\\\0"):
        raise ValueError("a name without / and \\ that starts with neither . nor -")
    return text


def parse_range(text: str) -> tuple[float, float] | None:
    """The two numbers of "LOW,HIGH"; None for "clip" and "shot", which depend on the depth.

    Raises:
        ValueError: with what it must be.
    """
    if text in ("clip", "shot"):
        return None
    expected = "clip, shot or LOW,HIGH in numbers of float32, the first the smaller"
    try:
        low, high = map(float, text.split(","))
        span = _as_float32(_as_float32(high) - _as_float32(low))
    except (ValueError, OverflowError):
        raise ValueError(expected) from None
    if not (math.isfinite(span) and span > 0):
        raise ValueError(expected)
    return low, high


def _as_float32(number: float) -> float:
    """The nearest that depth could be; raises `OverflowError` beyond its numbers."""
    return float(struct.unpack("f", struct.pack("f", number))[0])


def _size(text: str, expected: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE and width * height <= MAX_PIXELS):
        raise ValueError(f"{expected}, of 1 to {LARGEST_SIDE} pixels a side and at most {MAX_PIXELS:,} in all")
    return height, width
