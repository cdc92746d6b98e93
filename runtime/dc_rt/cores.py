"""The cores that this process may use, and who of its threads has them first."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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


@contextmanager
def keep_scheduling() -> Iterator[None]:
    """Have this thread, and those that are started meanwhile, scheduled as it is before, whatever a library does.

    SVT-AV1 gives the thread that opens it, and its own, real-time priority where root runs it. All that is started
    afterwards inherits that, and two threads that wait for others in a loop, as OpenBLAS's do, stop two cores for good.
    """
    if sys.platform != "linux":
        yield
        return
    others = _threads() - {threading.get_native_id()}
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            for thread in _threads() - others:
                with suppress(ProcessLookupError):  # it has ended
                    os.sched_setscheduler(thread, policy, parameters)


def _threads() -> set[int]:
    """Of this process, as Linux numbers them."""
    return {int(path.name) for path in Path("/proc/self/task").iterdir()}
