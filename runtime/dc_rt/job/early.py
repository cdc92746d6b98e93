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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dc_rt.job.plan import Plan
from dc_rt.job.spool import EARLY
from dc_rt.job.writers import open_writers, result_of
from dc_rt.media.results import NO_DEPTH, ResultFrame
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

        Attributes:
            sizes: heights and widths that frames are to be read at, beside the model's.
        """
        self._folder = spool / EARLY
        self._options = outputs.manner if outputs else {}
        self._timeline = plan.timeline
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        rows = [row for row in plan.rows(outputs) if row.is_early] if outputs else []
        self.sizes = [plan.result_size(outputs)] if outputs and rows else []
        with ExitStack() as stack:
            result = result_of(plan, outputs or Outputs(), plan.num_frames)
            self._hand = open_writers(stack, rows, self._folder, plan.name, result)
            self._stack = stack.pop_all()

    def watch(self, frames: Iterable[tuple[int, list[NDArray[np.uint8]]]]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The frames of `read_at_sizes`, with their numbers, the first size of each, once the last was handed to the
        writers too."""
        for index, (number, images) in enumerate(frames):
            if self.sizes:
                time = self._timeline.time(number)
                self._hand(ResultFrame(index, number, time, NO_DEPTH, NO_DEPTH, NO_DEPTH, images[-1]))
            yield number, images[0]

    def __enter__(self) -> EarlyOutputs:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # type: ignore[arg-type]  # what a context is left with

    def finish(self) -> dict[str, Any]:
        """Close the writers, and have what they wrote on the disk; gives what `Early.of` reads, as JSON can hold it."""
        self._stack.close()
        files = {path.name: _synced_hash(path) for path in sorted(self._folder.glob("*"))}
        return {"options": self._options, "files": files}


@dataclass(frozen=True)
class Early:
    """What was written while the model ran: in `folder`, with these options, and the files' SHA-256 by their names."""

    folder: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, spool: Path, notes: Mapping[str, Any]) -> Early:
        """By the notes that are kept with the spool of that run."""
        found = notes.get("early", {})
        return cls(spool / EARLY, found.get("options", {}), found.get("files", {}))

    def take(self, plan: Plan, outputs: Outputs, staging: Path) -> frozenset[Output]:
        """Put what is asked for, in this manner, among the results if it is as it was left; gives which it is."""
        taken = set()
        for row in plan.rows(outputs):
            name = f"{plan.name}{row.suffix}"
            if self.folder is None or name not in self.files or self.options != outputs.manner:
                continue
            path = self.folder / name
            if path.is_file() and _hash(path) == self.files[name]:
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
