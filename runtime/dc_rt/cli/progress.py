"""What is shown of a job: its listeners on a terminal, and elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from typing import Self

from dc_rt.cli.terminal import can_redraw, say
from dc_rt.job.events import Event, Finished, Planned, Progressed, Resumed, ShotsFound, Warned

PLAIN_SECONDS = 5.0  # between progress lines where there is no terminal

_OF_THE_MODEL = ("denoiser", "vae_encoder", "vae_decoder")


def progress() -> Progress:
    """A bar on a terminal that can draw it anew, else plain lines."""
    return Bar() if can_redraw(sys.stdout) else Lines()


class Progress(AbstractContextManager["Progress"]):
    """How far a video is: by denoised frames, most of the work, and decoded ones; without a model by those written."""

    def __init__(self) -> None:
        self._frames = self._total = self._done = 0
        self._finished_frames = self._resumed = self._looked_at = 0
        self._stages: tuple[str, ...] = _OF_THE_MODEL
        self._began = time.perf_counter()

    def hear(self, event: Event) -> None:
        """Listen to a job."""
        match event:
            case Planned():
                self._plan(event)
            case Resumed(num_frames, num_evaluated):
                say(f"  resumed after frame {num_frames} of an unfinished run")
                self._total = num_evaluated + 2 * (self._frames - num_frames) if self._frames else 0
                self._finished_frames = self._resumed = num_frames
            case ShotsFound(num_shots, num_evaluated):
                say("  1 shot" if num_shots == 1 else f"  {num_shots} shots, each estimated by itself")
                self._total = num_evaluated + 2 * self._frames
                self._looked_at, self._began = 0, time.perf_counter()
            case Progressed("detect", num_frames):
                self._looked_at += num_frames
            case Progressed(stage, num_frames):
                self._done += num_frames * (stage in self._stages)
                self._finished_frames += num_frames * (stage == self._stages[-1])
            case Warned(sentence):
                say(f"  {sentence}")
            case Finished(files, num_frames, seconds):
                self._frames = self._frames or num_frames
                self._done = self._total
                self._show(at_the_end=True)
                self.close()
                say(f"{num_frames} frames in {seconds:.1f} s, {1000 * seconds / num_frames:.0f} ms/frame")
                for file in files:
                    say(f"  {file}")
                return
        self._show()

    def _plan(self, plan: Planned) -> None:
        is_open = not plan.num_frames  # a pipe
        self._stages = _OF_THE_MODEL if plan.num_evaluated or is_open else ("write",)
        self._frames = plan.num_frames
        self._total = plan.num_evaluated + 2 * plan.num_frames if plan.num_evaluated else plan.num_frames
        frames = "frames as they come" if is_open else f"{plan.num_frames} of {plan.source_frames} frames"
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
        if self._looked_at:
            of_all = f"/{self._frames}" if self._frames else ""
            return 0.0, f"{self._looked_at}{of_all} frames looked through for cuts"
        elapsed = time.perf_counter() - self._began
        if not self._frames:
            rate = (self._finished_frames - self._resumed) / elapsed if elapsed > 0 else 0.0
            return None, f"{self._finished_frames} frames, {rate:.2f} frames/s"
        share = min(self._done / self._total, 1.0) if self._total else 1.0
        left = f"{_minutes(elapsed / share - elapsed)} left" if share > 0 else "starting"
        rate = share * (self._frames - self._resumed) / elapsed if elapsed > 0 else 0.0
        return share, f"{self._finished_frames}/{self._frames} frames, {rate:.2f} frames/s, {left}"

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
        if now - max(self._last, self._began) >= PLAIN_SECONDS or (at_the_end and self._last):
            self._last = now
            share, status = self._status()
            say(status if share is None else f"{100 * share:3.0f} %  {status}")


def _minutes(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
