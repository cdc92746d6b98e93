"""What a sampler's result loses against the original's: on nano's held-out scenes, and on random weights of real size.

    python -m bench.accuracy.samplers                        # nano's 32 scenes: most of an hour on two cores
    python -m bench.accuracy.samplers --scenes 2 --steps 5   # a minute
    python -m bench.accuracy.samplers --random full          # random weights in PyTorch: 8 GB of memory, minutes

Depth is compared as a run writes it, normalised over the clip, and AbsRel is what `bench.accuracy.nano` measures.
Another seed's result stands beside, for scale. Prints a table, and writes bench/results/samplers.json and the table of
docs/samplers.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.accuracy.metrics import score_clip
from bench.accuracy.nano import MAX_DEPTH, Float, normalised
from bench.records import RESULTS, write_record
from bench.speed.readme_table import replaced
from dc_rt import DepthCrafter
from dc_rt.engine import Array, EngineSet
from dc_rt.engine.discovery import BUNDLED
from dc_rt.options import Sampling
from dc_rt.sampler import SAMPLERS
from depthcrafter.nano.scenes import make_clip

NAME = "samplers"
DOCS = Path(__file__).parents[2] / "docs" / "samplers.md"
MARKERS = ("<!-- figures -->", "<!-- end of figures -->")
FRAMES = 8
# Of a scene's frames: all in one window; and three, the last two of which start from the one before.
WINDOWS = {"one": (FRAMES, 0), "three": (4, 1)}
GUIDANCE = (1.0, 1.2)
STEPS = (5, 4, 6, 7, 8, 9, 10)
EULER, *OTHERS = SAMPLERS
ANOTHER_SEED = "another seed"

Predict = Callable[[NDArray[np.uint8], Sampling], Float]


@dataclass(frozen=True)
class Row:
    """What a sampler's depth is beside Euler's, over all scenes.

    Attributes:
        weights: what was run.
        sampler: whose depth; or Euler's with another seed.
        scenes: over how many.
        steps, guidance_scale, windows: how.
        mean, max: of |d depth|, of a range of 1.
        euler_abs_rel, abs_rel: of both; None where there is no true depth.
    """

    weights: str
    sampler: str
    scenes: int
    steps: int
    guidance_scale: float
    windows: str
    mean: float
    max: float
    euler_abs_rel: float | None = None
    abs_rel: float | None = None


class Remembered:
    """Engines that encode the same frames once: samplers differ in what comes after."""

    def __init__(self, engines: EngineSet) -> None:
        self.manifest = engines.manifest
        self._engines = engines
        self._known: dict[bytes, Array] = {}

    def __call__(self, graph: str, **inputs: Array) -> Array:
        if graph not in ("clip_encoder", "vae_encoder"):
            return self._engines(graph, **inputs)
        digest = hashlib.sha256(graph.encode())
        for array in inputs.values():
            digest.update(np.ascontiguousarray(array).tobytes())
        key = digest.digest()
        if key not in self._known:
            self._known[key] = self._engines(graph, **inputs)
        return self._known[key].copy()

    def forget(self) -> None:
        """Go on to another scene."""
        self._known.clear()


def rows_of(
    weights: str,
    predict: Predict,
    scenes: Sequence[tuple[NDArray[np.uint8], Float | None]],
    steps: int,
    guidance_scale: float,
    windows: str,
    on_scene: Callable[[], None] = lambda: None,
) -> Iterator[Row]:
    """Every sampler that takes so many steps beside Euler, and another seed at the default number."""
    window_size, overlap = WINDOWS[windows]
    euler = Sampling(steps, EULER, guidance_scale, window_size, overlap)
    ways = {name: replace(euler, sampler=name) for name in OTHERS if steps >= SAMPLERS[name].least_steps}
    if steps == Sampling.steps:
        ways[ANOTHER_SEED] = replace(euler, seed=euler.seed + 1)
    errors: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways}
    for frames, truth in scenes:
        on_scene()
        expected = predict(frames, euler)
        scored = score(expected, truth)
        for name, sampling in ways.items():
            depth = predict(frames, sampling)
            difference = np.abs(depth - expected)
            errors[name].append((float(difference.mean()), float(difference.max()), *scored, *score(depth, truth)))
    for name, found in errors.items():
        mean, _, *abs_rel = np.mean(found, axis=0).tolist()
        largest = max(each[1] for each in found)
        yield Row(weights, name, len(scenes), steps, guidance_scale, windows, mean, largest, *abs_rel)


def score(depth: Float, truth: Float | None) -> tuple[float, ...]:
    """AbsRel, if it can be known."""
    return () if truth is None else (score_clip(depth, truth, MAX_DEPTH)["abs_rel"],)


def nano_rows(num_scenes: int, scenes_else: int, all_steps: Sequence[int]) -> Iterator[Row]:
    """Of nano's held-out scenes: of so many at the default number of steps, and of so many at others."""
    clips = [make_clip(seed, FRAMES, 128, 192) for seed in range(num_scenes)]
    with DepthCrafter.load(BUNDLED) as model:
        remembered: Any = Remembered(model.engines)
        quick = DepthCrafter(remembered)

        def predict(frames: NDArray[np.uint8], sampling: Sampling) -> Float:
            return normalised(np.stack(list(quick(frames, sampling))))

        scenes = [(clip.frames, clip.depth) for clip in clips]
        for steps, guidance_scale, windows in product(all_steps, GUIDANCE, WINDOWS):
            some = scenes if steps == Sampling.steps else scenes[:scenes_else]
            yield from rows_of("nano", predict, some, steps, guidance_scale, windows, remembered.forget)


