"""A whole video, two windows that share frames, by backend and sampler: time of every stage, and peak GPU memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.gpu_check.manifests import has_graphs, prepared
from bench.gpu_check.models import Check, Sizes
from bench.gpu_check.rows import MEASURED, SKIPPED, Row
from bench.speed import gpu_memory
from bench.speed.backends import BACKENDS, ON_REQUEST
from dc_rt.errors import UserError
from dc_rt.sampler import SAMPLERS

ON_THE_CPU = "onnx"


def backends(dry_run: bool) -> tuple[str, ...]:
    """Those that run on a GPU; in a dry run those that run anywhere, and compile nothing."""
    names = [name for name in BACKENDS if name not in ON_REQUEST]
    left_out = {"compile"} if dry_run else {ON_THE_CPU}
    return tuple(name for name in names if name not in left_out)


def measure(backend: str, check: Check, engines: Path | None, video: Path, sizes: Sizes) -> Iterator[Row]:
    """A row a sampler of the runtime, and one of the memory.

    Args:
        backend: a name of `BACKENDS`.
        check: the model, whose set is taken where one is built, and for PyTorch else its prepared manifest.
        engines: another engine set, in the place of the model's.
        video: taken over and over where it is too short.
        sizes: of the frames and windows.
    """
    from bench.speed.worker import Run, Task, open_backend, peak_memory, run_task

    folder = engines or check.folder
    if reason := _missing(backend, folder):
        yield Row(BACKENDS[backend].title, SKIPPED, note=reason)
        return
    if not engines and not has_graphs(folder):
        folder = prepared(check)
    opened = open_backend(backend, folder)
    task = Task(folder, video, sizes.height, sizes.width, sizes.video, sizes.sampling)
    # All shapes are met once, so that what is compiled or tuned at first sight is no part of what follows.
    run_task(backend, replace(task, sampling=replace(task.sampling, steps=1)), None)

    def details(run: Run) -> str:
        stages = ", ".join(f"{stage} {1000 * seconds / task.frames:.1f}" for stage, seconds in run.seconds.items())
        return f"ms/frame: {stages}; on {opened.device}"

    window = f"{task.frames} frames, window {task.sampling.window_size}, overlap {task.sampling.overlap}"
    for sampler in SAMPLERS:
        run = run_task(backend, replace(task, sampling=replace(task.sampling, sampler=sampler)), None)
        value = f"{1000 * run.model / task.frames:.1f} ms/frame"
        yield Row(f"{opened.title}, {sampler}", MEASURED, value, note=f"{window}; {details(run)}")
    memory = peak_memory()
    if memory.gpu is None:
        yield Row(f"{opened.title}, peak GPU memory", SKIPPED, note=gpu_memory.missing() or "")
    else:
        yield Row(f"{opened.title}, peak GPU memory", MEASURED, f"{memory.gpu:.0f} MB", note=f"of the {memory.gpu_of}")


def _missing(backend: str, folder: Path) -> str | None:
    """In words, what this machine lacks to run the set; None where it lacks nothing."""
    way = BACKENDS[backend]
    needs_graphs = way.runtime_name in ("onnx", "tensorrt")
    if needs_graphs and not has_graphs(folder):
        return "the model's graphs are not exported (make gpu-check GPU_CHECK_FLAGS='--only build')"
    try:
        return way.missing(folder)
    except UserError as error:
        return str(error)
