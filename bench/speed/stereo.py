"""What stereo takes: milliseconds a frame for both views, and what each mode adds, on one core and on all.

    python -m bench.speed.stereo                # 1024x576 and 1920x1080

A procedural room with its exact depth. Nothing is encoded: bench/speed/files.py measures whole outputs. Prints a table
and writes bench/results/stereo.json.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from bench.children import apart
from bench.records import write_record
from bench.speed.machine import describe
from dc_rt.cores import num_cores
from dc_rt.media.stereo import StereoWarper, anaglyph, halved
from dc_rt.options import Outputs
from depthcrafter.nano.scenes import make_clip

SIZES = ((576, 1024), (1080, 1920))
SCENE = 7  # of depthcrafter.nano.scenes: an object near the camera before a far wall


@dataclass(frozen=True)
class Row:
    """One kind of work at a size on so many cores: the least time of a frame, and the processor time of all threads."""

    what: str
    height: int
    width: int
    cores: int
    wall_ms: float
    cpu_ms: float


def measure(height: int, width: int, cores: int, frames: int) -> list[Row]:
    """All kinds of work, in a process that may use `cores` cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    clip = make_clip(SCENE, 1, height, width)
    image, depth = clip.frames[0], clip.disparity[0]
    with StereoWarper(Outputs.disparity, Outputs.convergence) as warper:
        left, right = (view.image for view in warper(image, depth))
        work: dict[str, Callable[[], object]] = {
            "both views": lambda: warper(image, depth),
            "half the width, of both": lambda: (halved(left), halved(right)),
            "anaglyph": lambda: anaglyph(left, right),
        }
        return [Row(what, height, width, cores, *timed(run, frames)) for what, run in work.items()]


def timed(run: Callable[[], object], times: int) -> tuple[float, float]:
    """Milliseconds of the fastest of `times` calls, and of processor time, all threads together, on average."""
    run()
    walls = []
    cpu = time.process_time()
    for _ in range(times):
        began = time.perf_counter()
        run()
        walls.append(time.perf_counter() - began)
    return 1e3 * min(walls), 1e3 * (time.process_time() - cpu) / times


def main() -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20, help="each work is done so often")
    arguments = parser.parse_args()
    rows = [
        row
        for size in SIZES
        for cores in sorted({1, num_cores()})
        for row in apart(measure, *size, cores, arguments.frames)
    ]
    machine = describe()
    write_record({"machine": machine, "rows": [asdict(row) for row in rows]}, "stereo")
    print("| what | size | cores | ms a frame | ms of processor |\n| --- | --- | --- | --- | --- |")
    for row in rows:
        print(
            f"| {row.what} | {row.width}x{row.height} | {row.cores} | {row.wall_ms:.0f} | {row.cpu_ms:.0f} |",
        )


if __name__ == "__main__":
    main()
