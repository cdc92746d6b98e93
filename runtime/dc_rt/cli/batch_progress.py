"""What is shown of a batch while it runs: a line for each video that has ended, how far all are, and who is at what."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from typing import Any, Self

from dc_rt.batch.progress import Overall, Standing
from dc_rt.batch.report import Outcome
from dc_rt.batch.schedule import Schedule
from dc_rt.cli.progress import PLAIN_SECONDS, in_minutes
from dc_rt.cli.terminal import can_redraw, complain, say
from dc_rt.errors import worded
from dc_rt.options import as_flag


def batch_progress(schedule: Schedule) -> BatchProgress:
    """Bars on a terminal that can draw them anew, else plain lines."""
    return BatchBars(schedule) if can_redraw(sys.stdout) else BatchLines(schedule)


class BatchProgress(AbstractContextManager["BatchProgress"]):
    """Says what is new, each time that `show` is called."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._overall = Overall(schedule.entries)
        self._running = set(range(len(schedule.entries)))
        self._num_models = 0

    def show(self) -> None:
        """Look at the schedule, and say what has happened since the last time."""
        for lines in list(self._schedule.models)[self._num_models :]:
            self._num_models += 1
            say(*lines)
        for place in sorted(self._running):
            entry = self._schedule.entries[place]
            if entry.status != "unfinished":
                self._running.remove(place)
                _say_end(entry.outcome)
        self._draw(self._overall.standing())

    def _draw(self, standing: Standing) -> None:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        """Draw no more."""


class BatchBars(BatchProgress):
    """A bar for all videos, and one for each that is being run, that are drawn anew."""

    def __enter__(self) -> Self:
        from rich.progress import BarColumn, Progress, TextColumn

        self._bars = Progress(
            BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TextColumn("{task.fields[status]}", markup=False)
        )
        self._bars.start()
        self._all = self._bars.add_task("", total=1.0, status="")
        self._of_slot: dict[int, Any] = {}  # rich's number of each
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def _draw(self, standing: Standing) -> None:
        self._bars.update(self._all, completed=standing.done or 0.0, status=_status(standing))
        for slot, (video, done) in standing.running.items():
            if slot not in self._of_slot:
                self._of_slot[slot] = self._bars.add_task("", total=1.0, status="")
            self._bars.update(self._of_slot[slot], completed=done, status=f"{slot + 1}: {video}", visible=True)
        for slot in self._of_slot.keys() - standing.running:
            self._bars.update(self._of_slot[slot], visible=False)


class BatchLines(BatchProgress):
    """Elsewhere (a log, a pipe): a plain line every few seconds."""

    def __enter__(self) -> Self:
        self._last = time.monotonic()
        return self

    def _draw(self, standing: Standing) -> None:
        now = time.monotonic()
        if now - self._last < PLAIN_SECONDS or standing.num_ended == standing.num_videos:
            return
        self._last = now
        share = "" if standing.done is None else f"{100 * standing.done:3.0f} %  "
        at = "".join(f"; {slot + 1}: {video} {100 * done:.0f} %" for slot, (video, done) in standing.running.items())
        say(f"{share}{_status(standing)}{at}")


def _status(standing: Standing) -> str:
    held = f", other batches are at {standing.num_held}" if standing.num_held else ""
    left = "" if standing.seconds_left is None else f", {in_minutes(standing.seconds_left)} left"
    return f"{standing.num_ended}/{standing.num_videos} videos{held}{left}"


def about(video: str, sentence: str) -> str:
    """The sentence, with the video before it where it does not name it."""
    return sentence if video in sentence else f"{video}: {sentence}"


def _say_end(outcome: Outcome) -> None:
    note = worded(outcome.note, as_flag)
    match outcome.status:
        case "failed":
            complain(about(outcome.video, note))
        case "finished":
            said = f"; {note}" if note else ""
            say(f"{outcome.video}: {outcome.frames} frames in {outcome.seconds or 0:.1f} s{said}")
        case "skipped":
            say(f"{outcome.video}: was done before")
        case "elsewhere":
            say(f"{outcome.video}: was done by another batch")
