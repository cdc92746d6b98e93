"""Everything that has to be tried on a GPU: its ceilings, the networks, engines and whole videos are measured.

    make gpu-check                                  # or, with an interpreter that has all it takes: PYTHON_GPU=python3
    python -m bench.gpu_check --only ceilings,unet
    python -m bench.gpu_check --only build,parity --model nano
    python -m bench.gpu_check --dry-run             # the same on the CPU, tiny: no GPU is needed

Steps take less than eight minutes each, in any order, and one that fails does not end the others. Each runs in a
process of its own, and a row is printed the moment it is measured. Of the machine, with random weights of real size:

ceilings       copying, products of matrices by precision, attention by kernel, the temporal convolution in 2-D and 3-D.
block          one block of the UNet at level 0: eager, compiled, channels_last, fp8.
unet           an evaluation of the whole UNet at windows of 110, 64 and 16 frames; unet-compiled likewise.
vae            encoder and decoder, by precision, 8 and 16 frames at a time.
end-to-end     195 frames, two windows that share 25, by sampler, and the process's peak GPU memory. A step a backend:
               end-to-end-eager, for example; what runs on engines is left out until they are built.

Of each model (nano, and random weights of the real size):

graphs         exports the graphs; what is there already, and up to date, is kept.
build          builds their engines: TensorRT's where it is installed, else TensorRT-RTX's. It goes on where it ended.
load           opens the engines and runs a frame. Where TensorRT cannot be had on this GPU, its error is recorded, and
               ONNX Runtime's CUDA provider takes its place.
parity         every graph beside the float32 reference in PyTorch on the GPU, on the same inputs; then a whole clip,
               and frames at the extremes of what can be put in. Without engines PyTorch in half precision is compared.
latency        bench/latency.py: the engines, PyTorch eager in float16 and torch.compile, taking turns.

Prints one table: what was measured, what passed, missed its target or failed, and what was left out and why. Writes it
to bench/results/gpu-check-GPU.json and .md, where the results of separate calls come together, a step's last ones each.
The exit status is 1 where a step of this call failed or missed its target. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from bench.children import sentence
from bench.clips import DEMO
from bench.gpu_check import end_to_end
from bench.gpu_check.models import BUILD_FOLDER, CHECKS, DRY, DRY_CHECKS, FULL, ROOT, Check, Excerpt
from bench.gpu_check.parity import DEPTH_TARGET
from bench.gpu_check.record import Record, line, report
from bench.gpu_check.rows import FAILED, MISSED, Row
from bench.gpu_check.steps import (
    END_TO_END,
    OF_A_BACKEND,
    OF_A_MODEL,
    OF_THE_MACHINE,
    STEPS,
    Options,
    backend_step,
    machine_step,
    model_step,
)
from bench.records import RESULTS
from bench.speed.backends import BACKENDS, quieten
from dc_export.profiles import load_profile

DRY_RUN = "dry-run"
# Whose networks the steps of the machine measure, and what the whole video is run with.
MEASURED_MODEL, DRY_MODEL, DRY_VIDEO_MODEL = "random-full", "random-tiny", "nano"

GROUPS = {END_TO_END: OF_A_BACKEND}
STEPS_HELP = f"of {','.join(STEPS)}; {END_TO_END} is all that begin so"


class Session:
    """The steps of one call, one after the other: rows are printed and recorded as they come.

    Attributes:
        good: whether no row so far has failed or missed its target.
    """

    def __init__(self, record: Record, console: Console) -> None:
        self.good = True
        self._record = record
        self._console = console

    def do(self, model: str, step: str, rows: Iterable[Row]) -> None:
        """Take a step to its end, whatever becomes of it."""
        self._console.rule(f"{model}: {step}")
        began = time.perf_counter()
        done: list[Row] = []
        for row in _to_the_end(step, rows):
            # Paths are this machine's own.
            done.append(dataclasses.replace(row, note=row.note.replace(f"{ROOT}{os.sep}", "")))
            self._record.add(model, step, done, time.perf_counter() - began)
            self._console.print(line(model, step, asdict(done[-1])), markup=False, highlight=False, soft_wrap=True)
        self.good &= not any(row.status in (MISSED, FAILED) for row in done)


def _to_the_end(step: str, rows: Iterable[Row]) -> Iterator[Row]:
    """The rows, and where no more can be had, why not."""
    try:
        yield from rows
    except Exception as error:  # a step that fails does not end the others
        yield Row(step, FAILED, note=sentence(error))


def run(arguments: argparse.Namespace, session: Session, record: Record) -> None:
    """All wanted steps: those of the machine, then those of each model, then the whole videos."""
    dry_run, only = arguments.dry_run, arguments.only
    sizes, checks = (DRY, DRY_CHECKS) if dry_run else (FULL, CHECKS)
    options = Options(
        arguments.engines,
        arguments.video,
        arguments.depth_target,
        arguments.fresh,
        arguments.results,
        record.path.stem.removeprefix("gpu-check-"),
        dry_run,
    )
    for step in OF_THE_MACHINE:
        if step in only:
            session.do(DRY_MODEL if dry_run else MEASURED_MODEL, step, machine_step(step, sizes))
    for name in arguments.model:
        _run_model(with_options(checks[name], arguments), options, only, session, record)
    check = checks[DRY_VIDEO_MODEL if dry_run else MEASURED_MODEL]
    for backend in end_to_end.backends(dry_run):
        if (step := f"{END_TO_END}-{backend}") in only:
            session.do(check.name, step, backend_step(backend, check, options, sizes))


def _run_model(check: Check, options: Options, only: Sequence[str], session: Session, record: Record) -> None:
    """The wanted steps of a model."""
    # What the others run on depends on what `load` finds.
    needs_load = bool({"parity", "latency"} & set(only)) and ("build" in only or not record.backend(check.name))
    for step in OF_A_MODEL:
        if step in only or (step == "load" and needs_load):
            session.do(check.name, step, model_step(step, check, record.backend(check.name), options))


def gpu_name() -> str | None:
    """Of the GPU that PyTorch, and so the reference, would use; None where there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def slug(name: str) -> str:
    """A name of a GPU as part of a file's: "nvidia-h100-80gb-hbm3", for example."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def with_options(check: Check, arguments: argparse.Namespace) -> Check:
    """The check at the sizes that the options ask for; targets hold at the full size, and stay."""

    def excerpt(old: Excerpt, frames: int | None, window: int | None) -> Excerpt:
        frames = frames or old.frames
        return Excerpt(
            frames, min(window or old.window, load_profile(check.profile).frames.max), arguments.steps or old.steps
        )

    return dataclasses.replace(
        check,
        parity=excerpt(check.parity, arguments.parity_frames, arguments.parity_window),
        latency=excerpt(check.latency, arguments.frames, arguments.window),
        runs=arguments.runs or check.runs,
        backends=tuple(arguments.backends) if arguments.backends else check.backends,
    )


def _comma_separated(known: Iterable[str], groups: Mapping[str, Iterable[str]]) -> Callable[[str], list[str]]:
    def parse(text: str) -> list[str]:
        names = [name for word in text.split(",") for name in groups.get(word, (word,))]
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"there is no {', '.join(sorted(unknown))}; choose of {', '.join(known)}")
        return names

    return parse


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, of the command line unless given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    models = tuple(dict.fromkeys((*CHECKS, *DRY_CHECKS)))
    parser.add_argument("--dry-run", action="store_true", help="the same on the CPU, small: needs no GPU")
    parser.add_argument("--only", type=_comma_separated(STEPS, GROUPS), default=list(STEPS), help=STEPS_HELP)
    parser.add_argument("--model", type=_comma_separated(models, {}), help=f"of {','.join(models)}")
    parser.add_argument("--engines", type=Path, help="a set whose graphs are there, in the place of a model's")
    parser.add_argument("--video", type=Path, default=DEMO, help="taken over and over where it is too short")
    parser.add_argument("--parity-frames", type=int)
    parser.add_argument("--parity-window", type=int)
    parser.add_argument("--frames", type=int, help="of the latency; the window too, where it is smaller")
    parser.add_argument("--window", type=int, help="of the latency")
    parser.add_argument("--steps", type=int, help="of parity and latency")
    parser.add_argument("--runs", type=int, help="of the latency: 3 of nano, 1 of random-full and in a dry run")
    fresh = "of the latency: one model on the GPU at a time"
    parser.add_argument("--fresh", action=argparse.BooleanOptionalAction, default=True, help=fresh)
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, help="that the engines' latency is compared with")
    parser.add_argument("--depth-target", type=float, default=DEPTH_TARGET, help="mean error of the depth")
    parser.add_argument("--results", type=Path, help="folder; bench/results, in a dry run build/gpu-check")
    arguments = parser.parse_args(words)
    checks = DRY_CHECKS if arguments.dry_run else CHECKS
    arguments.model = arguments.model or ([next(iter(checks))] if arguments.dry_run else list(checks))
    if unknown := set(arguments.model) - set(checks):
        parser.error(f"{', '.join(sorted(unknown))} is for {'a GPU' if arguments.dry_run else 'a dry run'}")
    if arguments.engines and len(arguments.model) > 1:
        parser.error("--engines is one model: name it with --model")
    arguments.results = arguments.results or (BUILD_FOLDER if arguments.dry_run else RESULTS)
    return arguments


def main(words: Sequence[str] | None = None) -> int:
    """Do the steps, print and write the table; the exit status."""
    arguments = parse(words)
    quieten()
    if arguments.dry_run:
        # The very same on a machine that has a GPU.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        # Of work this small, threads would do nothing but wait for one another.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        gpu: str | None = "Dry run on the CPU: nothing here tells of a GPU"
    else:
        gpu = gpu_name()
    if gpu is None:
        print("PyTorch finds no GPU here; check `nvidia-smi`, or try --dry-run, which needs none.", file=sys.stderr)
        return 1
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # a log, which is to be read later
    record = Record(arguments.results, DRY_RUN if arguments.dry_run else slug(gpu), gpu)
    session = Session(record, console)
    run(arguments, session, record)
    report(record.contents, console)
    console.print(f"{record.path} and .md have this.", soft_wrap=True)
    return 0 if session.good else 1


if __name__ == "__main__":
    sys.exit(main())
