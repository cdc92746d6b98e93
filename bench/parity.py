"""Where two backends differ: their depth side by side, and their error for every graph, window and step.

    python bench/parity.py onnx eager
    python bench/parity.py onnx:engines/fp16 onnx:engines/fp32 --video clip.mp4
    python bench/parity.py reference rounded --engines engines/nano-512x256 --size 512x256 --frames 16

"reference" is PyTorch in float32 whatever the engines' precision, and "rounded" runs ONNX graphs on the CPU with every
float16 value rounded, as on a GPU (bench/rounding.py).

Both run the same frames with the same noise. Two errors are told apart. The *local* one gives both the inputs that
the first one had: a difference shows where it arises, and nowhere else. The *accumulated* one is between their own
runs: it shows what becomes of the difference. Prints both by graph, window and step; writes bench/results/parity.json
and parity.png: frames, both depths, the error's maps, and its course over frames, windows and steps.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from backends import BACKENDS, Call, Float, load_reference, quieten, wrap
from dc_rt import DepthCrafter, Noise
from dc_rt.engine import GRAPHS, Array, EngineSet
from dc_rt.engine.discovery import choose_engines
from dc_rt.errors import UserError
from latency import DEFAULT_SIZE, DEMO, RESULTS, nearest_size, parse_size
from rounding import load_rounded
from worker import clip_frames

REFERENCE, ROUNDED = "reference", "rounded"
NAMES = (*BACKENDS, REFERENCE, ROUNDED)


@dataclass(frozen=True)
class Options:
    """Of the model."""

    steps: int = 5
    guidance_scale: float = 1.0
    window_size: int = 16
    overlap: int = 3
    seed: int = 42


@dataclass(frozen=True)
class Place:
    """A run of a graph in the course of a video; `step` is 0 for all but the denoiser."""

    graph: str
    window: int
    step: int


@dataclass(frozen=True)
class Error:
    """Mean and largest absolute difference of a graph's output, and its own root mean square to compare them with."""

    mean: float
    max: float
    scale: float

    @classmethod
    def between(cls, actual: Float, expected: Float) -> Error:
        difference = np.abs(actual - expected)
        return cls(float(difference.mean()), float(difference.max()), float(np.sqrt(np.square(expected).mean())))

    @classmethod
    def over(cls, errors: Sequence[Error]) -> Error:
        """Of several runs at one place: chunks of a window, or both halves of a guided step."""
        means, largest, scales = zip(*((error.mean, error.max, error.scale) for error in errors), strict=True)
        return cls(float(np.mean(means)), max(largest), float(np.mean(scales)))


@dataclass(frozen=True)
class Comparison:
    """Depth of both, float32 [T,H,W], and their errors by place."""

    depth: Float
    other: Float
    local: dict[Place, Error]
    accumulated: dict[Place, Error]

    @property
    def worst(self) -> Place:
        """Where the largest difference arises, for the size of what is computed there."""
        return max(self.local, key=lambda place: self.local[place].max / (self.local[place].scale or 1.0))


def compare(one: EngineSet, other: EngineSet, frames: Sequence[NDArray[np.uint8]], options: Options) -> Comparison:
    """Run `one` with `other` beside it on the same inputs, then `other` on its own.

    The outputs of the first run are kept for the second: beside the depth 16 MB a window and step at 1024x576.
    """
    local: dict[Place, list[Error]] = {}
    accumulated: dict[Place, list[Error]] = {}
    kept: list[Float] = []

    def beside(place: Place, inputs: Mapping[str, Array], run: Call) -> Float:
        output = run(place.graph, inputs)
        local.setdefault(place, []).append(Error.between(other(place.graph, **inputs), output))
        kept.append(output)
        return output

    depth = _run(one, frames, options, beside)
    remaining = iter(kept)

    def alone(place: Place, inputs: Mapping[str, Array], run: Call) -> Float:
        output = run(place.graph, inputs)
        accumulated.setdefault(place, []).append(Error.between(output, next(remaining)))
        return output

    other_depth = _run(other, frames, options, alone)
    return Comparison(
        depth,
        other_depth,
        {place: Error.over(errors) for place, errors in local.items()},
        {place: Error.over(errors) for place, errors in accumulated.items()},
    )


