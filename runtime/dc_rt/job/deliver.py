"""Results from a raw file: the second pass of a `Job`, without the first one and without a model."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from dc_rt.errors import UserError, option
from dc_rt.job import events
from dc_rt.job.early import Early
from dc_rt.job.events import Listener
from dc_rt.job.forecast import check_space, disk_need
from dc_rt.job.job import Runs
from dc_rt.job.kept import damage_of, options_of, origin_of_kept, plan_of, with_video
from dc_rt.job.plan import Plan
from dc_rt.job.record import Clock, record_of
from dc_rt.job.results import empty_folder, finish, takers_of_video, write_results
from dc_rt.job.spool import MOVED, SpoolLock, is_resumable
from dc_rt.job.targets import Targets, check_batch, text
from dc_rt.job.writers import check_writers, stream_of
from dc_rt.media.raw import RawFile
from dc_rt.media.results import check_values
from dc_rt.options import Outputs, record
from dc_rt.outputs import RAW


class FromRaw(Runs):
    """Files that are made from a raw file. It runs once; a run that ends early leaves nothing to be resumed."""

    def __init__(
        self,
        raw: str | Path,
        outputs: Outputs,
        save_folder: str | Path,
        source: str | Path | None,
        listener: Listener | None,
    ) -> None:
        self._raw = Path(raw)
        self._source = None if source is None else Path(source)
        self.outputs = outputs
        with RawFile(self._raw) as file:
            self.plan: Plan = plan_of(file)
            self._origin, self._options = origin_of_kept(file), options_of(file)
            self._targets = self._targets_in(Path(save_folder))
            check_batch([self._targets])
            self._targets.check(outputs.overwrite)
            self.plan = replace(self.plan, called=self._targets.name)
            if takers := self._takers():
                self.plan = with_video(self.plan, file, self._source, " and ".join(takers))
            video = self._source or self.plan.video.path
            if takers or os.path.lexists(video):
                check_batch([replace(self._targets, video=video)])
            self._check(file)
            self._notes = (*self.plan.video.notes, *damage_of(file).describe())
        super().__init__(self._targets.spool, listener)

    @property
    def is_resumable(self) -> bool:
        """Never: to begin again costs next to nothing."""
        return False

    def discard(self) -> None:
        """Remove what a run that was killed left; the spool of an unfinished job of the same name is not its."""
        if not is_resumable(self._spool):
            super().discard()

    def run(self) -> list[Path]:
        """Do it.

        Returns:
            The files and folders of frames that were written, `NAME.json` last.

        Raises:
            UserError: the raw file or the video is damaged, another run is at the same results, or the disk is too
                small.
            OSError: the disk refuses.
            JobCancelled: `cancel` was called.
        """
        self._begin()
        return self._followed(self._run)

    def cancel(self) -> None:
        """End the run soon, from any thread; nothing is left of it."""
        self._cancelled.set()

    def _run(self) -> list[Path]:
        clock = Clock(self._tell)
        plan = self.plan
        size = plan.result_size(self.outputs)
        self._tell(
            events.Planned(
                text(self._raw),
                plan.num_frames,
                plan.height,
                plan.width,
                float(plan.fps),
                plan.num_frames,
                *size,
                float(plan.fps),
                0,
                (*self._notes, *self._notes_on_outputs()),
            )
        )
        with RawFile(self._raw) as file, self._staging() as staging:
            contents, numbers = self._write(staging, file, clock)
            results = finish(staging, self._targets, contents, self.outputs.overwrite, is_kept=False)
        self._tell_end(events.Finished(tuple(map(str, results)), len(numbers), clock.seconds_of_this_run))
        return results

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """An empty folder for results, where no other run works. Only the spool of an unfinished job outlives it."""
        targets = self._targets
        lock = SpoolLock(targets.spool)
        is_done = False
        try:
            targets.remember_moves()
            check_space(targets.save_folder, self.plan, disk_need(self.plan, self.outputs, self.plan.num_frames))
            yield empty_folder(targets.spool / "results")
            is_done = True
        finally:
            with suppress(OSError):  # a disk that is full
                targets.remember_moves()
            shutil.rmtree(targets.spool / "results", ignore_errors=True)
            if is_resumable(targets.spool):
                lock.release()
            else:
                lock.delete(keep=None if is_done else MOVED)

    def _targets_in(self, save_folder: Path) -> Targets:
        """Where the results go."""
        raise NotImplementedError

    def _check(self, file: RawFile) -> None:
        """Raise `UserError` where the results cannot be written, as far as that is known beforehand."""

    def _takers(self) -> tuple[str, ...]:
        """What takes pictures or sound of the video, in words."""
        return takers_of_video(self.plan, self.outputs, self.plan.rows(self.outputs))

    def _notes_on_outputs(self) -> Iterator[str]:
        """What is to be said of what will be written."""
        return iter(())

    def _record(self, file: RawFile, numbers: list[int], clock: Clock) -> dict[str, Any]:
        """What `NAME.json` says, once all is written."""
        options = self._options | record(self.outputs)
        return record_of(self._origin, self.plan, self.outputs, options, file, numbers, clock)

    def _write(self, staging: Path, file: RawFile, clock: Clock) -> tuple[dict[str, Any], list[int]]:
        """Write all results; gives what the record says, and the numbers of the frames."""
        raise NotImplementedError


class Delivery(FromRaw):
    """Results of a kept run: the same bytes, but for `NAME.json`, as those of a `Job` with the same options."""

    def __init__(
        self,
        raw: str | Path,
        outputs: Outputs | None = None,
        save_folder: str | Path = "demo_output",
        *,
        source: str | Path | None = None,
        stream: BinaryIO | None = None,
        listener: Listener | None = None,
    ) -> None:
        """Look at the raw file, at where results go, and at the video where its pictures or sound are needed.

        Args:
            raw: a file that a run with `keep="raw"` left; results are called as it is.
            outputs: what is written.
            save_folder: where the results go, made if need be.
            source: where the video is now, if not where it was.
            stream: where the output `-` goes; standard output unless given.
            listener: is told of all that happens (`dc_rt.job.events`).

        Raises:
            UserError: the raw file cannot be read, the video is needed and is not there or is another one, an output
                cannot be written, or something would be overwritten.
        """
        outputs = outputs or Outputs()
        self._stream = stream_of(outputs, stream)
        if RAW in (row.name for row in outputs.rows):
            raise UserError(f"{raw} is a raw file already, and stays; leave {option('keep', 'raw')} out.")
        super().__init__(raw, outputs, save_folder, source, listener)

    def _targets_in(self, save_folder: Path) -> Targets:
        return Targets.with_sound(self._raw, save_folder, self.outputs, self.plan.video.sound)

    def _check(self, file: RawFile) -> None:
        check_writers(self.plan, self.outputs)
        check_values(self.outputs, file.shots)

    def _notes_on_outputs(self) -> Iterator[str]:
        return self.plan.notes_on_outputs(self.outputs)

    def _write(self, staging: Path, file: RawFile, clock: Clock) -> tuple[dict[str, Any], list[int]]:
        numbers = write_results(staging, self.plan, self.outputs, file, Early(), clock, stream=self._stream)
        return self._record(file, numbers, clock), numbers


def deliver(
    raw: str | Path,
    outputs: Outputs | None = None,
    save_folder: str | Path = "demo_output",
    *,
    source: str | Path | None = None,
    listener: Listener | None = None,
) -> list[Path]:
    """Write results from a raw file; arguments, results and errors are those of `Delivery` and its `run`."""
    return Delivery(raw, outputs, save_folder, source=source, listener=listener).run()
