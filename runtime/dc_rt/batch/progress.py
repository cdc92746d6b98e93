"""How far a batch is: each video counts by its work, and one that has not begun by its size on the disk."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dc_rt.batch.schedule import Entry
from dc_rt.job.targets import text
from dc_rt.media.read_images import is_image
from dc_rt.media.sequence import files_of, is_pattern


@dataclass(frozen=True)
class Standing:
    """Where a batch is at an instant.

    Attributes:
        done: how much of the work, from 0 to 1; None before any of it is known.
        seconds_left: at the pace so far; None before there is one.
        num_ended, num_videos: videos.
        num_held: of those that have not ended, the ones that other batches are at.
        running: by slot: the video that is run there, and how much of it is done.
    """

    done: float | None
    seconds_left: float | None
    num_ended: int
    num_videos: int
    num_held: int
    running: dict[int, tuple[str, float]]


class Overall:
    """Sums up what is done of all videos; those that were skipped, or failed, are no work.

    The work of a video is known when it is begun. Videos are not looked into for that before, since one may be as large
    as it likes, and may crash what decodes it; until then they count as much a byte as those that are known do.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries
        self._sizes = [_size_of(Path(entry.task.video)) for entry in entries]
        self._began: float | None = None  # when there was work, after what was skipped at once

    def standing(self) -> Standing:
        """Now."""
        left = [entry for entry in self._entries if entry.status == "unfinished"]
        running = {entry.slot: entry for entry in left if entry.slot is not None}
        work, done = self._work_and_done()
        if work and self._began is None:
            self._began = time.monotonic()
        elapsed = 0.0 if self._began is None else time.monotonic() - self._began
        return Standing(
            done / work if work else None,
            elapsed * (work / done - 1) if done else None,
            len(self._entries) - len(left),
            len(self._entries),
            sum(entry.was_held and entry.slot is None for entry in left),
            {slot: (text(entry.task.video), entry.share.done or 0.0) for slot, entry in sorted(running.items())},
        )

    def _work_and_done(self) -> tuple[float, float]:
        """The work of all videos that are run, and what of it is done; 0 before any is known."""
        work = done = 0.0
        bytes_known = bytes_unknown = 0
        for entry, size in zip(self._entries, self._sizes, strict=True):
            share = entry.share
            if entry.status not in ("unfinished", "finished"):
                continue
            if share.work:
                work += share.work
                done += share.work * (share.done or 0.0)
                bytes_known += size
            else:
                bytes_unknown += size
        return work * (1 + bytes_unknown / bytes_known if bytes_known else 1), done


def _size_of(video: Path) -> int:
    """Bytes on the disk; 0 of what cannot be looked at."""
    try:
        if os.path.isdir(video):  # noqa: PTH112 - pathlib's may raise
            files = [path for path in video.iterdir() if is_image(path)]
        else:
            files = files_of(video) if is_pattern(video) else [video]
        return sum(path.stat().st_size for path in files)
    except OSError:
        return 0
