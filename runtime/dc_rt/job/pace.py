"""How fast a set of engines was when it last ran on this machine, so that the next run's time can be told.

Kept in the user's cache, one line a set and device. It is advice: what cannot be read or written is done without.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dc_rt.engine.manifest import GRAPHS, Manifest
from dc_rt.job.events import Event, Finished, Listener, Resumed
from dc_rt.job.plan import Plan
from dc_rt.options import Sampling
from dc_rt.user_cache import user_cache

log = logging.getLogger(__name__)

FILE = "pace.json"
SHORT_SECONDS = 5.0


@dataclass(frozen=True)
class Pace:
    """Seconds for the work of one pixel, of how many in all, of what, and when it was measured."""

    seconds_per_pixel: float
    seconds: float
    video: str
    height: int
    width: int
    when: str


class WholeRun:
    """A listener that passes everything on, and keeps how long the run took if it was one from its beginning."""

    def __init__(self, listener: Listener) -> None:
        self.seconds = 0.0
        self._listener = listener
        self._is_resumed = False

    def hear(self, event: Event) -> None:
        """Listen to a job."""
        self._is_resumed |= isinstance(event, Resumed)
        if isinstance(event, Finished) and not self._is_resumed:
            self.seconds = event.seconds
        self._listener(event)


def work_of(plan: Plan, sampling: Sampling) -> int:
    """Pixels of all frames, counted at every evaluation of the denoiser, and once each for encoding and decoding."""
    return plan.height * plan.width * (plan.num_evaluated(sampling) + 2 * plan.num_frames)


def remember(manifest: Manifest, offload: str, plan: Plan, sampling: Sampling, seconds: float) -> None:
    """Keep how long a run from its beginning to its end took; a short one says little, and replaces no longer one."""
    before = recall(manifest, offload)
    if before and seconds < SHORT_SECONDS < before.seconds:
        return
    now = datetime.datetime.now().astimezone().isoformat(timespec="minutes")
    pace = Pace(seconds / work_of(plan, sampling), seconds, plan.name, plan.height, plan.width, now)
    path = _path()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{FILE}.{os.getpid()}.part")
        draft.write_text(
            json.dumps(_read() | {_key(manifest, offload): asdict(pace)}, indent=2) + "\n", encoding="utf-8"
        )
        draft.replace(path)
    except OSError as error:
        log.info("How long the run took is not kept (%s).", error)


def recall(manifest: Manifest, offload: str) -> Pace | None:
    """The pace of the set's last run; None where there was none, or none that can be read."""
    record: Any = _read().get(_key(manifest, offload))
    try:
        pace = Pace(**record)
        return pace if 0 < float(pace.seconds_per_pixel) < float("inf") and float(pace.seconds) > 0 else None
    except (TypeError, ValueError):
        return None


def _key(manifest: Manifest, offload: str) -> str:
    """What runs, by the hashes that the manifest states, and how."""
    files = [manifest.graphs[graph][0].sha256 for graph in GRAPHS]
    return hashlib.sha256(json.dumps([manifest.flavour, offload, *files]).encode()).hexdigest()


def _read() -> dict[str, Any]:
    try:
        record = json.loads(_path().read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _path() -> Path:
    return user_cache() / FILE
