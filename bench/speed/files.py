"""What reading and writing take: milliseconds a frame of each, on one core and on more, and the cores for 24 frames/s.

    python -m bench.speed.files                 # 1024x576 and 1920x1080, on 1 core and on all: minutes

Each is measured alone, in a process that may use so many cores, with the writers and threads of a run. Depth is nano's
of the demonstration clip, enlarged: its numbers are as irregular as those of a run, which is what a compressor sees.
Prints a table, writes bench/results/files.json, and with --docs the table in docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.children import apart
from bench.clips import DEMO, clip_frames
from bench.records import RESULTS, write_record
from bench.speed.machine import describe, in_words
from bench.speed.readme_table import replaced
from dc_rt import DepthCrafter
from dc_rt.cores import num_cores
from dc_rt.depth import ShotDepth
from dc_rt.engine.discovery import BUNDLED
from dc_rt.job.threads import Behind, ahead
from dc_rt.media import Timeline, VideoWriter, probe, read_frames
from dc_rt.media.results import Result, ResultFrame
from dc_rt.noise import Noise
from dc_rt.noise_ahead import NoiseAhead
from dc_rt.options import Outputs, Sampling
from dc_rt.outputs import all_outputs
from dc_rt.pipeline import CHUNK, NOISE_AUGMENTATION
from dc_rt.windows import Float

SIZES = ((576, 1024), (1080, 1920))
RATE = 24
READING, NOISE = "reading H.264", "noise of the pixels"
DOCS = Path(__file__).parents[2] / "docs" / "benchmarks.md"
MARKERS = ("<!-- files: made by bench/speed/files.py -->", "<!-- files: end -->")


@dataclass(frozen=True)
class Row:
    """One kind of work at a size on so many cores.

    Attributes:
        what: the work.
        height, width: of frames.
        cores: that the process may use.
        wall_ms: that a frame takes, if nothing else is done.
        cpu_ms: of processor time for it, all threads together.
    """

    what: str
    height: int
    width: int
    cores: int
    wall_ms: float
    cpu_ms: float


def make_depth(num_frames: int) -> Float:
    """Nano's depth of the demonstration clip, float32 [T,h,w] in [0,1], not as large as it is to be."""
    with DepthCrafter.load(BUNDLED) as model:
        return np.stack(list(model(clip_frames(DEMO, 192, 320, num_frames), Sampling(window_size=8, overlap=2))))


def enlarged(depth: Float, height: int, width: int) -> Iterator[Float]:
    """Each frame, [h,w], at another size, linear between its values."""
    rows, columns = (
        np.linspace(0, side - 1, size) for side, size in zip(depth.shape[1:], (height, width), strict=True)
    )
    for frame in depth:
        across = np.stack([np.interp(columns, np.arange(len(line)), line) for line in frame])
        at = np.floor(rows).astype(int).clip(0, len(across) - 2)
        share = (rows - at)[:, None]
        yield (across[at] * (1 - share) + across[at + 1] * share).astype(np.float32)


def measure(what: str, size: tuple[int, int], cores: int, num_frames: int, depth: Path) -> Row:
    """One kind of work, in this process; called in one of its own."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    frames = list(enlarged(np.load(depth)[:num_frames], *size))
    with tempfile.TemporaryDirectory() as folder:
        work = WORK.get(what, _write)(what, size, frames, Path(folder))
        cpu, began = time.process_time(), time.perf_counter()
        work()
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Row(what, *size, cores, 1000 * wall / len(frames), 1000 * cpu / len(frames))


def _read(what: str, size: tuple[int, int], frames: list[Float], folder: Path) -> Callable[[], object]:
    """To the model's own size, as a run reads a video of this one."""
    clip = folder / "clip.mp4"
    with VideoWriter(clip, Fraction(RATE), *size) as writer:
        for image in clip_frames(DEMO, *size, len(frames)):
            writer.write(image)
    video = probe(clip)

    def work() -> None:
        with closing(read_frames(video, *SIZES[0])) as images, ahead(images, 16) as read:
            for _ in read:
                pass

    return work


