"""One video from file to files, that can be started, watched and cancelled.

The first pass runs the model and spools its depth: reading goes ahead of it and spooling behind it, in threads. The
second writes the results. A run that ends before that is resumed by the next one.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from dc_rt.engine import Interrupted
from dc_rt.engine.demonstration import what_it_demonstrates
from dc_rt.errors import UserError
from dc_rt.heap import give_back_freed
from dc_rt.job import events
from dc_rt.job.early import Early, EarlyOutputs
from dc_rt.job.events import Event, Listener, Progressed
from dc_rt.job.fingerprint import Fingerprint, fingerprint, stamp_of
from dc_rt.job.forecast import check_space, disk_need
from dc_rt.job.kept import attributes_of
from dc_rt.job.live import LiveStream
from dc_rt.job.plan import Plan, plan_video
from dc_rt.job.record import Clock, origin_of, record_of
from dc_rt.job.results import empty_folder, finish, write_results
from dc_rt.job.spool import INPUT, Spool, SpoolHeld, SpoolLock, is_resumable
from dc_rt.job.targets import Targets, check_batch
from dc_rt.job.threads import Behind, ahead
from dc_rt.job.writers import WRITE_BEHIND, check_writers, stream_of
from dc_rt.lease import Held, Lease, LeaseLost
from dc_rt.media import Damage, VideoInfo, read_at_sizes
from dc_rt.media.pipe import Kept, Pipe, PipeError
from dc_rt.media.shots import DETECTION_SIZE, find_cuts
from dc_rt.model import DepthCrafter
from dc_rt.noise import Noise
from dc_rt.options import Outputs, Sampling, Source, record
from dc_rt.pipeline import Frame
from dc_rt.windows import WindowState

T = TypeVar("T")

# Of frames that wait for the model: 151 at 1024x576.
READ_AHEAD, READ_AHEAD_BYTES = 16, 1 << 28

Status = Literal["new", "running", "finished", "cancelled", "failed"]


class JobCancelled(Exception):
    """`Job.cancel` was called; what was done is kept, and the next run resumes it."""


class Runs:
    """What a job is outside of its run, wherever that is: it runs once, may leave a spool, and tells what happens."""

    def __init__(self, spool: Path, listener: Listener | None, lease: Lease | None = None) -> None:
        self._spool = spool
        self._listener = listener
        self._lease = lease
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

    def _followed(self, run: Callable[[], list[Path]]) -> list[Path]:
        """What `run` gives in this process; how it ends is the status, and the listener is told."""
        try:
            results = run()
        except BaseException as error:
            # Whatever a cancelled run ends with, such as a window that was cut off, or a pipe: on a terminal Ctrl-C
            # ends the program at its other end too, amid a frame.
            if self._cancelled.is_set() and isinstance(error, Interrupted | JobCancelled | PipeError):
                self._status = "cancelled"
                self._tell_end(events.Cancelled(self.is_resumable))
                raise JobCancelled from None
            if isinstance(error, Held):
                self._status = "cancelled"
                self._tell_end(events.HeldByAnother(str(error)))
                raise
            # Whatever it ended with, such as a folder that is not there any more.
            if self._lease and self._lease.is_lost:
                self._status = "cancelled"
                self._tell_end(events.TakenOver())
                raise LeaseLost from error
            self._status = "failed"
            self._tell_end(events.Failed.of(error, self.is_resumable))
            raise
        self._status = "finished"
        return results

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

    def _check_lease(self) -> None:
        if self._lease:
            self._lease.check()


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
        stream: BinaryIO | None = None,
        lease: Lease | None = None,
        listener: Listener | None = None,
    ) -> None:
        """Look at the video, and at where its results go; nothing is written.

        Args:
            model: runs one job at a time.
            video: a file, a folder or sequence of images, `-` for what comes through standard input, or what
                `dc_rt.probe` found out about it.
            sampling, source, outputs: how depth is sampled, what is taken of the video, what is written.
            save_folder: where the results go, made if need be.
            restart: throw away what an unfinished run did.
            stream: where the output `-` goes; standard output unless given.
            lease: of these results (`Targets.lease`), where many workers share a folder: taken before, and fenced.
            listener: is told of all that happens (`dc_rt.job.events`).

        Raises:
            UserError: the video cannot be read, the engines cannot run it, an output cannot be written, or something
                would be overwritten.
        """
        self.model = model
        self.sampling, self.source, self.outputs = sampling or Sampling(), source or Source(), outputs or Outputs()
        self.plan: Plan = replace(plan_video(video, self.source), called=self.outputs.result_name)
        self.plan.check_engines(model.engines.manifest.profile, self.sampling)
        check_writers(self.plan, self.outputs)
        self._targets = Targets.of(self.plan.video.path, Path(save_folder), self.outputs)
        check_batch([self._targets])
        self._targets.check(self.outputs.overwrite)
        self._restart = restart
        self._stream = stream_of(self.outputs, stream)
        super().__init__(self._targets.spool, listener, lease)

    def run(self) -> list[Path]:
        """Do it, resuming what an earlier run left.

        Returns:
            The files and folders of frames that were written, `NAME.json` last.

        Raises:
            UserError: an earlier run was of something else, another one is at it, or the disk is too small.
            OSError: the disk refuses; what was done is kept, and the next run resumes it.
            JobCancelled: `cancel` was called.
            Held: with a lease, another run without one is at it.
            LeaseLost: another worker has taken the results over.
        """
        self._begin()
        self.model.engines.rearm()
        return self._followed(self._run)

    def cancel(self) -> None:
        """End the run soon, from any thread; what it did is kept.

        On ONNX Runtime the graph under way ends within a second or two, on TensorRT it is the last one.
        """
        self._cancelled.set()
        self.model.engines.interrupt()

    def _run(self) -> list[Path]:
        plan, targets = self.plan, self._targets
        clock = Clock(self._tell)
        demonstration = what_it_demonstrates(self.model.engines.manifest)
        self._tell(plan.described(self.sampling, self.outputs, demonstration))
        stamp = stamp_of(plan.video)  # before it is read: who writes to it meanwhile changes it
        identity = fingerprint(self.model.engines, plan, self.sampling)
        self._check_not_cancelled()
        # Once more before anything there is touched: where the spool is was looked up when the lease was held.
        self._check_lease()
        with self._open_spool(identity) as spool:
            self._check_lease()
            targets.remember_moves()
            clock.take_up(spool.progress.notes)
            if isinstance(plan.video.pipe, Pipe):
                plan.video.pipe.keep_in(spool.folder / INPUT, (spool.progress.notes or {}).get("piped", 0))
            if not spool.progress.complete:
                check_space(targets.save_folder, plan, disk_need(plan, self.outputs, spool.num_frames))
            plan = self._settle_shots(spool, clock)
            if spool.state or spool.num_frames:
                done = _frames_done(spool)
                left = 0 if spool.progress.complete else plan.num_evaluated(self.sampling, done)
                self._tell(events.Resumed(done, left))
            stream = self._stream
            if not spool.progress.complete:
                self._run_model(spool, clock)
                stream = None if self.outputs.is_live else stream
            elif plan.video.is_open:
                # All of it was read before; that the same comes again is to be seen nevertheless.
                for _ in read_at_sizes(plan.video, [], plan.stride, plan.limit):
                    self._check_not_cancelled()
            if plan.video.is_open:
                open_plan, self.plan = plan, plan.settled()
                plan = self.plan
                left_out = len(open_plan.shots or ()) - len(plan.shots or ())
                if left_out and open_plan.limit is None:
                    said = f"{left_out} of {len(open_plan.shots or ())} shots begin after the last frame, and are none"
                    self._tell(events.Warned(said))
            damage = Damage(**(spool.progress.notes or {}).get("damage", {}))
            for sentence in damage.describe():
                self._tell(events.Warned(sentence))
            self._check_lease()
            staging = empty_folder(targets.spool / "results")
            early = Early.of(spool.folder, spool.progress.notes or {})
            origin = origin_of(self.model.engines, plan, damage, spool.num_frames)
            about = attributes_of(origin, plan, record(self.sampling, self.source), damage, spool, identity["video"])
            numbers = write_results(staging, plan, self.outputs, spool, early, clock, about, stream)
            options = record(self.sampling, self.source, self.outputs)
            found = record_of(origin, plan, self.outputs, options, spool, numbers, clock)
            found |= {"fingerprint": {**identity, "stamp": stamp}}
            self._check_lease()
            results = finish(staging, targets, found, self.outputs.overwrite, is_kept=True)
            spool.delete()
            self._tell_end(events.Finished(tuple(map(str, results)), spool.num_frames, clock.seconds_of_this_run))
            return results

    def _open_spool(self, identity: Fingerprint) -> Spool:
        try:
            return Spool(self._targets.spool, identity, self.plan.height, self.plan.width, self._restart)
        except SpoolHeld as error:
            # A run without a lease; or one that has just died, of which the system gives up one lock after the other.
            if self._lease:
                raise Held("another run") from error
            raise

    def _settle_shots(self, spool: Spool, clock: Clock) -> Plan:
        """The plan with its shots. Where it left them open, all frames are looked through, unless a run before did."""
        plan, notes = self.plan, spool.progress.notes or {}
        if plan.shots is not None:
            return plan
        if "shots" in notes:
            shots = notes["shots"]
        else:
            damage = Damage()
            frames = read_at_sizes(plan.video, [DETECTION_SIZE], plan.stride, plan.limit, damage=damage)
            with closing(_refuse_hopeless(frames, self.sampling.window_size, damage, plan)) as frames:
                looked_at = ((number, image) for number, (image,) in clock.timed("detect", frames))
                shots = [0, *find_cuts(looked_at)]
            self._check_lease()
            spool.commit(None, clock.notes() | {"shots": shots} | _synced(plan), between_shots=True)
            if plan.video.is_open:  # all of it has come
                plan = plan.settled()
        self.plan = plan = replace(plan, shots=tuple(shots))
        self._tell(events.ShotsFound(len(shots), plan.num_evaluated(self.sampling)))
        return plan

    def _run_model(self, spool: Spool, clock: Clock) -> None:
        """The first pass: depth into the spool, shot by shot, committed after every window."""
        plan, sampling, state = self.plan, self.sampling, spool.state
        shots = plan.shots or (0,)
        is_resumed = state is not None or spool.num_frames > 0
        start = spool.shot_start + (state.next_frame if state else 0)
        damage = Damage()
        # A run that is resumed does not see all frames, and of a pipe nobody knows how long they are shown for.
        sees_all = not is_resumed and not plan.video.is_open
        early = EarlyOutputs(spool.folder, plan, self.outputs if sees_all else None)
        live = LiveStream(spool, plan, self.outputs, self._stream) if self._stream and self.outputs.is_live else None
        sizes = list(dict.fromkeys([(plan.height, plan.width), *early.sizes]))
        read_from = read_at_sizes(plan.video, sizes, plan.stride, plan.limit, start, damage)
        if not is_resumed:
            read_from = _refuse_hopeless(read_from, sampling.window_size, damage, plan)

        def append(depth: NDArray[np.float32]) -> None:
            with clock.measure("write", frames=0):
                spool.append(depth)
                if live:
                    live.tell(spool.num_frames)

        def commit(state: WindowState | None, between_shots: bool = False, **notes: Any) -> None:
            kept = clock.notes() | {"damage": vars(damage), "shots": shots} | notes
            with clock.measure("write", frames=0):
                kept |= _synced(plan)
                self._check_lease()
                spool.commit(state, kept, between_shots=between_shots)
                give_back_freed()
            self._tell(events.WindowDone(_frames_done(spool)))

        with (
            live or nullcontext(),
            Behind(WRITE_BEHIND) as writer,
            early,
            closing(read_from),
            ahead(early.watch(clock.timed("read", read_from)), _frames_ahead(plan, sampling)) as read,
        ):
            for nth, frames in enumerate(_by_shot(read, shots)):
                if nth > 0:
                    writer.submit(commit, None, True)
                depths = self.model(
                    frames,
                    sampling,
                    noise=Noise(sampling.seed),
                    progress=clock.add,
                    resume_from=None if nth > 0 else state,
                    on_window=lambda state: writer.submit(commit, state),
                )
                for depth in depths:
                    writer.submit(append, depth)
            writer.submit(partial(commit, early=early.finish()), None)
        if live:
            live.finish(self._check_not_cancelled)
        # Decoding has the last word on the number of frames: a stream may hold a few that cannot be shown.
        if spool.num_frames == 0:
            if plan.video.pipe:
                raise UserError("No frame came on standard input; the program that is to write them may say why.")
            raise UserError(f"No frame of {plan.video.path} could be decoded; copy or download it again.")


def _synced(plan: Plan) -> dict[str, int]:
    """What the spool's state counts of a pipe, which is on the disk before it; nothing of files."""
    match plan.video.pipe:
        case Pipe() as pipe:
            return {"piped": pipe.sync()}
        case Kept(pipe=pipe):
            return {"piped": pipe.num_kept}
    return {}


def _by_shot(frames: Iterable[tuple[int, Frame]], starts: Sequence[int]) -> Iterator[Iterator[Frame]]:
    """The frames of each shot, of numbered ones; a shot that lost its first begins with the next that there is."""
    for _, shot in groupby(frames, lambda numbered: bisect_right(starts, numbered[0])):
        yield (frame for _, frame in shot)


def _frames_done(spool: Spool) -> int:
    """Frames up to where a run would be resumed: those before the next window."""
    return spool.shot_start + (spool.state.start if spool.state else 0)


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
