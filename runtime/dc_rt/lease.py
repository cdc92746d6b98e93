"""Leases: which of many workers, on one machine or on several that share a folder, has a piece of work.

A lease of PATH is a file `PATH-N`, which its holder keeps locked and touches again and again. Only one worker can make
a file of a name, so that whoever makes number N+1 takes the work over from the holder of N, and the highest number
holds. That is done where the holder of N is dead, or silent:

- dead: on this machine the system has given up the file's lock, as it does with the process, however that ends. A
  machine is a kernel as it was booted: containers of one see each other's locks, and those of two may have one name;
- silent: the file was not touched for as long as the holder said that it would be at most. It may be on a machine that
  is gone, or sleep, and wake. Time is measured by the clock of whoever looks, so that clocks need not agree.

A holder that wakes sees by `Lease.check` that it has lost the work; what it may write nevertheless, before it looks, is
for the owner of the files to prevent (see `dc_rt.job.spool.fence`).
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import secrets
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Self

from dc_rt.errors import UserError, option
from dc_rt.lock import Held, lock_beyond_contents

DEFAULT_SECONDS = 60.0
LEAST_SECONDS, MOST_SECONDS = 1.0, 86400.0

_NUMBER = re.compile("[1-9][0-9]{0,17}")
_BEATS = 6  # of a holder, in the time after which it is taken for silent
_LOOKS = 4  # an observer that was stopped itself must look as often again before it says that a holder is silent

__all__ = ["DEFAULT_SECONDS", "LEAST_SECONDS", "MOST_SECONDS", "Held", "Lease", "LeaseLost", "Leases"]


class LeaseLost(Exception):
    """Another worker has taken the work over."""


class Lease:
    """A lease that is held: the file is touched in a thread of its own until `release`, or the process ends."""

    def __init__(self, path: Path, number: int, file: BinaryIO, token: str, seconds: float, needs_fence: bool) -> None:
        """For `Leases.take` alone.

        Attributes:
            needs_fence: whether it was taken over from a holder that may wake, whose files are still to be fenced off.
                Whoever has done that sets it to False; until then whoever takes the lease next finds it True as well.
        """
        self.needs_fence = needs_fence
        self._path, self._number, self._file, self._token = path, number, file, token
        self._released = threading.Event()
        self._pulse = threading.Thread(target=self._beat, args=(seconds / _BEATS,), name="lease", daemon=True)
        self._pulse.start()

    def check(self) -> None:
        """Raise `LeaseLost` if another worker has taken the work over; `OSError` if that cannot be seen."""
        # Where no open file can be removed, ours stays beside the one after it.
        if not self._is_there() or self._written(self._number + 1).get("after") == self._token:
            raise LeaseLost

    @property
    def is_lost(self) -> bool:
        """Whether another worker has taken the work over, as far as can be seen."""
        try:
            self.check()
        except LeaseLost:
            return True
        except OSError:
            return False
        return False

    def release(self) -> None:
        """Give the work up: whoever wants it next has it at once.

        One that still needs a fence is left as that of a process that has died: the next one builds it.
        """
        if self._released.is_set():
            return
        self._released.set()
        self._pulse.join()
        with suppress(OSError):
            is_removed = self._is_there() and not self.needs_fence
            if os.name != "posix":  # where no open file can be removed
                self._file.close()
            if is_removed:
                _numbered(self._path, self._number).unlink()
        self._file.close()

    def _is_there(self) -> bool:
        """Whether the file is still our own: whoever takes the work over removes it."""
        return self._written(self._number).get("token") == self._token

    def _written(self, number: int) -> dict[str, Any]:
        """What is in the file of a number; nothing where there is none."""
        try:
            return _decoded(_contents(self._path, number) or b"")
        except OSError as error:
            if error.errno == errno.ESTALE:  # removed by another machine
                return {}
            raise

    def _beat(self, seconds: float) -> None:
        by_descriptor = os.utime in os.supports_fd  # so that nothing but our own file is ever touched
        while not self._released.wait(seconds):
            with suppress(OSError):
                os.utime(self._file.fileno() if by_descriptor else _numbered(self._path, self._number))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass
class _Seen:
    """A holder as it was seen last: which it is, since when its file stood still, and when it was seen."""

    token: str
    stamp: int
    still_for: float
    looked_at: float


@dataclass(frozen=True)
class _Gone:
    """A holder that the work can be taken over from: what it wrote, and whether it may wake, or one before it."""

    contents: bytes
    may_wake: bool


class Leases:
    """Takes leases, and remembers which others it saw, so that it notices those that are silent."""

    def __init__(self, seconds: float = DEFAULT_SECONDS) -> None:
        """`seconds` is how long a holder from here may be silent before others may take its work over.

        Raises:
            UserError: it is no such time.
        """
        if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
            raise UserError(
                f"A lease lasts {LEAST_SECONDS:g} to {MOST_SECONDS:g} seconds, not {seconds:g}; "
                f"try {option('lease_seconds', int(DEFAULT_SECONDS))}."
            )
        self._seconds = seconds
        self._seen: dict[Path, _Seen] = {}

    def take(self, path: Path) -> Lease:
        """Take the lease of `path`, whose folder is made if need be.

        To learn that a holder is silent takes several calls: `Held` is raised until one has seen it.

        Raises:
            Held: another worker has it; its text says who.
            OSError: the folder cannot be written to.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        numbers = _numbers(path)
        number = max(numbers, default=0)
        gone = self._see_gone(path, number) if number else None
        # One that died before it removed an older one had not looked whether that can be taken over.
        needs_fence = gone is not None and (gone.may_wake or len(numbers) > 1)
        lease = self._make(path, number + 1, gone and _decoded(gone.contents).get("token"), needs_fence)
        # Others may have taken it over meanwhile, and released it: numbers begin anew where none is left. None has if
        # the holder before is still there, which the next one removes before all else, and if there is none after.
        if max(_numbers(path), default=0) > number + 1 or _contents(path, number) != (gone and gone.contents):
            lease.needs_fence = False
            lease.release()
            raise Held("another worker")
        for older in numbers:
            if not lease.is_lost:  # by sleeping here, so that others have made a file of this name anew
                with suppress(OSError):
                    _numbered(path, older).unlink()
        self._seen.pop(path, None)
        return lease

    def _make(self, path: Path, number: int, after: Any, needs_fence: bool) -> Lease:
        token = secrets.token_hex(8)
        try:
            file = _numbered(path, number).open("xb")
        except FileExistsError:
            raise Held("another worker") from None
        # Locked before it says whose it is: until then nobody tries the lock.
        try:
            lock_beyond_contents(file)
            contents = {
                "token": token,
                "after": after,
                "holder": f"process {os.getpid()} on {socket.gethostname()}",
                "machine": machine(),
                "device": _device(file),
                "seconds": self._seconds,
                "needs_fence": needs_fence,
            }
            file.write(json.dumps(contents).encode())
            file.flush()
            os.fsync(file.fileno())  # on a network file system others see it from then on
        except BaseException:
            with suppress(OSError):  # on a full disk that fails too
                file.close()
            with suppress(OSError):
                _numbered(path, number).unlink()
            raise
        return Lease(path, number, file, token, self._seconds, needs_fence)

    def _see_gone(self, path: Path, number: int) -> _Gone:
        """The holder, if it is dead or silent; raises `Held` if it is neither."""
        try:
            with _numbered(path, number).open("rb") as file:  # opened, since that has network file systems look anew
                contents, stamp, device = file.read(), os.fstat(file.fileno()).st_mtime_ns, _device(file)
        except FileNotFoundError:  # released in this instant
            raise Held("another worker") from None
        found = _decoded(contents)
        is_near = found.get("machine") == machine() and found.get("device") == device
        if is_near and _is_unlocked(_numbered(path, number)):
            return _Gone(contents, found.get("needs_fence") is True)
        now, token = time.monotonic(), f"{number} {found.get('token')}"
        seen = self._seen.get(path)
        if seen is None or (seen.token, seen.stamp) != (token, stamp):
            self._seen[path] = _Seen(token, stamp, 0.0, now)
            raise Held(_in_words(found))
        patience = _patience(found, self._seconds)
        # Whoever was stopped itself, perhaps with all others of this machine, does not count that time.
        seen.still_for += min(now - seen.looked_at, patience / _LOOKS)
        seen.looked_at = now
        if seen.still_for < patience:
            raise Held(_in_words(found))
        return _Gone(contents, True)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}-{number}")


