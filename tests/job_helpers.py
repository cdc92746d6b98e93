"""Jobs as tests run them: options by name, and what happens as plain calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from dc_rt import DepthCrafter, Job, Outputs, Sampling, Source
from dc_rt.job import Event, Progressed, Resumed, Warned
from dc_rt.options import default_outputs

OnStage = Callable[[str, int, float], None]


class Chosen(NamedTuple):
    """The options of a job."""

    sampling: Sampling
    source: Source
    outputs: Outputs


def choose(*more_outputs: str, **values: Any) -> Chosen:
    """Options by name, of whichever kind; the default outputs, and more."""

    def of(kind: type[Any]) -> Any:
        return kind(**{field.name: values[field.name] for field in dataclasses.fields(kind) if field.name in values})

    outputs = dataclasses.replace(of(Outputs), names=(*default_outputs(), *more_outputs))
    return Chosen(of(Sampling), of(Source), outputs)


def run_job(
    model: DepthCrafter,
    video: Path,
    folder: Path,
    chosen: Chosen,
    progress: OnStage | None = None,
    *,
    tell: Callable[[str], None] | None = None,
    restart: bool = False,
    **outputs: Any,
) -> list[Path]:
    """Run one; `progress` hears of every stage, and of "resumed", `tell` of every warning."""

    def listen(event: Event) -> None:
        match event:
            case Progressed(stage, num_frames, seconds) if progress:
                progress(stage, num_frames, seconds)
            case Resumed(num_frames) if progress:
                progress("resumed", num_frames, 0.0)
            case Warned(sentence) if tell:
                tell(sentence)

    sampling, source, kept = chosen
    wanted = dataclasses.replace(kept, **outputs)
    return Job(model, video, sampling, source, wanted, folder, restart=restart, listener=listen).run()


class Fault(Exception):
    """Raised by a test amid a run."""


def fail_at(stage: str, count: int, error: type[Exception] = Fault) -> OnStage:
    """A progress callback that raises at the `count`th report of `stage`: as an engine or a disk would."""
    seen = 0

    def progress(name: str, frames: int, seconds: float) -> None:
        nonlocal seen
        seen += name == stage
        if name == stage and seen == count:
            raise error

    return progress
