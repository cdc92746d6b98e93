"""The cores that this process may use, and who of its threads has them first."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

# As the system counts: a thread of the model's own has nine times the share of one that makes what it will need.
_YIELDING = 10


def num_cores() -> int:
    """Those that it may use; at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def yield_to_the_model() -> None:
    """Have this thread, and those that it starts, wait for threads that work now: what is made ahead has time.

    Linux alone lets a thread, and not only a process, have a priority.
    """
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _YIELDING)
