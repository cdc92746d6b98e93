"""What reading and writing cost a run: `dc-rt infer` against inference alone, interleaved.

    python bench/overlap.py examples/demo.mp4

Inference alone is the model on frames that are in memory, its depth thrown away. The run reads, spools, normalises and
writes all three videos. Prints the ratio of their total times, with its standard error over the runs, and what both
spend outside of the graphs, which a noisy machine hides less; writes bench/results/overlap.json.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from dc_rt import DepthCrafter
from dc_rt.engine import GRAPHS
from dc_rt.engine.discovery import choose_engines
from dc_rt.job import Options, Plan, plan_job, run_job
from dc_rt.media import read_frames
from dc_rt.noise import Noise

RESULT = Path(__file__).parent / "results" / "overlap.json"


class InGraphs:
    """A progress callback that adds up the seconds that the graphs run."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, stage: str, frames: int, seconds: float) -> None:
        if stage in GRAPHS:
            self.seconds += seconds


# Takes the model, the plan and the options; returns seconds in all, and of them those in graphs.
Measure = Callable[[DepthCrafter, Plan, Options], tuple[float, float]]


def inference_alone(model: DepthCrafter, plan: Plan, options: Options) -> tuple[float, float]:
    """The model on frames in memory."""
    frames = list(read_frames(plan.source.path, plan.height, plan.width, plan.stride, plan.num_frames))
    in_graphs = InGraphs()
    began = time.perf_counter()
    depths = model(
        frames,
        steps=options.num_denoising_steps,
        window_size=options.window_size,
        overlap=options.overlap,
        noise=Noise(options.seed),
        progress=in_graphs,
    )
    for _ in depths:
        pass
    return time.perf_counter() - began, in_graphs.seconds


def whole_run(model: DepthCrafter, plan: Plan, options: Options) -> tuple[float, float]:
    """From the file to the files."""
    in_graphs = InGraphs()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run_job(model, plan, Path(folder), options, in_graphs)
        return time.perf_counter() - began, in_graphs.seconds


def ratio_of_totals(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """sum(y) / sum(x) of pairs (x, y), and its standard error."""
    xs, ys = zip(*pairs, strict=True)
    ratio = sum(ys) / sum(xs)
    residuals = [y - ratio * x for x, y in pairs]
    return ratio, statistics.stdev(residuals) * math.sqrt(len(pairs)) / sum(xs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--engines", type=Path)
    parser.add_argument("--runs", type=int, default=12, help="of each")
    parser.add_argument("--frames", type=int, default=-1, help="-1 for all")
    arguments = parser.parse_args()
    if arguments.runs < 2:
        parser.error("--runs must be 2 or more, to tell how far they scatter")

    model = DepthCrafter.load(choose_engines(arguments.engines)[0])
    options = Options(process_length=arguments.frames)
    plan = plan_job(model, arguments.video, options)
    inference_alone(model, plan, options)  # warm-up
    found: dict[Measure, list[tuple[float, float]]] = {inference_alone: [], whole_run: []}
    for run in range(arguments.runs):
        # A B B A, so that a machine that grows slower or faster hurts both alike.
        for measure in list(found)[:: 1 if run % 2 == 0 else -1]:
            found[measure].append(measure(model, plan, options))
    alone, whole = found.values()
    slowed, _ = ratio_of_totals([(a[1], w[1]) for a, w in zip(alone, whole, strict=True)])
    ratio, error = ratio_of_totals([(a[0], w[0]) for a, w in zip(alone, whole, strict=True)])
    outside = [statistics.median(seconds - graphs for seconds, graphs in runs) for runs in (alone, whole)]
    share = (outside[1] - outside[0]) / statistics.median(seconds for seconds, _ in alone)
    print(f"{plan.num_frames} frames of {plan.width}x{plan.height}, {arguments.runs} interleaved runs:")
    print(f"the whole run takes {ratio:.3f} +- {error:.3f} times as long as inference alone")
    print(f"outside of the graphs {outside[1]:.2f} s against {outside[0]:.2f} s: {share:.1%} of inference alone more")
    print(f"the graphs themselves take {slowed:.3f} times as long beside reading and writing")
    record = {
        "frames": plan.num_frames,
        "size": f"{plan.width}x{plan.height}",
        "model": model.engines.manifest.model.name,
        "ratio_of_totals": ratio,
        "standard_error": error,
        "more_outside_of_graphs": share,
        "ratio_in_graphs": slowed,
        "seconds_in_all_and_in_graphs": {measure.__name__: runs for measure, runs in found.items()},
        "machine": f"{platform.machine()}, {platform.system()}",
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
