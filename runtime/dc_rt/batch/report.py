"""How a batch ended: what became of each video, as a file that programs read."""

from __future__ import annotations

import datetime
import errno
import json
import os
import secrets
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from dc_rt.errors import UserError, option, worded
from dc_rt.job.targets import text
from dc_rt.options import as_flag

Status = Literal["finished", "skipped", "elsewhere", "failed", "unfinished"]


@dataclass(frozen=True)
class Outcome:
    """What became of one video.

    Attributes:
        video: its path, as text; or the line of a manifest that is none.
        save_folder: where its results are.
        status: "finished" by this batch, "skipped" as it was done before, done "elsewhere" by another batch meanwhile,
            "failed", or "unfinished" as the batch was interrupted.
        note: what is to be said of it, why it failed above all; its options are marked as those of `UserError` are.
        tries: how often it was begun.
        frames: of each result; None where there are none.
        seconds: that all tries took together; None where there was none.
        files: that were written, or are there.
    """

    video: str
    save_folder: str
    status: Status
    note: str = ""
    tries: int = 0
    frames: int | None = None
    seconds: float | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What became of all videos, in the order of the inputs.

    Attributes:
        outcomes: one a video.
        began: when the batch did.
        seconds: that it took.
        is_interrupted: whether it was ended before its end.
    """

    outcomes: tuple[Outcome, ...]
    began: datetime.datetime
    seconds: float
    is_interrupted: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """How many videos there are of each status."""
        counted = Counter(outcome.status for outcome in self.outcomes)
        return {status: counted[status] for status in get_args(Status)}

    def as_json(self) -> dict[str, Any]:
        """The report as JSON can hold it, options as they are typed."""
        ended = self.began + datetime.timedelta(seconds=self.seconds)
        return {
            "started": self.began.isoformat(timespec="seconds"),
            "ended": ended.isoformat(timespec="seconds"),
            "seconds": round(self.seconds, 3),
            "interrupted": self.is_interrupted,
            "counts": self.counts,
            "videos": [_as_json(outcome) for outcome in self.outcomes],
        }

    def write(self, path: Path) -> None:
        """Write it to a file, which is the old or the new at every instant; raises `UserError` where that cannot be."""
        draft = _draft(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(self.as_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            draft.replace(path)
        except OSError as error:
            with suppress(OSError):
                draft.unlink()
            raise _unwritable(path, error) from error


def check_report(path: Path) -> None:
    """Raise `UserError` where no report could be written, before the work that it would be of.

    A folder that is not there yet is made when it is needed, so that a batch of which nothing comes leaves none.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.parent.exists():
            draft = _draft(path)
            draft.touch()
            draft.unlink()
    except OSError as error:
        raise _unwritable(path, error) from error


def _draft(path: Path) -> Path:
    """What becomes the report; batches that share a folder may end at one time."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"The report cannot be written to {text(path)} ({error.strerror}); check the folder's permissions, or "
        f"give another {option('save_folder')} or {option('report')}."
    )


def _as_json(outcome: Outcome) -> dict[str, Any]:
    seconds = None if outcome.seconds is None else round(outcome.seconds, 3)
    return asdict(outcome) | {"note": worded(outcome.note, as_flag), "seconds": seconds}
