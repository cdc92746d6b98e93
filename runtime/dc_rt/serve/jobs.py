"""A job of the service: a folder, and what is known of it.

jobs/ID/job.json       what is known of it, replaced in one step
jobs/ID/events.jsonl   what happened to it (`dc_rt.serve.journal`)
jobs/ID/upload.mp4     the video, if it was sent; removed once the job has finished
jobs/ID/results        its results, and the spool of its run: a job goes on from there, also after a crash
"""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from dc_rt.job.spool import find_spool, is_resumable, write_whole
from dc_rt.options import Options
from dc_rt.outputs import all_outputs
from dc_rt.serve.journal import Journal

log = logging.getLogger(__name__)

Status = Literal["queued", "running", "finished", "failed", "cancelled"]
ENDED: tuple[Status, ...] = ("finished", "failed", "cancelled")
STATE = "job.json"
EVENTS = "events.jsonl"
UPLOAD = "upload"  # and the suffix of its kind

_MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".json": "application/json",
    ".zip": "application/zip",
}
_UNKNOWN = "application/octet-stream"


@dataclass(frozen=True)
class State:
    """What is kept of a job, as plain values.

    Attributes:
        number: its place among all that were ever queued; a job that is resumed takes a new one.
        status: where it is.
        filename: what the client calls the video.
        video: the name of the upload in the job's folder, or the path under a root.
        options: of the run, by name.
        created, started, ended: times of UTC in ISO 8601.
        num_frames: of the results.
        height, width: of the video as it is shown.
        error: a sentence, of one that failed.
    """

    number: int
    status: Status
    filename: str
    video: str
    options: Mapping[str, Any]
    created: str
    started: str | None = None
    ended: str | None = None
    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    error: str | None = None

    @property
    def is_ended(self) -> bool:
        """Whether nothing more happens to it by itself."""
        return self.status in ENDED


_KEPT = TypeAdapter(State)


@dataclass(frozen=True)
class ResultFile:
    """A result as a client sees it: a file, or a folder of them, which is given as one ZIP file."""

    name: str
    bytes: int
    kind: str
    media_type: str
    path: Path


@dataclass
class ServedJob:
    """One job, as the service holds it while it runs.

    Attributes:
        id: its name, which nobody can guess.
        folder: where it is kept.
        state: what is kept of it.
        share: how much of it is done, from 0 to 1.
        seconds_left: that it will take.
        num_done: frames that are through the last stage.
        stage: that it is at, as `dc_rt.job.events.Progressed` names it; empty before there is one.
        is_cancelled: whether somebody has cancelled the run that is under way.
        is_removed: whether its folder is gone.
    """

    id: str
    folder: Path
    state: State
    share: float | None = None
    seconds_left: float | None = None
    num_done: int = 0
    stage: str = ""
    is_cancelled: bool = False
    is_removed: bool = False
    journal: Journal = field(init=False)
    _found: list[ResultFile] | None = None

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder / EVENTS)

    @classmethod
    def read(cls, folder: Path) -> ServedJob:
        """What is in a folder; raises ValueError or OSError where it is no job."""
        state = _KEPT.validate_json((folder / STATE).read_bytes(), strict=True)
        return cls(folder.name, folder, state, 1.0 if state.status == "finished" else None)

    @property
    def video(self) -> Path:
        """The video that is run."""
        return self.folder / self.state.video

    @property
    def results(self) -> Path:
        """The folder of the results and of the spool."""
        return self.folder / "results"

    @property
    def options(self) -> Options:
        """Of the run."""
        return Options.by_name(self.state.options)

    @property
    def is_resumable(self) -> bool:
        """Whether it ended before its end, and another run goes on from where it was."""
        return self.state.status in ("failed", "cancelled") and is_resumable(self.spool)

    @property
    def spool(self) -> Path:
        """Where the run keeps what it has done."""
        return find_spool(self.results, self._called)

    @property
    def _called(self) -> str:
        """What its results are called; known also of a job whose options no version of dc-rt knows any more."""
        return str(self.state.options.get("result_name", ""))

    def change(self, **values: Any) -> None:
        """Change what is kept of it, on the disk first; of another status all that listen are told.

        On a full disk it is changed nevertheless, so that the job can be removed; the next service runs it again.
        """
        state = replace(self.state, **values)
        try:
            write_state(self.folder, state)
            if state.status == "finished":
                self._remove_upload()
            if "status" in values:
                self.journal.append("Status", {"status": state.status, "error": state.error})
        except OSError as error:
            log.error("job %s is %s, which cannot be kept: %s", self.id, state.status, error)
        self.state = state
        self.journal.ring()  # what ended is known to have ended once its last event is there

    def _remove_upload(self) -> None:
        """Remove the video that was sent: nothing more is made of it."""
        if self.video.parent == self.folder:
            self.video.unlink(missing_ok=True)

    def files(self) -> list[ResultFile]:
        """The results of a job that has finished, those that people look at first; folders as one ZIP file each."""
        if self.state.status != "finished":
            return []
        if self._found is None:  # they change no more, and there may be very many in a folder
            self._found = sorted(self._files(), key=lambda file: (file.kind == "folder", file.kind == "record"))
        return self._found

    def _files(self) -> Iterator[ResultFile]:
        for path in sorted(self.results.iterdir()):
            if path.name.startswith("."):
                continue
            if path.is_dir():
                inside = folder_files(path)
                size = sum(file.stat().st_size for file in inside.values())
                yield ResultFile(f"{path.name}.zip", size, "folder", _MEDIA_TYPES[".zip"], path)
            else:
                kind = _kind(path.name.removeprefix(self._called))
                media_type = _MEDIA_TYPES.get(path.suffix, _UNKNOWN)
                yield ResultFile(path.name, path.stat().st_size, kind, media_type, path)

    def find(self, name: str) -> ResultFile | None:
        """The result of exactly this name, `folder/file` for one in a folder; None without such a one."""
        found = {file.name: file for file in self.files()}
        if name in found or "/" not in name:
            return found.get(name)
        folder = found.get(f"{name.partition('/')[0]}.zip")
        path = folder_files(folder.path).get(name) if folder and folder.kind == "folder" else None
        return None if path is None else _inside(name, path)

    def all_files(self) -> list[ResultFile]:
        """As `files`, and behind them those in folders one by one."""
        files = self.files()
        folders = [file.path for file in files if file.kind == "folder"]
        return [*files, *(_inside(*each) for folder in folders for each in folder_files(folder).items())]


def _inside(name: str, path: Path) -> ResultFile:
    """A file of a folder."""
    return ResultFile(name, path.stat().st_size, "file", _MEDIA_TYPES.get(path.suffix, _UNKNOWN), path)


def write_state(folder: Path, state: State) -> None:
    """Keep what is known of a job."""
    write_whole(folder / STATE, json.dumps(asdict(state), indent=1).encode())


def folder_files(folder: Path) -> dict[str, Path]:
    """The files of a folder of results by their names, which begin with the folder's."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder.parent).as_posix(): path for path in files}


def now() -> str:
    """The time of UTC in ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _kind(suffix: str) -> str:
    """The name of the output whose files have this suffix."""
    if suffix == ".json":
        return "record"
    return next((row.name for row in all_outputs().values() if row.kind == "file" and suffix in row.ever), "file")
