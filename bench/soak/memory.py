"""Peak memory against the number of frames: flat here, growing in the PyTorch reference.

    python -m bench.soak.memory

Runs `dc-rt infer` on generated clips of 300 and 3,000 frames, same size, window and engines, each in a process of its
own, and the reference on 100, 200 and 300 frames. Prints the peaks and the ratio of 3,000 to 300; writes
bench/results/memory.json and memory.png.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

from bench.children import apart
from bench.records import RESULTS, pyplot, write_record
from bench.speed.worker import peak_memory
from dc_rt.media import VideoWriter, read_frames

HEIGHT, WIDTH, WINDOW, OVERLAP = 64, 128, 32, 8


def write_clip(path: Path, num_frames: int, height: int = HEIGHT, width: int = WIDTH) -> None:
    """Colours that move, so that no frame is like another."""
    y, x = np.mgrid[:height, :width] / 20
    with VideoWriter(path, Fraction(24), height, width) as video:
        for t in range(num_frames):
            waves = [np.sin(x + t / 7), np.cos(y - t / 9), np.sin(x * y / 9 + t / 11)]
            video.write((127 + 100 * np.stack(waves, axis=-1)).astype(np.uint8))


def runtime(clip: Path, out: Path, *more: str) -> float:
    """In a process of its own: run `dc-rt infer`, with more options; the peak of its memory in MB."""
    from dc_rt.cli import main as dc_rt

    options = ["--num-denoising-steps", "1", "--window-size", str(WINDOW), "--overlap", str(OVERLAP), "--save-npz"]
    sys.argv = ["dc-rt", "infer", str(clip), "--save-folder", str(out), *options, *more]
    try:
        dc_rt()
    except SystemExit as end:
        if end.code:
            raise
    return peak_memory().host


def reference(clip: Path) -> float:
    """Likewise of the reference, which holds the whole video."""
    from depthcrafter import load_pipeline

    frames = np.stack(list(read_frames(clip, HEIGHT, WIDTH)))
    load_pipeline("nano", "nano")(frames, steps=1, window_size=WINDOW, overlap=OVERLAP)
    return peak_memory().host


def draw(runtime_peaks: dict[int, float], reference_peaks: dict[int, float], path: Path) -> None:
    """Both as lines."""
    figure, axes = pyplot().subplots(figsize=(6, 3.6), layout="constrained")
    axes.plot(*zip(*runtime_peaks.items(), strict=True), "o-", label="dc-rt infer")
    axes.plot(*zip(*reference_peaks.items(), strict=True), "s--", label="PyTorch reference")
    axes.set(xlabel="frames", ylabel="peak memory, MB", ylim=(0, None))
    axes.set_title(f"{WIDTH}x{HEIGHT}, window {WINDOW}, nano, CPU", fontsize=10)
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[300, 3000])
    parser.add_argument("--reference-frames", type=int, nargs="+", default=[100, 200, 300])
    arguments = parser.parse_args()
    runtime_peaks, reference_peaks = {}, {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for num_frames in sorted({*arguments.frames, *arguments.reference_frames}):
            clip = folder / f"clip{num_frames}.mp4"
            write_clip(clip, num_frames)
            if num_frames in arguments.reference_frames:
                reference_peaks[num_frames] = apart(reference, clip)
                print(f"reference, {num_frames:5d} frames: {reference_peaks[num_frames]:.0f} MB", flush=True)
            if num_frames in arguments.frames:
                runtime_peaks[num_frames] = apart(runtime, clip, folder / "out")
                print(f"dc-rt,     {num_frames:5d} frames: {runtime_peaks[num_frames]:.0f} MB", flush=True)
    fewest, most = min(runtime_peaks), max(runtime_peaks)
    ratio = runtime_peaks[most] / runtime_peaks[fewest]
    print(f"{most} frames take {ratio:.3f} times the memory of {fewest}")
    record = {
        "size": f"{WIDTH}x{HEIGHT}",
        "window": WINDOW,
        "overlap": OVERLAP,
        "runtime_peak_mb": runtime_peaks,
        "reference_peak_mb": reference_peaks,
        "ratio": ratio,
    }
    write_record(record, "memory")
    draw(runtime_peaks, reference_peaks, RESULTS / "memory.png")


if __name__ == "__main__":
    main()
