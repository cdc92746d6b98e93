"""A run in a process of its own: its progress, how an interrupt ends it, and what is said of an error."""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dc_rt.errors import UserError
from dc_rt.job import JobCancelled, Task, Worker
from dc_rt.job.events import AlreadyDone, Event, Finished, ModelOpened, Planned, Resumed, Warned, WindowDone
from dc_rt.job.share import Share
from dc_rt.job.worker import WorkerDied
from dc_rt.models import ModelOptions

from .choices import in_the_nodes_words

log = logging.getLogger("dc_rt.comfyui")

_TOLD_EVERY = 0.2  # seconds
_ASKED_EVERY = 0.1

Tell = Callable[[float, float], None]
"""Is told how many frames' worth of work is done, and of how many."""


class NodeError(Exception):
    """What is wrong and the fix, in one sentence, as ComfyUI shows it."""


class Progress:
    """Listens to a run and tells how far it is: at every window, and between them a few times a second."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._share = Share()
        self._told_at = 0.0

    def hear(self, event: Event) -> None:
        """Listen to the run; what it says to people goes to ComfyUI's log."""
        self._share.hear(event)
        match event:
            case Planned(notes=sentences, demonstration=demonstration):
                self._say(*sentences)
                if demonstration:
                    log.warning("%s", demonstration)
            case ModelOpened(sentences):
                self._say(*sentences)
            case Warned(sentence):
                log.warning("%s", in_the_nodes_words(UserError(sentence)))
            case AlreadyDone(num_frames=num_frames):
                self._tell(num_frames, num_frames)
                return
        is_due = time.monotonic() - self._told_at >= _TOLD_EVERY
        if is_due or isinstance(event, Planned | Resumed | WindowDone | Finished):
            self._told_at = time.monotonic()
            done, num_frames = self._share.done_in_all, self._share.num_frames
            if done is not None and num_frames:
                self._tell(done * num_frames, num_frames)

    def _say(self, *sentences: str) -> None:
        for sentence in sentences:
            log.info("%s", in_the_nodes_words(UserError(sentence)))


class Workplace:
    """The process of the runs: one at a time, with the model open, between runs too where that is asked for."""

    def __init__(self) -> None:
        self._models: ModelOptions | None = None
        self._worker: Worker | None = None

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return self._worker.pid if self._worker else None

    def run(
        self, task: Task, models: ModelOptions, keep_model: bool, tell: Tell, is_interrupted: Callable[[], bool]
    ) -> list[Path]:
        """Run a task.

        Args:
            task: what to run.
            models: which model runs it.
            keep_model: leave the process, and with it the model, for the next run.
            tell: is told of the progress, in this thread.
            is_interrupted: is asked in another thread all the while; once it is true, the run ends within seconds.

        Returns:
            The files, the record last.

        Raises:
            NodeError: the run failed.
            JobCancelled: it was interrupted; the next run of the same resumes what was done.
        """
        if self._worker is None or models != self._models:
            self.close()
            self._worker, self._models = Worker(models), models
        try:
            with _cancelled_when(is_interrupted, self._worker.cancel), _worded():
                return self._worker.run(task, Progress(tell).hear)
        finally:
            if not keep_model:
                self.close()

    def close(self) -> None:
        """End the process, if there is one."""
        if self._worker:
            self._worker.close()
        self._worker = None


@contextmanager
def _cancelled_when(is_interrupted: Callable[[], bool], cancel: Callable[[], None]) -> Iterator[None]:
    """Ask in a thread, also while a graph runs and nothing is told."""
    ended = threading.Event()

    def ask() -> None:
        while not ended.wait(_ASKED_EVERY):
            if is_interrupted():
                cancel()

    asking = threading.Thread(target=ask, name="dc-rt: interrupted?", daemon=True)
    asking.start()
    try:
        yield
    finally:
        ended.set()
        asking.join()


@contextmanager
def _worded() -> Iterator[None]:
    """Have every error of a run say one sentence to the person at the page."""
    try:
        yield
    except JobCancelled:
        raise
    except UserError as error:
        raise NodeError(in_the_nodes_words(error)) from None
    except OSError as error:
        raise NodeError(of_the_disk(error)) from None
    except WorkerDied:
        raise NodeError(
            "The process of the depth model died, for a lack of memory or of what is in the video; ComfyUI's log has "
            "its last words, and queueing the prompt again resumes it."
        ) from None
    except RuntimeError as error:
        raise NodeError(
            f"The run failed through a fault in dc-rt itself ({error}); ComfyUI's log says more."
        ) from error


def of_the_disk(error: OSError) -> str:
    """What is said where the system refuses a file."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    what = "make room on the disk" if error.errno == errno.ENOSPC else "check the file and the disk"
    return (
        f"{error.filename or 'A file'} cannot be read or written ({reason}); {what}, then queue the prompt again, "
        "which resumes what was done."
    )
