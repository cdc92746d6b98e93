"""A raw file: the depth of a video as the model gave it, from which every result can be made again (docs/raw.md).

It is a Zarr group of version 2 in a ZIP file, which zarr-python and xarray read; here NumPy and Python's own library
are enough. A frame is a chunk. Of its numbers, whose bits are taken for whole numbers, the differences from one to the
next are kept; their bytes are shuffled (first all the lowest ones, then the next ones), which sets the regular ones
apart, and deflated. Every chunk has a checksum, in the ZIP file and in its own stream, and any frame can be read
without the others.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from dc_rt.cores import num_cores
from dc_rt.depth import ShotDepth
from dc_rt.errors import UserError, option
from dc_rt.media.container import MAX_PIXELS
from dc_rt.outputs import RAW_SUFFIX

FORMAT = "dc-rt raw depth"
VERSION = 1

# Runs of one byte are all that zlib looks for: in shuffled bytes it finds little else, in twice the time (docs/raw.md).
_LEVEL, _MEMORY, _STRATEGY = 1, 9, zlib.Z_RLE
_NUMBER_BYTES = 4
_GROUP, _ARRAY, _ATTRIBUTES = ".zgroup", ".zarray", ".zattrs"
_DEPTH = "depth"
_UNIX = 3  # what a ZIP file is said to have been made on, which else depends on the system


class RawWriter:
    """Writes a raw file, several frames of which are compressed side by side.

    Its bytes depend on what it is given and on zlib alone: neither on the time nor on the number of threads.
    """

    def __init__(self, path: str | Path, shape: tuple[int, int, int], attributes: Mapping[str, Any]) -> None:
        """`shape` is [T,H,W] of the whole array; `attributes` are what docs/raw.md says, as JSON can hold them."""
        self._shape = shape
        self._attributes = dict(attributes)
        self._numbers: list[int] = []
        self._pool = ThreadPoolExecutor(num_cores(), "raw")
        self._pending: deque[Future[bytes]] = deque()
        self._num_stored = 0
        self._zip = zipfile.ZipFile(path, "w")
        self._store_json(_GROUP, {"zarr_format": 2})
        self._store_json(f"{_DEPTH}/{_ARRAY}", _array_of(shape))
        # What xarray calls the axes.
        self._store_json(f"{_DEPTH}/{_ATTRIBUTES}", {"_ARRAY_DIMENSIONS": ["frame", "y", "x"]})

    def write(self, depth: NDArray[np.float32], number: int) -> None:
        """Append a frame, float32 [H,W], which must stay as it is, and which of the timeline's it is.

        Raises `ValueError` for another shape or one frame too many.
        """
        if depth.shape != self._shape[1:] or len(self._numbers) == self._shape[0]:
            raise ValueError(f"frame {len(self._numbers)} of shape {depth.shape} does not fit into {self._shape}")
        while self._pending and (self._pending[0].done() or len(self._pending) >= 2 * num_cores()):
            self._store_chunk()
        self._pending.append(self._pool.submit(_compress, depth))
        self._numbers.append(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raises `ValueError` if frames are missing: the array would have holes."""
        self._pool.shutdown(cancel_futures=kind is not None)
        with self._zip:
            if kind is None:
                while self._pending:
                    self._store_chunk()
                own = {"format": FORMAT, "version": VERSION, "numbers": self._numbers}
                self._store_json(_ATTRIBUTES, own | self._attributes)
        if kind is None and len(self._numbers) != self._shape[0]:
            raise ValueError(f"{len(self._numbers)} frames were written of {self._shape[0]}")

    def _store_chunk(self) -> None:
        self._store(_chunk_name(self._num_stored), self._pending.popleft().result())
        self._num_stored += 1

    def _store_json(self, name: str, value: Mapping[str, Any]) -> None:
        self._store(name, json.dumps(value, indent=1).encode())

    def _store(self, name: str, contents: bytes) -> None:
        member = zipfile.ZipInfo(name)  # of 1980-01-01, where ZIP's clock begins
        member.create_system = _UNIX
        self._zip.writestr(member, contents)


