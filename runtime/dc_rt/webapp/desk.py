"""What the page asks for: jobs of a browser's own, in one queue with those of all others.

Nothing here knows of the page, nor imports Gradio.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from dc_rt.errors import UserError
from dc_rt.models import ModelOptions
from dc_rt.serve import choices
from dc_rt.serve.checks import AT_ONCE, Check, check
from dc_rt.serve.crew import Crew
from dc_rt.serve.jobs import UPLOAD, ServedJob
from dc_rt.serve.journal import Reader
from dc_rt.serve.kinds import check_video, is_under, not_taken, video_suffix
from dc_rt.serve.names import result_name, shown_name
from dc_rt.serve.settings import Limits
from dc_rt.serve.store import Store


@dataclass
class Story:
    """What was told of a job's last run.

    Attributes:
        planned: the event of that name by its fields; empty before it.
        num_resumed: frames that were there of an earlier run.
        warnings: sentences.
        num_shots: 0 where they were not looked for.
        seconds: that the run took; None before its end.
    """

    planned: dict[str, Any] = field(default_factory=dict)
    num_resumed: int = 0
    warnings: list[str] = field(default_factory=list)
    num_shots: int = 0
    seconds: float | None = None

    def hear(self, kind: str, data: Mapping[str, Any]) -> None:
        """An event of the job's journal."""
        match kind:
            case "Status" if data["status"] == "running":
                self.__init__()  # type: ignore[misc]  # a run has begun: what was told of others is of them
            case "Planned":
                self.planned = dict(data)
            case "Resumed":
                self.num_resumed = data["num_frames"]
            case "ShotsFound":
                self.num_shots = data["num_shots"]
            case "Warned":
                self.warnings.append(data["sentence"])
            case "Finished":
                self.seconds = data["seconds"]


@dataclass
class _Owned:
    """A job, with what the page knows of it beside."""

    job: ServedJob
    browser: str
    upload: Path
    reader: Reader
    story: Story = field(default_factory=Story)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Desk:
    """Takes videos, and shows each browser its own jobs alone. May be called from any thread."""

    def __init__(self, store: Store, crew: Crew, model: ModelOptions, limits: Limits, uploads: Path) -> None:
        """`uploads` is the folder that all videos come from."""
        self._store = store
        self._crew = crew
        self._model = model
        self._limits = limits
        self._uploads = Path(os.path.realpath(uploads))
        self._owned: dict[str, _Owned] = {}
        self._checks = threading.Semaphore(AT_ONCE)
        self._adding = threading.Lock()

    def take_in(self, video: Path) -> Path:
        """A copy of a video of this machine's among those that came in."""
        copy = self._uploads / "examples" / video.name
        copy.parent.mkdir(exist_ok=True)
        if not copy.exists():
            shutil.copyfile(video, copy)
        return copy

    def look_at(self, upload: Path) -> None:
        """Raise `UserError` for a video that has come and is none, or cannot be opened."""
        shown = shown_name(upload.name)
        check_video(self._checked(upload, shown), shown)

    def submit(self, browser: str, upload: Path, values: Mapping[str, Any]) -> ServedJob:
        """Queue a video with these options, unless that waits or runs already; one that was broken off is resumed.

        Raises:
            UserError: it is no video, or too long or too large, or the options do not go together.
            Refused: the queue is full.
            OSError: the disk refuses.
        """
        shown = shown_name(upload.name)
        chosen = choices.chosen(values)
        options = replace(chosen, outputs=replace(chosen.outputs, result_name=result_name(shown))).as_dict()
        video = self._checked(upload, shown)
        if job := self._again(browser, video, options):
            return job
        with self._store.place(), self._store.draft() as folder:
            own = folder / f"{UPLOAD}{video_suffix(video)}"
            _link(video, own)
            what = Check.within(self._limits, own, shown, options, self._model, folder / "results")
            with self._checks:
                found = check(what)
            with self._adding:
                # A button that is pressed twice has both come as far as here.
                if job := self._again(browser, video, options):
                    return job
                # Before anybody can ask for it.
                job = self._store.add(folder, filename=shown, video=own.name, options=options, **asdict(found))
                self._owned[job.id] = _Owned(job, browser, video, job.journal.reader(0))
        return job

    def jobs_of(self, browser: str) -> list[ServedJob]:
        """Those of a browser, the newest first."""
        owners = self._owned
        return [job for job in self._store.all() if job.id in owners and owners[job.id].browser == browser]

    def find(self, browser: str, id: str | None) -> ServedJob | None:
        """A job of a browser's; None where it has none of this name, or it was removed."""
        owned = self._owned.get(id or "")
        return owned.job if owned and owned.browser == browser and not owned.job.is_removed else None

    def story(self, job: ServedJob) -> Story:
        """What was told of its last run so far."""
        owned = self._owned[job.id]
        with owned.lock:
            while entries := owned.reader.read():
                for entry in entries:
                    owned.story.hear(entry.kind, json.loads(entry.data))
            return replace(owned.story, warnings=list(owned.story.warnings))

    def place(self, job: ServedJob) -> int | None:
        """How many runs end before this job has its turn; None of one that does not wait."""
        position = self._store.positions().get(job.id)
        return None if position is None else position - 1 + self._store.num_running()

    def cancel(self, job: ServedJob) -> None:
        """End a job, queued or running; what was done is kept."""
        if not self._store.cancel_queued(job):
            self._crew.cancel(job)

    def resume(self, job: ServedJob) -> None:
        """Queue a job again that failed or was cancelled. Raises `Refused` for others, and where the queue is full."""
        with self._store.place():
            self._store.resume(job)

    def remove(self, job: ServedJob) -> None:
        """Remove a job that has ended, with its results; raises `Refused` while it is run."""
        self._store.remove(job)
        self._owned.pop(job.id, None)

    def _checked(self, upload: Path, shown: str) -> Path:
        """Where a video really is; raises `UserError` for what did not come in here, or begins as no video."""
        path = Path(os.path.realpath(upload))
        is_ours = is_under(path, (self._uploads,))
        if is_ours and not path.exists():
            raise UserError(f"{shown} was removed, as it came in long ago; choose it again.")
        if not is_ours or not path.is_file() or video_suffix(path) is None:
            raise not_taken(shown)
        return path

    def _again(self, browser: str, video: Path, options: Mapping[str, Any]) -> ServedJob | None:
        """The job of the same browser, video and options that waits, runs, or was broken off and is now resumed."""
        for job in self.jobs_of(browser):
            owned = self._owned[job.id]
            if owned.upload != video or job.state.options != options or job.state.status == "finished":
                continue
            if job.state.is_ended:
                self.resume(job)
            return job
        return None


def _link(video: Path, name: Path) -> None:
    """The same file under a second name, so that each is removed in its time; a copy where the system links none."""
    with suppress(OSError):
        os.link(video, name)
        return
    shutil.copyfile(video, name)
