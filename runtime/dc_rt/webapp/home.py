"""The folder that an app works in: made when it starts, removed when it ends, and by the next one if it was killed."""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dc_rt.errors import UserError, option
from dc_rt.lock import Held, locked, take_lock

_PREFIX = ".dc-rt-app-"
_NAME_BYTES = 4
_LOCK = "lock"  # held as long as the app is there
_SWEEP = ".dc-rt-app.lock"  # held while folders come and go
_KEEP = "keep"  # of an app whose results stay: the next one moves them out if it is killed
_PATIENCE_SECONDS, _POLL_SECONDS = 10.0, 0.05


class Home:
    """What one app has on the disk, in a folder of its own within `folder`, where other apps may have theirs.

    Attributes:
        folder: where results stay, if they are kept.
        own: the app's own, which nobody else looks into.
    """

    def __init__(self, folder: Path, keeps: bool) -> None:
        """Make it, and remove what apps that were killed have left.

        Args:
            folder: made if need be.
            keeps: whether results that are finished stay in `folder` once the app ends, one folder a video.

        Raises:
            UserError: the folder cannot be made or written to.
        """
        self.folder = folder
        self._keeps = keeps
        try:
            self._made = [each for each in (folder, *folder.parents) if not each.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            with _sweeping(folder):
                _clear_orphans(folder)
                self.own = folder / f"{_PREFIX}{secrets.token_hex(_NAME_BYTES)}"
                self.own.mkdir(mode=0o700)
                self._lock = _lock_of(self.own)
            if keeps:
                (self.own / _KEEP).touch()
            for each in (self.uploads, self.jobs):
                each.mkdir()
        except OSError as error:
            raise UserError(
                f"Nothing can be kept in {folder} ({error.strerror}); give another {option('folder')}."
            ) from error

    @property
    def uploads(self) -> Path:
        """Where videos come in."""
        return self.own / "uploads"

    @property
    def jobs(self) -> Path:
        """Where jobs are: that of a `dc_rt.serve.store.Store`."""
        return self.own / "jobs"

    def close(self) -> list[Path]:
        """Remove it, with the folders that were made for it if they are empty; the folders of results that stay."""
        kept = _keep_results(self.own, self.folder) if self._keeps else []
        self._lock.close()
        shutil.rmtree(self.own, ignore_errors=True)
        for folder in self._made:
            with suppress(OSError):  # something is in it
                folder.rmdir()
        return kept


def _lock_of(own: Path) -> BinaryIO:
    return take_lock(own / _LOCK)


@contextmanager
def _sweeping(folder: Path) -> Iterator[None]:
    """While folders come and go: another app that starts in this instant waits, and takes none for an orphan."""
    ends = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            with locked(folder / _SWEEP):
                yield
                return
        except Held:
            if time.monotonic() > ends:
                raise UserError(f"Other apps keep {folder} busy; give another {option('folder')}.") from None
            time.sleep(_POLL_SECONDS)


def _clear_orphans(folder: Path) -> None:
    """Remove the folders of apps that are no more."""
    for orphan in sorted(folder.glob(f"{_PREFIX}*")):
        if not _is_an_apps(orphan):
            continue
        try:
            lock = _lock_of(orphan)
        except (Held, OSError):
            continue
        if (orphan / _KEEP).exists():
            _keep_results(orphan, folder)
        lock.close()
        shutil.rmtree(orphan, ignore_errors=True)


def _is_an_apps(path: Path) -> bool:
    """Whether an app made it: anything else of such a name, or a link to what is elsewhere, is not ours to remove."""
    is_called_so = re.fullmatch(rf"{re.escape(_PREFIX)}[0-9a-f]{{{2 * _NAME_BYTES}}}", path.name)
    lock = path / _LOCK
    return bool(is_called_so and not path.is_symlink() and lock.is_file() and not lock.is_symlink())


def _keep_results(own: Path, folder: Path) -> list[Path]:
    """Move the results of jobs that have finished out of an app's folder: each into a folder that is called as they."""
    kept = []
    for results in sorted(own.glob("jobs/jobs/*/results")):
        # The record comes last: without it the results are not whole.
        if record := next(iter(sorted(results.glob("*.json"))), None):
            kept.append(results.rename(_free_name(folder, record.stem)))
    return kept


def _free_name(folder: Path, name: str) -> Path:
    place, number = folder / name, 2
    while place.exists():
        place, number = folder / f"{name}-{number}", number + 1
    return place