def _make_noise(what: str, size: tuple[int, int], frames: list[Float], folder: Path) -> Callable[[], object]:
    chunks = [(index, min(CHUNK, len(frames) - index)) for index in range(0, len(frames), CHUNK)]

    def cuts() -> Iterator[tuple[int, int]]:
        yield from chunks
        while True:  # what is made ahead, and never taken, costs next to nothing
            yield len(frames), 0

    def work() -> None:
        with NoiseAhead(Noise(), np.float32(NOISE_AUGMENTATION), size, cuts(), len(frames)) as noise:
            for chunk in chunks:
                noise.take(*chunk)

    return work


def _write(what: str, size: tuple[int, int], frames: list[Float], folder: Path) -> Callable[[], object]:
    row = all_outputs()[what]
    images: list[NDArray[np.uint8]] = list(clip_frames(DEMO, *size, len(frames)))
    timeline = Timeline.even(len(frames), Fraction(RATE))
    result = Result(
        len(frames), *size, *size, timeline, Fraction(1), (ShotDepth(0, 0.0, 1.0),), probe(DEMO), Outputs((what,))
    )
    path = folder / (f"clip{row.suffix}" if not row.is_frames else "clip")

    def work() -> None:
        with row.open_writer()(path, result) as writer, Behind(16) as behind:
            for index, (depth, image) in enumerate(zip(frames, images, strict=True)):
                time = Fraction(index, RATE)
                behind.submit(writer.write, ResultFrame(index, index, time, depth, depth, depth, image))

    return work


WORK: dict[str, Callable[[str, tuple[int, int], list[Float], Path], Callable[[], object]]] = {
    READING: _read,
    NOISE: _make_noise,
}


def cores_for(rows: list[Row], whats: tuple[str, ...], height: int) -> int:
    """How many cores do all of this for 24 frames a second, by their processor time on one core."""
    cpu = sum(row.cpu_ms for row in rows if row.what in whats and row.height == height and row.cores == 1)
    return math.ceil(cpu * RATE / 1000)


def table(rows: list[Row], machine: dict[str, Any]) -> str:
    """Rows and conclusion as Markdown."""
    sizes = sorted({(row.height, row.width) for row in rows})
    counts = sorted({row.cores for row in rows})
    found = {(row.what, row.height, row.cores): row for row in rows}
    heads = [f"{width}x{height}, {_cores(count)}" for height, width in sizes for count in counts]
    lines = [f"| ms a frame | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    for what in dict.fromkeys(row.what for row in rows):
        cells = [
            f"{row.wall_ms:.0f} ({row.cpu_ms:.0f})"
            for height, _ in sizes
            for count in counts
            if (row := found[what, height, count])
        ]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    videos = ("depth.mp4", "vis.mp4", "input.mp4")
    kinds = {
        "the three videos": (READING, NOISE, *videos),
        "these and NPZ, EXR and PNG": (READING, NOISE, *videos, "npz", "exr", "png"),
    }
    height = sizes[0][0]
    words = "; ".join(f"{kind}, {_cores(cores_for(rows, whats, height))}" for kind, whats in kinds.items())
    return "\n".join(
        [
            *lines,
            "",
            f"In brackets processor time, of all threads together. For {RATE} frames/s at {sizes[0][1]}x{height} it "
            f"takes in all, by that time: {words}. {in_words(machine)}.",
        ]
    )


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--docs", action="store_true", help="put the table into docs/benchmarks.md")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        depth = Path(folder, "depth.npy")
        np.save(depth, make_depth(arguments.frames))
        for what in (READING, NOISE, *all_outputs()):
            for size in SIZES:
                for cores in sorted({1, num_cores()}):
                    rows.append(apart(measure, what, size, cores, arguments.frames, depth))
                    print(rows[-1], flush=True)
    machine: dict[str, Any] = describe()
    write_record({"machine": machine, "rows": [asdict(row) for row in rows]}, "files", arguments.results)
    text = table(rows, machine)
    print(f"\n{text}")
    if arguments.docs:
        DOCS.write_text(replaced(DOCS.read_text(), f"{text}\n", MARKERS))


if __name__ == "__main__":
    main()
