"""`dc-rt infer`: a batch of videos, one after the other, with whatever goes wrong with one said of that one."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import typer

from dc_rt.cli.event_lines import EventLines
from dc_rt.cli.preview import described
from dc_rt.cli.progress import progress
from dc_rt.cli.terminal import complain, say, sentence_of
from dc_rt.engine.discovery import find_candidates
from dc_rt.errors import UserError, option
from dc_rt.gpu import check_card_is_here, find_card
from dc_rt.job import Job, JobCancelled, plan_video
from dc_rt.job.deliver import FromRaw
from dc_rt.job.forecast import fit, foretell, set_up
from dc_rt.job.pace import WholeRun
from dc_rt.job.targets import Targets, check_batch
from dc_rt.job.writers import check_writers
from dc_rt.media.pipe import is_pipe
from dc_rt.media.read_images import is_image
from dc_rt.media.sequence import is_pattern, matching
from dc_rt.models import ModelOptions, Models, NothingRuns, fitted
from dc_rt.options import Outputs, Sampling, Source
from dc_rt.outputs import STREAM

_POLL_SECONDS = 0.2
_PATIENCE_SECONDS = 3.0


@dataclass(frozen=True)
class Ways:
    """How videos are run, beside the options that decide the results: as the command line has it.

    `stream` is where the output `-` goes, `lines` where what happens is told to another program.
    """

    models: ModelOptions
    save_folder: Path
    restart: bool
    stream: BinaryIO | None = None
    lines: EventLines | None = None


def infer_all(videos: Sequence[Path], ways: Ways, sampling: Sampling, source: Source, outputs: Outputs) -> None:
    """Run all videos that can be run; raises `typer.Exit` with status 1 if one could not."""
    check_card_is_here()
    # Said before any work, so that whoever gave the command is still there to hear it; the other videos are run.
    lines, videos = ways.lines, _meant(videos)
    able = _able(videos, ways, outputs)
    models = Models(ways.models, lambda lines: say(*lines))

    def run_video(video: Path) -> None:
        prepared = models.prepare(plan_video(video, source), sampling, source)
        if prepared.note:
            say(f"  {prepared.note}")
        model = models.open(prepared)
        with progress() as shown:
            heard = WholeRun(lines.also(video, shown.hear) if lines else shown.hear)
            job = Job(
                model,
                prepared.plan.video,
                sampling,
                prepared.source,
                outputs,
                ways.save_folder,
                restart=ways.restart,
                stream=ways.stream,
                listener=heard.hear,
            )
            run_to_its_end(job, partial(lines.cancel, videos) if lines else None)
        if heard.seconds and not (prepared.plan.video.pipe or ways.stream):  # whose other ends may have been waited for
            models.remember(prepared, job.plan, sampling, heard.seconds)

    done = [each.video for each in able if succeeds(each.video, partial(run_video, each.video), lines)]
    models.close()
    if len(done) < len(videos):
        raise typer.Exit(1)


def preview_all(videos: Sequence[Path], ways: Ways, sampling: Sampling, source: Source, outputs: Outputs) -> None:
    """Say of all videos what running them would take; raises `typer.Exit` with status 1 if one could not be run."""
    videos = _meant(videos)
    if any(map(is_pipe, videos)):
        raise UserError(
            f"{option('dry_run', True)} looks at files, and what comes through a pipe is gone once it was looked at; "
            "name a file, or leave it out."
        )
    able = _able(videos, ways, outputs)
    asked_for = ways.models
    candidates, card = find_candidates(Path(asked_for.engines) if asked_for.engines else None), find_card()

    def preview_video(video: Path) -> None:
        began = time.perf_counter()
        plan = plan_video(video, source)
        asked = (candidates, plan, sampling, source, asked_for.backend, asked_for.cpu_offload)
        setup = fit(*asked, card) if asked_for.fit else set_up(*asked)
        check_writers(setup.plan, outputs)
        forecast = foretell(setup, sampling, outputs, ways.save_folder, card)
        for line in described(forecast, sampling, outputs, ways.save_folder):
            say(line)
        if asked_for.fit:
            say(f"  {fitted(setup, source)}")
        say(f"  looked at in {time.perf_counter() - began:.2f} s; nothing was written")
        if forecast.problem:
            raise UserError(forecast.problem)

    done = [targets for targets in able if succeeds(targets.video, partial(preview_video, targets.video))]
    if len(done) < len(videos):
        raise typer.Exit(1)


def _meant(typed: Sequence[Path]) -> list[Path]:
    """The videos that were typed: a name with `*` that means others than images means each of them, as in a shell."""
    videos: list[Path] = []
    for path in typed:
        files = matching(path) if is_pattern(path) else []
        videos += [path] if all(map(is_image, files)) else files
    if len(videos) > 1 and all(map(is_image, videos)) and not any(map(is_pattern, videos)):
        say(f"{len(videos)} images are taken for videos of one frame each; a sequence of them is one name in quotes.")
    return videos


def _able(videos: Sequence[Path], ways: Ways, outputs: Outputs) -> list[Targets]:
    """The videos whose results can be written; of the others it is said why."""
    ways.models.check()
    check_stream(outputs, videos)
    batch = [Targets.of(video, ways.save_folder, outputs) for video in videos]
    check_batch(batch)
    able = [each for each in batch if succeeds(each.video, partial(each.check, outputs.overwrite), ways.lines)]
    if not able:
        raise typer.Exit(1)
    return able


def check_stream(outputs: Outputs, videos: Sequence[Path]) -> None:
    """Raise `UserError` where several videos would go to one stream."""
    if STREAM in outputs.names and len(videos) > 1:
        raise UserError(f"{option('outputs', '-')} is one stream, for one video; run the {len(videos)} one by one.")


def run_to_its_end(job: Job | FromRaw, tell_leaving: Callable[[bool], None] | None = None) -> None:
    """Run a job until it ends or Ctrl-C cancels it, which ends this process; a second one ends it at once.

    `tell_leaving` is called before that, with whether the job is resumable. The job is in a thread of its own: the main
    one, which Ctrl-C is told to, would not hear it while a graph runs.
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
        _leave(job, tell_leaving)
    try:
        outcome.result()
    except JobCancelled:
        _leave(job, tell_leaving)
    except OSError as error:
        kept = "; what was done is kept, and the same command resumes it" if job.is_resumable else ""
        if isinstance(error, BrokenPipeError):
            raise UserError(f"The reader of standard output has left before the end{kept}.") from error
        raise UserError(f"The results cannot be written ({error}){kept}.") from error


