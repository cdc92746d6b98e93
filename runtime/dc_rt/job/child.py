"""A job in a process of its own, which can be killed: for surfaces that must stop at once, whatever a graph is doing.

The child reads what to do, in JSON, from its standard input; "cancel" on a line of its own cancels it. It writes an
event of its job a line to standard output, in JSON, and nothing else: what libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dc_rt.errors import UserError
from dc_rt.job.events import Cancelled, Event, Failed, Finished, Listener, as_json, from_json
from dc_rt.job.job import Job, JobCancelled, Runs
from dc_rt.job.targets import Targets
from dc_rt.media.pipe import is_pipe
from dc_rt.model import DepthCrafter
from dc_rt.options import Outputs, Sampling, Source
from dc_rt.outputs import STREAM

PATIENCE_SECONDS = 2.0


class ChildJob(Runs):
    """As `Job`, but the model is opened and run in another process, and `cancel` ends it within seconds."""

    def __init__(
        self,
        engines: str | Path,
        video: str | Path,
        sampling: Sampling | None = None,
        source: Source | None = None,
        outputs: Outputs | None = None,
        save_folder: str | Path = "demo_output",
        *,
        restart: bool = False,
        listener: Listener | None = None,
        **opened_with: Any,
    ) -> None:
        """Nothing is looked at yet.

        Args:
            engines: folder of the engine set.
            opened_with: further arguments of `DepthCrafter.load`, such as `backend`.
            video, sampling, source, outputs, save_folder, restart, listener: as of `Job`, but for `-`; events come in
                the thread that calls `run`.

        Raises:
            UserError: something is to come from or go to a pipe.
        """
        outputs = outputs or Outputs()
        if is_pipe(Path(video)) or STREAM in outputs.names:
            raise UserError("A job in another process reads and writes files alone, and - is none; name a file.")
        self._task = {
            "engines": os.fspath(engines),
            "opened_with": opened_with,
            "video": os.fspath(video),
            "sampling": asdict(sampling or Sampling()),
            "source": asdict(source or Source()),
            "outputs": asdict(outputs),
            "save_folder": os.fspath(save_folder),
            "restart": restart,
        }
        super().__init__(Targets.of(Path(video), Path(save_folder), outputs).spool, listener)
        self._process: subprocess.Popen[str] | None = None

    def run(self) -> list[Path]:
        """Do it; returns and raises as `Job.run` does, and RuntimeError if the process ends without a word."""
        self._begin()
        command = [sys.executable, "-m", "dc_rt.job.child"]
        # A group of its own, so that Ctrl-C on a terminal is for the parent to hear.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            return self._outcome(self._events(self._process))
        except BaseException:
            self._status = "cancelled" if self._cancelled.is_set() else "failed"
            raise
        finally:
            self._process.kill()
            self._process.wait()

    def cancel(self) -> None:
        """End it within a few seconds, from any thread: its process is killed if it does not end by itself."""
        self._cancelled.set()
        if process := self._process:
            with suppress(OSError, ValueError):  # it has ended
                self._send(process, "cancel")
            timer = threading.Timer(PATIENCE_SECONDS, process.kill)
            timer.daemon = True
            timer.start()

    def _events(self, process: subprocess.Popen[str]) -> Iterator[Event]:
        with suppress(BrokenPipeError):
            self._send(process, json.dumps(self._task))
        assert process.stdout is not None
        for line in process.stdout:
            event = from_json(json.loads(line))
            if self._listener:
                self._listener(event)
            yield event

    def _outcome(self, told: Iterator[Event]) -> list[Path]:
        for event in told:
            match event:
                case Finished(files):
                    self._status = "finished"
                    return [Path(file) for file in files]
                case Failed(sentence, is_bug):
                    raise RuntimeError(sentence) if is_bug else UserError(sentence)
                case Cancelled():
                    raise JobCancelled
        if self._cancelled.is_set():  # it was killed
            if self._listener:
                self._listener(Cancelled(self.is_resumable))
            raise JobCancelled
        raise RuntimeError("the process of the job ended without a word; standard error may say why")

    def _send(self, process: subprocess.Popen[str], line: str) -> None:
        assert process.stdin is not None
        process.stdin.write(f"{line}\n")
        process.stdin.flush()


def _serve(task: Mapping[str, Any], tell: Callable[[Event], None]) -> None:
    """The child's side: run the job, and end the process when the parent has gone."""
    has_told = False

    def listener(event: Event) -> None:
        nonlocal has_told
        has_told |= isinstance(event, Failed | Cancelled)
        tell(event)

    try:
        with DepthCrafter.load(task["engines"], **task["opened_with"]) as model:
            options = Sampling(**task["sampling"]), Source(**task["source"]), Outputs(**task["outputs"])
            how = {"restart": task["restart"], "listener": listener}
            job = Job(model, task["video"], *options, task["save_folder"], **how)
            threading.Thread(target=_obey, args=(job,), daemon=True).start()
            job.run()
    except JobCancelled:
        pass
    except (UserError, OSError) as error:
        if not has_told:
            tell(Failed(error.sentence if isinstance(error, UserError) else str(error), False, False))


def _obey(job: Job) -> None:
    """Wait for the parent to cancel the job, or to end."""
    sys.stdin.readline()
    job.cancel()


def _main() -> None:
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(event: Event) -> None:
        channel.write(json.dumps(as_json(event)) + "\n")
        channel.flush()

    _serve(json.loads(sys.stdin.readline()), tell)


if __name__ == "__main__":
    _main()
