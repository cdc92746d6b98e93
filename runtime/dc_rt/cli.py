"""The command `dc-rt`."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, NoReturn, Self, TypeVar

import typer

from dc_rt.errors import UserError
from dc_rt.streams import protect_streams
from dc_rt.terminal import can_redraw, complain

if TYPE_CHECKING:
    from dc_rt.engine.discovery import Candidates, Choice
    from dc_rt.job import Options, Plan
    from dc_rt.pipeline import DepthCrafter
    from dc_rt.spool import SpoolLock

T = TypeVar("T")

app = typer.Typer(
    name="dc-rt",
    help="Consistent depth for long videos: DepthCrafter on ONNX Runtime or TensorRT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

PLAIN_SECONDS = 5.0  # between progress lines where there is no terminal


@app.command()
def infer(
    # That a video or folder cannot be read is not for the parser to say, which would end the batch.
    videos: Annotated[
        list[Path], typer.Argument(metavar="VIDEO...", readable=False, help="Video files, or folders of images.")
    ],
    engines: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Engine set; else $DC_RT_ENGINES, else the newest in ./engines that runs the video, else the bundled.",
        ),
    ] = None,
    backend: Annotated[str, typer.Option(metavar="auto|onnx|tensorrt|torch", help="What runs the engines.")] = "auto",
    save_folder: Annotated[Path, typer.Option(readable=False, help="Where the results go.")] = Path("./demo_output"),
    process_length: Annotated[int, typer.Option(help="Frames to process at most; -1 for all.")] = -1,
    target_fps: Annotated[
        float, typer.Option(help="Take every n-th frame, for about this frame rate; -1 for all.")
    ] = -1,
    max_res: Annotated[int, typer.Option(help="Largest height or width to process at, in pixels.")] = 1024,
    dataset: Annotated[
        str,
        typer.Option(metavar="open|sintel|scannet|KITTI|bonn|NYUv2", help="Size preset; open follows the video."),
    ] = "open",
    window_size: Annotated[int, typer.Option(help="Frames denoised together.")] = 110,
    overlap: Annotated[int, typer.Option(help="Frames that neighbouring windows share.")] = 25,
    num_denoising_steps: Annotated[
        int, typer.Option("--num-denoising-steps", "--num-inference-steps", help="Denoising steps.")
    ] = 5,
    guidance_scale: Annotated[float, typer.Option(help="Classifier-free guidance; up to 1 there is none.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 42,
    save_npz: Annotated[bool, typer.Option("--save-npz", help="Also write NAME.npz: depth, float32 [T,H,W].")] = False,
    save_exr: Annotated[bool, typer.Option("--save-exr", help="Also write NAME/frame_0000.exr, channel Z.")] = False,
    save_png: Annotated[bool, typer.Option("--save-png", help="Also write NAME/frame_0000.png, 16-bit.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Throw away what an unfinished run did.")] = False,
    keep_spool: Annotated[bool, typer.Option("--keep-spool", help="Leave the raw depth beside the results.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that dc-rt did not write.")] = False,
    cpu_offload: Annotated[
        str,
        typer.Option(metavar="none|model|sequential", help="Save memory: one engine at a time, or streamed weights."),
    ] = "none",
) -> None:
    """Estimate the depth of videos: NAME_depth.mp4, NAME_vis.mp4, NAME_input.mp4 and NAME.json of each."""
    from dc_rt.engine.discovery import find_candidates
    from dc_rt.job import Options, plan_video, run_job
    from dc_rt.targets import Targets, check_batch

    options = Options(
        process_length=process_length,
        target_fps=target_fps,
        max_res=max_res,
        dataset=dataset,
        window_size=window_size,
        overlap=overlap,
        num_denoising_steps=num_denoising_steps,
        guidance_scale=guidance_scale,
        seed=seed,
        save_npz=save_npz,
        save_exr=save_exr,
        save_png=save_png,
    )
    options.check()
    batch = [Targets.of(video, save_folder, options) for video in videos]
    check_batch(batch)
    # Said before any work, so that whoever gave the command is still there to hear it; the other videos are run.
    able = [targets for targets in batch if _succeeds(targets.video, partial(targets.check, overwrite))]
    if not able:
        raise typer.Exit(1)
    models = _Models(find_candidates(engines), backend, cpu_offload)

    def run_video(targets: Targets) -> None:
        plan = plan_video(targets.video, options)
        run = partial(
            run_job,
            models.for_video(plan, options),
            save_folder=save_folder,
            options=options,
            restart=restart,
            keep_spool=keep_spool,
            overwrite=overwrite,
        )
        _run_video(run, plan, options, targets.spool)

    done = [targets for targets in able if _succeeds(targets.video, partial(run_video, targets))]
    models.close()
    if len(done) < len(videos):
        raise typer.Exit(1)


@app.command()
def doctor() -> None:
    """Print what this machine can run, and what to do for more."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from dc_rt.doctor import examine

    table = Table(box=None, pad_edge=False)
    for column in ("", "what", "found", "to do"):
        table.add_column(column, overflow="fold")
    for finding in examine():
        mark = "[green]ok" if finding.ok else "[yellow]--"
        table.add_row(mark, *(escape(text) for text in (finding.what, finding.found, finding.advice)))
    Console().print(table)