def _run(
    engines: EngineSet,
    frames: Sequence[NDArray[np.uint8]],
    options: Options,
    around: Callable[[Place, Mapping[str, Array], Call], Float],
) -> Float:
    """Depth of `frames`, every run of a graph going through `around`, which is told where in the video it is."""
    per_step = 2 if options.guidance_scale > 1 else 1
    denoised = 0

    def located(graph: str, inputs: Mapping[str, Array], run: Call) -> Float:
        nonlocal denoised
        window, call = divmod(denoised, options.steps * per_step)
        if graph == "denoiser":
            denoised += 1
        # A window is decoded once all of its steps are done, and so counts as over by then.
        place = Place(graph, window - (graph == "vae_decoder"), call // per_step)
        return around(place, inputs, run)

    depths = DepthCrafter(wrap(engines, located))(
        frames,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
        window_size=options.window_size,
        overlap=options.overlap,
        noise=Noise(options.seed),
    )
    return np.stack(list(depths))


def by_window_and_step(errors: Mapping[Place, Error]) -> Float:
    """The denoiser's largest errors: float32 [windows, steps]."""
    places = [place for place in errors if place.graph == "denoiser"]
    shape = (1 + max(place.window for place in places), 1 + max(place.step for place in places))
    table = np.zeros(shape, np.float32)
    for place in places:
        table[place.window, place.step] = errors[place].max
    return table


def report(comparison: Comparison, names: tuple[str, str], console: Console) -> None:
    """Both errors by graph, window and step."""
    table = Table("graph", "window", "step", "local mean, max", "accumulated mean, max", "own size")
    table.title = f"{names[0]} and {names[1]}: absolute differences of every graph's output"
    order = sorted(comparison.local, key=lambda place: (place.window, GRAPHS.index(place.graph), place.step))
    for place in order:
        local = comparison.local[place]
        both = (f"{error.mean:.1e}, {error.max:.1e}" for error in (local, comparison.accumulated[place]))
        step = str(place.step) if place.graph == "denoiser" else ""
        table.add_row(place.graph, str(place.window), step, *both, f"{local.scale:.2g}")
    console.print(table)
    difference = np.abs(comparison.depth - comparison.other)
    console.print(
        f"depth: mean {difference.mean():.2e}, max {difference.max():.2e} in frame {_worst_frame(difference)}; "
        f"the largest difference for the size of what it is in arises in {_in_words(comparison.worst)}",
        soft_wrap=True,
    )


def draw(
    comparison: Comparison,
    frames: Sequence[NDArray[np.uint8]],
    names: tuple[str, str],
    path: Path,
    num_maps: int = 4,
) -> None:
    """Frames with both depths and their difference, the worst frame among them; below, the course of the error."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    difference = np.abs(comparison.depth - comparison.other)
    spaced = np.linspace(0, len(frames) - 1, min(num_maps, len(frames))).round().astype(int)
    shown = sorted({*spaced.tolist(), _worst_frame(difference)})
    figure = plt.figure(figsize=(11, 1.9 * len(shown) + 3.2), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1.9 * len(shown), 3.2))
    largest = float(difference.max()) or 1.0
    low, high = float(comparison.depth.min()), float(comparison.depth.max())
    above, below = halves
    for row, index in zip(above.subplots(len(shown), 4, squeeze=False), shown, strict=True):
        row[0].imshow(frames[index])
        row[1].imshow(comparison.depth[index], cmap="inferno", vmin=low, vmax=high)
        row[2].imshow(comparison.other[index], cmap="inferno", vmin=low, vmax=high)
        error_map = row[3].imshow(difference[index], cmap="viridis", vmin=0, vmax=largest)
        above.colorbar(error_map, ax=row[3], format="%.1e")
        row[0].set_ylabel(f"frame {index}", fontsize=9)
        for axes, title in zip(row, ("input", *names, "difference"), strict=True):
            axes.set_title(title if index == shown[0] else "", fontsize=9)
            axes.set(xticks=[], yticks=[])

    over_frames, local, accumulated = below.subplots(1, 3)
    over_frames.plot(difference.mean(axis=(1, 2)), label="mean")
    over_frames.plot(difference.max(axis=(1, 2)), label="max")
    over_frames.set(xlabel="frame", title="depth")
    over_frames.set_yscale("symlog", linthresh=1e-8)
    over_frames.set_ylim(0, None)
    over_frames.legend(fontsize=8)
    for axes, errors, title in (
        (local, comparison.local, "denoiser, local max"),
        (accumulated, comparison.accumulated, "denoiser, accumulated max"),
    ):
        table = by_window_and_step(errors)
        picture = axes.imshow(table, aspect="auto", cmap="viridis", vmin=0, vmax=float(table.max()) or 1.0)
        axes.set(xlabel="step", ylabel="window", title=title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.get_major_locator().set_params(integer=True)
        below.colorbar(picture, ax=axes, format="%.1e")
    figure.savefig(path, dpi=110)
    plt.close(figure)


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


def _worst_frame(difference: Float) -> int:
    return int(difference.max(axis=(1, 2)).argmax())


def _in_words(place: Place) -> str:
    step = f", step {place.step}" if place.graph == "denoiser" else ""
    return f"{place.graph}, window {place.window}{step}"


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
    parser.add_argument("--window", type=int, default=16)
    parser.add_argument("--overlap", type=int, help="25 of 110 frames of the window unless given")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--guidance-scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--name", default="parity", help="of the results")
    arguments = parser.parse_args()
    overlap = arguments.window * 25 // 110 if arguments.overlap is None else arguments.overlap
    options = Options(arguments.steps, arguments.guidance_scale, arguments.window, overlap, arguments.seed)
    names = (arguments.backends[0], arguments.backends[1])
    quieten()
    try:
        default = choose_engines(arguments.engines)[0]
        one, other = (open_backend(text, default) for text in names)
        height, width = arguments.size or nearest_size(one.manifest.profile, DEFAULT_SIZE)
        frames = list(clip_frames(arguments.video, height, width, arguments.frames))
        comparison = compare(one, other, frames, options)
    except UserError as error:
        raise SystemExit(str(error)) from None

    report(comparison, names, Console())
    RESULTS.mkdir(exist_ok=True)
    draw(comparison, frames, names, RESULTS / f"{arguments.name}.png")
    difference = np.abs(comparison.depth - comparison.other)
    record = {
        "backends": [text.partition(":")[0] for text in names],
        "models": [f"{engines.manifest.model.name}, {engines.manifest.precision}" for engines in (one, other)],
        "frames": len(frames),
        "size": f"{width}x{height}",
        "options": vars(options),
        "depth": {"mean": float(difference.mean()), "max": float(difference.max())},
        "by_place": [
            {**vars(place), "local": vars(comparison.local[place]), "accumulated": vars(comparison.accumulated[place])}
            for place in comparison.local
        ],
    }
    (RESULTS / f"{arguments.name}.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