def _wait(outcome: Future[object], seconds: float = float("inf")) -> None:
    # Not without a time limit: on Windows nothing interrupts that.
    while not outcome.done() and seconds > 0:
        wait([outcome], timeout=_POLL_SECONDS)
        seconds -= _POLL_SECONDS


def _leave(job: Job | FromRaw, tell_leaving: Callable[[bool], None] | None) -> None:
    """End this process, whatever the threads are at: a spool can be resumed from any instant."""
    if tell_leaving:
        tell_leaving(job.is_resumable)
    if job.is_resumable:
        message = "the same command resumes it, --restart starts over"
    else:
        message = f"nothing of {job.plan.video.path} was kept"
    print(f"Interrupted; {message}.", file=sys.stderr, flush=True)
    os._exit(130)


def succeeds(video: Path, step: Callable[[], None], lines: EventLines | None = None) -> bool:
    """Whether a step of one video's goes well; if not, it is said why, and the other videos are run."""
    try:
        step()
        return True
    except NothingRuns:
        raise
    except (UserError, OSError) as error:
        if lines:
            lines.fail(video, error)
        complain(sentence_of(error))
    except Exception as error:
        if lines:
            lines.fail(video, error)
        traceback.print_exc()
        complain(f"{video} failed through a fault in dc-rt itself; please report it with the lines above.")
    return False
