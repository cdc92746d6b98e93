"""Which slot runs which video and when, until all of them have ended: retries, and waiting for other batches."""

from __future__ import annotations

import heapq
import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dc_rt.batch.report import Outcome, Status
from dc_rt.batch.slots import Slots
from dc_rt.errors import UserError
from dc_rt.job import JobCancelled, Task
from dc_rt.job.events import AlreadyDone, Event, Finished, ModelOpened, Planned, Resumed, Warned, WindowDone
from dc_rt.job.share import Share
from dc_rt.job.targets import record_path, text
from dc_rt.lease import Held, LeaseLost

LOOK_AGAIN_SECONDS = 3.0


@dataclass
class Entry:
    """A video of a batch, and how it stands: its schedule writes here, and anybody may read.

    Attributes:
        task: what is to be done.
        status: how it ended; "unfinished" while it has not.
        slot: where it is being run; None while it is not.
        share: how much is done of the run under way, or of the last one.
        tries: how often it was begun, but for runs that another batch was at, or took over.
        seconds: that the runs took which have ended.
        note, num_frames, files: as of `Outcome`.
        trouble: why it was tried again, in words.
        was_held: whether another batch was seen to be at it.
        found: what told the record apart that was there at the beginning; None where there was none.
    """

    task: Task
    status: Status = "unfinished"
    slot: int | None = None
    share: Share = field(default_factory=Share)
    tries: int = 0
    seconds: float = 0.0
    note: str = ""
    num_frames: int | None = None
    files: tuple[str, ...] = ()
    trouble: str = ""
    was_held: bool = False
    found: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        self.found = self._record()

    @property
    def was_there(self) -> bool:
        """Whether the record of its results is that which was there at the beginning."""
        return self._record() == self.found

    def _record(self) -> tuple[int, ...] | None:
        outputs = self.task.options.outputs
        try:
            found = record_path(Path(self.task.video), Path(self.task.save_folder), outputs).stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns

    def resume(self) -> None:
        """From now on, what an unfinished run left is of this batch, or of one that shares the folder."""
        self.task = replace(self.task, restart=False)

    def end(self, status: Status, note: str) -> None:
        """It has ended so; what else is to be known of it is known."""
        self.note = "; ".join(filter(None, (self.trouble, note)))
        self.status = status

    @property
    def outcome(self) -> Outcome:
        """What became of it so far."""
        seconds = self.seconds if self.tries else None
        where = text(self.task.video), text(self.task.save_folder)
        return Outcome(*where, self.status, self.note, self.tries, self.num_frames, seconds, self.files)


