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
from dc_rt.job.writers import open_writers
from dc_rt.media.results import NO_DEPTH, NO_RANGE, ResultFrame
from dc_rt.options import Outputs
from dc_rt.outputs import Output


class EarlyOutputs:
    """Writers of those that are asked for; as a context manager they are closed at the end."""

    def __init__(self, spool: Path, plan: Plan, outputs: Outputs | None) -> None:
        """Remove what an earlier run has left, and open the writers.

        Args:
            spool: its folder.
            plan: of the run.
            outputs: what is asked for; None where there is nothing to be written.
        """
        self._folder = spool / EARLY
        self._timeline = plan.timeline
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        rows = [row for row in outputs.rows if row.is_early] if outputs else []
        with ExitStack() as stack:
            self._hand = open_writers(stack, rows, self._folder, plan, plan.num_frames, NO_RANGE)
            self._stack = stack.pop_all()

    def watch(self, frames: Iterable[tuple[int, list[NDArray[np.uint8]]]]) -> Iterator[NDArray[np.uint8]]:
        """The frames of `read_at_sizes`, once they were handed to the writers too."""
        for index, (number, (image,)) in enumerate(frames):
            self._hand(ResultFrame(index, number, self._timeline.time(number), NO_DEPTH, NO_DEPTH, image))
            yield image

    def __enter__(self) -> EarlyOutputs:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]  # what a context is left with

    def finish(self) -> dict[str, str]:
        """Close the writers, and have what they wrote on the disk; gives the files' SHA-256 by their names."""
        self._stack.close()
        return {path.name: _synced_hash(path) for path in sorted(self._folder.glob("*"))}


def take_early(
    spool: Path, hashes: Mapping[str, str], plan: Plan, outputs: Outputs, staging: Path
) -> frozenset[Output]:
    """Put what was written early, and is asked for, among the results if it is as it was left; gives which it is."""
    taken = set()
    for row in outputs.rows:
        name = f"{plan.name}{row.suffix}"
        path = spool / EARLY / name
        if name in hashes and path.is_file() and _hash(path) == hashes[name]:
            # Not moved: whatever becomes of the results, it may be needed again.
            try:
                os.link(path, staging / name)
            except OSError:
                shutil.copyfile(path, staging / name)
            taken.add(row)
    return frozenset(taken)


def _synced_hash(path: Path) -> str:
    with path.open("r+b") as file:
        os.fsync(file.fileno())
    return _hash(path)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
