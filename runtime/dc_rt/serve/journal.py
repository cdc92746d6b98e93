"""What happened to a job, an event a line, numbered: so that whoever listens goes on where it left off.

A line is `{"id": 1, "event": "Status", "data": {...}}`. Numbers count up from 1 without a gap, so that they are the
numbers of the lines, and go on after a restart of the service.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_READ_BYTES = 1 << 16  # at a time, for each that listens


@dataclass(frozen=True)
class Entry:
    """One event: its number, its kind, and its data as JSON."""

    id: int
    kind: str
    data: str


class Journal:
    """The events of one job, in a file: written by the thread that runs it, read by all that listen."""

    def __init__(self, path: Path) -> None:
        """Take up the file, if there is one; a line that a killed service left unfinished is removed."""
        self._path = path
        self._lock = threading.Lock()
        self._bells: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self.last_id = _repair(path)

    def append(self, kind: str, data: Mapping[str, Any]) -> None:
        """Add an event, or nothing: raises `OSError` where the disk has no room for all of it."""
        with self._lock:
            line = {"id": self.last_id + 1, "event": kind, "data": data}
            with self._path.open("ab", buffering=0) as file:
                end = file.seek(0, os.SEEK_END)
                contents = json.dumps(line).encode() + b"\n"
                if file.write(contents) != len(contents):
                    file.truncate(end)  # else the next one would go on in the same line
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            self.last_id += 1
        self.ring()

    def ring(self) -> None:
        """Wake up all that listen."""
        with self._lock:
            bells = list(self._bells.items())
        for bell, loop in bells:
            with suppress(RuntimeError):  # its loop has ended
                loop.call_soon_threadsafe(bell.set)

    def reader(self, last_id: int) -> Reader:
        """What reads the events behind the one of this number; of those to come, if it is beyond the last."""
        return Reader(self, self._path, min(last_id, self.last_id))

    def hang(self, bell: asyncio.Event) -> None:
        """Have `bell`, of the running loop, set at every event."""
        with self._lock:
            self._bells[bell] = asyncio.get_running_loop()

    def take_down(self, bell: asyncio.Event) -> None:
        """No more."""
        with self._lock:
            self._bells.pop(bell, None)


class Reader:
    """One that listens: it holds a place in the file, and no events."""

    def __init__(self, journal: Journal, path: Path, last_id: int) -> None:
        self.bell = asyncio.Event()
        self._path = path
        self._journal = journal
        self._offset = 0
        self._id = 0
        self._last_id = last_id

    def read(self) -> list[Entry]:
        """The next few events; none where all were read."""
        entries: list[Entry] = []
        while not entries and self._id < self._journal.last_id:
            try:
                with self._path.open("rb") as file:
                    file.seek(self._offset)
                    lines = file.readlines(_READ_BYTES)
            except FileNotFoundError:  # the job was removed
                lines = []
            if not lines:
                break
            for line in lines:
                if not line.endswith(b"\n"):  # it is being written
                    break
                self._offset += len(line)
                self._id += 1
                if self._id > self._last_id and (entry := _entry(self._id, line)):
                    entries.append(entry)
        return entries


def _entry(id: int, line: bytes) -> Entry | None:
    """What a line tells; None of one that is damaged, as the power that fails may leave it: the others are told."""
    try:
        found = json.loads(line)
        return Entry(id, str(found["event"]), json.dumps(found["data"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _repair(path: Path) -> int:
    """Cut off what is no whole line at the end; the number of lines."""
    if not path.exists():
        return 0
    num_lines, whole = 0, 0
    with path.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                file.truncate(whole)
                break
            num_lines += 1
            whole += len(line)
    return num_lines
