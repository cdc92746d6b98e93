"""A run of `dc-rt infer --events jsonl`, followed without waiting for it. Knows nothing of Blender."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .errors import Problem
from .program import HOW_TO, quiet_process

CANCEL_SECONDS = 10.0
"""How long the process may take to end by itself once it is cancelled."""
_END_SECONDS = 2.0
_KEPT_LINES = 30
_AGAIN = "what was done is kept, and the same run resumes it"


@dataclass(frozen=True)
class Ending:
    """How a run ended.

    Attributes:
        sentence: in one sentence.
        is_error: whether something went wrong; a run that was cancelled did not.
        record: the `NAME.json` of a run that finished; None of others.
    """

    sentence: str
    is_error: bool
    record: Path | None = None


class Run:
    """A process that runs one video.

    Nothing here waits, but `stop`: `poll` is called now and then, and looks at what has come.

    Attributes:
        share: of the work, from 0 to 1; None while it is not known.
        seconds_left: None before there is a pace.
        doing: what it is at, in words.
        notes: what was said of the video and the options on the way.
        ending: None as long as it runs.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it.

        Args:
            command: the program and its arguments.
            environment: all of its variables.

        Raises:
            Problem: it cannot be started.
        """
        self.share: float | None = None
        self.seconds_left: float | None = None
        self.doing = "Starting"
        self.notes: list[str] = []
        self.ending: Ending | None = None
        self._told: Ending | None = None
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)
        self._cancelled_at: float | None = None
        self._program = command[0]
        # None is the end of the stream.
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                env=dict(environment),
                **quiet_process(),  # type: ignore[call-overload]
            )
        except OSError as error:
            raise Problem(f"{command[0]} cannot be started ({error.strerror or error}); {HOW_TO}.") from error
        self._readers = [threading.Thread(target=each, daemon=True) for each in (self._read_events, self._read_words)]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return int(self._process.pid)

    @property
    def is_cancelled(self) -> bool:
        """Whether it was asked to end."""
        return self._cancelled_at is not None

    def poll(self) -> bool:
        """Take in what has come since the last time, without waiting; whether it is still running."""
        while self.ending is None:
            try:
                line = self._lines.get_nowait()
            except queue.Empty:
                break
            if line is not None:
                self._hear(line)
                continue
            # The stream has ended, and so does the process, if it does not hang at the very end of it.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
            self._end()
        if self.ending is None and self._cancelled_at and time.monotonic() - self._cancelled_at > CANCEL_SECONDS:
            self._process.kill()
        return self.ending is None

    def cancel(self) -> None:
        """Ask it to end; what was done is kept. It is killed after `CANCEL_SECONDS`."""
        if self._cancelled_at is None:
            self._cancelled_at = time.monotonic()
            self.doing = "Cancelling"
            with suppress(OSError, ValueError):  # it has ended
                assert self._process.stdin is not None
                self._process.stdin.write("cancel\n")
                self._process.stdin.flush()

    def stop(self, seconds: float) -> None:
        """Cancel it and wait for its end, for so long at most, then kill it."""
        self.cancel()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._end()

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _read_words(self) -> None:
        """Of standard error, which would fill its pipe otherwise."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if line.strip():
                self._said.append(line.strip())

    def _hear(self, line: str) -> None:
        """Take in a line; one that is no event is left out: the process was killed amid it, or is no dc-rt."""
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            self._take(json.loads(line))

    def _take(self, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if event.get("share") is not None:
            self.share = float(event["share"])
        if "seconds_left" in event:
            self.seconds_left = event["seconds_left"]
        if not self.is_cancelled:
            self.doing = _doing(kind, event) or self.doing
        if kind == "Planned":
            self.notes += [*filter(None, [event.get("demonstration")]), *event.get("notes", ())]
        if kind == "Warned":
            self.notes.append(event["sentence"])
        if kind == "Resumed":
            self.notes.append(f"Resumed after frame {event['num_frames']} of an unfinished run.")
        self._told = _ending_of(kind, event) or self._told

    def _end(self) -> None:
        """It has ended: say how."""
        status = self._process.poll()
        for reader in self._readers:
            reader.join(_END_SECONDS)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            _close(stream)
        if self.ending is None:
            self.ending = self._told or self._without_a_word(status)

    def _without_a_word(self, status: int | None) -> Ending:
        """How a process ended that did not tell."""
        if self.is_cancelled:
            return Ending(f"The run was cancelled; {_AGAIN}.", False)
        said = list(self._said)
        if any("--events" in line for line in said):
            return Ending(f"{self._program} has no --events: it is older than this add-on; update it.", True)
        if status is None or status < 0 or not said:
            how = "was killed" if status and status < 0 else "ended without a word"
            return Ending(f"dc-rt {how} (exit status {status}); {_AGAIN}.", True)
        last = said[-1].rstrip(".")
        return Ending(f"dc-rt ended with exit status {status} ({last}); check its options, and its path.", True)


def _close(stream: IO[str] | None) -> None:
    # What a reader thread is at is closed by its own end.
    with suppress(OSError, ValueError, RuntimeError):
        if stream is not None:
            stream.close()


def _doing(kind: str, event: Mapping[str, Any]) -> str:
    """What a run is at, by an event; "" where the event does not say."""
    if kind == "Planned":
        return f"{event['num_frames']} frames at {event['width']}x{event['height']}"
    if kind == "Progress" and event["stage"] == "detect":
        return "Looking for cuts"
    if kind == "Progress":
        return f"{event['num_frames']} of {event['num_frames_in_all']} frames"
    return ""


def _ending_of(kind: str, event: Mapping[str, Any]) -> Ending | None:
    """How the run ended, by an event; None where it goes on."""
    if kind in ("Finished", "AlreadyDone"):
        return Ending(f"{event['num_frames']} frames of depth are done.", False, Path(event["files"][-1]))
    if kind == "Failed":
        if event["is_bug"]:
            return Ending(f"dc-rt failed through a fault of its own ({event['sentence']}); please report it.", True)
        kept = f" {_AGAIN.capitalize()}." if event["is_resumable"] else ""
        return Ending(f"{event['sentence']}{kept}", True)
    if kind == "Cancelled":
        return Ending(f"The run was cancelled{f'; {_AGAIN}' if event.get('is_resumable') else ''}.", False)
    if kind in ("HeldByAnother", "TakenOver"):
        return Ending("Another process is at work on these results; wait for it, or choose another folder.", True)
    return None


def in_minutes(seconds: float) -> str:
    """A time as people read it: 1:05, or 2:01:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
