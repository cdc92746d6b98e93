"""A video is looked through before it waits in the queue: in a process of its own, which can crash, hang and be killed.

The process reads what to check, in JSON, from its standard input, and writes what it found, in JSON, to its standard
output. What decoders print goes to standard error.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dc_rt.errors import UserError, option
from dc_rt.models import ModelOptions, Models
from dc_rt.options import Options
from dc_rt.serve.names import without_paths
from dc_rt.serve.settings import Limits

log = logging.getLogger(__name__)

AT_ONCE = 2
"""Videos that are looked through at once: each takes a process, and its memory."""

_DECODER_THREADS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Check:
    """What is to be checked.

    Attributes:
        video: its path.
        shown: what it is called in sentences.
        options: of the run, by name.
        model: of `dc_rt.models.ModelOptions`, by name.
        save_folder: where the results will go.
        roots: that the links of a folder of images must stay in; none of a file that was sent.
        num_frames, num_steps, num_pixels, free_bytes: of `Limits`.
        seconds: that it may take.
    """

    video: str
    shown: str
    options: Mapping[str, Any]
    model: Mapping[str, Any]
    save_folder: str
    roots: tuple[str, ...]
    num_frames: int
    num_steps: int
    num_pixels: int
    free_bytes: float
    seconds: float

    @classmethod
    def within(
        cls,
        limits: Limits,
        video: Path,
        shown: str,
        options: Mapping[str, Any],
        model: ModelOptions,
        save_folder: Path,
        roots: Sequence[Path] = (),
    ) -> Check:
        """What is to be checked of a video that must keep within `limits`."""
        return cls(
            str(video),
            shown,
            options,
            asdict(model),
            str(save_folder),
            tuple(map(str, roots)),
            limits.num_frames,
            limits.num_steps,
            limits.num_pixels,
            limits.free_bytes,
            limits.check_seconds,
        )


@dataclass(frozen=True)
class Found:
    """What a video is: frames of the results, height and width as it is shown."""

    num_frames: int
    height: int
    width: int


class DiskFull(UserError):
    """The disk has no room for what a run would write."""


def check(what: Check) -> Found:
    """Look a video through.

    Raises:
        DiskFull: the results have no room.
        UserError: it cannot be run with these options, or is larger than is taken, or takes longer to look through.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "dc_rt.serve.checks"],
            input=json.dumps(asdict(what)),
            capture_output=True,
            env=os.environ | _DECODER_THREADS,
            text=True,
            errors="replace",
            timeout=what.seconds,
            check=False,
            start_new_session=True,  # so that Ctrl-C on a terminal is for the service to hear
        )
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{what.shown} could not be looked through within {what.seconds:g} seconds; send a shorter one."
        ) from None
    if done.returncode != 0:
        log.warning("looking %s through ended with status %d: %s", what.video, done.returncode, done.stderr[-2000:])
        raise UserError(f"{what.shown} cannot be looked through: the decoder fails on it; convert it to H.264 first.")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "refused" in answer:
        kind = DiskFull if answer.get("is_disk") else UserError
        raise kind(answer["refused"])
    return Found(**answer["found"])


def _look(what: Check) -> Found:
    """The child's side; raises as `check` does."""
    from dc_rt.job.forecast import disk_need
    from dc_rt.job.plan import plan_video
    from dc_rt.job.writers import check_writers
    from dc_rt.serve.kinds import check_images, check_video

    path, options = Path(what.video), Options.by_name(what.options)
    if options.sampling.steps > what.num_steps:
        raise UserError(f"{option('steps')} may be {what.num_steps} here at most, not {options.sampling.steps}.")
    if path.is_dir():
        check_images(path, what.shown, tuple(map(Path, what.roots)))
    else:
        check_video(path, what.shown)
    plan = plan_video(path, options.source)
    if plan.num_frames > what.num_frames:
        raise UserError(
            f"{what.shown} would have {plan.num_frames} frames estimated, and at most {what.num_frames} are; take "
            f"fewer with {option('process_length', what.num_frames)}."
        )
    _check_pixels(what.shown, plan.video.height, plan.video.width, what.num_pixels)
    _check_pixels(f"A result of {what.shown}", *plan.result_size(options.outputs), what.num_pixels)
    check_writers(plan, options.outputs)
    models = Models(ModelOptions(**what.model), lambda _: None)
    plan = models.prepare(plan, options.sampling, options.source).plan
    if disk_need(plan, options.outputs) + what.free_bytes > shutil.disk_usage(what.save_folder).free:
        raise DiskFull(f"The disk has no room for the results of {what.shown}; try again when there is some.")
    return Found(plan.num_frames, plan.video.height, plan.video.width)


def _check_pixels(what: str, height: int, width: int, most: int) -> None:
    if height * width > most:
        raise UserError(f"{what} has {width}x{height} pixels, and at most {most:,} are taken; make it smaller first.")


def _main() -> None:
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    what = Check(**json.loads(sys.stdin.read()))
    if hasattr(signal, "alarm"):  # so that it ends where the service was killed meanwhile and a decoder hangs
        signal.alarm(math.ceil(what.seconds) + 1)
    try:
        answer: dict[str, Any] = {"found": asdict(_look(what))}
    except UserError as error:
        hidden = without_paths(error.sentence, {what.video: what.shown, what.save_folder: "the job's folder"})
        answer = {"refused": hidden, "is_disk": isinstance(error, DiskFull)}
    channel.write(json.dumps(answer))
    channel.close()


if __name__ == "__main__":
    _main()
