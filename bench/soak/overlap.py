"""What reading and writing cost a run: `dc-rt infer` against inference alone, interleaved.

    python -m bench.soak.overlap examples/demo.mp4

Inference alone is the model on frames that are in memory, its depth thrown away. The run reads, spools, normalises and
writes all three videos. Prints the ratio of their total times, with its standard error over the runs, and what both
spend outside of the graphs, which a noisy machine hides less; writes bench/results/overlap.json.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.records import write_record
from bench.speed.backends import Call, Float, wrap
from dc_rt import DepthCrafter
from dc_rt.engine import Array
from dc_rt.engine.discovery import choose_engines
from dc_rt.job import Job, Plan, plan_video
from dc_rt.media import read_frames
from dc_rt.options import Sampling, Source


class Timed:
    """A model, and the seconds that its graphs ran since it was last asked."""

    def __init__(self, model: DepthCrafter) -> None:
        self.model = DepthCrafter(wrap(model.engines, self._around))
        self._seconds = 0.0

    def in_graphs(self) -> float:
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _around(self, graph: str, inputs: Mapping[str, Array], run: Call) -> Float:
        began = time.perf_counter()
        output = run(graph, inputs)
        self._seconds += time.perf_counter() - began
        return output


# Returns seconds in all, and of them those in graphs.
Measure = Callable[[Timed, Plan], tuple[float, float]]


def inference_alone(timed: Timed, plan: Plan) -> tuple[float, float]:
    """The model on frames in memory."""
    frames = list(read_frames(plan.video, plan.height, plan.width, plan.stride, plan.num_frames))
    began = time.perf_counter()
    for _ in timed.model(frames, Sampling()):
        pass
    return time.perf_counter() - began, timed.in_graphs()


def whole_run(timed: Timed, plan: Plan) -> tuple[float, float]:
    """From the file to the files."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        Job(timed.model, plan.video, source=Source(process_length=plan.num_frames), save_folder=folder).run()
        return time.perf_counter() - began, timed.in_graphs()


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

    timed = Timed(DepthCrafter.load(choose_engines(arguments.engines)[0]))
    plan = plan_video(arguments.video, Source(process_length=arguments.frames))
    inference_alone(timed, plan)  # warm-up
    found: dict[Measure, list[tuple[float, float]]] = {inference_alone: [], whole_run: []}
    for run in range(arguments.runs):
        # A B B A, so that a machine that grows slower or faster hurts both alike.
        for measure in list(found)[:: 1 if run % 2 == 0 else -1]:
            found[measure].append(measure(timed, plan))
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
        "model": timed.model.engines.manifest.model.name,
        "ratio_of_totals": ratio,
        "standard_error": error,
        "more_outside_of_graphs": share,
        "ratio_in_graphs": slowed,
        "seconds_in_all_and_in_graphs": {measure.__name__: runs for measure, runs in found.items()},
        "machine": f"{platform.machine()}, {platform.system()}",
    }
    write_record(record, "overlap")


if __name__ == "__main__":
    main()
