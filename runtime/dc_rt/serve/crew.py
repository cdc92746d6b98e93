"""The workers: each a thread with a child process, which takes the next job from the store and runs it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dc_rt.errors import UserError, worded
from dc_rt.job import JobCancelled, Task, Worker
from dc_rt.job.events import AlreadyDone, Event, Failed, Finished, ModelOpened, Planned, Progressed, Warned, as_json
from dc_rt.job.share import Share
from dc_rt.job.worker import WorkerDied
from dc_rt.lock import Held, take_lock
from dc_rt.models import ModelOptions
from dc_rt.options import as_flag
from dc_rt.serve.jobs import ServedJob
from dc_rt.serve.names import without_paths
from dc_rt.serve.store import Store

log = logging.getLogger(__name__)

_DIED = "The process of the job died, for a lack of memory or of what is in the video; resume it to try again."
_BUG = "The job failed through a fault in dc-rt itself; the service's log says more."
_PROGRESS_SECONDS, _PROGRESS_SHARE, _QUIET_SECONDS = 1.0, 0.001, 10.0  # between two events of progress
_POLL_SECONDS = 0.1
_ORPHAN_SECONDS = 30.0  # that a child of a killed service may take to end


class Crew:
    """All workers."""

    def __init__(
        self,
        store: Store,
        on_end: Callable[[ServedJob, float], None],
        model: ModelOptions,
        environments: Sequence[Mapping[str, str]],
    ) -> None:
        """One worker for each of `environments`: variables of its process, `CUDA_VISIBLE_DEVICES` for example.

        `on_end` is told of every run that has ended: its job, and the seconds that it took.
        """
        self._store = store
        self._on_end = on_end
        self._workers = [Worker(model, environment) for environment in environments]
        self._at: dict[str, Worker] = {}
        self._turning = threading.Lock()  # held while a worker turns from one job to the next, or is told to stop
        self._threads = [
            threading.Thread(target=self._work, args=(worker,), name=f"worker {number}", daemon=True)
            for number, worker in enumerate(self._workers)
        ]

    def start(self) -> None:
        """Begin to run what is queued."""
        for thread in self._threads:
            thread.start()

    @property
    def is_well(self) -> bool:
        """Whether all workers go on."""
        return all(thread.is_alive() for thread in self._threads)

    def cancel(self, job: ServedJob) -> None:
        """End the run of a job, if it is run; it has ended when its state says so, within seconds."""
        job.is_cancelled = True
        with self._turning:  # or the worker may be at the next job when it is told
            if worker := self._at.get(job.id):
                worker.cancel()

    def stop(self) -> None:
        """Begin no more runs, and have those that are under way end: the next service goes on with them."""
        self._store.stop()
        for worker in self._workers:
            worker.cancel()

    def close(self, seconds: float) -> None:
        """Stop, and wait for the runs to end."""
        self.stop()
        ends = time.monotonic() + seconds
        for thread in self._threads:
            while thread.is_alive() and time.monotonic() < ends:
                thread.join(_POLL_SECONDS)
                for worker in list(self._at.values()):  # one that began in the meantime
                    worker.cancel()
        for worker in self._workers:
            worker.close()

    def _work(self, worker: Worker) -> None:
        while job := self._store.take():
            self._at[job.id] = worker
            began = time.monotonic()
            log.info("job %s is begun: %s", job.id, job.state.filename)
            try:
                self._run(worker, job)
            except Exception:
                log.exception("job %s failed through a fault in dc-rt", job.id)
                self._store.end(job, "failed", _BUG)
            finally:
                with self._turning:
                    self._at.pop(job.id, None)
            seconds = time.monotonic() - began
            self._on_end(job, seconds)
            if job.state.is_ended:
                why = f": {job.state.error}" if job.state.error else ""
                log.info("job %s is %s after %.1f s%s", job.id, job.state.status, seconds, why)
            else:
                log.info("job %s is broken off after %.1f s", job.id, seconds)

    def _run(self, worker: Worker, job: ServedJob) -> None:
        names = {str(job.video): job.state.filename, str(job.results): "the job's folder"}
        teller = _Teller(job, names, worker.cancel)
        try:
            _wait_for_orphan(job)
            _check_is_where_it_was(job)
            worker.run(Task(str(job.video), str(job.results), job.options, skip_done=True), teller.hear)
        except JobCancelled:
            if self._store.is_closing and not job.is_cancelled:
                self._store.put_back(job)
            else:
                self._store.end(job, "cancelled")
        except WorkerDied:
            self._store.end(job, "failed", _DIED)
        except UserError as error:
            self._store.end(job, "failed", without_paths(str(error), names))
        except OSError as error:
            log.warning("job %s: %s", job.id, error)
            self._store.end(job, "failed", _refused(error.errno))
        else:
            self._store.end(job, "finished")


class _Teller:
    """Listens to a run: puts down what happens, progress about once a second, and no paths of this machine's."""

    def __init__(self, job: ServedJob, names: Mapping[str, str], cancel: Callable[[], None]) -> None:
        self._job = job
        self._names = names
        self._cancel = cancel
        self._share = Share()
        self._told_at = self._told_share = 0.0

    def hear(self, event: Event) -> None:
        """Listen to the run."""
        if self._job.is_cancelled:  # before there was a process that could be told
            self._cancel()
        self._share.hear(event)
        self._job.share, self._job.seconds_left = self._share.done_in_all, self._share.seconds_left
        self._job.num_done = self._share.num_done
        self._job.stage = event.stage if isinstance(event, Progressed) else self._job.stage
        if isinstance(event, ModelOpened):  # of this machine, and nothing of the job's
            for line in event.lines:
                log.info(worded(line, as_flag))
        elif isinstance(event, Progressed):
            self._tell_progress()
        else:
            self._job.journal.append(type(event).__name__, self._shown(event))

    def _tell_progress(self) -> None:
        share, elapsed = self._share.done_in_all or 0.0, time.monotonic() - self._told_at
        has_moved = share - self._told_share >= _PROGRESS_SHARE
        if elapsed >= _QUIET_SECONDS or (has_moved and elapsed >= _PROGRESS_SECONDS):
            self._told_at, self._told_share = time.monotonic(), share
            left = self._share.seconds_left
            told = {"share": round(share, 4), "seconds_left": None if left is None else round(left, 1)}
            self._job.journal.append("Progress", told | {"num_frames": self._share.num_done})

    def _shown(self, event: Event) -> dict[str, Any]:
        """As JSON, in the client's words."""
        match event:
            case Planned(video=video, notes=notes):
                event = replace(event, video=self._word(video), notes=tuple(map(self._word, notes)))
            case Finished(files=files) | AlreadyDone(files=files):
                event = replace(event, files=tuple(Path(file).name for file in files))
            case Failed(errno=int(number)):
                event = replace(event, sentence=_refused(number), filename="")
            case Failed(sentence, is_bug):
                event = replace(event, sentence=_BUG if is_bug else self._word(sentence))
            case Warned(sentence):
                event = replace(event, sentence=self._word(sentence))
        return as_json(event)

    def _word(self, text: str) -> str:
        return without_paths(str(UserError(text)), self._names)


def _check_is_where_it_was(job: ServedJob) -> None:
    """Raise `UserError` where links have been put in the way of a video since it was found under a root."""
    if Path(os.path.realpath(job.video)) != Path(os.path.realpath(job.folder), job.state.video):
        raise UserError(f"{job.state.filename} is not where it was when the job was queued; queue it anew.")


def _refused(number: int | None) -> str:
    """What is said of an error of the disk, by the system's number of it; which file it was is in the log."""
    why = "the disk refused" if number is None else os.strerror(number)
    return f"A file could not be read or written ({why}); resume the job to try again."


def _wait_for_orphan(job: ServedJob) -> None:
    """The child of a service that was killed may still be at this spool for a moment: it ends as it notices."""
    lock, ends = job.spool / "lock", time.monotonic() + _ORPHAN_SECONDS
    while lock.exists() and time.monotonic() < ends:
        try:
            take_lock(lock).close()
            break
        except FileNotFoundError:  # it has ended in this instant, and its spool with it
            break
        except Held:
            time.sleep(_POLL_SECONDS)
        if job.is_cancelled:
            break
    if job.is_cancelled:
        raise JobCancelled
