"""A whole `dc-rt infer`, from the command to the files: beside an earlier checkout, and one sampler beside another.

    git worktree add /tmp/before COMMIT
    python -m bench.speed.job --before /tmp/before           # 300 frames, 3 rounds of 3 runs: ten minutes

The runs take turns, each in a process of its own. Prints the median of each and the ratios by round, whether both
checkouts write the same depth, and writes bench/results/job.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np

from bench.clips import DEMO, clip_frames, parse_size
from bench.records import write_record
from bench.speed.machine import describe
from dc_rt.media import VideoWriter

ROOT = Path(__file__).parents[2]


def run(checkout: Path, clip: Path, folder: Path, options: list[str]) -> float:
    """The seconds of one run of a checkout's `dc-rt infer`."""
    paths = os.pathsep.join(str(checkout / part) for part in ("runtime", "export", "."))
    command = [sys.executable, "-m", "dc_rt.cli", "infer", str(clip), "--save-npz", "--save-folder", str(folder)]
    command += ["--engines", str(checkout / "runtime" / "dc_rt" / "bundled"), "--overwrite", *options]
    began = time.perf_counter()
    subprocess.run(command, env=os.environ | {"PYTHONPATH": paths}, check=True, capture_output=True, cwd=folder)
    return time.perf_counter() - began


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="an earlier checkout")
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--size", type=parse_size, default=(128, 256), help="WIDTHxHEIGHT; 256x128")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ways = {
        "before, euler": (arguments.before, []),
        "euler": (ROOT, []),
        "trimmed": (ROOT, ["--sampler", "trimmed"]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder, "clip.mp4")
        height, width = arguments.size
        with VideoWriter(clip, Fraction(24), height, width) as writer:
            for frame in clip_frames(DEMO, height, width, arguments.frames):
                writer.write(frame)
        depths = {}
        for _ in range(arguments.rounds):
            for name, (checkout, options) in ways.items():
                results = Path(folder, name)
                results.mkdir(exist_ok=True)
                seconds[name].append(run(checkout, clip, results, options))
                print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
                with np.load(results / "clip.npz") as arrays:
                    depths[name] = arrays["depth"]
    base = seconds["before, euler"]
    equal = bool(np.array_equal(depths["before, euler"], depths["euler"]))
    rows = {}
    for name, found in seconds.items():
        ratios = [first / each for first, each in zip(base, found, strict=True)]
        rows[name] = {"seconds": found, "ratios": ratios}
        spread = f"{statistics.median(ratios):.2f}x ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name}: median {statistics.median(found):.1f} s, {spread} as fast as before")
    moved = float(np.abs(depths["trimmed"] - depths["euler"]).mean())
    print(f"euler's depth is {'the same' if equal else 'NOT the same'} bit for bit; trimmed moves it by {moved:.1e}")
    size = "{1}x{0}".format(*arguments.size)
    record = {"machine": describe(), "frames": arguments.frames, "size": size, "runs": rows}
    write_record(record | {"same_depth": equal, "trimmed_moves_by": moved}, "job")


if __name__ == "__main__":
    main()
