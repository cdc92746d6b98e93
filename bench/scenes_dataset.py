"""A small data set in the benchmark's layout, made of nano's held-out scenes: to try `bench/evaluate.py` on.

    python bench/scenes_dataset.py datasets --clips 8
    python bench/evaluate.py infer --dataset sintel --meta datasets/scenes.csv --video-root datasets --pred-root pred \\
        --max-res 192
    python bench/evaluate.py score --dataset sintel --meta datasets/scenes.csv --gt-root datasets --pred-root pred

`--dataset` names the protocol; its size is left aside by `--max-res`.
"""

from __future__ import annotations

import argparse
import csv
from fractions import Fraction
from pathlib import Path

import numpy as np

from dc_rt.media import Mp4Writer
from depthcrafter.nano.scenes import FRAMES_PER_SECOND, make_clip

FIRST_SEED = 400


def main() -> None:
    """Write the clips, their depth and the meta CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--size", type=int, nargs=2, default=[128, 192], metavar=("HEIGHT", "WIDTH"))
    arguments = parser.parse_args()

    height, width = arguments.size
    (arguments.out / "scenes").mkdir(parents=True, exist_ok=True)
    with (arguments.out / "scenes.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["filepath_left", "filepath_disparity"])
        for index in range(arguments.clips):
            clip = make_clip(FIRST_SEED + index, arguments.frames, height, width)
            left, disparity = f"scenes/{index:03d}_rgb_left.mp4", f"scenes/{index:03d}_disparity.npz"
            with Mp4Writer(arguments.out / left, Fraction(round(FRAMES_PER_SECOND)), height, width) as video:
                for frame in clip.frames:
                    video.write(frame)
            # The key says disparity; as in the original's files it is depth that lies there.
            np.savez_compressed(arguments.out / disparity, disparity=clip.depth[:, None])
            rows.writerow([left, disparity])


if __name__ == "__main__":
    main()
