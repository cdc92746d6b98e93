"""An engine set on its way to another machine: what is sent, and the cache that it is kept in there.

It arrives in pieces, by whatever way; both ends are plain calls, so that neither knows it. A set in the cache is a
folder named after the hash of its manifest, which comes last: where there is a manifest, the set is whole.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from dc_rt.engine.discovery import BUNDLED
from dc_rt.engine.manifest import MANIFEST, File, Manifest
from dc_rt.errors import UserError
from dc_rt.lock import locked
from dc_rt.user_cache import user_cache

PIECE_BYTES = 1 << 25


@dataclass(frozen=True)
class Parcel:
    """An engine set as it is sent.

    Attributes:
        folder: where it is at the sender.
        manifest: contents of its manifest.
        files: of all that it can be run as.
    """

    folder: str
    manifest: bytes
    files: tuple[File, ...]

    @classmethod
    def of(cls, folder: Path) -> Parcel:
        """Pack a set; its files are looked at, and not read.

        Raises:
            UserError: there is no set, or it is complete as nothing.
        """
        manifest = Manifest.read(folder)
        whole = [variant for variant in manifest.variants() if _is_complete(variant, folder)]
        if not whole:
            manifest.check_complete(folder)  # says what is missing
        files = {file.name: file for variant in whole for several in variant.graphs.values() for file in several}
        return cls(str(folder.absolute()), (folder / MANIFEST).read_bytes(), tuple(files.values()))

    @property
    def key(self) -> str:
        """SHA-256 of the manifest, in which those of all files are."""
        return hashlib.sha256(self.manifest).hexdigest()

    @property
    def num_bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files)

    def pieces(self, names: Collection[str], size: int = PIECE_BYTES) -> Iterator[tuple[str, int, bytes]]:
        """The files of these names in pieces of up to `size` bytes: name, offset and contents, in order."""
        for name in names:
            with Path(self.folder, name).open("rb") as file:
                offset = 0
                while piece := file.read(size):
                    yield name, offset, piece
                    offset += len(piece)

    def place(self) -> Path | None:
        """Where the same set is on this machine, outside of the cache: as on storage that both machines share."""
        return next((folder for folder in (Path(self.folder), BUNDLED) if self._is_in(folder)), None)

    def _is_in(self, folder: Path) -> bool:
        try:
            is_same = (folder / MANIFEST).read_bytes() == self.manifest
            return is_same and all((folder / file.name).stat().st_size == file.bytes for file in self.files)
        except OSError:
            return False


class Received:
    """A parcel at the machine that it is sent to: `begin`, `write` for every piece, `finish`."""

    def __init__(self, parcel: Parcel, cache: Path | None = None) -> None:
        """`cache` is a folder of sets; in this user's cache unless given."""
        self._parcel = parcel
        self.folder = (cache or user_cache() / "engines") / parcel.key
        self._held = ExitStack()

    def begin(self) -> tuple[str, ...]:
        """Take the right to write the set, and say what is missing of it; nothing is to be written where nothing is.

        Files that are there are read to the end: one that was damaged is missing.

        Raises:
            Held: another process is writing it.
            UserError: the disk has no room for what is missing.
            OSError: the disk refuses.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._held.enter_context(locked(self.folder.with_name(f"{self.folder.name}.lock")))
        try:
            missing = [file for file in self._parcel.files if not _is_whole(self.folder / file.name, file)]
            needed = sum(file.bytes for file in missing)
            free = shutil.disk_usage(self.folder.parent).free
            if needed > free:
                raise UserError(
                    f"The engine set needs {needed / 1e9:.2f} GB in {self.folder.parent}, where {free / 1e9:.2f} GB "
                    "are free; make room there."
                )
        except BaseException:
            self._held.close()
            raise
        if not missing:
            self.finish()
        return tuple(file.name for file in missing)

    def write(self, name: str, offset: int, piece: bytes) -> None:
        """Write a piece of a file, one after the other."""
        self.folder.mkdir(exist_ok=True)
        with self._draft(name).open("r+b" if offset else "wb") as file:
            file.seek(offset)
            file.write(piece)

    def finish(self) -> Path:
        """Put the files that were written in place, and give up the right; the folder of the set.

        Raises:
            UserError: a file is not what the manifest says.
        """
        with self._held:
            for file in self._parcel.files:
                draft = self._draft(file.name)
                if not draft.exists():
                    continue
                if not _is_whole(draft, file):
                    draft.unlink()
                    raise UserError(
                        f"{file.name} of the engine set in {self._parcel.folder} is not what its manifest says; copy "
                        "the set again, or export it again."
                    )
                draft.replace(self.folder / file.name)
            draft = self._draft(MANIFEST)
            draft.write_bytes(self._parcel.manifest)
            draft.replace(self.folder / MANIFEST)
        return self.folder

    def _draft(self, name: str) -> Path:
        return self.folder / f"{name}.part"


def _is_complete(manifest: Manifest, folder: Path) -> bool:
    try:
        manifest.check_complete(folder)
    except UserError:
        return False
    return True


def _is_whole(path: Path, file: File) -> bool:
    return path.is_file() and path.stat().st_size == file.bytes and File.of(path).sha256 == file.sha256
