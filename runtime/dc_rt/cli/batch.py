"""`dc-rt batch`: many videos on several processes, and what became of each."""

from __future__ import annotations

import datetime
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from dc_rt.batch import REPORT
from dc_rt.batch.cluster import ClusterSlots
from dc_rt.batch.inputs import Refused, find_tasks
from dc_rt.batch.local import LocalSlots
from dc_rt.batch.report import Outcome, Report, check_report
from dc_rt.batch.schedule import Schedule
from dc_rt.batch.slots import Slots
from dc_rt.cli.batch_progress import about, batch_progress
from dc_rt.cli.options import processes_of
from dc_rt.cli.progress import in_minutes
from dc_rt.cli.terminal import complain, say, sentence_of
from dc_rt.errors import UserError, option, worded
from dc_rt.gpu import check_card_is_here, check_devices
from dc_rt.job import Task, plan_video
from dc_rt.job.done import find_done
from dc_rt.job.pace import recall, work_of
from dc_rt.job.spool import is_resumable
from dc_rt.job.targets import text
from dc_rt.job.writers import check_writers
from dc_rt.lease import Leases
from dc_rt.models import ModelOptions, Models
from dc_rt.options import Options, as_flag

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 5.0  # after which processes that were cancelled are left to die with this one
_INTERRUPTED_STATUS = 130
_WIDTH_OF_FILES = 10_000


@dataclass(frozen=True)
class Batch:
    """Which videos are run, and how."""

    inputs: Sequence[Path]
    save_folder: Path
    options: Options
    models: ModelOptions
    restart: bool

    def entries(self) -> list[Task | Refused]:
        """The videos, in the order of the inputs; raises `UserError` where none could be run."""
        self.models.check()
        Models(self.models, lambda lines: None)  # so that engines that are none are said once, and not of each video
        return find_tasks(self.inputs, self.save_folder, self.options, self.restart)


@dataclass(frozen=True)
class Sharing:
    """Who runs them: so many processes of this machine, on these devices if not on all, beside those of others.

    Or the nodes of the cluster at an address, with so many processes on each that has no GPU.
    """

    num_workers: int
    devices: tuple[str, ...]
    retry: int
    lease_seconds: float
    cluster: str | None = None

    @classmethod
    def of(
        cls, workers: int | None, devices: str, retry: int, lease_seconds: float, cluster: str | None = None
    ) -> Sharing:
        """That which was typed; raises `UserError` where it does not go together."""
        num_workers, named = processes_of(workers, devices)
        if named and cluster:
            raise UserError(
                f"{option('cluster', cluster)} takes the GPUs that Ray has for it; leave {option('devices')} out."
            )
        Leases(lease_seconds)  # which refuses times that are none
        return cls(num_workers, named, retry, lease_seconds, cluster)

    def slots(self, models: ModelOptions, save_folder: Path) -> Slots:
        """Where the videos are run; to be closed at the end. Raises `UserError` where there is no such cluster."""
        if self.cluster is not None:
            return ClusterSlots(self.cluster, models, save_folder, self.num_workers, self.lease_seconds, say)
        check_devices(self.devices)
        return LocalSlots(models, self.num_workers, self.devices, self.lease_seconds)


def run_batch(batch: Batch, sharing: Sharing, report: Path | None) -> None:
    """Run all videos that can be run, say what became of each, and write the report.

    Raises `typer.Exit` with status 1 if one failed, and 130 if it was interrupted.
    """
    check_card_is_here()
    path = report or batch.save_folder / REPORT
    entries = batch.entries()
    check_report(path)
    _complain_of_refused(entries)
    began, clock = datetime.datetime.now(datetime.UTC), time.monotonic()
    tasks = [entry for entry in entries if isinstance(entry, Task)]
    slots = sharing.slots(batch.models, batch.save_folder)
    schedule = Schedule(tasks, slots, sharing.retry)
    try:
        is_interrupted = not _runs_to_its_end(schedule)
    finally:
        slots.close()
    became = iter(schedule.entries)
    outcomes = tuple(next(became).outcome if isinstance(entry, Task) else _outcome(entry) for entry in entries)
    made = Report(outcomes, began, time.monotonic() - clock, is_interrupted)
    _say_table(made)
    made.write(path)
    say(f"Report: {text(path)}")
    if is_interrupted:
        print("Interrupted; the same command resumes it.", file=sys.stderr, flush=True)
        os._exit(_INTERRUPTED_STATUS)  # whatever threads are at that were given up
    if made.counts["failed"]:
        raise typer.Exit(1)


def _complain_of_refused(entries: Sequence[Task | Refused]) -> None:
    """Say at once what is not run: the table comes after hours."""
    for entry in entries:
        if isinstance(entry, Refused):
            complain(about(entry.video, worded(entry.sentence, as_flag)))