def main() -> None:
    """Run the command line: what a user can cause is one sentence and exit status 1."""
    output = protect_streams()
    status: str | int | None = 1
    try:
        app()
    except SystemExit as end:
        status = end.code
    except (UserError, OSError) as error:
        complain(_sentence(error))
    sys.stdout.flush()
    # A reader that has left, as `head` does, has what it wanted; but what should have been kept and was not is a fault.
    # Windows has EINVAL for a closed pipe.
    if output and output.error and output.error.errno not in (errno.EPIPE, errno.EINVAL):
        status = status or 1
    sys.exit(status)


def _succeeds(video: Path, step: Callable[[], None]) -> bool:
    """Whether a step of one video's goes well; if not, it is said why, and the other videos can be gone on with."""
    try:
        step()
        return True
    except _NothingRuns:
        raise
    except (UserError, OSError) as error:
        complain(_sentence(error))
    except Exception:
        traceback.print_exc()
        complain(f"{video} failed through a fault in dc-rt itself; please report it with the lines above.")
    return False


def _sentence(error: UserError | OSError) -> str:
    if isinstance(error, OSError):
        return f"A file cannot be read or written ({error}); check its name, its permissions and the disk."
    return str(error)


def _run_video(run: Callable[..., list[Path]], plan: Plan, options: Options, spool: Path) -> None:
    """Run one video and say what becomes of it; raises `UserError` with the sentence for what went wrong."""
    from dc_rt.spool import SpoolLock, is_begun

    _say(
        f"{plan.source.path}: {plan.num_frames} of {plan.source.num_frames} frames, "
        f"{plan.source.width}x{plan.source.height} at {float(plan.source.fps):.4g} frames/s -> "
        f"{plan.width}x{plan.height} at {float(plan.fps):.4g} frames/s"
    )
    for note in plan.source.notes:
        _say(f"  {note}")
    began = time.perf_counter()
    lock = SpoolLock(spool)
    try:
        with _progress(plan, options) as progress:
            results = _interruptible(
                partial(run, plan=plan, progress=progress.add, tell=lambda line: _say(f"  {line}"), lock=lock)
            )
    except OSError as error:
        kept = "; what was done is kept, and the same command goes on from there" if is_begun(spool) else ""
        raise UserError(f"The results cannot be written ({error}){kept}.") from error
    except KeyboardInterrupt:
        _stop(plan, lock)
    seconds = time.perf_counter() - began
    _say(f"{progress.num_written} frames in {seconds:.1f} s, {1000 * seconds / progress.num_written:.0f} ms/frame")
    for result in results:
        _say(f"  {result}")


class _NothingRuns(UserError):
    """The engines cannot be opened, so that no video can be run."""


class _Models:
    """The model that runs a video: the one that is open while it can, else that of the newest set which can."""

    def __init__(self, candidates: Candidates, backend: str, cpu_offload: str) -> None:
        self._candidates = candidates
        self._backend = backend
        self._cpu_offload = cpu_offload
        self._choice: Choice | None = None
        self._model: DepthCrafter | None = None

    def for_video(self, plan: Plan, options: Options) -> DepthCrafter:
        """The model, opened and told of if it is another than the last video's.

        Raises:
            _NothingRuns: it is the first one, and cannot be opened.
            UserError: no set that may be used can run the video, or another than the last video's cannot be opened.
        """
        from dc_rt.engine.discovery import Wanted, choose
        from dc_rt.job import check_plan
        from dc_rt.media import output_size

        source = plan.source
        size_at = partial(output_size, source.height, source.width) if options.dataset == "open" else None
        wanted = Wanted(plan.height, plan.width, options.window_size, options.overlap, options.max_res, size_at)
        choice = choose(self._candidates, wanted, self._backend, self._choice)
        if self._model is None or choice != self._choice:
            self._model = self._open(choice)
        check_plan(self._model, plan, options)
        return self._model

    def close(self) -> None:
        """Close the model that is open."""
        if self._model:
            self._model.engines.close()
        self._model = None

    def _open(self, choice: Choice) -> DepthCrafter:
        from dc_rt.pipeline import DepthCrafter

        self.close()
        first, self._choice = self._choice is None, choice
        try:
            model = DepthCrafter.load(choice.folder, self._backend, cpu_offload=self._cpu_offload)
        except UserError as error:
            if first:
                raise _NothingRuns(str(error)) from error
            raise
        engines = model.engines
        why_not = f"; not TensorRT, as {engines.why_not_tensorrt}" if engines.why_not_tensorrt else ""
        runs = f"{engines.backend} on {engines.device}"
        _say(f"Model {engines.manifest.model.name} ({engines.manifest.precision}), {runs}{why_not}")
        _say(f"Engines {choice.folder}: {choice.reason}")
        if first:
            for folder, sentence in self._candidates.skipped.items():
                _say(f"  {folder} is left out: {sentence}")
        return model


