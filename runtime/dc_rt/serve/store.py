"""All jobs of the service: which there are, which waits for its turn, and what becomes of them.

Everything here may be called from any thread.
"""

from __future__ import annotations

import asyncio
import datetime
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from dc_rt.errors import UserError, option
from dc_rt.lock import Held, take_lock
from dc_rt.serve.errors import Refused
from dc_rt.serve.jobs import EVENTS, STATE, ServedJob, State, now, write_state
from dc_rt.serve.journal import Journal
from dc_rt.serve.settings import Limits

log = logging.getLogger(__name__)

_ID_BYTES = 16
_EXPIRY_SECONDS = 600.0  # between two looks for jobs that are to be removed
_RETRY_SECONDS = "30"  # after which whoever finds the queue full may try again


class Store:
    """The jobs in a folder, which one service at a time has."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        """Take the folder, and up the jobs that are there: those that a service left running wait for their turn anew.

        Raises:
            UserError: another service has it, or it cannot be made.
        """
        self.folder = folder
        self._limits = limits
        self._lock = self._take(folder)
        self._changed = threading.Condition(threading.RLock())
        self._jobs: dict[str, ServedJob] = {}
        self._reserved = 0
        self.is_closing = False
        self._empty(self._incoming)
        self._read()

    def close(self) -> None:
        """Give the folder up."""
        self._lock.close()

    # What there is.

    def get(self, id: str) -> ServedJob:
        """A job; raises `Refused` where there is none of this name."""
        with self._changed:
            if job := self._jobs.get(id):
                return job
        raise Refused(404, "There is no such job, or it was removed; GET /jobs lists all that there are.")

    def all(self) -> list[ServedJob]:
        """All jobs, the newest first."""
        with self._changed:
            return list(reversed(self._jobs.values()))

    def queued(self) -> list[ServedJob]:
        """Those that wait, in the order of their turns."""
        with self._changed:
            waiting = [job for job in self._jobs.values() if job.state.status == "queued"]
        return sorted(waiting, key=lambda job: job.state.number)

    def positions(self) -> dict[str, int]:
        """Those that wait, by their names: how many turns it is until each has its own, from 1."""
        return {job.id: place for place, job in enumerate(self.queued(), 1)}

    def num_running(self) -> int:
        """How many are run."""
        with self._changed:
            return sum(job.state.status == "running" for job in self._jobs.values())

    # How jobs come and go.

    @contextmanager
    def place(self) -> Iterator[None]:
        """Keep a place in the queue free for a job that is on its way; raises `Refused` where there is none."""
        with self._changed:
            if self.is_closing:
                raise Refused(503, "The service is about to end; try again later.", {"Retry-After": _RETRY_SECONDS})
            if len(self.queued()) + self._reserved >= self._limits.num_queued:
                raise Refused(
                    429,
                    f"The queue is full, with {self._limits.num_queued} jobs; try again later.",
                    {"Retry-After": _RETRY_SECONDS},
                )
            self._reserved += 1
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= 1

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """A folder for a job that is on its way; what was not queued in the meantime is removed."""
        folder = self._incoming / secrets.token_urlsafe(_ID_BYTES)
        (folder / "results").mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def add(self, folder: Path, **values: Any) -> ServedJob:
        """Queue what is in a `draft`; `values` are of its `State`."""
        with self._changed:
            state = State(number=self._next_number(), status="queued", created=now(), **values)
            write_state(folder, state)
            # All that may fail on a full disk comes before the job is one that the next service would take up.
            Journal(folder / EVENTS).append("Status", {"status": "queued", "error": None})
            home = self._home / folder.name
            folder.rename(home)
            job = ServedJob(home.name, home, state)
            self._jobs[job.id] = job
            log.info("job %s is queued: %s", job.id, job.state.filename)
            self._changed.notify_all()
        return job

    def resume(self, job: ServedJob) -> None:
        """Queue a job again that failed or was cancelled; raises `Refused` for any other."""
        with self._changed:
            if job.state.status not in ("failed", "cancelled"):
                raise Refused(409, f"The job is {job.state.status}; only one that failed or was cancelled is resumed.")
            job.is_cancelled, job.share, job.seconds_left = False, None, None
            job.num_done, job.stage = 0, ""
            number = self._next_number()
            job.change(status="queued", number=number, started=None, ended=None, error=None)
            log.info("job %s is queued again: %s", job.id, job.state.filename)
            self._changed.notify_all()

    def remove(self, job: ServedJob) -> None:
        """Remove a job and all that is in its folder; raises `Refused` while it is run."""
        with self._changed:
            if job.is_removed:
                raise Refused(404, "The job was removed already; GET /jobs lists all that there are.")
            if job.state.status == "running":
                raise Refused(409, "The job is running; cancel it first.")
            # In one step: what is removed in part is none of the jobs that the next service takes up.
            gone = self._incoming / job.id
            try:
                job.folder.rename(gone)
            except PermissionError:  # on Windows, while somebody has a file of it open
                raise Refused(409, "A file of the job is being read; try again in a moment.") from None
            job.is_removed = True
            del self._jobs[job.id]
        job.journal.ring()
        shutil.rmtree(gone, ignore_errors=True)

    # How they are run.

    def take(self) -> ServedJob | None:
        """Wait for a job to have its turn, which is running then; None once the service ends."""
        with self._changed:
            while not self.is_closing:
                if waiting := self.queued():
                    job = waiting[0]
                    job.is_cancelled = False
                    job.change(status="running", started=now())
                    return job
                self._changed.wait()
        return None

    def cancel_queued(self, job: ServedJob) -> bool:
        """Cancel a job if it waits; whether it did."""
        with self._changed:
            if job.state.status != "queued" or job.is_removed:
                return False
            job.change(status="cancelled", ended=now())
            return True

    def end(self, job: ServedJob, status: str, error: str | None = None) -> None:
        """A run has ended so."""
        with self._changed:
            job.seconds_left = None
            job.share = 1.0 if status == "finished" else job.share
            job.change(status=status, ended=now(), error=error)

    def put_back(self, job: ServedJob) -> None:
        """A run is broken off as the service ends: it is the next one's first."""
        with self._changed:
            job.share = job.seconds_left = None
            job.change(status="queued", started=None)

    def stop(self) -> None:
        """Have no more jobs begun, and wake up all that wait for one or listen."""
        with self._changed:
            self.is_closing = True
            self._changed.notify_all()
            jobs = list(self._jobs.values())
        for job in jobs:
            job.journal.ring()

    def free_bytes(self) -> float:
        """Of the disk, beside those that are to be left free; negative where there are fewer."""
        return shutil.disk_usage(self.folder).free - self._limits.free_bytes

    def is_writable(self) -> bool:
        """Whether a job could be kept now."""
        try:
            probe = self._incoming / f"ready-{secrets.token_hex(4)}"  # others may ask in the same instant
            probe.write_bytes(b"")
            probe.unlink()
        except OSError:
            return False
        return True

    @property
    def _home(self) -> Path:
        return self.folder / "jobs"

    @property
    def _incoming(self) -> Path:
        return self.folder / "incoming"

    def _next_number(self) -> int:
        return max((job.state.number for job in self._jobs.values()), default=0) + 1

    def _take(self, folder: Path) -> BinaryIO:
        try:
            for each in (self._home, self._incoming):
                each.mkdir(parents=True, exist_ok=True)
            return take_lock(folder / "lock")
        except Held:
            raise UserError(
                f"Another service has its jobs in {folder}; stop it, or give another {option('folder')}."
            ) from None
        except OSError as error:
            raise UserError(
                f"Jobs cannot be kept in {folder} ({error.strerror}); give another {option('folder')}."
            ) from error

    def _read(self) -> None:
        """Take up what earlier services left."""
        jobs: list[ServedJob] = []
        for folder in sorted(self._home.iterdir()):
            try:
                jobs.append(ServedJob.read(folder))
            except (OSError, ValueError) as error:
                why = " ".join(str(error).split())
                log.warning("%s is left alone: it is no job that can be read (%s)", folder / STATE, why)
        for job in sorted(jobs, key=lambda job: (job.state.created, job.state.number)):
            if job.state.status == "running":
                self.put_back(job)
            self._jobs[job.id] = job

    def _empty(self, folder: Path) -> None:
        for entry in os.scandir(folder):
            shutil.rmtree(entry.path, ignore_errors=True)


def expired(jobs: Sequence[ServedJob], before: str) -> list[ServedJob]:
    """Those that ended before a time of UTC in ISO 8601."""
    return [job for job in jobs if job.state.is_ended and (job.state.ended or job.state.created) < before]


async def remove_expired(store: Store, days: float) -> None:
    """Remove jobs so long after they ended, for as long as this runs; none where that is 0."""
    while days:
        before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
        for job in expired(store.all(), before.isoformat()):
            try:
                await asyncio.to_thread(store.remove, job)
                log.info("job %s is removed: it ended %s", job.id, job.state.ended)
            except (Refused, OSError) as error:
                log.warning("job %s cannot be removed: %s", job.id, error)
        await asyncio.sleep(_EXPIRY_SECONDS)
