"""What reading and writing cost a run: `dc-rt infer` against inference alone, interleaved.

    python bench/overlap.py examples/demo.mp4

Inference alone is the model on frames that are in memory, its depth thrown away. The run reads, spools, normalises and
writes all three videos. Prints medians and their ratio; writes bench/results/overlap.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

from dc_rt import DepthCrafter
from dc_rt.engine.discovery import choose_engines
from dc_rt.job import Options, Plan, plan_job, run_job
from dc_rt.media import read_frames
from dc_rt.noise import Noise

RESULT = Path(__file__).parent / "results" / "overlap.json"


def inference_alone(model: DepthCrafter, plan: Plan, options: Options) -> float:
    """Seconds of the model on frames in memory."""
    frames = list(read_frames(plan.source.path, plan.height, plan.width, plan.stride, plan.num_frames))
    began = time.perf_counter()
    depths = model(
        frames,
        steps=options.num_denoising_steps,
        window_size=options.window_size,
        overlap=options.overlap,
        noise=Noise(options.seed),
    )
    for _ in depths:
        pass
    return time.perf_counter() - began


def whole_run(model: DepthCrafter, plan: Plan, options: Options) -> float:
    """Seconds from the file to the files."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        run_job(model, plan, Path(folder), options)
        return time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("--engines", type=Path)
    parser.add_argument("--runs", type=int, default=12, help="of each")
    parser.add_argument("--frames", type=int, default=-1, help="-1 for all")
    arguments = parser.parse_args()

    model = DepthCrafter.load(choose_engines(arguments.engines)[0])
    options = Options(process_length=arguments.frames)
    plan = plan_job(model, arguments.video, options)
    inference_alone(model, plan, options)  # warm-up
    pairs = []
    for run in range(arguments.runs):
        # A B B A, so that a machine that grows slower or faster hurts both alike.
        first, second = (inference_alone, whole_run)[:: 1 if run % 2 == 0 else -1]
        seconds = {measure: measure(model, plan, options) for measure in (first, second)}
        pairs.append((seconds[inference_alone], seconds[whole_run]))
    alone, whole = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(whole / alone for alone, whole in pairs)
    print(f"{plan.num_frames} frames of {plan.width}x{plan.height}, {arguments.runs} interleaved runs, medians:")
    print(f"inference alone {alone:.2f} s, whole run {whole:.2f} s, ratio {ratio:.3f}")
    record = {
        "frames": plan.num_frames,
        "size": f"{plan.width}x{plan.height}",
        "model": model.engines.manifest.model.name,
        "pairs_seconds": pairs,
        "ratio": ratio,
        "machine": f"{platform.machine()}, {platform.system()}",
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