def _interruptible(call: Callable[[], T]) -> T:
    """Run `call` in a thread, so that Ctrl-C is heard at once: the main thread would not hear it while a graph runs."""
    outcome: Future[T] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name="job", daemon=True).start()
    while not outcome.done():
        # Not `result()` without a time limit: on Windows nothing interrupts that.
        wait([outcome], timeout=0.2)
    return outcome.result()


def _stop(plan: Plan, lock: SpoolLock) -> NoReturn:
    """Leave at once, whatever the threads are at: a spool can be gone on from at any instant."""
    if lock.abandon():
        message = "the same command goes on where it was, --restart starts over"
    elif lock.finished:
        message = f"the results of {plan.source.path} are there"
    else:
        message = f"nothing of {plan.source.path} was kept"
    print(f"Interrupted; {message}.", file=sys.stderr, flush=True)
    os._exit(130)


def _say(line: str) -> None:
    print(line, flush=True)


class _Progress(AbstractContextManager["_Progress"]):
    """How far a video is: by denoised frames, most of the work, and by decoded ones."""

    def __init__(self, plan: Plan, options: Options) -> None:
        self._frames = plan.num_frames
        self._total = plan.denoiser_frames(options) + 2 * plan.num_frames
        self._done = 0
        self._finished_frames = self._resumed = 0
        self.num_written = 0
        self._began = time.perf_counter()

    def add(self, stage: str, frames: int, seconds: float) -> None:
        """Hear of a stage's work; see `dc_rt.pipeline.Progress`."""
        if stage == "resumed":
            _say(f"  going on after frame {frames} of an unfinished run")
            self._total -= round(self._total * frames / self._frames)
            self._finished_frames = self._resumed = frames
        if stage in ("denoiser", "vae_encoder", "vae_decoder"):
            self._done += frames
        if stage == "vae_decoder":
            self._finished_frames += frames
        if stage == "write":
            self.num_written += frames
        self._show()

    def _status(self) -> tuple[float, str]:
        """Share of the work done, and frames, frames per second and time left in words."""
        elapsed = time.perf_counter() - self._began
        share = min(self._done / self._total, 1.0) if self._total else 1.0
        left = f"{_clock(elapsed / share - elapsed)} left" if share > 0 else "starting"
        rate = share * (self._frames - self._resumed) / elapsed if elapsed > 0 else 0.0
        return share, f"{self._finished_frames}/{self._frames} frames, {rate:.2f} frames/s, {left}"

    def _show(self) -> None:
        raise NotImplementedError

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Nothing to close unless a bar is drawn."""


class _Bar(_Progress):
    """On a terminal that can: a bar that is drawn anew."""

    def __enter__(self) -> Self:
        from rich.progress import BarColumn, Progress, TextColumn

        self._bar = Progress(BarColumn(), TextColumn("{task.percentage:>3.0f} %  {task.fields[status]}"))
        self._bar.start()
        self._task = self._bar.add_task("", total=1.0, status="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.stop()

    def _show(self) -> None:
        share, status = self._status()
        self._bar.update(self._task, completed=share, status=status)


class _Lines(_Progress):
    """Elsewhere (a log, a pipe): a plain line every few seconds."""

    _last = 0.0

    def _show(self) -> None:
        now = time.perf_counter()
        if now - max(self._last, self._began) >= PLAIN_SECONDS:
            self._last = now
            share, status = self._status()
            _say(f"{100 * share:3.0f} %  {status}")


def _progress(plan: Plan, options: Options) -> _Progress:
    return (_Bar if can_redraw(sys.stdout) else _Lines)(plan, options)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


if __name__ == "__main__":
    main()