def random_rows(config: str, all_steps: Sequence[int], size: tuple[int, int]) -> Iterator[Row]:
    """Of random weights, in float32 by the reference, on one scene."""
    from depthcrafter import load_pipeline
    from depthcrafter.random_checkpoint import make_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        base, unet = make_checkpoint(Path(folder), config)
        pipeline = load_pipeline(str(base), str(unet))
    pipeline.set_progress_bar_config(disable=True)

    def predict(frames: NDArray[np.uint8], sampling: Sampling) -> Float:
        return normalised(pipeline(frames, sampling))

    scenes = [(make_clip(0, FRAMES, *size).frames, None)]
    for steps, windows in product(all_steps, WINDOWS):
        yield from rows_of(f"random, {config}", predict, scenes, steps, 1.0, windows)


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| weights | beside euler | scenes | steps | guidance | windows | mean | largest | AbsRel, euler | AbsRel |",
        "|---|---|---:|---:|---:|---|---:|---:|---:|---:|",
    ]
    for row in sorted(rows, key=lambda row: (row.weights, row.sampler == ANOTHER_SEED, row.steps)):
        scores = (f"{value:.4f}" if value is not None else "" for value in (row.euler_abs_rel, row.abs_rel))
        how = f"{row.scenes} | {row.steps} | {row.guidance_scale} | {row.windows}"
        moved = f"{row.mean:.1e} | {row.max:.1e}"
        lines.append(f"| {row.weights} | {row.sampler} | {how} | {moved} | {' | '.join(scores)} |")
    return "\n".join(lines)


def write_docs(results: Path) -> None:
    """Put the table of all that was measured into docs/samplers.md."""
    records = [json.loads(path.read_text()) for path in sorted(results.glob(f"{NAME}*.json"))]
    rows = [Row(**row) for record in records for row in record["rows"]]
    DOCS.write_text(replaced(DOCS.read_text(), f"{table(rows)}\n", MARKERS))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=32)
    parser.add_argument("--scenes-else", type=int, default=32, help="at other numbers of steps than the default")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--random", metavar="CONFIG", help="random weights of this configuration instead: tiny, full")
    parser.add_argument("--size", type=int, nargs=2, default=[64, 128], metavar=("HEIGHT", "WIDTH"), help="of random")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    if arguments.random:
        found = random_rows(arguments.random, arguments.steps, tuple(arguments.size))
    else:
        found = nano_rows(arguments.scenes, arguments.scenes_else, arguments.steps)
    name = f"{NAME}-random-{arguments.random}" if arguments.random else NAME
    for row in found:
        rows.append(row)
        print(table([row]).splitlines()[-1], flush=True)
        write_record({"frames": FRAMES, "rows": [asdict(row) for row in rows]}, name, arguments.results)
    write_docs(arguments.results)
    print(f"\n{table(rows)}")


if __name__ == "__main__":
    main()
