"""How two backends differ, as a table and as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from bench.parity.compare import Differences, Place, by_window_and_step
from bench.records import pyplot
from bench.speed.backends import Float
from dc_rt.engine import GRAPHS


def report(found: Differences, names: tuple[str, str], console: Console) -> None:
    """Both errors by graph, window and step."""
    table = Table("graph", "window", "step", "local mean, max", "accumulated mean, max", "own size")
    table.title = f"{names[0]} and {names[1]}: absolute differences of every graph's output"
    order = sorted(found.local, key=lambda place: (place.window, GRAPHS.index(place.graph), place.step))
    for place in order:
        local = found.local[place]
        both = (f"{error.mean:.1e}, {error.max:.1e}" for error in (local, found.accumulated[place]))
        step = str(place.step) if place.graph == "denoiser" else ""
        table.add_row(place.graph, str(place.window), step, *both, f"{local.scale:.2g}")
    console.print(table)
    difference = np.abs(found.depth - found.other)
    console.print(
        f"depth: mean {difference.mean():.2e}, max {difference.max():.2e} in frame {_worst_frame(difference)}; "
        f"the largest difference for the size of what it is in arises in {_in_words(found.worst)}",
        soft_wrap=True,
    )


def draw(
    found: Differences,
    frames: Sequence[NDArray[np.uint8]],
    names: tuple[str, str],
    path: Path,
    num_maps: int = 4,
) -> None:
    """Frames with both depths and their difference, the worst frame among them; below, the course of the error."""
    plt = pyplot()
    difference = np.abs(found.depth - found.other)
    spaced = np.linspace(0, len(frames) - 1, min(num_maps, len(frames))).round().astype(int)
    shown = sorted({*spaced.tolist(), _worst_frame(difference)})
    figure = plt.figure(figsize=(11, 1.9 * len(shown) + 3.2), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1.9 * len(shown), 3.2))
    largest = float(difference.max()) or 1.0
    low, high = float(found.depth.min()), float(found.depth.max())
    above, below = halves
    for row, index in zip(above.subplots(len(shown), 4, squeeze=False), shown, strict=True):
        row[0].imshow(frames[index])
        row[1].imshow(found.depth[index], cmap="inferno", vmin=low, vmax=high)
        row[2].imshow(found.other[index], cmap="inferno", vmin=low, vmax=high)
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
        (local, found.local, "denoiser, local max"),
        (accumulated, found.accumulated, "denoiser, accumulated max"),
    ):
        table = by_window_and_step(errors)
        picture = axes.imshow(table, aspect="auto", cmap="viridis", vmin=0, vmax=float(table.max()) or 1.0)
        axes.set(xlabel="step", ylabel="window", title=title)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.get_major_locator().set_params(integer=True)
        below.colorbar(picture, ax=axes, format="%.1e")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _worst_frame(difference: Float) -> int:
    return int(difference.max(axis=(1, 2)).argmax())


def _in_words(place: Place) -> str:
    step = f", step {place.step}" if place.graph == "denoiser" else ""
    return f"{place.graph}, window {place.window}{step}"
