"""Other processes by their ids, as Linux tells of them: what descends from one, and how a whole node dies."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def children_of(process: int) -> list[int]:
    """Ids of the processes that a process started and that have not ended."""
    children = []
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it ends in this instant
                # What follows the name, which is in brackets and may hold anything: state, then the parent's id.
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                if int(parent) == process and state != "Z":
                    children.append(int(entry.name))
    return sorted(children)


def family_of(process: int) -> list[int]:
    """It, and all that descend from it."""
    return [process, *(id_ for child in children_of(process) for id_ in family_of(child))]


def kill_family(process: int) -> None:
    """SIGKILL for a process and all that descend from it, as when their machine loses its power."""
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGSTOP)  # so that it starts no more, and none notices that another one died
    for member in family_of(process)[::-1]:
        with suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)