class Schedule:
    """Runs tasks on slots, a thread a slot.

    A video whose process died, or whose disk refused, comes again after all the others, up to `retry` times. One that
    another batch is at is asked for every few seconds, until it is done there or can be taken over.

    Attributes:
        entries: the videos, in the order of the tasks.
        models: what was told of the models that were opened, each once.
    """

    def __init__(
        self, tasks: Sequence[Task], slots: Slots, retry: int, look_again_seconds: float = LOOK_AGAIN_SECONDS
    ) -> None:
        """Nothing is begun. The slots are the caller's to close."""
        self.entries = tuple(map(Entry, tasks))
        self.models: dict[tuple[str, ...], None] = {}
        self._slots = slots
        self._retry = retry
        self._look_again_seconds = look_again_seconds
        self._ready = deque(self.entries)
        self._waiting: list[tuple[float, int, Entry]] = []  # a heap: when each is to be asked for, and in which order
        self._num_waited = self._num_running = 0
        self._is_cancelled = False
        self._changed = threading.Condition()
        self._num_begun = self._num_serving = 0  # threads: in all, and those that have not ended

    def start(self) -> None:
        """Begin, and return at once."""
        for slot in range(self._num_begun, min(self._slots.num_slots, len(self.entries))):
            with self._changed:
                self._num_begun += 1
                self._num_serving += 1
            threading.Thread(target=self._serve, args=(slot,), name=f"slot {slot}", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait for the end, for so long at most, and use the slots that have come; whether the end has come."""
        if not self._is_cancelled:
            self.start()
        # Not for the threads: CPython 3.11 takes one for ended if Ctrl-C comes while it is joined.
        with self._changed:
            return self._changed.wait_for(lambda: not self._num_serving, seconds)

    def cancel(self) -> None:
        """End all that runs, and begin nothing more, from any thread; to be called until `wait` says that it is so."""
        with self._changed:
            self._is_cancelled = True
            self._changed.notify_all()
        self._slots.cancel()

    def _serve(self, slot: int) -> None:
        """Run one video after the other in a slot, until there is none to come."""
        try:
            while entry := self._next(slot):
                try:
                    self._run(slot, entry)
                finally:
                    with self._changed:
                        if entry.slot == slot:  # one that came again may be in another already
                            entry.slot = None
                        self._num_running -= 1
                        self._changed.notify_all()
        finally:
            with self._changed:
                self._num_serving -= 1
                self._changed.notify_all()

    def _next(self, slot: int) -> Entry | None:
        """The next video, once there is one; None when none can come any more."""
        with self._changed:
            while not self._is_cancelled:
                now = time.monotonic()
                while self._waiting and self._waiting[0][0] <= now:
                    self._ready.append(heapq.heappop(self._waiting)[-1])
                if self._ready:
                    entry = self._ready.popleft()
                    entry.slot, entry.share = slot, Share()
                    self._num_running += 1
                    return entry
                if not (self._waiting or self._num_running):
                    return None
                self._changed.wait(self._waiting[0][0] - now if self._waiting else None)
            return None

    def _run(self, slot: int, entry: Entry) -> None:
        """Run a video once, and settle what comes next for it."""
        heard = _Heard(entry.share, self.models)
        entry.tries += 1
        began = time.monotonic()
        try:
            try:
                files = self._slots.run(slot, entry.task, heard.hear)
            finally:
                entry.seconds += time.monotonic() - began
                if heard.has_kept:
                    entry.resume()
        except (Held, LeaseLost):
            entry.tries -= 1
            entry.was_held = True
            entry.resume()
            self._come_again(entry, self._look_again_seconds)
        except JobCancelled:
            pass
        except UserError as error:
            entry.end("failed", error.sentence)
        except Exception as error:  # whatever runs it may raise anything, and the other videos are not to be lost
            self._try_again(entry, error)
        else:
            entry.num_frames, entry.files = heard.num_frames, tuple(map(text, files))
            if heard.was_done:
                entry.tries -= 1
                # A process of ours that died may have had all of it in place.
                meanwhile: Status = "finished" if entry.tries else "elsewhere"
                entry.end("skipped" if entry.was_there else meanwhile, heard.note)
            else:
                entry.end("finished", heard.note)

    def _try_again(self, entry: Entry, error: Exception) -> None:
        if self._is_cancelled:  # and so were the processes
            return
        if not isinstance(error, RuntimeError | OSError):
            traceback.print_exception(error)
        reason = str(error) or type(error).__name__
        if isinstance(error, OSError):
            reason = f"a file cannot be read or written: {reason}; check the disk and its permissions"
        if entry.tries <= self._retry:
            entry.trouble = f"tried again, since {reason}"
            self._come_again(entry, 0.0)
        else:
            entry.trouble = f"tried {entry.tries} times" if entry.tries > 1 else ""
            entry.end("failed", reason)

    def _come_again(self, entry: Entry, seconds: float) -> None:
        with self._changed:
            self._num_waited += 1
            heapq.heappush(self._waiting, (time.monotonic() + seconds, self._num_waited, entry))


class _Heard:
    """What a run tells that is kept: `note` is what is to be said of it, in phrases; and it counts its share."""

    def __init__(self, share: Share, models: dict[tuple[str, ...], None]) -> None:
        self.num_frames: int | None = None
        self.was_done = self.has_kept = False
        self._share = share
        self._models = models
        self._notes: list[str] = []

    def hear(self, event: Event) -> None:
        """Listen to a job."""
        self._share.hear(event)
        match event:
            case Planned(num_frames=num_frames):
                self.num_frames = num_frames
            case Resumed(num_frames=num_frames):
                self._notes.append(f"resumed after frame {num_frames}")
            case WindowDone():
                self.has_kept = True
            case Warned(sentence):
                self._notes.append(sentence)
            case Finished(num_frames=num_frames):
                self.num_frames = num_frames
            case AlreadyDone(num_frames=num_frames):
                self.num_frames, self.was_done = num_frames, True
            case ModelOpened(lines):
                self._models.setdefault(lines)

    @property
    def note(self) -> str:
        """All of it in one line."""
        return "; ".join(self._notes)
