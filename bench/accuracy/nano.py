"""What nano is worth: accuracy on scenes that training never saw, by steps and precision; flicker; seams.

    python -m bench.accuracy.nano

Prints the tables of the model card, writes them into it, and all figures to bench/results/nano.json. Accuracy is
measured as `bench/evaluate.py` measures it: one scale and shift a clip, least squares in disparity, errors in depth.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.accuracy.datasets.scenes import DATASET
from bench.accuracy.metrics import mean_metrics, score_clip
from bench.records import write_record
from dc_export import export_onnx
from dc_rt import DepthCrafter
from dc_rt.engine.discovery import BUNDLED
from dc_rt.noise import Noise
from dc_rt.options import Sampling
from depthcrafter.nano.data import TRAINING_SEEDS
from depthcrafter.nano.scenes import Clip, make_clip

CARD = BUNDLED / "checkpoint" / "README.md"
STEPS = (1, 2, 3, 5, 10)
MAX_DEPTH = DATASET.max_depth
STILL_FRAMES = 16
# Clips of so many windows, of these lengths and overlaps: a run's defaults, and short ones.
WINDOWS = 3
RUN = Sampling()
SEAMS = ((RUN.window_size, RUN.overlap), (16, 4))

Float = NDArray[np.floating]


def predict(model: DepthCrafter, frames: NDArray[np.uint8], sampling: Sampling = RUN) -> Float:
    """Depth of a clip, normalised over it, as a run writes it: float32 [T,H,W]."""
    return normalised(np.stack(list(model(frames, sampling))))


def one_by_one(model: DepthCrafter, frames: NDArray[np.uint8]) -> Float:
    """As `predict` with a window of 1, but with other noise for every frame."""
    return normalised(np.stack([next(model(f[None], RUN, noise=Noise(t))) for t, f in enumerate(frames)]))


def normalised(depth: Float) -> Float:
    """Depth of a clip, [T,H,W], from 0 to 1 over all of it."""
    result: Float = (depth - depth.min()) / max(np.ptp(depth), 1e-6)
    return result


def accuracy(model: DepthCrafter, clips: Sequence[Clip], steps: int) -> dict[str, float]:
    """Mean metrics of the held-out clips."""
    return mean_metrics(
        [score_clip(predict(model, clip.frames, replace(RUN, steps=steps)), clip.depth, MAX_DEPTH) for clip in clips]
    )


def fixed_prediction(clips: Sequence[Clip], num_training: int) -> dict[str, float]:
    """Mean metrics of the same map for every frame: the mean disparity of training scenes."""
    _, height, width = clips[0].depth.shape
    training = (make_clip(TRAINING_SEEDS + i, 4, height, width).disparity for i in range(num_training))
    mean = np.mean([disparity.mean(axis=0) for disparity in training], axis=0)
    return mean_metrics([score_clip(np.broadcast_to(mean, clip.depth.shape), clip.depth, MAX_DEPTH) for clip in clips])


def flicker(depths: Iterable[Float], clips: Iterable[Clip]) -> float:
    """Mean |d_t+1 - d_t| where nothing moves: where the true depth is exactly the same."""
    steps = []
    for depth, clip in zip(depths, clips, strict=True):
        steps.append(np.abs(np.diff(depth, axis=0))[np.diff(clip.depth, axis=0) == 0])
    return float(np.concatenate(steps).mean())


def seam(depths: Iterable[Float], window: int, overlap: int) -> float:
    """Mean |d_t+1 - d_t| over the frames that two windows share, and into and out of them, over that elsewhere."""
    across: list[float] = []
    elsewhere: list[float] = []
    for depth in depths:
        steps = np.abs(np.diff(depth, axis=0)).mean(axis=(1, 2))
        starts = [k * (window - overlap) for k in range(1, WINDOWS)]
        shared = {start - 1 + i for start in starts for i in range(overlap + 1)}
        for t, step in enumerate(steps):
            (across if t in shared else elsewhere).append(step)
    return float(np.mean(across) / np.mean(elsewhere))


def tables(record: dict) -> str:
    """The record as Markdown."""
    fixed = record["fixed_prediction"]
    lines = [
        f"{record['scenes']} held-out scenes of {record['frames']} frames at {record['size']}:",
        "",
        "| graphs | steps | AbsRel | δ1 | RMSE, m |",
        "|---|---|---|---|---|",
    ]
    for row in record["accuracy"]:
        cells = f"{row['abs_rel']:.4f} | {row['delta1']:.3f} | {row['rmse']:.3f}"
        lines.append(f"| {row['precision']} | {row['steps']} | {cells} |")
    lines += [
        f"| the mean disparity map of training scenes | | {fixed['abs_rel']:.4f} | {fixed['delta1']:.3f} "
        f"| {fixed['rmse']:.3f} |",
        "",
        f"Flicker, mean change of what stands still before a still camera, {record['clips']} clips: "
        f"{record['flicker']:.5f} in windows; frame by frame {record['flicker_frame_by_frame']:.5f} with the same "
        f"noise for every frame (windows: {record['flicker'] / record['flicker_frame_by_frame']:.2f} of it), "
        f"{record['flicker_frame_by_frame_own_noise']:.5f} with noise of its own for each "
        f"({record['flicker'] / record['flicker_frame_by_frame_own_noise']:.2f} of it).",
        "",
        f"Seams, mean change from frame to frame where windows meet over that elsewhere, in the depth found (in the "
        f"true disparity), {record['clips']} clips of {WINDOWS} windows: "
        + "; ".join(
            f"{row['ratio']:.2f} ({row['truth']:.2f}) with windows of {row['window']} frames that share "
            f"{row['overlap']}{', as a run has them' if (row['window'], row['overlap']) == SEAMS[0] else ''}"
            for row in record["seams"]
        )
        + ".",
    ]
    return "\n".join(lines)


def with_tables(card: str, tables: str) -> str:
    """The model card with these tables in the place of those that it has."""
    marked = r"(<!-- figures -->\n).*?(<!-- end of figures -->)"
    card, count = re.subn(marked, lambda match: f"{match[1]}\n{tables}\n\n{match[2]}", card, flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{CARD} has no place for figures.")
    return card


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", type=Path, default=BUNDLED)
    parser.add_argument("--checkpoint", default="nano", help="what the float16 graphs are exported from")
    parser.add_argument("--scenes", type=int, default=32)
    parser.add_argument("--clips", type=int, default=8, help="for flicker and for seams, each")
    parser.add_argument("--frames", type=int, default=8, help="of the scenes for accuracy")
    parser.add_argument("--size", type=int, nargs=2, default=[128, 192], metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16"])
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()

    clips = [make_clip(seed, arguments.frames, *arguments.size) for seed in range(arguments.scenes)]
    record = {
        "scenes": len(clips),
        "frames": arguments.frames,
        "size": "{1}x{0}".format(*arguments.size),
        "clips": arguments.clips,
        "fixed_prediction": fixed_prediction(clips, 400),
        "accuracy": [],
    }
    model = DepthCrafter.load(arguments.engines)
    for precision in arguments.precisions:
        with tempfile.TemporaryDirectory() as folder:
            tested = model
            if precision == "fp16":
                source = arguments.checkpoint
                unet = source if source == "nano" else f"{source}/unet"
                export_onnx(source, unet, folder, precision="fp16", report=lambda _: None)
                tested = DepthCrafter.load(folder)
            for steps in arguments.steps:
                row = {"precision": precision, "steps": steps} | accuracy(tested, clips, steps)
                record["accuracy"].append(row)
                print(f"{precision} {steps} steps: AbsRel {row['abs_rel']:.4f}, d1 {row['delta1']:.3f}", flush=True)

    still = [make_clip(100 + i, STILL_FRAMES, *arguments.size, static_camera=True) for i in range(arguments.clips)]
    record["flicker"] = flicker((predict(model, clip.frames) for clip in still), still)
    alone = (predict(model, clip.frames, replace(RUN, window_size=1, overlap=0)) for clip in still)
    record["flicker_frame_by_frame"] = flicker(alone, still)
    record["flicker_frame_by_frame_own_noise"] = flicker((one_by_one(model, clip.frames) for clip in still), still)
    record["seams"] = []
    for window, overlap in SEAMS:
        num_frames = window + (WINDOWS - 1) * (window - overlap)
        long = [make_clip(200 + i, num_frames, *arguments.size) for i in range(arguments.clips)]
        sampling = replace(RUN, window_size=window, overlap=overlap)
        depths = [predict(model, clip.frames, sampling) for clip in long]
        row = {"window": window, "overlap": overlap, "ratio": seam(depths, window, overlap)}
        record["seams"].append(row | {"truth": seam((clip.disparity for clip in long), window, overlap)})

    print(tables(record))
    if not arguments.no_write:
        write_record(record, "nano")
        CARD.write_text(with_tables(CARD.read_text(), tables(record)))


if __name__ == "__main__":
    main()
