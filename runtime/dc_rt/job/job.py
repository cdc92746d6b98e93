"""One video from file to files, that can be started, watched and cancelled.

The first pass runs the model and spools its depth: reading goes ahead of it and spooling behind it, in threads. The
second writes the results. A run that ends before that is resumed by the next one.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Generator
from contextlib import closing, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from dc_rt.engine import Interrupted
from dc_rt.errors import UserError
from dc_rt.heap import give_back_freed
from dc_rt.job import events
from dc_rt.job.early import Early, EarlyOutputs
from dc_rt.job.events import Event, Listener, Progressed
from dc_rt.job.fingerprint import fingerprint
from dc_rt.job.forecast import disk_need, disk_too_small
from dc_rt.job.plan import Plan, plan_video
from dc_rt.job.record import Clock, as_text, record_of
from dc_rt.job.results import empty_folder, move_into_place, write_results
from dc_rt.job.spool import Spool, SpoolLock, is_resumable
from dc_rt.job.targets import Targets, check_batch
from dc_rt.job.threads import Behind, ahead
from dc_rt.job.writers import WRITE_BEHIND
from dc_rt.media import Damage, VideoInfo, read_at_sizes
from dc_rt.model import DepthCrafter
from dc_rt.noise import Noise
from dc_rt.options import Outputs, Sampling, Source, record
from dc_rt.windows import WindowState

T = TypeVar("T")

# Of frames that wait for the model: 151 at 1024x576.
READ_AHEAD, READ_AHEAD_BYTES = 16, 1 << 28

Status = Literal["new", "running", "finished", "cancelled", "failed"]


class JobCancelled(Exception):
    """`Job.cancel` was called; what was done is kept, and the next run resumes it."""


class Runs:
    """What a job is outside of its run, wherever that is: it runs once, and may leave a spool."""

    def __init__(self, spool: Path, listener: Listener | None) -> None:
        self._spool = spool
        self._listener = listener
        self._cancelled = threading.Event()
        self._status: Status = "new"

    @property
    def status(self) -> Status:
        """Where the job is."""
        return self._status

    @property
    def is_resumable(self) -> bool:
        """Whether something is kept that a run resumes."""
        return is_resumable(self._spool)

    def discard(self) -> None:
        """Throw away what an unfinished run keeps. Raises `UserError` while one is at it."""
        if self._spool.is_dir():
            SpoolLock(self._spool).delete()

    def _begin(self) -> None:
        if self._status != "new":
            raise RuntimeError(f"this job is {self._status}: make another one to run it again")
        self._status = "running"


class Job(Runs):
    """The depth of one video, from file to files. It runs once; a new job of the same resumes what it left."""

    def __init__(
        self,
        model: DepthCrafter,
        video: str | Path | VideoInfo,
        sampling: Sampling | None = None,
        source: Source | None = None,
        outputs: Outputs | None = None,
        save_folder: str | Path = "demo_output",
        *,
        restart: bool = False,
        listener: Listener | None = None,
    ) -> None:
        """Look at the video, and at where its results go; nothing is written.

        Args:
            model: runs one job at a time.
            video: a file, a folder of images, or what `dc_rt.probe` found out about it.
            sampling, source, outputs: how depth is sampled, what is taken of the video, what is written.
            save_folder: where the results go, made if need be.
            restart: throw away what an unfinished run did.
            listener: is told of all that happens (`dc_rt.job.events`).

        Raises:
            UserError: the video cannot be read, the engines cannot run it, or something would be overwritten.
        """
        self.model = model
        self.sampling, self.source, self.outputs = sampling or Sampling(), source or Source(), outputs or Outputs()
        self.plan: Plan = plan_video(video, self.source)
        self.plan.check_engines(model.engines.manifest.profile, self.sampling)
        self._targets = Targets.of(self.plan.video.path, Path(save_folder), self.outputs)
        check_batch([self._targets])
        self._targets.check(self.outputs.overwrite)
        self._restart = restart
        super().__init__(self._targets.spool, listener)

    def run(self) -> list[Path]:
        """Do it, resuming what an earlier run left.

        Returns:
            The files and folders of frames that were written, `NAME.json` last.

        Raises:
            UserError: an earlier run was of something else, another one is at it, or the disk is too small.
            OSError: the disk refuses; what was done is kept, and the next run resumes it.
            JobCancelled: `cancel` was called.
        """
        self._begin()
        self.model.engines.rearm()
        try:
            results = self._run()
        except BaseException as error:
            # Whatever a cancelled run ends with, such as a window that was cut off.
            if self._cancelled.is_set() and isinstance(error, Interrupted | JobCancelled):
                self._status = "cancelled"
                self._tell_end(events.Cancelled(self.is_resumable))
                raise JobCancelled from None
            self._status = "failed"
            known = isinstance(error, UserError | OSError)
            sentence = error.sentence if isinstance(error, UserError) else str(error) or type(error).__name__
            self._tell_end(events.Failed(sentence, not known, self.is_resumable))
            raise
        self._status = "finished"
        return results

    def cancel(self) -> None:
        """End the run soon, from any thread; what it did is kept.

        On ONNX Runtime the graph under way ends within a second or two, on TensorRT it is the last one.
        """
        self._cancelled.set()
        self.model.engines.interrupt()

    def _run(self) -> list[Path]:
        plan, targets = self.plan, self._targets
        clock = Clock(self._tell)
        self._tell(plan.described(self.sampling, self.outputs))
        identity = fingerprint(self.model.engines, plan, self.sampling)
        self._check_not_cancelled()
        with Spool(targets.spool, identity, plan.height, plan.width, self._restart) as spool:
            targets.remember_moves()
            clock.take_up(spool.progress.notes)
            if spool.state or spool.progress.complete:
                done = spool.state.start if spool.state else spool.num_frames
                left = plan.num_evaluated(self.sampling, done) if spool.state else 0
                self._tell(events.Resumed(done, left))
            if not spool.progress.complete:
                _check_space(targets.save_folder, plan, self.outputs, spool.num_frames)
                self._run_model(spool, clock)
            damage = Damage(**(spool.progress.notes or {}).get("damage", {}))
            for sentence in damage.describe():
                self._tell(events.Warned(sentence))
            staging = empty_folder(targets.spool / "results")
            early = Early.of(spool.folder, spool.progress.notes or {})
            numbers = write_results(staging, plan, self.outputs, spool, early, clock)
            options = record(self.sampling, self.source, self.outputs)
            found = record_of(self.model.engines, plan, self.outputs, options, spool, damage, clock)
            contents = found | {"files": targets.list_files(staging)}
            (staging / targets.record.name).write_text(as_text(contents, times=plan.timeline.seconds(numbers)))
            targets.check(self.outputs.overwrite, at_the_end=True)  # something may have appeared meanwhile
            results = move_into_place(staging, targets.save_folder)
            spool.delete()
            self._tell_end(events.Finished(tuple(map(str, results)), spool.num_frames, clock.seconds_of_this_run))
            return results

    def _run_model(self, spool: Spool, clock: Clock) -> None:
        """The first pass: depth into the spool, committed after every window."""
        plan, sampling = self.plan, self.sampling
        start = spool.state.next_frame if spool.state else 0
        damage = Damage()
        # A run that is resumed does not see all frames.
        early = EarlyOutputs(spool.folder, plan, self.outputs if spool.state is None else None)
        sizes = list(dict.fromkeys([(plan.height, plan.width), *early.sizes]))
        read_from = read_at_sizes(plan.video, sizes, plan.stride, plan.num_frames, start, damage)
        if spool.state is None:
            read_from = _refuse_hopeless(read_from, sampling.window_size, damage, plan)

        def append(depth: NDArray[np.float32]) -> None:
            with clock.measure("write", frames=0):
                spool.append(depth)

        def commit(state: WindowState | None, **notes: Any) -> None:
            with clock.measure("write", frames=0):
                spool.commit(state, clock.notes() | {"damage": vars(damage)} | notes)
                give_back_freed()
            self._tell(events.WindowDone(state.start if state else spool.num_frames))

        with (
            Behind(WRITE_BEHIND) as writer,
            early,
            closing(read_from),
            ahead(early.watch(clock.timed("read", read_from)), _frames_ahead(plan, sampling)) as read,
        ):
            depths = self.model(
                read,
                sampling,
                noise=Noise(sampling.seed),
                progress=clock.add,
                resume_from=spool.state,
                on_window=lambda state: writer.submit(commit, state),
            )
            for depth in depths:
                writer.submit(append, depth)
            writer.submit(partial(commit, early=early.finish()), None)
        # Decoding has the last word on the number of frames: a stream may hold a few that cannot be shown.
        if spool.num_frames == 0:
            raise UserError(f"No frame of {plan.video.path} could be decoded; copy or download it again.")

    def _tell(self, event: Event) -> None:
        if isinstance(event, Progressed):  # there is one at every frame, in both passes
            self._check_not_cancelled()
        if self._listener:
            self._listener(event)

    def _tell_end(self, event: Event) -> None:
        """Of what no listener can change any more."""
        with suppress(Exception):
            self._tell(event)

    def _check_not_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise JobCancelled


def _frames_ahead(plan: Plan, sampling: Sampling) -> int:
    """How many frames to read ahead: those of a window, which are taken at once, as far as memory goes."""
    return max(READ_AHEAD, min(sampling.stride, READ_AHEAD_BYTES // (3 * plan.height * plan.width)))


def _refuse_hopeless(
    frames: Generator[T, None, None], window_size: int, damage: Damage, plan: Plan
) -> Generator[T, None, None]:
    """The frames; raises `UserError` after those of the first window if most of them cannot be decoded.

    So it is said before anything is denoised, and nothing waits for the window to be read.
    """
    with closing(frames):
        yield from islice(frames, window_size)
        if damage.is_hopeless:
            raise UserError(
                f"Most of the first {damage.num_frames} frames of {plan.video.path} cannot be decoded "
                f"({damage.num_lost} are lost, {damage.num_patched} damaged): it is damaged, or encrypted; "
                "copy or download it again."
            )
        yield from frames


def _check_space(save_folder: Path, plan: Plan, outputs: Outputs, spooled_frames: int) -> None:
    """Raise `UserError` where the disk is sure to run full: the spool's and the results' size against what is free."""
    needed, free = disk_need(plan, outputs, spooled_frames), shutil.disk_usage(save_folder).free
    if needed > free:
        raise UserError(disk_too_small(plan, save_folder, needed, free))
