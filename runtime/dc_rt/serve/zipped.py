"""A folder as one ZIP file, made as it is sent."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from dc_rt.serve.jobs import folder_files

_BLOCK = 1 << 20


def zipped(folder: Path) -> Iterator[bytes]:
    """A ZIP file of a folder, made as it is sent, without compression: what is in it is compressed already."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload]  # needs no more
        for name, path in folder_files(folder).items():
            about = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            with archive.open(about, "w") as target, path.open("rb") as file:
                while block := file.read(_BLOCK):
                    target.write(block)
                    yield sink.take()
    yield sink.take()


class _Sink:
    """A file that what is written to is taken from; it cannot be sought in."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: bytes) -> int:
        self._written += data
        return len(data)

    def flush(self) -> None:
        """There is nothing to wait for."""

    def take(self) -> bytes:
        """What was written since the last time."""
        taken = bytes(self._written)
        self._written.clear()
        return taken
