"""`dc-rt infer`: a batch of videos, one after the other, with whatever goes wrong with one said of that one."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path
from typing import Any

import typer

from dc_rt.cli.models import Models, NothingRuns
from dc_rt.cli.progress import progress
from dc_rt.cli.terminal import complain, sentence_of
from dc_rt.engine.discovery import find_candidates
from dc_rt.errors import UserError
from dc_rt.job import Job, JobCancelled, plan_video
from dc_rt.job.targets import Targets, check_batch
from dc_rt.options import Outputs, Sampling, Source

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 3.0


def infer_all(
    videos: Sequence[Path],
    engines: Path | None,
    backend: str,
    opened_with: Mapping[str, Any],
    save_folder: Path,
    restart: bool,
    sampling: Sampling,
    source: Source,
    outputs: Outputs,
) -> None:
    """Run all videos that can be run; raises `typer.Exit` with status 1 if one could not."""
    batch = [Targets.of(video, save_folder, outputs) for video in videos]
    check_batch(batch)
    # Said before any work, so that whoever gave the command is still there to hear it; the other videos are run.
    able = [targets for targets in batch if _succeeds(targets.video, partial(targets.check, outputs.overwrite))]
    if not able:
        raise typer.Exit(1)
    models = Models(find_candidates(engines), backend, **opened_with)

    def run_video(video: Path) -> None:
        plan = plan_video(video, source)
        model = models.for_video(plan, sampling, source)
        with progress() as shown:
            job = Job(model, plan.video, sampling, source, outputs, save_folder, restart=restart, listener=shown.hear)
            _run(job)

    done = [targets for targets in able if _succeeds(targets.video, partial(run_video, targets.video))]
    models.close()
    if len(done) < len(videos):
        raise typer.Exit(1)


def _run(job: Job) -> None:
    """Run a job until it ends or Ctrl-C cancels it, which ends this process; a second one ends it at once.

    The job is in a thread of its own: the main one, which Ctrl-C is told to, would not hear it while a graph runs.
    """
    outcome: Future[object] = Future()

    def run() -> None:
        try:
            outcome.set_result(job.run())
        except BaseException as error:
            outcome.set_exception(error)

    try:
        try:
            threading.Thread(target=run, name="job", daemon=True).start()
            _wait(outcome)
        except KeyboardInterrupt:
            job.cancel()
            _wait(outcome, _PATIENCE_SECONDS)
            if not outcome.done():
                print(
                    "It stops when the graph under way ends; Ctrl-C again leaves at once.", file=sys.stderr, flush=True
                )
            _wait(outcome)
    except KeyboardInterrupt:
        _leave(job)
    try:
        outcome.result()
    except JobCancelled:
        _leave(job)
    except OSError as error:
        kept = "; what was done is kept, and the same command resumes it" if job.is_resumable else ""
        raise UserError(f"The results cannot be written ({error}){kept}.") from error


def _wait(outcome: Future[object], seconds: float = float("inf")) -> None:
    # Not without a time limit: on Windows nothing interrupts that.
    while not outcome.done() and seconds > 0:
        wait([outcome], timeout=_POLL_SECONDS)
        seconds -= _POLL_SECONDS


def _leave(job: Job) -> None:
    """End this process, whatever the threads are at: a spool can be resumed from any instant."""
    if job.is_resumable:
        message = "the same command resumes it, --restart starts over"
    else:
        message = f"nothing of {job.plan.video.path} was kept"
    print(f"Interrupted; {message}.", file=sys.stderr, flush=True)
    os._exit(130)


def _succeeds(video: Path, step: Callable[[], None]) -> bool:
    """Whether a step of one video's goes well; if not, it is said why, and the other videos are run."""
    try:
        step()
        return True
    except NothingRuns:
        raise
    except (UserError, OSError) as error:
        complain(sentence_of(error))
    except Exception:
        traceback.print_exc()
        complain(f"{video} failed through a fault in dc-rt itself; please report it with the lines above.")
    return False
