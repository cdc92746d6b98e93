"""What differs between the versions of PyAV that this package runs with: 18, and 19 from Python 3.12 on."""

from __future__ import annotations

from fractions import Fraction
from numbers import Rational
from typing import Any, BinaryIO

import av
from av.container import InputContainer

_MAJOR = int(av.__version__.split(".")[0])

# Metadata need not be UTF-8. PyAV 18 raises at such unless it is told not to; 19 never does, and has no such argument.
_TOLERANT: dict[str, Any] = {"metadata_errors": "replace"} if _MAJOR < 19 else {}

# What decoding a packet raises. A decoder that could not be opened is a ValueError in PyAV 19 when it is used again.
DECODING_ERRORS = (av.FFmpegError, ValueError)


def open_input(
    file: str | BinaryIO, format: str | None = None, options: dict[str, str] | None = None
) -> InputContainer:
    """Open a URL of FFmpeg's, "file:clip.mp4" for example, or an open file, for reading.

    `format` and `options` are of FFmpeg's demuxer, which it finds itself unless they are given. Raises
    `av.FFmpegError` for what FFmpeg cannot read.
    """
    container: InputContainer = av.open(file, "r", format=format, options=options, **_TOLERANT)
    return container


def to_fraction(number: Rational | None) -> Fraction | None:
    """A rate or a time base as a `Fraction`, and None where it is not set.

    PyAV 18 has `Fraction | None` for it, 19 an `AVRational` that may be 0/1 or have a denominator of 0.
    """
    return Fraction(number) if number else None