def preview_batch(batch: Batch, sharing: Sharing) -> None:
    """Say of all videos whether they would be run; raises `typer.Exit` with status 1 if one could not be."""
    entries = batch.entries()
    models = Models(batch.models, lambda lines: None)
    looks = [_look(entry, models) for entry in entries]
    for look in looks:
        (complain if look.is_refused else say)(look.line)
    to_be_run = [look for look in looks if not (look.is_refused or look.is_done)]
    num_refused = sum(look.is_refused for look in looks)
    num_done = len(looks) - len(to_be_run) - num_refused
    in_all = ""
    if to_be_run and all(look.seconds for look in to_be_run):
        # Several processes on one device, or on the processor, are hardly faster together than one.
        seconds = sum(look.seconds or 0 for look in to_be_run) / max(len(sharing.devices), 1)
        in_all = f", in about {in_minutes(seconds)} at the pace of the last run"
    say(f"{len(to_be_run)} to be run{in_all}; {num_done} done, {num_refused} refused; nothing was written")
    if num_refused:
        raise typer.Exit(1)


@dataclass(frozen=True)
class _Look:
    """What a run would do with one video, in a line; and how long it would take, where that is known."""

    line: str
    is_refused: bool = False
    is_done: bool = False
    seconds: float | None = None


def _look(entry: Task | Refused, models: Models) -> _Look:
    try:
        if isinstance(entry, Refused):
            raise UserError(entry.sentence)
        return _look_at(entry, models)
    except (UserError, OSError) as error:
        return _Look(f"refused  {about(text(entry.video), sentence_of(error))}", is_refused=True)


def _look_at(task: Task, models: Models) -> _Look:
    """Raises `UserError` where it could not be run."""
    sampling, source, outputs = task.options.sampling, task.options.source, task.options.outputs
    video, targets = text(task.video), task.targets
    prepared = models.prepare(plan_video(task.video, source), sampling, source)
    plan = prepared.plan
    check_writers(plan, outputs)
    targets.check(outputs.overwrite)
    if not task.restart and find_done(targets, plan, prepared.manifest, sampling, outputs):
        return _Look(f"done     {video}: its results are in {text(task.save_folder)}", is_done=True)
    resumed = ", to resume an unfinished run" if is_resumable(targets.spool) and not task.restart else ""
    pace = recall(prepared.manifest, prepared.cpu_offload)
    seconds = pace.seconds_per_pixel * work_of(plan, sampling) if pace else None
    what = f"{plan.num_frames} frames at {plan.width}x{plan.height} into {text(task.save_folder)}"
    return _Look(f"run      {video}: {what}{resumed}", seconds=seconds)


def _say_table(report: Report) -> None:
    """What became of each video, but for those that were skipped, and how many of each kind there are."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in ("video", "status", "frames", "seconds", "note"):
        table.add_column(column, overflow="fold", justify="right" if column in ("frames", "seconds") else "left")
    outcomes = [outcome for outcome in report.outcomes if outcome.status != "skipped"]
    for outcome in outcomes:
        frames = "" if outcome.frames is None else str(outcome.frames)
        seconds = "" if outcome.seconds is None else f"{outcome.seconds:.1f}"
        cells = (outcome.video, outcome.status, frames, seconds, worded(outcome.note, as_flag))
        table.add_row(*(Text(cell, style="red" if outcome.status == "failed" else "") for cell in cells))
    if outcomes and sys.stdout.isatty():
        Console().print(table)
    elif outcomes:  # a file has no width that a line must keep to
        console = Console(width=_WIDTH_OF_FILES)
        with console.capture() as captured:
            console.print(table)
        say(*(line.rstrip() for line in captured.get().splitlines()))
    counted = ", ".join(f"{count} {status}" for status, count in report.counts.items() if count)
    say(f"{counted} in {in_minutes(report.seconds)}")


def _outcome(refused: Refused) -> Outcome:
    return Outcome(refused.video, refused.save_folder, "failed", refused.sentence)


def _runs_to_its_end(schedule: Schedule) -> bool:
    """Run all, until the end or until Ctrl-C; whether it was the end. A second Ctrl-C ends this process at once."""
    with batch_progress(schedule) as shown, _terminated_as_interrupted():
        try:
            try:
                schedule.start()
                while not schedule.wait(_POLL_SECONDS):
                    shown.show()
                shown.show()
                return True
            except KeyboardInterrupt:
                until = time.monotonic() + _PATIENCE_SECONDS
                schedule.cancel()
                while not schedule.wait(_POLL_SECONDS) and time.monotonic() < until:
                    schedule.cancel()
                return False
        except KeyboardInterrupt:
            os._exit(_INTERRUPTED_STATUS)  # the processes end with this one


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM is Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