def _numbers(path: Path) -> list[int]:
    """Those of all leases of `path` that are there."""
    prefix = f"{path.name}-"
    with os.scandir(path.parent) as entries:
        rests = (entry.name.removeprefix(prefix) for entry in entries if entry.name.startswith(prefix))
        return [int(rest) for rest in rests if _NUMBER.fullmatch(rest)]


def _contents(path: Path, number: int) -> bytes | None:
    """What the holder of a number wrote; None where there is none."""
    try:
        return _numbered(path, number).read_bytes()
    except FileNotFoundError:
        return None


def _is_unlocked(path: Path) -> bool:
    """Whether no process of this machine has it locked."""
    try:
        with path.open("r+b") as file:
            lock_beyond_contents(file)
    except (Held, PermissionError):  # or another user's process
        return False
    except FileNotFoundError:
        return True
    return True


def _device(file: BinaryIO) -> int:
    """Of the file system as it is mounted here: a lock in one mount of it may not be seen in another."""
    return os.fstat(file.fileno()).st_dev


def _decoded(contents: bytes) -> dict[str, Any]:
    """What a holder wrote about itself; empty where it is nothing of the kind, as on a disk that was full."""
    try:
        found = json.loads(contents)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _patience(found: dict[str, Any], otherwise: float) -> float:
    """How long the holder said that it would be silent at most."""
    seconds = found.get("seconds")
    if isinstance(seconds, int | float) and LEAST_SECONDS <= seconds <= MOST_SECONDS:
        return float(seconds)
    return otherwise


def _in_words(found: dict[str, Any]) -> str:
    return str(found.get("holder", "another worker"))


@cache
def machine() -> str:
    """What all processes share that see each other's locks: the kernel, as it was booted."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{platform.node()} {uuid.getnode():x}"
