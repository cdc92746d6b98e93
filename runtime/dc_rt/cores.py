"""How many cores there are for this process, which may be fewer than the machine has."""

from __future__ import annotations

import os


def num_cores() -> int:
    """Those that it may use; at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
