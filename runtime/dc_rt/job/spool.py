"""What an unfinished run keeps on disk: the depth so far, and between two windows what the next one needs.

A spool is a folder beside the results:

    lock        held by the run that works on it
    depth.f32   float32 [H,W] a frame; what lies beyond the state's frames is void
    input       the frames of a pipe, raw; what lies beyond those that the state counts is void
    state       SHA-256 of the rest, then an .npz of the `WindowState` and a record in JSON
    results     what is written before it is moved into place
    stale       what those results replace and are not put over, for as long as they are moved
    moved.json  what earlier runs may have moved into place before they were killed: see `dc_rt.job.targets`

The state is replaced in one step, after the depth that it counts has reached the disk: a crash at any instant leaves
the state before or the state after, and either can be gone on from. Whoever deletes anything here holds the lock.

Where another worker takes the work over from one that may yet wake (`dc_rt.lease`), the folder gets a name of its own,
`.NAME.spool-TOKEN`, that the other does not know: see `fence`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from dc_rt.depth import ShotDepth, range_of
from dc_rt.errors import UserError, option
from dc_rt.job.fingerprint import Fingerprint, differences
from dc_rt.lock import Held, is_still, take_lock
from dc_rt.windows import WindowState


@dataclass(frozen=True)
class Committed:
    """How far a spool is: frames of depth, their shots, whether the first pass is over, and what the job adds."""

    num_frames: int = 0
    shots: tuple[ShotDepth, ...] = ()
    complete: bool = False
    depth_sha256: str = hashlib.sha256().hexdigest()
    notes: Mapping[str, Any] | None = None


MOVED = "moved.json"
STALE = "stale"  # see dc_rt.job.results
EARLY = "early"  # see dc_rt.job.early
INPUT = "input"  # see dc_rt.media.pipe

# All but the lock. The state comes first, since it vouches for the rest.
_CONTENTS = ("state", "state.part", "depth.f32", "depth.part", INPUT, "results", STALE, EARLY, MOVED, f"{MOVED}.part")

SPOOL_SUFFIX = ".spool"  # of its folder, which is hidden and called after the results
_TOKEN = "-[0-9a-f]{8}"

_LOCK_ATTEMPTS = 100  # all but the first are for folders and lock files that are deleted in the same instant


class SpoolHeld(UserError):
    """Another run works in the spool."""


class SpoolLock:
    """The right to work in a spool's folder and to delete what is there, which one process at a time has.

    The system gives it up with the process, however that ends.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder where there is none, and lock it.

        Raises:
            SpoolHeld: another run holds it.
            OSError: the disk refuses.
        """
        self._folder = folder
        self._made = [above for above in folder.parents if not above.exists()]
        try:
            self._file = _lock(folder)
        except BaseException:
            self._remove_made()
            raise

    def release(self) -> None:
        """Leave the folder as it is to the next run."""
        self._file.close()

    def delete(self, keep: str | None = None) -> None:
        """Remove what is in the folder, but for one name, and the folders that were made for it."""
        if self._file.closed:
            return
        if not is_still(self._file, self._folder / "lock"):  # taken over: what is there now is another run's
            self._file.close()
            return
        for name in _CONTENTS:
            if name != keep:
                _remove(self._folder / name)
        # Last of all, and while it is locked, so that whoever has opened it sees that it is not the folder's any more.
        if sys.platform == "win32":  # which deletes no open file, so that nobody can hold a deleted one either
            self._file.close()
        with suppress(OSError):
            (self._folder / "lock").unlink()
        self._file.close()
        self._remove_made()

    def _remove_made(self) -> None:
        for folder in (self._folder, *self._made):
            try:
                folder.rmdir()
            except OSError:  # as something is in it
                return


def find_spool(save_folder: Path, name: str) -> Path:
    """The spool's folder of results called so, there or not.

    Of several, as a worker may leave that woke amid `fence`, it is the one with the newest state, and of those without
    one, one that is fenced.
    """

    def when(folder: Path) -> tuple[float, bool]:
        is_fenced = folder.name != usual
        try:
            return (folder / "state").stat().st_mtime, is_fenced
        except OSError:
            return 0.0, is_fenced

    usual = usual_name(name)
    return max([save_folder / usual, *_fenced_spools(save_folder, name)], key=when)


def fence(save_folder: Path, name: str) -> Path:
    """Take the spool of results called so away from a process that is silent and may wake; gives the folder's new path.

    What that process opens by its path is not there any more, and what it has open is not what is read here: neither
    the depth, which is copied, nor what was being written. The folder is made where there is none, so that it is not
    one that the other process is about to make. On Windows no folder can be renamed in which a file is open, so that
    nobody takes work over from a process that sleeps there.

    Raises:
        Held: it cannot be taken away.
        OSError: the disk refuses.
    """
    fenced = save_folder / f"{usual_name(name)}-{secrets.token_hex(4)}"
    for _ in range(_LOCK_ATTEMPTS):
        found = find_spool(save_folder, name)
        try:
            found.rename(fenced)
            break
        except FileNotFoundError:
            if not any(folder.exists() for folder in (found, *_fenced_spools(save_folder, name))):
                fenced.mkdir()
                break
        except PermissionError:
            if sys.platform != "win32":
                raise
            break
    if not fenced.exists():  # or one after the other renames it, each silent for long amid its own fence
        raise Held("another worker")
    for other in _fenced_spools(save_folder, name):
        if other != fenced:
            _remove_all(other)
    for draft in ("lock", "depth.part", "state.part", f"{MOVED}.part"):
        (fenced / draft).unlink(missing_ok=True)
    depth, copy = fenced / "depth.f32", fenced / "depth.part"
    if depth.exists():
        shutil.copyfile(depth, copy)
        copy.replace(depth)
    return fenced


def _fenced_spools(save_folder: Path, name: str) -> list[Path]:
    taken_over = re.compile(re.escape(usual_name(name)) + _TOKEN)
    try:
        # Listed, not globbed: the name may hold what a pattern would take for its own.
        names = sorted(os.listdir(save_folder))  # noqa: PTH208
    except OSError:
        return []
    return [save_folder / other for other in names if taken_over.fullmatch(other)]


def name_of_spool(folder_name: str) -> str | None:
    """What the results are called whose spool's folder is called so; None of any other name."""
    found = re.fullmatch(rf"{usual_name('(.+)')}(?:{_TOKEN})?", folder_name, re.DOTALL)
    return found and found[1]