class RawFile:
    """An open raw file. As a context manager it is closed at the end.

    Attributes:
        path: of the file.
        num_frames, height, width: of its depth.
        numbers: which of the timeline's each frame is.
        shots: with their ranges.
        attributes: all that the file says, as docs/raw.md describes it.
    """

    def __init__(self, path: str | Path) -> None:
        """Open one.

        Raises:
            UserError: it is not there, is no raw file, is one of another version, or is damaged.
        """
        self.path = Path(path)
        self._zip = _open_zip(self.path)
        try:
            self.attributes = self._read_attributes()
            self.num_frames, self.height, self.width = self._read_shape()
            self.numbers = self._read_numbers()
            self.shots = self._read_shots()
        except BaseException:
            self._zip.close()
            raise

    def frame(self, index: int) -> NDArray[np.float32]:
        """One frame, float32 [H,W]. Raises `UserError` where its chunk is damaged."""
        if not 0 <= index < self.num_frames:
            raise IndexError(f"frame {index} of {self.num_frames}")
        size = _NUMBER_BYTES * self.height * self.width
        try:
            shuffled = _inflate(self._zip.read(_chunk_name(index)), size)
        except (KeyError, OSError, zipfile.BadZipFile, zlib.error, ValueError) as error:
            raise UserError(
                f"Frame {index} of {self.path} is damaged ({error}); copy the file again, or make it anew."
            ) from error
        return _restored(shuffled).reshape(self.height, self.width)

    def frames(self) -> Iterator[NDArray[np.float32]]:
        """All frames in order, float32 [H,W]."""
        return map(self.frame, range(self.num_frames))

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read_attributes(self) -> dict[str, Any]:
        attributes = self._read_json(_ATTRIBUTES)
        if attributes.get("format") != FORMAT:
            raise _foreign(self.path)
        if attributes.get("version") != VERSION:
            raise UserError(
                f"{self.path} is a raw file of version {attributes.get('version')}, and this dc-rt reads version "
                f"{VERSION}; read it with the dc-rt that wrote it, or make it anew."
            )
        return attributes

    def _read_shape(self) -> tuple[int, int, int]:
        array = self._read_json(f"{_DEPTH}/{_ARRAY}")
        shape = array.get("shape")
        if not (isinstance(shape, list) and len(shape) == 3 and all(type(side) is int and side > 0 for side in shape)):
            raise _damaged(self.path, f"its shape is {shape}")
        num_frames, height, width = shape
        if array != _array_of((num_frames, height, width)) or height * width > MAX_PIXELS:
            raise _damaged(self.path, "its array is not as this version writes it")
        return num_frames, height, width

    def _read_numbers(self) -> list[int]:
        numbers = self.attributes.get("numbers")
        if not (isinstance(numbers, list) and len(numbers) == self.num_frames and _is_increasing(numbers)):
            raise _damaged(self.path, "its frames are not numbered")
        return numbers

    def _read_shots(self) -> tuple[ShotDepth, ...]:
        try:
            shots = tuple(
                ShotDepth(int(shot["start"]), float(shot["low"]), float(shot["high"]))
                for shot in self.attributes["shots"]
            )
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(self.path, "its shots are missing") from error
        starts = [shot.start for shot in shots]
        if starts[:1] != [0] or not _is_increasing(starts) or starts[-1] >= self.num_frames:
            raise _damaged(self.path, "its shots are not in order")
        return shots

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads(self._zip.read(name))
        except KeyError as error:
            raise _foreign(self.path) from error
        except (OSError, zipfile.BadZipFile, ValueError, RecursionError) as error:
            raise _damaged(self.path, str(error)) from error
        if not isinstance(value, dict):
            raise _damaged(self.path, f"{name} holds no object")
        return value


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check the name and the permissions.") from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        if path.name.endswith(RAW_SUFFIX):
            raise _damaged(path, str(error)) from error
        raise _foreign(path) from error


def _foreign(path: Path) -> UserError:
    return UserError(
        f"{path} is no raw file of dc-rt; give a NAME{RAW_SUFFIX}, which a run with {option('keep', 'raw')} leaves."
    )


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"{path} is damaged ({what}); copy the file again, or make it anew.")


def _array_of(shape: tuple[int, int, int]) -> dict[str, Any]:
    """What Zarr's specification of version 2 asks to be said of an array."""
    return {
        "zarr_format": 2,
        "shape": list(shape),
        "chunks": [1, *shape[1:]],
        "dtype": "<f4",
        "compressor": {"id": "zlib", "level": _LEVEL},
        "filters": [
            {"id": "delta", "dtype": "<i4", "astype": "<i4"},
            {"id": "shuffle", "elementsize": _NUMBER_BYTES},
        ],
        "fill_value": None,
        "order": "C",
        "dimension_separator": ".",
    }


def _chunk_name(index: int) -> str:
    return f"{_DEPTH}/{index}.0.0"


def _compress(depth: NDArray[np.float32]) -> bytes:
    numbers = np.ascontiguousarray(depth, "<f4").view("<i4").ravel()
    steps = np.diff(numbers, prepend=np.zeros(1, "<i4"))  # which wrap around, as the sums do that undo it
    shuffled = np.ascontiguousarray(steps.view(np.uint8).reshape(-1, _NUMBER_BYTES).T)
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, _MEMORY, _STRATEGY)
    return stream.compress(shuffled.data) + stream.flush()


def _restored(shuffled: bytes) -> NDArray[np.float32]:
    planes = np.frombuffer(shuffled, np.uint8).reshape(_NUMBER_BYTES, -1)
    steps = np.ascontiguousarray(planes.T).view("<i4").ravel()
    return np.cumsum(steps, dtype="<i4").view("<f4").astype(np.float32, copy=False)


def _inflate(contents: bytes, size: int) -> bytes:
    """What was compressed, which must be of that size: a damaged stream may hold anything."""
    stream = zlib.decompressobj()
    data = stream.decompress(contents, size)
    if len(data) != size or stream.decompress(stream.unconsumed_tail, 1) or not stream.eof:
        raise ValueError("it has another size")
    return data


def _is_increasing(numbers: list[Any]) -> bool:
    whole = all(type(number) is int and number >= 0 for number in numbers)
    return whole and all(a < b for a, b in pairwise(numbers))
