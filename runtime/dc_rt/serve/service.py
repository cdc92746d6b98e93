"""What the routes work with, and how a job comes about."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from starlette.requests import Request

from dc_rt.engine.discovery import find_candidates
from dc_rt.errors import UserError
from dc_rt.models import ModelOptions
from dc_rt.options import Options
from dc_rt.serve import choices
from dc_rt.serve.checks import AT_ONCE, Check, check
from dc_rt.serve.crew import Crew
from dc_rt.serve.errors import Refused
from dc_rt.serve.jobs import UPLOAD, ServedJob
from dc_rt.serve.kinds import is_under, not_taken, video_suffix
from dc_rt.serve.metrics import Metrics
from dc_rt.serve.names import result_name, shown_name
from dc_rt.serve.settings import Settings
from dc_rt.serve.store import Store
from dc_rt.serve.uploads import check_upload, receive

log = logging.getLogger(__name__)


@dataclass
class Service:
    """All that routes work with."""

    settings: Settings
    model: ModelOptions
    store: Store
    crew: Crew
    metrics: Metrics
    _checks: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def add_upload(self, request: Request, filename: str, values: Mapping[str, Any]) -> ServedJob:
        """Queue the video that a request's body is.

        Raises:
            Refused, UserError: it is not taken.
        """
        limits, shown = self.settings.limits, shown_name(filename)
        options = _called(choices.chosen(values), shown)
        check_upload(request, limits, self.store.free_bytes())
        with self.store.place(), self.store.draft() as folder:
            sent = folder / f"{UPLOAD}.part"
            size = await receive(request, sent, limits, self.store.free_bytes)
            self.metrics.upload_bytes.inc(size)
            suffix = video_suffix(sent)
            if suffix is None:
                raise Refused(415, str(not_taken(shown)))
            video = sent.rename(folder / f"{UPLOAD}{suffix}")
            return await self._queue(folder, video, video.name, shown, options)

    async def add_path(self, path: str, values: Mapping[str, Any]) -> ServedJob:
        """Queue a video under a root; raises as `add_upload` does."""
        options = choices.chosen(values)
        video = _under_root(path, self.settings.roots)
        shown = shown_name(video.name)
        if video.is_file() and video_suffix(video) is None:
            raise Refused(415, str(not_taken(shown)))
        with self.store.place(), self.store.draft() as folder:
            return await self._queue(folder, video, str(video), shown, _called(options, shown))

    async def _queue(self, folder: Path, video: Path, kept_as: str, shown: str, options: Options) -> ServedJob:
        limits, roots, by_name = self.settings.limits, self.settings.roots, options.as_dict()
        what = Check.within(limits, video, shown, by_name, self.model, folder / "results", roots)
        async with self._checks:
            found = await asyncio.to_thread(check, what)
        return await asyncio.to_thread(
            self.store.add, folder, filename=shown, video=kept_as, options=by_name, **asdict(found)
        )

    def resume(self, job: ServedJob) -> None:
        """Queue a job again; raises `Refused` where it is not one to be resumed, or the queue is full."""
        with self.store.place():
            self.store.resume(job)

    def problems(self) -> list[str]:
        """Why no job could be run now, a sentence each."""
        found = []
        try:
            find_candidates(Path(self.model.engines) if self.model.engines else None)
        except (UserError, OSError) as error:  # which names folders here, and anybody may ask
            log.warning("there are no engines: %s", error)
            found.append("There are no engines that can be read; the service's log says why.")
        if self.store.free_bytes() <= 0:
            found.append("The disk is nearly full; remove jobs, or make room.")
        if not self.store.is_writable():
            found.append("Nothing can be written to the folder of the jobs; check its permissions.")
        if not self.crew.is_well:
            found.append("A worker has ended; start the service anew.")
        return found


def read_options(text: str) -> dict[str, Any]:
    """The options that are sent as JSON in an address; raises `Refused` for what is none."""
    try:
        values = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise Refused(422, 'The options must be JSON, names with values, such as {"max_res": 512}.')
    return values


def _called(options: Options, shown: str) -> Options:
    return replace(options, outputs=replace(options.outputs, result_name=result_name(shown)))


def _under_root(path: str, roots: tuple[Path, ...]) -> Path:
    """A video under a root, links followed. What is elsewhere is refused as what is nowhere."""
    for root in roots:
        try:
            found = (root / path).resolve(strict=True)
            if is_under(found, roots) and (found.is_file() or found.is_dir()):
                return found
        except (OSError, ValueError, RuntimeError):  # it is not there, is no name, or goes round in a circle
            continue
    raise Refused(404, "There is no such video under a root of this service; name one by its path under a root.")
