"""Peak memory against the number of frames where results have the size of the source: it levels out.

    python -m bench.soak.size

Runs `dc-rt infer --size source` on generated clips of 60, 600 and 1200 frames, larger than the model runs at, each in
a process of its own, and writes everything. Prints the peaks and their ratios; writes bench/results/size_memory.json.
Over the first hundreds of frames the libraries' heaps and the decoder's pools of frames grow; ends with status 1 where
the longest clip takes over 5 % more than the one before.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import pairwise
from pathlib import Path

from bench.children import apart
from bench.records import write_record
from bench.soak.memory import runtime, write_clip

HEIGHT, WIDTH, MAX_RES = 360, 642, 256
# Windows so short that the fewer frames are several of them too: what a model holds follows from the largest.
WINDOW, OVERLAP = 16, 4
OPTIONS = (
    *("--size", "source", "--max-res", str(MAX_RES), "--window-size", str(WINDOW), "--overlap", str(OVERLAP)),
    *("--save-exr", "--save-png"),
)
MOST = 1.05


def main() -> None:
    """Measure, print, write, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[60, 600, 1200])
    arguments = parser.parse_args()
    peaks = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for num_frames in arguments.frames:
            clip = folder / f"clip{num_frames}.mp4"
            write_clip(clip, num_frames, HEIGHT, WIDTH)
            peaks[num_frames] = apart(runtime, clip, folder / "out", *OPTIONS)
            print(f"{num_frames:5d} frames: {peaks[num_frames]:.0f} MB", flush=True)
    ratios = {}
    for few, many in pairwise(arguments.frames):
        ratios[f"{many}/{few}"] = ratio = peaks[many] / peaks[few]
        print(f"{many} frames take {ratio:.3f} times the memory of {few}")
    options = {"size": f"{WIDTH}x{HEIGHT}", "max_res": MAX_RES, "window": WINDOW, "overlap": OVERLAP}
    write_record({**options, "peak_mb": peaks, "ratios": ratios}, "size_memory")
    if ratios and [*ratios.values()][-1] > MOST:
        raise SystemExit(f"That is more than {MOST}.")


if __name__ == "__main__":
    main()
