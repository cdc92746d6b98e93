"""A lock that one process at a time holds, and that the system gives up with the process however that ends."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

# What the systems say of a lock that another process has; anything else is a fault of the disk.
_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)

_BEYOND = 1 << 30


class Held(Exception):
    """Another process holds the lock."""


def take_lock(path: Path) -> BinaryIO:
    """Take the lock that the file `path` stands for, made if need be; closing what is returned gives it up.

    Raises:
        Held: another process has it.
        OSError: the file cannot be made, or the file system knows no locks.
    """
    while True:
        file = path.open("a+b")
        try:
            _take(file)
            if is_still(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()  # whoever had it has removed the file meanwhile, and others may have made it anew


def lock_beyond_contents(file: BinaryIO) -> None:
    """Lock an open file, whose contents all can still read: where locks are of a part of a file, of one beyond them.

    Raises:
        Held: another process has it.
        OSError: the file system knows no locks.
    """
    if sys.platform == "win32":
        at = file.tell()
        file.seek(_BEYOND)
        _take(file)
        file.seek(at)
    else:
        _take(file)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of `path` for a while, and leave no file behind. Raises as `take_lock` does."""
    file = take_lock(path)
    try:
        yield
    finally:
        if os.name == "posix":
            path.unlink(missing_ok=True)  # while it is held: whoever waits for it notices (`is_still`)
        file.close()
        if os.name != "posix":
            with suppress(OSError):  # here it cannot be removed while anybody has it open
                path.unlink(missing_ok=True)


def _take(file: BinaryIO) -> None:
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            raise Held from None
        raise


def is_still(file: BinaryIO, path: Path) -> bool:
    """Whether `path` is the file that was opened, and not another one of that name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
