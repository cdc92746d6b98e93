"""What is shown of a job: its listeners on a terminal, and elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from typing import Self

from dc_rt.cli.terminal import can_redraw, say
from dc_rt.job.events import Event, Finished, Planned, Resumed, ShotsFound, Warned
from dc_rt.job.share import Share

PLAIN_SECONDS = 5.0  # between progress lines where there is no terminal


def progress() -> Progress:
    """A bar on a terminal that can draw it anew, else plain lines."""
    return Bar() if can_redraw(sys.stdout) else Lines()


class Progress(AbstractContextManager["Progress"]):
    """What happens in a job, in lines, and how far it is, which `_show` shows."""

    def __init__(self) -> None:
        self._share = Share()

    def hear(self, event: Event) -> None:
        """Listen to a job."""
        share = self._share
        share.hear(event)
        match event:
            case Planned():
                self._say_plan(event)
            case Resumed(num_frames):
                say(f"  resumed after frame {num_frames} of an unfinished run")
            case ShotsFound(num_shots):
                say("  1 shot" if num_shots == 1 else f"  {num_shots} shots, each estimated by itself")
            case Warned(sentence):
                say(f"  {sentence}")
            case Finished(files, num_frames, seconds):
                self._show(at_the_end=True)
                self.close()
                say(f"{num_frames} frames in {seconds:.1f} s, {1000 * seconds / num_frames:.0f} ms/frame")
                for file in files:
                    say(f"  {file}")
                return
        self._show()

    def _say_plan(self, plan: Planned) -> None:
        frames = f"{plan.num_frames} of {plan.source_frames} frames" if plan.num_frames else "frames as they come"
        say(
            f"{plan.video}: {frames}, "
            f"{plan.source_width}x{plan.source_height} at {plan.source_fps:.4g} frames/s -> "
            f"{plan.width}x{plan.height} at {plan.fps:.4g} frames/s"
        )
        for note in plan.notes:
            say(f"  {note}")

    def close(self) -> None:
        """Draw no more."""

    def _status(self) -> tuple[float | None, str]:
        """Share of the work done, and frames, frames per second and time left in words; of a pipe no share is known."""
        of = self._share
        if of.num_looked_at:
            of_all = f"/{of.num_frames}" if of.num_frames else ""
            return 0.0, f"{of.num_looked_at}{of_all} frames looked through for cuts"
        elapsed = time.perf_counter() - of.began
        done = of.done
        if done is None:
            rate = (of.num_done - of.num_resumed) / elapsed if elapsed > 0 else 0.0
            return None, f"{of.num_done} frames, {rate:.2f} frames/s"
        left = "starting" if of.seconds_left is None else f"{in_minutes(of.seconds_left)} left"
        rate = done * (of.num_frames - of.num_resumed) / elapsed if elapsed > 0 else 0.0
        return done, f"{of.num_done}/{of.num_frames} frames, {rate:.2f} frames/s, {left}"

    def _show(self, at_the_end: bool = False) -> None:
        raise NotImplementedError

    def __exit__(self, *_: object) -> None:
        self.close()


class Bar(Progress):
    """On a terminal that can: a bar that is drawn anew."""

    def __enter__(self) -> Self:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(BarColumn(), TextColumn("{task.percentage:>3.0f} %  {task.fields[status]}"))
        self._bar.start()
        self._task = self._bar.add_task("", total=1.0, status="")
        return self

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.stop()

    def _show(self, at_the_end: bool = False) -> None:
        share, status = self._status()
        self._bar.update(self._task, total=None if share is None else 1.0, completed=share or 0.0, status=status)


class Lines(Progress):
    """Elsewhere (a log, a pipe): a plain line every few seconds, and at the end if there was one before."""

    _last = 0.0

    def _show(self, at_the_end: bool = False) -> None:
        now = time.perf_counter()
        if now - max(self._last, self._share.began) >= PLAIN_SECONDS or (at_the_end and self._last):
            self._last = now
            share, status = self._status()
            say(status if share is None else f"{100 * share:3.0f} %  {status}")


def in_minutes(seconds: float) -> str:
    """A time as people read it: 1:05, or 2:01:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
