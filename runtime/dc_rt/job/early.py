"""Outputs that take nothing of depth, written while the model runs: the frames pass by then, and cores are idle.

They wait in the spool's folder for the results. A run that is resumed has not seen all frames, and writes them with the
other results.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dc_rt.job.plan import Plan
from dc_rt.job.spool import EARLY
from dc_rt.job.threads import Behind
from dc_rt.media.results import NO_DEPTH, NO_RANGE, Result, ResultFrame
from dc_rt.options import Outputs

WRITE_BEHIND = 16


class EarlyOutputs:
    """Writers of those that are asked for, a thread each; as a context manager they are closed at the end."""

    def __init__(self, spool: Path, plan: Plan, outputs: Outputs | None) -> None:
        """Remove what an earlier run has left, and open the writers.

        Args:
            spool: its folder.
            plan: of the run.
            outputs: what is asked for; None where there is nothing to be written.
        """
        self._folder = spool / EARLY
        self._timeline = plan.timeline
        self._stack = ExitStack()
        self._writers = []
        shutil.rmtree(self._folder, ignore_errors=True)
        rows = [row for row in outputs.rows if not row.takes_depth] if outputs else []
        if not rows:
            return
        self._folder.mkdir()
        result = Result(
            num_frames=plan.num_frames,
            height=plan.height,
            width=plan.width,
            timeline=plan.timeline,
            sample_aspect_ratio=plan.sample_aspect_ratio,
            depth_range=NO_RANGE,
            video=plan.video,
        )
        try:
            for row in rows:
                writer = self._stack.enter_context(row.open_writer()(self._folder / f"{plan.name}{row.suffix}", result))
                self._writers.append((self._stack.enter_context(Behind(WRITE_BEHIND)).submit, writer.write))
        except BaseException:
            self._stack.close()
            raise

    def watch(self, frames: Iterable[tuple[int, list[NDArray[np.uint8]]]]) -> Iterator[NDArray[np.uint8]]:
        """The frames of `read_at_sizes`, once they were handed to the writers too."""
        for index, (number, (image,)) in enumerate(frames):
            time = int(self._timeline.times[number]) * self._timeline.tick
            for submit, write in self._writers:
                submit(write, ResultFrame(index, number, time, NO_DEPTH, NO_DEPTH, image))
            yield image

    def __enter__(self) -> EarlyOutputs:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]  # what a context is left with

    def finish(self) -> dict[str, str]:
        """Close the writers, and have what they wrote on the disk; gives the files' SHA-256 by their names."""
        self._stack.close()
        return {path.name: _synced_hash(path) for path in sorted(self._folder.glob("*"))}


def take_early(spool: Path, hashes: Mapping[str, str], staging: Path) -> set[str]:
    """Put what was written early among the results, as it was left; gives the names of what there is."""
    taken = set()
    for name, digest in hashes.items():
        path = spool / EARLY / name
        if path.is_file() and _hash(path) == digest:
            # Not moved: whatever becomes of the results, it may be needed again.
            try:
                os.link(path, staging / name)
            except OSError:
                shutil.copyfile(path, staging / name)
            taken.add(name)
    return taken


def _synced_hash(path: Path) -> str:
    with path.open("r+b") as file:
        os.fsync(file.fileno())
    return _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
