"""What an unfinished run keeps on disk: the depth so far, and between two windows what the next one needs.

A spool is a folder beside the results:

    lock        held by the run that works on it
    depth.f32   float32 [H,W] a frame; what lies beyond the state's frames is void
    state       SHA-256 of the rest, then an .npz of the `WindowState` and a record in JSON

The state is replaced in one step, after the depth that it counts has reached the disk: a crash at any instant leaves
the state before or the state after, and either can be gone on from.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from dc_rt.errors import UserError
from dc_rt.lock import Held, take_lock
from dc_rt.pipeline import WindowState

Fingerprint = Mapping[str, Any]
"""What a run must have in common with the one that it continues: plain values by name."""


@dataclass(frozen=True)
class Progress:
    """How far a spool is: frames of depth, their range, whether the first pass is over, and what the job adds."""

    num_frames: int = 0
    min: float = float("inf")
    max: float = float("-inf")
    complete: bool = False
    depth_sha256: str = hashlib.sha256().hexdigest()
    notes: Mapping[str, Any] | None = None


class Spool:
    """An open spool. As a context manager it gives up the lock at the end, and deletes a spool with nothing in it."""

    def __init__(self, folder: Path, fingerprint: Fingerprint, height: int, width: int, restart: bool = False) -> None:
        """Make the spool in `folder`, or take up the one that is there.

        Raises:
            UserError: another run holds it; or it was begun with another `fingerprint` or is damaged, unless
                `restart`, which throws away what is there.
            OSError: the disk refuses.
        """
        self.folder = folder
        self.state: WindowState | None = None
        self.progress = Progress()
        self._fingerprint = dict(fingerprint)
        self._shape = (height, width)
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        try:
            if restart:
                for name in ("state", "depth.f32"):
                    (folder / name).unlink(missing_ok=True)
            elif (folder / "state").exists():
                self._read_state()
            self._depth = (folder / "depth.f32").open("r+b" if (folder / "depth.f32").exists() else "w+b")
            self._hash = self._check_depth()
        except BaseException:
            self._lock.close()
            raise
        self._min, self._max = np.float32(self.progress.min), np.float32(self.progress.max)
        self._num_frames = self.progress.num_frames

    @property
    def num_frames(self) -> int:
        """Frames of depth appended so far, committed or not."""
        return self._num_frames

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest depth so far."""
        return float(self._min), float(self._max)

    def append(self, depth: NDArray[np.float32]) -> None:
        """Add the next frame, float32 [H,W]."""
        data = np.ascontiguousarray(depth, np.float32).data
        self._depth.write(data)
        self._hash.update(data)
        self._num_frames += 1
        self._min = min(self._min, depth.min())
        self._max = max(self._max, depth.max())

    def commit(self, state: WindowState | None, notes: Mapping[str, Any] | None = None) -> None:
        """Make what was appended last: `state` is what the next window needs, None when there is none.

        `notes` are plain values that the job wants back on a resumed run.
        """
        self._depth.flush()
        os.fsync(self._depth.fileno())
        progress = Progress(
            self._num_frames, *self.range, state is None, self._hash.copy().hexdigest(), dict(notes or {})
        )
        contents = _encode(self._fingerprint, progress, state)
        _replace(self.folder / "state", contents)
        self.state, self.progress = state, progress

    def normalised(self) -> Iterator[NDArray[np.float32]]:
        """All frames as (depth - min) / (max - min): float32 [H,W] in [0,1]; zeros where all depth is the same."""
        low, span = self._min, self._max - self._min
        self._depth.seek(0)
        for _ in range(self._num_frames):
            depth = self._read_frame()
            yield (depth - low) / span if span > 0 else np.zeros_like(depth)

    def delete(self) -> None:
        """Remove the folder with all that is in it."""
        self._depth.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):  # on a full disk even closing can fail, and what was committed is safe
            self._depth.close()
        if self.state is None and not self.progress.complete:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()

    def _read_state(self) -> None:
        found, self.progress, self.state = _decode((self.folder / "state").read_bytes(), self.folder)
        if found.keys() != self._fingerprint.keys():
            raise _damaged(self.folder)  # of another version of this program
        changed = [key for key in found if found[key] != self._fingerprint[key]]
        if changed:
            what = ", ".join(f"{key} ({_shown(found[key])}, now {_shown(self._fingerprint[key])})" for key in changed)
            raise UserError(
                f"An unfinished run in {self.folder} was begun with another {what}; "
                "give the same again to go on, or --restart to throw it away."
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


def _encode(fingerprint: Fingerprint, progress: Progress, state: WindowState | None) -> bytes:
    record = {"fingerprint": dict(fingerprint), "progress": vars(progress)}
    arrays = {} if state is None else {field.name: getattr(state, field.name) for field in fields(state)}
    buffer = io.BytesIO()
    np.savez(buffer, record=np.frombuffer(json.dumps(record).encode(), np.uint8), **arrays)
    payload = buffer.getvalue()
    return hashlib.sha256(payload).digest() + payload


def _decode(contents: bytes, folder: Path) -> tuple[dict[str, Any], Progress, WindowState | None]:
    digest, payload = contents[:32], contents[32:]
    if hashlib.sha256(payload).digest() != digest:
        raise _damaged(folder)
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            record = json.loads(arrays["record"].tobytes())
            progress = Progress(**record["progress"])
            state = None
            if "start" in arrays:
                values = {field.name: arrays[field.name] for field in fields(WindowState)}
                state = WindowState(**values | {"start": int(values["start"])})
    except (KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise _damaged(folder) from error  # of another version of this program
    return record["fingerprint"], progress, state


def _damaged(folder: Path) -> UserError:
    return UserError(f"The unfinished run in {folder} is damaged; start over with --restart.")


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:8]}..."


def _replace(path: Path, contents: bytes) -> None:
    """Write `path` so that at every instant it is whole: the old or the new."""
    draft = path.with_name(f"{path.name}.part")
    with draft.open("wb") as file:
        file.write(contents)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    if os.name == "posix":  # elsewhere a folder cannot be opened, and renaming is as lasting as it gets
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lock(folder: Path) -> BinaryIO:
    """Take the folder's lock, which the system gives up with the process however it ends."""
    try:
        return take_lock(folder / "lock")
    except Held:
        raise UserError(
            f"Another run is working on this result ({folder}); wait for it, or give another --save-folder."
        ) from None
