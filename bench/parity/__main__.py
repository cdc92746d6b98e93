"""Where two backends differ: their depth side by side, and their error for every graph, window and step.

    python -m bench.parity onnx eager
    python -m bench.parity onnx:engines/fp16 onnx:engines/fp32 --video clip.mp4
    python -m bench.parity reference rounded --engines engines/nano-512x256 --size 512x256 --frames 16

"reference" is PyTorch in float32 whatever the engines' precision, and "rounded" runs ONNX graphs on the CPU with every
float16 value rounded, as on a GPU (rounding.py).

Both run the same frames with the same noise, and two errors are told apart (compare.py): the local one shows where a
difference arises, the accumulated one what becomes of it. Prints both by graph, window and step; writes
bench/results/parity.json and parity.png: frames, both depths, the error's maps, and its course over frames, windows
and steps.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console

from bench.clips import DEFAULT_SIZE, DEFAULT_WINDOW, DEMO, clip_frames, nearest_size, parse_size
from bench.parity.compare import compare
from bench.parity.report import draw, report
from bench.parity.rounding import load_rounded
from bench.records import RESULTS, write_record
from bench.speed.backends import BACKENDS, load_reference, quieten
from dc_rt.engine import EngineSet
from dc_rt.engine.discovery import choose_engines
from dc_rt.errors import UserError
from dc_rt.options import Sampling, default_overlap, record

REFERENCE, ROUNDED = "reference", "rounded"
NAMES = (*BACKENDS, REFERENCE, ROUNDED)


def open_backend(text: str, default: Path) -> EngineSet:
    """Engines of "BACKEND" or "BACKEND:FOLDER"; raises `UserError` where this machine cannot run them."""
    name, _, folder = text.partition(":")
    if name not in NAMES:
        raise UserError(f"There is no backend {name!r}; choose one of {', '.join(NAMES)}.")
    engines = Path(folder) if folder else default
    if name == REFERENCE:
        return load_reference(engines)
    if name == ROUNDED:
        return load_rounded(engines).engines
    if reason := BACKENDS[name].missing(engines):
        raise UserError(f"{BACKENDS[name].title} cannot run {engines} here: {reason}.")
    return BACKENDS[name].load(engines)


def main() -> None:
    """Compare, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("backends", nargs=2, metavar="BACKEND[:ENGINES]", help=f"each one of {', '.join(NAMES)}")
    parser.add_argument("--engines", type=Path, help="engine set where a backend names none")
    parser.add_argument("--video", type=Path, default=DEMO)
    parser.add_argument(
        "--size", type=parse_size, metavar="WIDTHxHEIGHT", help="320x192, or the nearest that the first backend runs"
    )
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--window", type=int, default=DEFAULT_WINDOW)
    parser.add_argument("--overlap", type=int, help="25 of 110 frames of the window unless given")
    parser.add_argument("--steps", type=int, default=Sampling.steps)
    parser.add_argument("--guidance-scale", type=float, default=Sampling.guidance_scale)
    parser.add_argument("--seed", type=int, default=Sampling.seed)
    parser.add_argument("--name", default="parity", help="of the results")
    arguments = parser.parse_args()
    names = (arguments.backends[0], arguments.backends[1])
    quieten()
    try:
        sampling = Sampling(
            steps=arguments.steps,
            guidance_scale=arguments.guidance_scale,
            window_size=arguments.window,
            overlap=default_overlap(arguments.window) if arguments.overlap is None else arguments.overlap,
            seed=arguments.seed,
        )
        default = choose_engines(arguments.engines)[0]
        one, other = (open_backend(text, default) for text in names)
        height, width = arguments.size or nearest_size(one.manifest.profile, DEFAULT_SIZE)
        frames = list(clip_frames(arguments.video, height, width, arguments.frames))
        found = compare(one, other, frames, sampling)
    except UserError as error:
        raise SystemExit(str(error)) from None

    report(found, names, Console())
    difference = np.abs(found.depth - found.other)
    measured = {
        "backends": [text.partition(":")[0] for text in names],
        "models": [f"{engines.manifest.model.name}, {engines.manifest.precision}" for engines in (one, other)],
        "frames": len(frames),
        "size": f"{width}x{height}",
        "options": record(sampling),
        "depth": {"mean": float(difference.mean()), "max": float(difference.max())},
        "by_place": [
            {**vars(place), "local": vars(found.local[place]), "accumulated": vars(found.accumulated[place])}
            for place in found.local
        ],
    }
    write_record(measured, arguments.name)
    draw(found, frames, names, RESULTS / f"{arguments.name}.png")


if __name__ == "__main__":
    main()
