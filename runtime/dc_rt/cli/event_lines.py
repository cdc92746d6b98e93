"""`dc-rt infer --events jsonl`: what happens as lines of JSON, for the program that has started it (docs/infer.md)."""

from __future__ import annotations

import json
import os
import signal
import stat
import threading
import time
from _thread import interrupt_main
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from dc_rt.cli.terminal import sentence_of
from dc_rt.errors import UserError, option, worded
from dc_rt.job.events import ENDINGS, Cancelled, Event, Failed, Listener, Progressed, as_json
from dc_rt.job.share import Share
from dc_rt.job.targets import text
from dc_rt.media.pipe import is_pipe
from dc_rt.media.stream import write_all
from dc_rt.options import as_flag

_QUIET_SECONDS = 0.2  # between two lines of progress
_LONGEST_COMMAND = 1024  # bytes that are kept of a line: what is longer is no command
_PATIENCE_SECONDS = 2.0  # with a reader that takes nothing any more


class EventLines:
    """Writes what happens to each video, a line of JSON an event; each video's last line is its ending."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._ended: set[Path] = set()
        self._is_lost = False
        self._lock = threading.Lock()

    def also(self, video: Path, listener: Listener) -> Listener:
        """A listener to a job, of this video, that hands on to another one what it has written.

        Raises `BrokenPipeError` once nobody reads, and other `OSError`s: what a run is for then is gone, and it ends.
        """
        share, told_at = Share(), 0.0

        def hear(event: Event) -> None:
            nonlocal told_at
            share.hear(event)
            listener(event)
            if not isinstance(event, Progressed):
                self.tell(video, event)
            elif time.monotonic() - told_at >= _QUIET_SECONDS:
                told_at = time.monotonic()
                self._write(video, _progress(event.stage, share))

        return hear

    def tell(self, video: Path, event: Event) -> None:
        """Write an event; of several endings of a video the first one is."""
        if isinstance(event, ENDINGS):
            if video in self._ended:
                return
            self._ended.add(video)
        self._write(video, _worded(as_json(event)))

    def fail(self, video: Path, error: BaseException) -> None:
        """Write that a video cannot be run, unless its job has told how it ended."""
        with suppress(OSError):
            sentence = sentence_of(error) if isinstance(error, UserError | OSError) else ""
            failed = Failed.of(error, is_resumable=False)
            self.tell(video, Failed(sentence or failed.sentence, failed.is_bug, False, failed.errno, failed.filename))

    def cancel(self, videos: Sequence[Path], is_resumable: bool = False) -> None:
        """Write of all that have not ended that they were cancelled; a reader that takes nothing delays no end."""

        def tell_all() -> None:
            with suppress(OSError):
                for video in videos:
                    self.tell(video, Cancelled(is_resumable))

        telling = threading.Thread(target=tell_all, name="last lines", daemon=True)
        telling.start()
        telling.join(_PATIENCE_SECONDS)

    def _write(self, video: Path, values: dict[str, Any]) -> None:
        line = json.dumps(values | {"video": text(video)}) + "\n"
        with self._lock:
            if self._is_lost:
                return
            try:
                write_all(self._stream, line.encode())
            except OSError:
                self._is_lost = True
                raise


@contextmanager
def following(events: str, videos: Sequence[Path]) -> Iterator[EventLines | None]:
    """Lines on standard output where `events` asks for them; whatever ends the command is then told of every video.

    Raises `UserError` where there are no such events.
    """
    if events == "none":
        yield None
        return
    if events != "jsonl":
        raise UserError(f"There is no {option('events', events)}; choose none or jsonl.")
    from dc_rt.cli.streams import take_standard_output

    lines = EventLines(take_standard_output())
    _obey(reads_commands=not any(map(is_pipe, videos)))
    try:
        yield lines
    except (UserError, OSError) as error:
        for video in videos:
            lines.fail(video, error)
        raise
    except KeyboardInterrupt:
        lines.cancel(videos)
        raise


def _obey(reads_commands: bool) -> None:
    """Have what a program can send end the run as Ctrl-C does: a signal, or the line `cancel`."""
    for name in ("SIGTERM", "SIGBREAK"):  # the second is what one can send on Windows
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.default_int_handler)
    mode = os.fstat(0).st_mode
    if reads_commands and (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        threading.Thread(target=_read_commands, name="commands", daemon=True).start()


def _read_commands() -> None:
    # Not through sys.stdin, whose lock would be held when the interpreter ends.
    received = b""
    with suppress(OSError):
        while read := os.read(0, 1024):
            *whole, received = (received[:_LONGEST_COMMAND] + read).split(b"\n")
            if any(line.strip() == b"cancel" for line in whole):
                interrupt_main()


def _progress(stage: str, share: Share) -> dict[str, Any]:
    done, left = share.done_in_all, share.seconds_left
    return {
        "event": "Progress",
        "stage": stage,
        "share": None if done is None else round(done, 4),
        "seconds_left": None if left is None else round(left, 1),
        "num_frames": share.num_done,
        "num_frames_in_all": share.num_frames,
    }


def _worded(values: dict[str, Any]) -> dict[str, Any]:
    """With options in sentences as they are typed."""
    shown = {}
    for name, value in values.items():
        if isinstance(value, str):
            value = text(worded(value, as_flag))
        elif isinstance(value, list | tuple):
            value = [text(worded(each, as_flag)) if isinstance(each, str) else each for each in value]
        shown[name] = value
    return shown
