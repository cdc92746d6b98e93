"""Time and memory against the number of frames, the resolution, the window and the steps.

    python -m bench.speed.scaling

One of the four is varied at a time, the others as the options say. Every run is in a process of its own, after a
warm-up; medians count, and the largest memory. Runs go in rounds over all values and backends, so that a noisy machine
hurts all alike. Prints what was measured and how it grows; writes bench/results/scaling.json and scaling-frames.png,
scaling-resolution.png, scaling-window.png and scaling-steps.png.

The PyTorch rows go through the same loop over windows as the others, so that their memory does not grow with the frames
either; `python -m bench.soak.memory` compares with the reference's own loop, which holds a whole video.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.children import ChildFailed
from bench.clips import parse_size
from bench.records import RESULTS, pyplot, write_record
from bench.speed.backends import BACKENDS, EAGER, quieten
from bench.speed.latency import add_task_options, choose_backends, in_record, task_from
from bench.speed.machine import describe, in_words, versions
from bench.speed.worker import BackendProcess, Task
from dc_rt.engine import Manifest
from dc_rt.errors import UserError


@dataclass(frozen=True)
class Growth:
    """How y grows with x, by least squares: as a power, y ~ x^exponent, and as a line, y = constant + slope x.

    `r_squared` is of the power: the share of the variance of log y that it explains; 1 where y does not vary.
    """

    exponent: float
    r_squared: float
    constant: float
    slope: float


@dataclass(frozen=True)
class Point:
    """A value of what is varied, the seconds of all runs, and the largest memory in MB."""

    x: float
    seconds: tuple[float, ...]
    memory_mb: float
    gpu_memory_mb: float | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


AXES: dict[str, str] = {
    "frames": "frames",
    "resolution": "pixels a frame",
    "window": "frames of a window",
    "steps": "denoising steps",
}


def fit_growth(x: Sequence[float], y: Sequence[float]) -> Growth:
    """Fit measurements, all above 0, of at least two different x."""
    if len(set(x)) < 2:
        raise ValueError("Growth needs at least two different values.")
    log_x, log_y = np.log(x), np.log(y)
    exponent, offset = np.polyfit(log_x, log_y, 1)
    variation = float(np.square(log_y - log_y.mean()).sum())
    rest = float(np.square(log_y - offset - exponent * log_x).sum())
    slope, constant = np.polyfit(np.asarray(x, float), np.asarray(y, float), 1)
    # Rounding alone makes a tiny variation of values that are all the same.
    explained = 1 - rest / variation if variation > 1e-12 else 1.0
    return Growth(float(exponent), explained, float(constant), float(slope))


def tasks_along(axis: str, base: Task, values: Sequence[Any]) -> list[tuple[float, Task]]:
    """The tasks of one series, each with the x of its point."""
    sampling = base.sampling
    change: dict[str, Callable[[Any], Task]] = {
        "frames": lambda value: replace(base, frames=value),
        "resolution": lambda value: replace(base, height=value[0], width=value[1]),
        # Of every window the same share is overlap, so that about the same number of frames is denoised in all.
        "window": lambda value: replace(
            base,
            sampling=replace(sampling, window_size=value, overlap=value * sampling.overlap // sampling.window_size),
        ),
        "steps": lambda value: replace(base, sampling=replace(sampling, steps=value)),
    }
    tasks = [change[axis](value) for value in values]
    return [
        (task.height * task.width if axis == "resolution" else value, task)
        for value, task in zip(values, tasks, strict=True)
    ]


def measure(tasks: Sequence[tuple[float, Task]], names: Sequence[str], runs: int) -> dict[str, list[Point]]:
    """The points of one series for every backend, as many as succeed."""
    seconds: dict[tuple[str, float], list[float]] = {}
    memory: dict[tuple[str, float], tuple[float, float | None]] = {}
    failed: set[tuple[str, float]] = set()
    for _ in range(runs):
        for x, task in tasks:
            for name in names:
                if (name, x) in failed:
                    continue
                try:
                    with BackendProcess(name, task) as process:
                        process.run()
                        seconds.setdefault((name, x), []).append(process.run().total)
                        peak = process.memory()
                except ChildFailed as error:
                    print(f"{BACKENDS[name].title} at {x:g}: {error}", flush=True)
                    failed.add((name, x))
                    continue
                host, gpu = memory.get((name, x), (0.0, None))
                memory[name, x] = (max(host, peak.host), max(gpu or 0.0, peak.gpu) if peak.gpu is not None else None)
    return {
        name: [
            Point(x, tuple(seconds[name, x]), *memory[name, x])
            for x, _ in tasks
            if (name, x) in memory and (name, x) not in failed
        ]
        for name in names
    }


def in_a_sentence(growth: Growth, what: str, unit: str, of: str) -> str:
    """ "time ~ frames^0.98 (R2 0.999), or 1.2 s + 0.031 s x frames"."""
    sign = "-" if growth.slope < 0 else "+"
    line = f"{growth.constant:.3g} {unit} {sign} {abs(growth.slope):.3g} {unit} x {of}"
    return f"{what} ~ {of}^{growth.exponent:.2f} (R2 {growth.r_squared:.3f}), or {line}"


def report(axis: str, series: Mapping[str, Sequence[Point]], console: Console) -> dict[str, dict[str, Growth]]:
    """A table of one series, and its growth by backend and by what grows."""
    grown: dict[str, dict[str, Growth]] = {}
    for name, points in series.items():
        table = Table(AXES[axis], "s, median", "smallest", "largest", "peak memory, MB", title=BACKENDS[name].title)
        for point in points:
            numbers = (point.median, min(point.seconds), max(point.seconds))
            table.add_row(f"{point.x:g}", *(f"{number:.2f}" for number in numbers), f"{point.memory_mb:.0f}")
        console.print(table)
        if len(points) < 2:
            continue
        x = [point.x for point in points]
        grown[name] = {
            "time": fit_growth(x, [point.median for point in points]),
            "memory": fit_growth(x, [point.memory_mb for point in points]),
        }
        for what, unit in (("time", "s"), ("memory", "MB")):
            console.print(in_a_sentence(grown[name][what], what, unit, AXES[axis]), soft_wrap=True)
    return grown


def draw(
    axis: str,
    series: Mapping[str, Sequence[Point]],
    grown: Mapping[str, Mapping[str, Growth]],
    footer: str,
    path: Path,
) -> None:
    """Time on the left, memory on the right, a line a backend with its exponent."""
    plt = pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, points in series.items():
        if not points:
            continue
        x = [point.x for point in points]
        labels = {
            what: f"{BACKENDS[name].title}" + (f" (^{grown[name][what].exponent:.2f})" if name in grown else "")
            for what in ("time", "memory")
        }
        medians = [point.median for point in points]
        below = [point.median - min(point.seconds) for point in points]
        above = [max(point.seconds) - point.median for point in points]
        left.errorbar(x, medians, yerr=(below, above), fmt="o-", capsize=3, label=labels["time"])
        right.plot(x, [point.memory_mb for point in points], "o-", label=labels["memory"])
    left.set(xlabel=AXES[axis], ylabel="seconds")
    right.set(xlabel=AXES[axis], ylabel="peak memory, MB")
    for axes in (left, right):
        axes.set_ylim(0, 1.05 * axes.get_ylim()[1])
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend(fontsize=8)
    figure.suptitle(footer, fontsize=9)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_task_options(parser)
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--frames-values", type=int, nargs="+", default=[8, 16, 32, 64, 128])
    parser.add_argument(
        "--resolution-values",
        type=parse_size,
        nargs="+",
        metavar="WIDTHxHEIGHT",
        default=[(128, 192), (192, 320), (256, 448), (320, 576)],
    )
    parser.add_argument("--window-values", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--steps-values", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--backends", nargs="+", choices=BACKENDS, help=f"ONNX Runtime, TensorRT and {EAGER} unless given"
    )
    parser.add_argument("--name", default="scaling", help="of the results")
    arguments = parser.parse_args()
    quieten()
    try:
        base = task_from(arguments)
    except UserError as error:
        raise SystemExit(str(error)) from None
    names, absent = choose_backends(arguments.backends or ["onnx", "tensorrt", EAGER], base.engines)
    console = Console()
    for name, reason in absent.items():
        console.print(f"{BACKENDS[name].title}: absent, as {reason}", soft_wrap=True)

    manifest = Manifest.read(base.engines)
    machine = describe()
    record: dict[str, Any] = {
        "model": manifest.model.name,
        "precision": manifest.precision,
        "job": {key: value for key, value in in_record(base).items() if key not in ("engines", "video")},
        "runs": arguments.runs,
        "machine": machine,
        "versions": versions(),
        "axes": {},
    }
    for axis in arguments.axes:
        series = measure(tasks_along(axis, base, getattr(arguments, f"{axis}_values")), names, arguments.runs)
        grown = report(axis, series, console)
        footer = (
            f"{manifest.model.name} ({manifest.precision}); else {base.frames} frames of {base.width}x{base.height}, "
            f"window {base.sampling.window_size}, {base.sampling.steps} steps\n{in_words(machine)}"
        )
        record["axes"][axis] = {
            name: {
                "points": [asdict(point) for point in points],
                "growth": {what: asdict(growth) for what, growth in grown.get(name, {}).items()},
            }
            for name, points in series.items()
        }
        write_record(record, arguments.name)
        draw(axis, series, grown, footer, RESULTS / f"{arguments.name}-{axis}.png")


if __name__ == "__main__":
    main()
