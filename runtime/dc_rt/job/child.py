"""The process of a `dc_rt.job.Worker`: see there for what it reads and writes.

What libraries print goes to standard error. It ends with "cancel", and when its parent does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from dc_rt import log
from dc_rt.job.done import Done, Leftovers, find_done, remove_spool_of
from dc_rt.job.events import (
    ENDINGS,
    AlreadyDone,
    Cancelled,
    Event,
    Failed,
    HeldByAnother,
    ModelOpened,
    TakenOver,
    as_json,
)
from dc_rt.job.job import Job, JobCancelled
from dc_rt.job.pace import WholeRun
from dc_rt.job.plan import plan_video
from dc_rt.job.spool import fence, usual_name
from dc_rt.job.targets import Targets, record_path, unwritable
from dc_rt.job.task import Task
from dc_rt.lease import Held, Lease, LeaseLost, Leases
from dc_rt.models import ModelOptions, Models, Prepared

Tell = Callable[[Event], None]

# Once the parent has gone, no graph is waited for that cannot be interrupted: a spool can be resumed from any instant.
_PATIENCE_SECONDS = 2.0


class Child:
    """Runs tasks, and hears meanwhile whether it is to stop."""

    def __init__(self, setup: dict[str, Any], tell: Tell) -> None:
        self._tell = tell
        self._models: Models | None = None
        options = setup["models"]
        self._model_options = ModelOptions(**options | {"torch_steps": tuple(options["torch_steps"])})
        self._leases = Leases(setup["lease_seconds"]) if setup["lease_seconds"] else None
        self._leftovers = Leftovers()
        self._job: Job | None = None
        self._is_cancelled = False
        self._lock = threading.Lock()

    def run(self, task: Task) -> None:
        """Run one; how it ends is the last event that is told, once others may have the lease."""
        ending: Event | None = None

        def tell(event: Event) -> None:
            nonlocal ending
            if isinstance(event, ENDINGS):
                ending = event
            else:
                self._tell(event)

        try:
            prepared = self._prepare(task)
            if done := self._find_untouched(task, prepared):
                tell(_as_event(done))
            else:
                with self._lease_of(task) or nullcontext() as lease:
                    self._run(task, prepared, lease, tell)
        except Held as held:
            tell(HeldByAnother(str(held)))
        except BaseException as error:
            ending = ending or _ending_of(error)
            if isinstance(ending, Failed) and ending.is_bug:
                traceback.print_exc()
        assert ending is not None
        self._tell(ending)

    def cancel(self) -> None:
        """End the task under way, or the next before it begins; from any thread."""
        with self._lock:
            self._is_cancelled = True
            if self._job:
                self._job.cancel()

    def _lease_of(self, task: Task) -> Lease | None:
        if self._leases is None:
            return None
        targets = task.targets
        try:
            lease = self._leases.take(targets.lease)
            try:
                if lease.needs_fence:
                    _fence(targets, lease)
            except BaseException:
                lease.release()
                raise
        except OSError as error:
            raise unwritable(targets.save_folder, error) from error
        return lease

    def _prepare(self, task: Task) -> Prepared:
        """Before there is a lease: of a video that cannot be run nothing is made, no folder either."""
        self._models = self._models or Models(self._model_options, lambda lines: self._tell(ModelOpened(lines)))
        plan = plan_video(task.video, task.options.source)
        return self._models.prepare(plan, task.options.sampling, task.options.source)

    def _find_untouched(self, task: Task, prepared: Prepared) -> Done | None:
        """Results that are done, and have nothing beside them that a lease would be taken to clear away."""
        record = record_path(Path(task.video), Path(task.save_folder), task.options.outputs)
        if self._leftovers.are_beside(record.parent, record.stem):
            return None
        return _find_done(task, prepared, record.parent / usual_name(record.stem))

    def _run(self, task: Task, prepared: Prepared, lease: Lease | None, tell: Tell) -> None:
        sampling, outputs = task.options.sampling, task.options.outputs
        if self._is_done(task, prepared, lease, tell):
            return
        assert self._models is not None
        heard = WholeRun(tell)
        model = self._models.open(prepared)
        job = Job(
            model,
            prepared.plan.video,
            sampling,
            prepared.source,
            outputs,
            task.save_folder,
            restart=task.restart,
            lease=lease,
            listener=heard.hear,
        )
        with self._lock:
            self._job = job
            if self._is_cancelled:
                job.cancel()
        try:
            job.run()
        finally:
            with self._lock:
                self._job = None
        if heard.seconds:
            self._models.remember(prepared, job.plan, sampling, heard.seconds)

    def _is_done(self, task: Task, prepared: Prepared, lease: Lease | None, tell: Tell) -> bool:
        done = _find_done(task, prepared)
        if done is None:
            return False
        if lease:
            lease.check()
        remove_spool_of(task.targets, done)
        tell(_as_event(done))
        return True


def _find_done(task: Task, prepared: Prepared, spool: Path | None = None) -> Done | None:
    """What is done of a task that is to be skipped then; its spool is looked for unless it is given."""
    if not task.skip_done or task.restart:
        return None
    options = task.options
    targets = Targets.of(Path(task.video), Path(task.save_folder), options.outputs, spool)
    return find_done(targets, prepared.plan, prepared.manifest, options.sampling, options.outputs)


def _as_event(done: Done) -> AlreadyDone:
    return AlreadyDone(tuple(map(str, done.files)), done.num_frames)


def _fence(targets: Targets, lease: Lease) -> None:
    fenced = fence(targets.save_folder, targets.name)
    lease.needs_fence = False
    try:
        lease.check()
    except LeaseLost:  # it was this process that slept, and the next one has a folder of its own
        with suppress(OSError):
            fenced.rmdir()
        raise


def _ending_of(error: BaseException) -> Event:
    """What to tell of an error that came before a job told of it."""
    match error:
        case JobCancelled():
            return Cancelled(False)
        case LeaseLost():
            return TakenOver()
    return Failed.of(error, is_resumable=False)


def _obey(child: Child, tasks: SimpleQueue[str | None]) -> None:
    """Hand on what the parent writes, and end the process once the parent has gone."""
    for line in sys.stdin:
        if line.strip() == "cancel":
            tasks.put(None)
            child.cancel()
        else:
            tasks.put(line)
    tasks.put(None)
    child.cancel()
    time.sleep(_PATIENCE_SECONDS)
    os._exit(1)


def _main() -> None:
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    writing = threading.Lock()

    def tell(event: Event) -> None:
        with writing, suppress(BrokenPipeError):  # the parent has gone: the process ends soon
            channel.write(json.dumps(as_json(event)) + "\n")
            channel.flush()

    setup = json.loads(sys.stdin.readline())
    log.set_up(setup["verbose"])
    child, tasks = Child(setup, tell), SimpleQueue[str | None]()
    threading.Thread(target=_obey, args=(child, tasks), daemon=True).start()
    while line := tasks.get():
        child.run(Task.from_json(json.loads(line)))


if __name__ == "__main__":
    _main()
