"""How much of a job is done, by what it tells."""

from __future__ import annotations

import time

from dc_rt.job.events import Event, Finished, Planned, Progressed, Resumed, ShotsFound

_OF_THE_MODEL = ("denoiser", "vae_encoder", "vae_decoder")


class Share:
    """How far a video is: by denoised frames, most of the work, and decoded ones; without a model by those written.

    Attributes:
        num_frames: of the results; 0 of a pipe, whose end has not come.
        num_done: of these, the ones that are through the last stage, of earlier runs too.
        num_resumed: of these, the ones of earlier runs.
        num_looked_at: that were looked through for cuts so far, while that is what it is at.
        pixels: of a frame, as the model takes it.
        began: the time of `time.perf_counter` from which on the work is counted.
    """

    def __init__(self) -> None:
        self.num_frames = self.num_done = self.num_resumed = self.num_looked_at = self.pixels = 0
        self.began = time.perf_counter()
        self._total = self._counted = self._done_before = 0
        self._stages: tuple[str, ...] = _OF_THE_MODEL

    def hear(self, event: Event) -> None:
        """Listen to a job."""
        match event:
            case Planned():
                self._plan(event)
            case Resumed(num_frames, num_evaluated):
                left = num_evaluated + 2 * (self.num_frames - num_frames) if self.num_frames else 0
                self._done_before, self._total = max(self._total - left, 0), left
                self.num_done = self.num_resumed = num_frames
            case ShotsFound(num_evaluated=num_evaluated):
                self._total = num_evaluated + 2 * self.num_frames
                self.num_looked_at, self.began = 0, time.perf_counter()
            case Progressed("detect", num_frames):
                self.num_looked_at += num_frames
            case Progressed(stage, num_frames):
                self._counted += num_frames * (stage in self._stages)
                self.num_done += num_frames * (stage == self._stages[-1])
            case Finished(num_frames=num_frames):
                self.num_frames = self.num_frames or num_frames
                self._counted = self._total

    def _plan(self, plan: Planned) -> None:
        is_open = not plan.num_frames
        self.began = time.perf_counter()
        self._stages = _OF_THE_MODEL if plan.num_evaluated or is_open else ("write",)
        self.num_frames, self.pixels = plan.num_frames, plan.height * plan.width
        self._total = plan.num_evaluated + 2 * plan.num_frames if plan.num_evaluated else plan.num_frames

    @property
    def work(self) -> int:
        """What `dc_rt.job.pace.work_of` gives for what this run has to do; 0 where it is not known."""
        return self.pixels * self._total

    @property
    def done(self) -> float | None:
        """From 0 to 1; None of a pipe."""
        if self.num_looked_at:
            return 0.0
        if not self.num_frames:
            return None
        return min(self._counted / self._total, 1.0) if self._total else 1.0

    @property
    def done_in_all(self) -> float | None:
        """As `done`, of the whole video: with what earlier runs did of it."""
        done, whole = self.done, self._done_before + self._total
        return done if done is None or not whole else (self._done_before + done * self._total) / whole

    @property
    def seconds_left(self) -> float | None:
        """At the pace so far; None before there is one."""
        done = self.done
        return (time.perf_counter() - self.began) * (1 / done - 1) if done and not self.num_looked_at else None
