"""Jobs in a process of their own, one after the other, with the model kept open between them.

It can be killed: for surfaces that must stop at once, whatever a graph is doing, and that outlive what a video does to
a decoder. The child (`dc_rt.job.child`) reads tasks from its standard input, a line of JSON each, and "cancel", and
writes what happens to its standard output, an event a line.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Self

from dc_rt.errors import UserError
from dc_rt.job.events import (
    ENDINGS,
    AlreadyDone,
    Cancelled,
    Event,
    Failed,
    Finished,
    HeldByAnother,
    Listener,
    TakenOver,
    from_json,
)
from dc_rt.job.job import JobCancelled
from dc_rt.job.task import Task
from dc_rt.lease import Held, LeaseLost
from dc_rt.media.pipe import is_pipe
from dc_rt.models import ModelOptions
from dc_rt.options import Outputs
from dc_rt.outputs import STREAM

PATIENCE_SECONDS = 1.5
_DEVICES = "CUDA_VISIBLE_DEVICES"


class WorkerDied(RuntimeError):
    """The process ended amid a task without a word, as when it is killed or a library crashes."""


class Worker:
    """A process that runs tasks, started when there is one; as a context manager it is closed at the end."""

    def __init__(
        self,
        models: ModelOptions | None = None,
        environment: Mapping[str, str] | None = None,
        lease_seconds: float | None = None,
    ) -> None:
        """Nothing is started yet.

        Args:
            models: which model runs, and as what.
            environment: variables of the process beside this one's own, such as CUDA_VISIBLE_DEVICES.
            lease_seconds: take a lease of the results before anything is done to them, for so long (`dc_rt.lease`).
        """
        self._setup = {
            "models": asdict(models or ModelOptions()),
            "lease_seconds": lease_seconds,
            "verbose": logging.getLogger("dc_rt").isEnabledFor(logging.DEBUG),
        }
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[str] | None = None
        self._cancelled = threading.Event()
        self._is_running = False
        self._is_amid = False  # a run whose end the process has not told
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """Of the process, if one is running."""
        process = self._process
        return process.pid if process and process.poll() is None else None

    def run(self, task: Task, listener: Listener | None = None) -> list[Path]:
        """Run a task; `listener` is called in this thread.

        Returns:
            The files and folders of frames that were written, or that were there already, `NAME.json` last.

        Raises:
            UserError: as of `Job`; or the engines cannot be opened.
            OSError: the disk refuses; what was done is kept.
            RuntimeError: it failed through a fault of this program's own; `WorkerDied` where the process has died.
            JobCancelled: `cancel` was called.
            Held: another worker has the lease.
            LeaseLost: another worker has taken the results over; nothing was written since.
        """
        check_has_no_pipes(Path(task.video), task.options.outputs)
        with self._lock:
            self._cancelled.clear()
            process = self._started()
            self._is_running = True
        try:
            return outcome_of(self._events(process, task, listener))
        except BaseException as error:
            if self._is_amid or isinstance(error, RuntimeError):
                self._end()
            if isinstance(error, WorkerDied) and self._cancelled.is_set():  # it was killed
                raise JobCancelled from None
            raise
        finally:
            with self._lock:
                self._is_running = False
            if self._cancelled.is_set():  # which the process may have heard after its run: it ends all the same
                self._end()

    def cancel(self) -> None:
        """End the run under way, if there is one, within two seconds, from any thread; what was done is kept.

        The process ends, by itself or killed.
        """
        with self._lock:
            if not self._is_running or self._cancelled.is_set():  # it is told once, however often it is asked for
                return
            self._cancelled.set()
            process = self._process
        if process:
            with suppress(OSError, ValueError):  # it has ended
                _send(process, "cancel")
            timer = threading.Timer(PATIENCE_SECONDS, process.kill)
            timer.daemon = True
            timer.start()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> subprocess.Popen[str]:
        if self._process and self._process.poll() is None:
            return self._process
        # Nothing is imported from the folder that the user happens to be in.
        command = [sys.executable, "-P", "-m", "dc_rt.job.child"]
        # A group of its own, so that Ctrl-C on a terminal is for the parent to hear.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
            env=os.environ | self._environment,
            start_new_session=True,
        )
        with suppress(OSError):
            _send(self._process, json.dumps(self._setup))
        return self._process

    def _end(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with suppress(OSError):
                    stream.close()  # type: ignore[union-attr]  # both are pipes

    def _events(self, process: subprocess.Popen[str], task: Task, listener: Listener | None) -> Iterator[Event]:
        self._is_amid = True
        with suppress(OSError):
            _send(process, json.dumps(task.as_json()))
        assert process.stdout is not None
        for line in process.stdout:
            if not line.endswith("\n"):  # it was killed amid it
                return
            event = from_json(json.loads(line))
            self._is_amid = not isinstance(event, ENDINGS)
            if listener:
                listener(event)
            yield event


def outcome_of(told: Iterable[Event]) -> list[Path]:
    """What the events of a run come to: its files. Raises as `Worker.run` does; `WorkerDied` where none is its end."""
    for event in told:
        match event:
            case Finished(files) | AlreadyDone(files):
                return [Path(file) for file in files]
            case Failed(errno=int(number), filename=filename):
                raise OSError(number, os.strerror(number), *([filename] if filename else []))
            case Failed(sentence, is_bug):
                raise RuntimeError(sentence) if is_bug else UserError(sentence)
            case HeldByAnother(holder):
                raise Held(holder)
            case TakenOver():
                raise LeaseLost
            case Cancelled():
                raise JobCancelled
    raise WorkerDied("the process of the job ended without a word; standard error may say why")


def environments(num_workers: int, devices: Sequence[str] = ()) -> list[dict[str, str]]:
    """Those of workers that share this machine.

    Args:
        num_workers: processes, at least 1. Each takes as many threads as a single run does: with another number of
            them ONNX Runtime gives other last bits.
        devices: as CUDA numbers or names them, one a process, if not all are to see all.
    """
    return [{_DEVICES: device} for device in devices] or [{} for _ in range(num_workers)]


def check_has_no_pipes(video: Path, outputs: Outputs) -> None:
    """Raise `UserError` where something is to come from or go to a pipe, which another process does not have."""
    if is_pipe(video) or STREAM in outputs.names:
        raise UserError("A job in another process reads and writes files alone, and - is none; name a file.")


def _send(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
