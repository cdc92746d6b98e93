"""The steps of the check: what each needs, and how it is run in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.children import ChildFailed, each_apart
from bench.gpu_check import block, build, ceilings, end_to_end, latency, load, parity, unet, vae
from bench.gpu_check.models import Check, Sizes
from bench.gpu_check.needs import EXPORTING, REFERENCE, lacking
from bench.gpu_check.rows import FAILED, SKIPPED, Row
from bench.speed.backends import BACKENDS
from dc_rt.engine.discovery import BUNDLED

STEP_SECONDS = 470.0
"""That a step may take: with the start of its process less than eight minutes."""

OF_THE_MACHINE: dict[str, tuple[Callable[[Sizes], Iterator[Row]], tuple[str, ...]]] = {
    "ceilings": (ceilings.measure, ("torch",)),
    "block": (block.measure, REFERENCE),
    "unet": (unet.measure_eager, REFERENCE),
    "unet-compiled": (unet.measure_compiled, REFERENCE),
    "vae": (vae.measure, REFERENCE),
}
"""Steps that need no engines, and the modules that they need beside ours."""

OF_A_MODEL = ("graphs", "build", "load", "parity", "latency")

END_TO_END = "end-to-end"
OF_A_BACKEND = tuple(f"{END_TO_END}-{name}" for name in BACKENDS)

STEPS = (*OF_THE_MACHINE, *OF_A_MODEL, *OF_A_BACKEND)
"""In the order that they are done in, and stand in the table; each can be asked for alone."""


@dataclass(frozen=True)
class Options:
    """What the command line says to the steps of a model.

    Attributes:
        engines: a set whose graphs are there, in the place of the model's.
        video: what is run.
        depth_target: mean error of the depth.
        fresh: whether the latency has one model on the GPU at a time.
        results: folder; `label` is a part of the files' names.
        dry_run: whether the CPU stands for a GPU.
    """

    engines: Path | None
    video: Path
    depth_target: float
    fresh: bool
    results: Path
    label: str
    dry_run: bool


def machine_step(step: str, sizes: Sizes) -> Iterator[Row]:
    """The rows of a step that needs no engines."""
    measure, needs = OF_THE_MACHINE[step]
    yield from _in_a_process(step, needs, measure, sizes)


def backend_step(backend: str, check: Check, options: Options, sizes: Sizes) -> Iterator[Row]:
    """The rows of the whole video on one backend. In a dry run it is the bundled model's: its graphs are there."""
    engines = options.engines or (BUNDLED if options.dry_run else None)
    title = BACKENDS[backend].title
    yield from _in_a_process(title, (), end_to_end.measure, backend, check, engines, options.video, sizes)


def model_step(step: str, check: Check, backend: str | None, options: Options) -> Iterator[Row]:
    """The rows of a step of a model; `backend` is what its step `load` found."""
    given = options.engines is not None
    which = (options.engines or check.folder, given)
    if step == "graphs":
        return _in_a_process(step, EXPORTING, build.graphs_step, check, *which)
    if step == "build":
        return _in_a_process(step, EXPORTING, build.build_step, check, *which)
    if step == "load":
        return _in_a_process(step, (), load.load_step, *which, options.dry_run)
    if step == "parity":
        settings: tuple[Any, ...] = (options.video, options.depth_target, options.dry_run)
        return _in_a_process(step, REFERENCE, parity.parity_step, check, *which, backend, *settings)
    settings = (options.video, options.fresh, options.results, options.label)
    return _in_a_process(step, (), latency.latency_step, check, *which, backend, *settings)


def _in_a_process(
    step: str, needs: tuple[str, ...], function: Callable[..., Iterator[Row]], *arguments: Any
) -> Iterator[Row]:
    """What `function(*arguments)` yields in a process of its own; what goes wrong is its last row."""
    if reason := lacking(needs):
        yield Row(step, SKIPPED, note=reason)
        return
    try:
        yield from each_apart(function, *arguments, seconds=STEP_SECONDS)
    except ChildFailed as error:
        yield Row(step, FAILED, note=str(error))
