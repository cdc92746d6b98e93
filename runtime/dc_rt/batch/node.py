"""What a node of a cluster does for a batch: it is looked at, is given the engine set, and runs one video at a time.

Nothing here knows what connects the nodes: `dc_rt.batch.cluster` has Ray call it, in a process of Ray's on the node.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from dc_rt import __version__
from dc_rt.engine.parcel import Parcel, Received
from dc_rt.job import Task, Worker
from dc_rt.job.events import Event, as_json
from dc_rt.media.sequence import is_pattern
from dc_rt.models import ModelOptions

MOMENT_SECONDS = 0.25  # in which events are sent together: there are many, and each way takes a while


def obstacle(version: str, token: str) -> str:
    """Why this node cannot run videos, and what mends that; empty where it can.

    Args:
        version: of dc-rt where the batch was started.
        token: a file there among the results.
    """
    if __version__ != version:
        return f"it has dc-rt {__version__}, and the batch was started with {version}; install the same version there"
    if not os.path.lexists(token):
        return (
            f"it does not see the files in {Path(token).parent}; put the results on storage that all nodes share, "
            "under the same path"
        )
    return ""


def look(video: str) -> int | None:
    """What is seen of a video from here: the bytes of a file, 0 for a folder of images; None where there is none."""
    path = Path(video).parent if is_pattern(Path(video)) else Path(video)
    try:
        return 0 if path.is_dir() else path.stat().st_size
    except OSError:
        return None


class Runner:
    """Runs one video at a time, in a process of its own that keeps the model open."""

    def __init__(self, folder: str, parcel: Parcel, models: ModelOptions, lease_seconds: float) -> None:
        """Nothing is started, and no file is looked at.

        Args:
            folder: that the batch was started in.
            parcel: the engine set.
            models: how it is run; `engines` is where it is on this node.
            lease_seconds: as of `Worker`.
        """
        with suppress(OSError):  # so that options which name files do so from the same folder, where it is shared
            os.chdir(folder)
        self._parcel, self._models = parcel, models
        self._lease_seconds = lease_seconds
        self._received = Received(parcel)
        self._worker: Worker | None = None

    @staticmethod
    def look(video: str) -> int | None:
        """What is seen of a video from here (`look`)."""
        return look(video)

    def missing(self) -> tuple[str, ...]:
        """The files of the engine set that this node lacks: each is to be sent with `write`, then `finish` is called.

        Raises as `Received.begin` does.
        """
        if folder := self._parcel.place():
            self._open(folder)
            return ()
        missing = self._received.begin()
        if not missing:
            self._open(self._received.folder)
        return missing

    def write(self, name: str, offset: int, piece: bytes) -> None:
        """Write a piece of a file of the engine set."""
        self._received.write(name, offset, piece)

    def finish(self) -> None:
        """All pieces have come. Raises as `Received.finish` does."""
        self._open(self._received.finish())

    def run(self, values: Mapping[str, Any]) -> Iterator[list[dict[str, Any]]]:
        """Run a task, given as JSON: its events as JSON too, those of a moment at once; the last one says how it ended.

        Without such a last one its process has died.
        """
        assert self._worker is not None
        told: SimpleQueue[Event | None] = SimpleQueue()
        thread = threading.Thread(target=self._run, args=(self._worker, Task.from_json(values), told), daemon=True)
        thread.start()
        events: list[Event | None] = []
        while None not in events:
            events = _of_a_moment(told)
            yield [as_json(event) for event in events if event]
        thread.join()

    def cancel(self) -> None:
        """End what runs within two seconds; what was done is kept."""
        if self._worker:
            self._worker.cancel()

    def close(self) -> None:
        """End the process that has the model."""
        if self._worker:
            self._worker.close()

    def _open(self, folder: Path) -> None:
        self._worker = Worker(replace(self._models, engines=str(folder)), lease_seconds=self._lease_seconds)

    @staticmethod
    def _run(worker: Worker, task: Task, told: SimpleQueue[Event | None]) -> None:
        with suppress(Exception):  # the last event says what it is
            worker.run(task, told.put)
        told.put(None)


def _of_a_moment(told: SimpleQueue[Event | None]) -> list[Event | None]:
    """The next event, and those that come soon after it; None is the end."""
    events, until = [told.get()], time.monotonic() + MOMENT_SECONDS
    while events[-1] is not None:
        try:
            events.append(told.get(timeout=max(until - time.monotonic(), 0)))
        except Empty:
            break
    return events
