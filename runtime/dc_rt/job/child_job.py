"""A job in a process of its own: `Job` for those who must be able to kill it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dc_rt.job.events import Cancelled, Event, Listener
from dc_rt.job.job import JobCancelled, Runs
from dc_rt.job.task import Task
from dc_rt.job.worker import Worker, check_has_no_pipes
from dc_rt.models import ModelOptions
from dc_rt.options import Options, Outputs, Sampling, Source


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
        options = Options(sampling or Sampling(), source or Source(), outputs or Outputs())
        check_has_no_pipes(Path(video), options.outputs)
        self._task = Task(os.fspath(video), os.fspath(save_folder), options, restart)
        self._worker = Worker(ModelOptions(os.fspath(engines), **opened_with))
        super().__init__(self._task.targets.spool, listener)

    def run(self) -> list[Path]:
        """Do it; returns and raises as `Job.run` does, and RuntimeError if the process ends without a word."""
        self._begin()
        has_told = False

        def listen(event: Event) -> None:
            nonlocal has_told
            has_told |= isinstance(event, Cancelled)
            if self._listener:
                self._listener(event)

        try:
            with self._worker:
                results = self._worker.run(self._task, listen)
        except JobCancelled:
            self._status = "cancelled"
            if not has_told:  # it was killed
                self._tell_end(Cancelled(self.is_resumable))
            raise
        except BaseException:
            self._status = "failed"
            raise
        self._status = "finished"
        return results

    def cancel(self) -> None:
        """End it within a few seconds, from any thread: its process is killed if it does not end by itself."""
        self._cancelled.set()
        self._worker.cancel()
