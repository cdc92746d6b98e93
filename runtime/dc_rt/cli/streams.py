"""Standard output and standard error that never end a run.

Results are what counts. What is printed about them may meet a pipe whose reader has left, a full disk, a closed stream,
or an encoding that lacks the letters of a name: then it is lost, or shown with escapes, and the work goes on.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from dc_rt.errors import UserError

_POLL_SECONDS = 0.05


class Outlet(io.RawIOBase):
    """Where a stream's bytes go. The first error is kept in `error`; what comes after it is dropped."""

    def __init__(self, raw: Any, report: Callable[[OSError], None]) -> None:
        """`raw` is the stream's unbuffered file; `report` hears of its first error."""
        self._raw = raw
        self._report = report
        self.error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write some of `data`; how many bytes of it are done with."""
        while self.error is None:
            try:
                written = self._raw.write(data)
            except OSError as error:
                self.error = error
                self._report(error)
            else:
                if written is not None:
                    return int(written)
                time.sleep(_POLL_SECONDS)  # a pipe that does not wait for its reader, which another program may ask for
        return memoryview(data).nbytes

    def writable(self) -> bool:
        """As of any stream that is written to."""
        return True

    def fileno(self) -> int:
        """Of the file itself."""
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        """Of the file itself."""
        return bool(self._raw.isatty())


def protect_streams() -> Outlet | None:
    """Make standard output and error such streams; the outlet of standard output, None if it is not a file's.

    The first time that standard output cannot be written to, standard error says so.
    """
    # Otherwise the next file that is opened would get the number of a closed stream, and with it all that libraries
    # print there.
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stderr, _ = _protected(sys.stderr, lambda error: None)
    sys.stdout, outlet = _protected(sys.stdout, _say_lost)
    return outlet


def take_standard_output_for_depth() -> BinaryIO:
    """As `take_standard_output`; raises `UserError` where it is a terminal."""
    if sys.stdout.isatty():
        raise UserError("Standard output is a terminal, which shows no depth; pipe it into a program, or into a file.")
    return take_standard_output()


def take_standard_output() -> BinaryIO:
    """Standard output for one thing alone: all else that is printed, by libraries too, goes to standard error."""
    sys.stdout.flush()
    results = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    return cast(BinaryIO, results)


def _say_lost(error: OSError) -> None:
    print(
        f"Nothing more can be written to standard output ({error.strerror}); the work goes on.",
        file=sys.stderr,
        flush=True,
    )


def _protected(stream: TextIO | None, report: Callable[[OSError], None]) -> tuple[TextIO, Outlet | None]:
    if stream is None:  # it was closed from the start
        return Path(os.devnull).open("w", encoding="utf-8"), None  # as long as the process
    buffer = getattr(stream, "buffer", None)
    if not isinstance(stream, io.TextIOWrapper) or buffer is None:  # somebody's own, such as a notebook's
        return stream, None
    outlet = Outlet(getattr(buffer, "raw", buffer), report)
    # In the "C" locale bytes of names that are no text pass as they are, which is best; else they are escaped.
    errors = "backslashreplace" if stream.errors == "strict" else stream.errors
    line_buffering = stream.line_buffering or stream.write_through
    return io.TextIOWrapper(io.BufferedWriter(outlet), stream.encoding, errors, line_buffering=line_buffering), outlet
