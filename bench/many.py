"""A dozen clips in folders, one of them no video, what serial runs make of them, and who made results anew.

What batches, array jobs and clusters are tried on: whoever runs them, in whatever order, must end in the same bytes.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import defaultdict
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from bench.clips import DEMO, clip_frames
from dc_rt.media import VideoWriter
from dc_rt.outputs import all_outputs

OPTIONS = (
    *("--max-res", "128", "--num-denoising-steps", "1", "--window-size", "12", "--overlap", "4"),
    *("--outputs", ",".join(name for name, row in all_outputs().items() if row.kind != "stream")),
)
POLL_SECONDS = 0.01


class Clip(NamedTuple):
    """What a clip is cut from, and where it is put."""

    path: str
    source: str
    height: int
    width: int
    first: int
    num_frames: int


CLIPS = (
    Clip("short.mp4", "demo.mp4", 64, 64, 0, 9),
    Clip("wide.mp4", "demo.mp4", 64, 128, 5, 40),
    Clip("day1/tall.mp4", "balls.mp4", 128, 64, 0, 33),
    Clip("day1/long.mp4", "demo.mp4", 64, 64, 0, 60),
    Clip("day1/square.mp4", "balls.mp4", 128, 128, 10, 20),
    Clip("day1/take 2.mp4", "still.mp4", 64, 64, 0, 13),
    Clip("day2/long.mp4", "balls.mp4", 64, 128, 3, 45),
    Clip("day2/one.mp4", "demo.mp4", 128, 128, 30, 1),
    Clip("day2/night/late.mp4", "demo.mp4", 64, 64, 20, 37),
    Clip("day2/night/übergang.mp4", "balls.mp4", 64, 64, 0, 28),
    Clip("day2/night/wide.mp4", "still.mp4", 64, 128, 0, 24),
)
BAD = "day1/bad.mp4"


def make_clips(folder: Path) -> None:
    """Write all of `CLIPS` below a folder, and `BAD`, which begins as a video does and is none."""
    for clip in CLIPS:
        path = folder / clip.path
        path.parent.mkdir(parents=True, exist_ok=True)
        end = clip.first + clip.num_frames
        frames = clip_frames(DEMO.with_name(clip.source), clip.height, clip.width, end)
        with VideoWriter(path, Fraction(24), clip.height, clip.width) as video:
            for frame in islice(frames, clip.first, end):
                video.write(frame)
    (folder / BAD).write_bytes((folder / CLIPS[0].path).read_bytes()[:60])


def run_serially(videos: Path, results: Path) -> None:
    """Run `dc-rt infer` on every clip, into the same tree; raises `SystemExit` where one fails."""
    for folder in sorted({(videos / clip.path).parent for clip in CLIPS}):
        names = [str(videos / clip.path) for clip in CLIPS if (videos / clip.path).parent == folder]
        into = results / folder.relative_to(videos)
        command = [sys.executable, "-m", "dc_rt.cli", "infer", *names, *OPTIONS, "--save-folder", str(into)]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"the serial runs failed: {done.stderr}")


def contents(results: Path) -> dict[str, bytes]:
    """Contents of all results by name: of all files but the records, which have times in them, and reports."""
    files = (path for path in results.rglob("*") if path.is_file() and path.suffix not in (".json", ".jsonl"))
    return {path.relative_to(results).as_posix(): path.read_bytes() for path in files}


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Names of the files that are not the same in both, in order."""
    return [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]


def records_of(results: Path) -> list[Path]:
    """The records that a batch of all clips writes."""
    return [results / Path(clip.path).with_suffix(".json") for clip in CLIPS]


def left_over(results: Path) -> list[str]:
    """What no ended batch may leave: spools, leases and anything else that is hidden."""
    return sorted(path.relative_to(results).as_posix() for path in results.rglob(".*"))


class Watch:
    """Counts, while it is open, how often each clip's record was put into place, which is the last act of its run."""

    def __init__(self, results: Path) -> None:
        self._records = records_of(results)
        self._seen: defaultdict[Path, set[tuple[int, int]]] = defaultdict(set)
        self._results = results
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    @property
    def finished(self) -> dict[str, int]:
        """By name, how many runs finished."""
        return {path.relative_to(self._results).as_posix(): len(self._seen[path]) for path in self._records}

    def wrong(self, expected: dict[str, bytes]) -> list[str]:
        """Once it is closed: which results are not as expected, were not made once, or are no results, as sentences."""
        return [
            *(f"different: {name}" for name in differing(contents(self._results), expected)),
            *(f"finished {runs} times: {name}" for name, runs in self.finished.items() if runs != 1),
            *(f"left over: {name}" for name in left_over(self._results)),
        ]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            ended = self._closed.wait(POLL_SECONDS)  # once more after that
            for path in self._records:
                try:
                    found = path.stat()
                except FileNotFoundError:
                    continue
                # A run writes it under another name and moves it: each is a file of its own. A number of a file may
                # come again, the time of its last change does not.
                self._seen[path].add((found.st_ino, found.st_mtime_ns))
            if ended:
                return
