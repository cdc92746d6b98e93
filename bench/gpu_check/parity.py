"""The step that compares: the engines beside the float32 reference, graph by graph and as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.clips import clip_frames
from bench.gpu_check.manifests import prepared
from bench.gpu_check.models import Check
from bench.gpu_check.rows import MEASURED, SKIPPED, Row, judged
from bench.parity.compare import Differences, Error, compare
from bench.speed.backends import BACKENDS, EAGER, load_reference
from dc_export.extremes import extremes
from dc_rt import DepthCrafter
from dc_rt.engine import GRAPHS, MANIFEST, EngineSet
from dc_rt.options import Sampling

if TYPE_CHECKING:
    from bench.parity.rounding import Rounded

DEPTH_TARGET = 3e-3  # mean error of a clip's depth, whose range is 1, in half precision
# Largest share of an output's size that its mean error may have where both have the same inputs: half precision has
# 11 bits, and hundreds of layers lie between input and output.
GRAPH_TARGET = 1e-2
# With inputs that no video has, rounding may show, but must not take over.
EXTREMES_TARGET = 2e-2


def parity_step(
    check: Check, folder: Path, given: bool, backend: str | None, video: Path, depth_target: float, dry_run: bool
) -> Iterator[Row]:
    """The engines beside the float32 reference, graph by graph and as a whole.

    Without a backend that runs here (None), PyTorch as `--backend torch` runs it takes the engines' place.
    """
    if backend is None and not given:
        folder = prepared(check)
    if not (folder / MANIFEST).exists():
        yield Row("parity", SKIPPED, note=f"there is no engine set in {folder.name}")
        return
    # On the CPU, ONNX Runtime rounds less than what it stands for.
    rounded = _load_rounded(folder) if dry_run and backend else None
    backend = backend or EAGER
    engines = rounded.engines if rounded else BACKENDS[backend].load(folder)
    reference = load_reference(folder)
    profile = engines.manifest.profile
    height, width = profile.height.opt, profile.width.opt
    clip = check.parity
    size = f"{clip.frames} frames of {width}x{height}, window {clip.window}, steps {clip.steps}"
    where = f"{BACKENDS[backend].title} on {engines.device} against PyTorch in float32 on {reference.device}"
    yield Row("clip", MEASURED, size, note=where)
    frames = list(clip_frames(video, height, width, clip.frames))
    yield from parity_rows(compare(reference, engines, frames, clip.sampling), depth_target)
    yield from extremes_rows(reference, engines, height, width)
    if rounded:
        yield from largest_rows(rounded.largest)


def _load_rounded(folder: Path) -> Rounded:
    # Not above: it takes onnx, which no other step needs.
    from bench.parity.rounding import load_rounded

    return load_rounded(folder)


def largest_rows(largest: Mapping[str, float]) -> Iterator[Row]:
    """A row a graph: the largest value in it that is float16."""
    from bench.parity.rounding import FLOAT16_MAX

    for graph, value in largest.items():
        note = "" if value else "it has none"
        yield judged(f"{graph}: largest value in float16", value, FLOAT16_MAX, f"{value:.4g}", note)


def parity_rows(comparison: Differences, depth_target: float = DEPTH_TARGET) -> list[Row]:
    """A row a graph, with the same inputs for both, and one for the whole clip."""
    rows = []
    for graph in GRAPHS:
        error = Error.over([error for place, error in comparison.local.items() if place.graph == graph])
        # Not the quotient of means alone: NaN must stay NaN.
        share = error.mean / (error.scale or 1.0)
        shown = f"{share:.1e}, {error.max / (error.scale or 1.0):.1e}"
        rows.append(judged(f"{graph}: mean and max error for its size", share, GRAPH_TARGET, shown))
    difference = np.abs(comparison.depth - comparison.other)
    shown = f"{difference.mean():.1e}, {difference.max():.1e}"
    return [*rows, judged("depth of the clip: mean and max error", float(difference.mean()), depth_target, shown)]


def extremes_rows(reference: EngineSet, engines: EngineSet, height: int, width: int) -> list[Row]:
    """The depth of frames at the extremes of what can be put in: finite, and near the reference's."""
    rows = []
    for name, frames in extremes(height, width).items():
        expected, depth = (
            np.stack(list(DepthCrafter(one)(frames, Sampling(steps=1, window_size=2, overlap=0, seed=2))))
            for one in (reference, engines)
        )
        mean = float(np.abs(depth - expected).mean())
        shown = f"{mean:.1e}" if np.isfinite(depth).all() else f"{np.count_nonzero(~np.isfinite(depth))} not finite"
        rows.append(judged(f"depth of {name}: mean error", mean, EXTREMES_TARGET, shown))
    return rows