def usual_name(name: str) -> str:
    """What the spool's folder of results called so is called, unless they were taken over."""
    return f".{name}{SPOOL_SUFFIX}"


def _remove_all(folder: Path) -> None:
    """Remove a spool, whoever works in it; what is not its own stays."""
    for name in (*_CONTENTS, "lock"):
        _remove(folder / name)
    with suppress(OSError):
        folder.rmdir()


def is_resumable(folder: Path) -> bool:
    """Whether a spool's folder has something to go on from."""
    return os.path.exists(folder / "state")  # noqa: PTH110 - pathlib's raises where the folder cannot be read


def fingerprint_of_state(folder: Path) -> dict[str, Any] | None:
    """That of the run which a spool's folder keeps; None where there is nothing to go on from.

    Raises:
        UserError: the spool is damaged.
        OSError: it cannot be read.
    """
    if not is_resumable(folder):
        return None
    found, _, _ = _decode((folder / "state").read_bytes(), folder)
    return found


class Spool:
    """An open spool. As a context manager it gives up the lock at the end, and deletes a spool with nothing in it."""

    def __init__(
        self,
        folder: Path,
        fingerprint: Fingerprint,
        height: int,
        width: int,
        restart: bool = False,
    ) -> None:
        """Make the spool in `folder`, or take up the one that is there.

        Raises:
            SpoolHeld: another run holds it.
            UserError: it was begun with another `fingerprint` or is damaged, unless
                `restart`, which throws away what is there.
            OSError: the disk refuses.
        """
        self.folder = folder
        self.state: WindowState | None = None
        self.progress = Committed()
        self._fingerprint = dict(fingerprint)
        self._shape = (height, width)
        self._lock = SpoolLock(folder)
        try:
            if restart:
                for name in ("state", "depth.f32"):
                    (folder / name).unlink(missing_ok=True)
            elif (folder / "state").exists():
                self._read_state()
            self._depth = (folder / "depth.f32").open("r+b" if (folder / "depth.f32").exists() else "w+b")
            self._hash = self._check_depth()
        except BaseException:
            self._leave()
            raise
        self._shots = list(self.progress.shots)
        self._num_frames = self.progress.num_frames

    @property
    def num_frames(self) -> int:
        """Frames of depth appended so far, committed or not."""
        return self._num_frames

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest depth so far, of one frame at least."""
        return range_of(self.shots)

    @property
    def shots(self) -> tuple[ShotDepth, ...]:
        """The shots so far, the last as far as it was appended."""
        return tuple(self._shots)

    @property
    def shot_start(self) -> int:
        """The first frame of the shot that is under way, as committed last; between two shots, of the one to come."""
        return self.progress.num_frames - (self.state.num_decoded if self.state else 0)

    def append(self, depth: NDArray[np.float32]) -> None:
        """Add the next frame, float32 [H,W]."""
        data = np.ascontiguousarray(depth, np.float32).data
        self._depth.write(data)
        self._hash.update(data)
        low, high = float(depth.min()), float(depth.max())
        if self._num_frames == self.shot_start:
            self._shots.append(ShotDepth(self._num_frames, low, high))
        else:
            shot = self._shots[-1]
            self._shots[-1] = ShotDepth(shot.start, min(shot.low, low), max(shot.high, high))
        self._num_frames += 1

    def commit(
        self, state: WindowState | None, notes: Mapping[str, Any] | None = None, *, between_shots: bool = False
    ) -> None:
        """Make what was appended last.

        Args:
            state: what the next window needs; None where a shot has ended.
            notes: plain values that the job wants back on a resumed run.
            between_shots: whether another shot follows the one that has ended.
        """
        self._depth.flush()
        os.fsync(self._depth.fileno())
        complete = state is None and not between_shots
        progress = Committed(self._num_frames, self.shots, complete, self._hash.copy().hexdigest(), dict(notes or {}))
        contents = _encode(self._fingerprint, progress, state)
        write_whole(self.folder / "state", contents)
        self.state, self.progress = state, progress

    @property
    def numbers(self) -> None:
        """Not kept: reading the video tells which frames these are."""
        return None

    def frames(self) -> Iterator[NDArray[np.float32]]:
        """All frames as they were given: float32 [H,W]."""
        self._depth.seek(0)
        for _ in range(self._num_frames):
            yield self._read_frame()

    def flush(self) -> None:
        """Have what was appended read by `frames_as_they_come`."""
        self._depth.flush()

    def frames_as_they_come(self, wait_for: Callable[[int], bool]) -> Iterator[NDArray[np.float32]]:
        """As `frames`, in another thread than the one that appends: `wait_for` waits for a frame, False at the end."""
        with (self.folder / "depth.f32").open("rb") as depth:
            for index in count():
                if not wait_for(index):
                    return
                yield np.frombuffer(depth.read(self._frame_bytes), np.float32).reshape(self._shape)

    def delete(self) -> None:
        """Remove the folder with all that is in it, once the results are in place."""
        self._depth.close()
        self._lock.delete()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # on a full disk even closing can fail, and what was committed is safe
            self._depth.close()
        self._leave()

    def _leave(self) -> None:
        """Give up the lock; a spool that holds nothing to go on from is removed."""
        if is_resumable(self.folder):
            self._lock.release()
        else:
            self._lock.delete(keep=MOVED)

    def _read_state(self) -> None:
        found, self.progress, self.state = _decode((self.folder / "state").read_bytes(), self.folder)
        changed = differences(found, self._fingerprint)
        if changed is None:
            raise _damaged(self.folder)  # of another version of this program
        if changed:
            what = ", ".join(f"{key} ({_shown(old)}, now {_shown(new)})" for key, (old, new) in changed.items())
            raise UserError(
                f"An unfinished run in {self.folder} was begun with another {what}; "
                f"give the same again to resume it, or {option('restart', True)} to throw it away."
            )

    def _check_depth(self) -> hashlib._Hash:
        """Cut the depth to what the state counts, and check it; the hash goes on from there."""
        digest = hashlib.sha256()
        self._depth.seek(0)
        for _ in range(self.progress.num_frames):
            digest.update(self._depth.read(self._frame_bytes))
        if digest.hexdigest() != self.progress.depth_sha256:
            raise _damaged(self.folder)
        end = self.progress.num_frames * self._frame_bytes
        self._depth.truncate(end)
        self._depth.seek(end)
        return digest

    @property
    def _frame_bytes(self) -> int:
        return 4 * self._shape[0] * self._shape[1]

    def _read_frame(self) -> NDArray[np.float32]:
        return np.frombuffer(self._depth.read(self._frame_bytes), np.float32).reshape(self._shape)


def _encode(fingerprint: Fingerprint, progress: Committed, state: WindowState | None) -> bytes:
    record = {"fingerprint": dict(fingerprint), "progress": asdict(progress)}
    arrays = {} if state is None else {field.name: getattr(state, field.name) for field in fields(state)}
    buffer = io.BytesIO()
    np.savez(buffer, record=np.frombuffer(json.dumps(record).encode(), np.uint8), **arrays)
    payload = buffer.getvalue()
    return hashlib.sha256(payload).digest() + payload


def _decode(contents: bytes, folder: Path) -> tuple[dict[str, Any], Committed, WindowState | None]:
    digest, payload = contents[:32], contents[32:]
    if hashlib.sha256(payload).digest() != digest:
        raise _damaged(folder)
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            record = json.loads(arrays["record"].tobytes())
            progress = _progress(record["progress"])
            state = None
            if "start" in arrays:
                values = {field.name: arrays[field.name] for field in fields(WindowState)}
                state = WindowState(**values | {"start": int(values["start"])})
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise _damaged(folder) from error  # of another version of this program
    return record["fingerprint"], progress, state


def _progress(record: dict[str, Any]) -> Committed:
    """As it was written; earlier versions took a video for one shot, and wrote its range alone."""
    shots = [ShotDepth(**shot) for shot in record.pop("shots", ())]
    if {"min", "max"} <= record.keys():
        whole = ShotDepth(0, record.pop("min"), record.pop("max"))
        shots = [whole] if record["num_frames"] else []
    return Committed(shots=tuple(shots), **record)


def _damaged(folder: Path) -> UserError:
    return UserError(f"The unfinished run in {folder} is damaged; start over with {option('restart', True)}.")


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:8]}..."


def write_whole(path: Path, contents: bytes) -> None:
    """Write `path` so that at every instant it is whole: the old or the new."""
    draft = path.with_name(f"{path.name}.part")
    try:
        with draft.open("wb") as file:
            file.write(contents)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened, and renaming is as lasting as it gets
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _lock(folder: Path) -> BinaryIO:
    """Make `folder` and take its lock, which the system gives up with the process however it ends."""
    for attempt in range(_LOCK_ATTEMPTS):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return take_lock(folder / "lock")
        except (FileNotFoundError, FileExistsError):  # another run has deleted the folder in this instant
            if attempt == _LOCK_ATTEMPTS - 1:
                raise
        except Held:
            break
    raise SpoolHeld(
        f"Another run is working on this result ({folder}); wait for it, or give another {option('save_folder')}."
    )
