"""What the C library keeps of memory that was freed."""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress


def give_back_freed() -> None:
    """Have it give that back to the system, where it can be asked to: glibc, on Linux.

    It holds an arena for each of many threads, and keeps in every one what lies freed between what is used. Where
    pictures are made by one thread and freed by another, that grows for hundreds of frames before it stays the same.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
