"""All depth of a video as one array in an NPZ file."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dc_rt.cores import num_cores

_DEFLATE_WINDOW = 1 << 15  # how far back a stream refers to what it has
_NPZ_BLOCK = 1 << 19  # of depth, to be compressed by a thread


class NpzWriter:
    """What `np.savez_compressed(path, depth=...)` writes, without ever holding the array.

    Compressed by several threads, which is most of the work: the one stream of the file is made of blocks, each of
    which goes on from the end of the one before (as pigz does). They are the same however many threads there are.
    """

    def __init__(self, path: str | Path, shape: tuple[int, int, int]) -> None:
        """`shape` is [T,H,W] of the whole array: it precedes the data."""
        self._shape = shape
        self._num_frames = 0
        self._size = self._crc = 0
        self._window = b""
        self._pool = ThreadPoolExecutor(num_cores(), "npz")
        self._pending: deque[Future[bytes]] = deque()
        self._zip = zipfile.ZipFile(path, "w")
        self._info = zipfile.ZipInfo("depth.npy")
        # The size is not known yet, and may pass 4 GB.
        self._member = self._zip.open(self._info, "w", force_zip64=True)
        header = io.BytesIO()
        description = {"descr": np.lib.format.dtype_to_descr(np.dtype("<f4")), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, description)
        self._append(memoryview(header.getvalue()))

    def write(self, depth: NDArray[np.float32]) -> None:
        """Append a frame, float32 [H,W], which must stay as it is.

        Raises `ValueError` for another shape or one frame too many.
        """
        if depth.shape != self._shape[1:] or self._num_frames == self._shape[0]:
            raise ValueError(f"frame {self._num_frames} of shape {depth.shape} does not fit into {self._shape}")
        data = np.ascontiguousarray(depth, dtype="<f4").data.cast("B")
        for start in range(0, len(data), _NPZ_BLOCK):
            self._append(data[start : start + _NPZ_BLOCK])
        self._num_frames += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Raises `ValueError` if frames are missing, since no reader could load the file."""
        self._pool.shutdown(cancel_futures=kind is not None)
        with self._zip:
            with self._member:
                if kind is None:
                    while self._pending:
                        self._member.write(self._pending.popleft().result())
                    self._member.write(zlib.compressobj(wbits=-zlib.MAX_WBITS).flush())  # the stream's end
            # As zipfile knows it, what it was given is stored: say what that is.
            self._info.compress_type, self._info.CRC, self._info.file_size = zipfile.ZIP_DEFLATED, self._crc, self._size
            assert self._zip.fp is not None
            self._zip.fp.seek(self._info.header_offset)
            self._zip.fp.write(self._info.FileHeader(zip64=True))
        if kind is None and self._num_frames != self._shape[0]:
            raise ValueError(f"{self._num_frames} frames were written of {self._shape[0]}")

    def _append(self, block: memoryview) -> None:
        """Have a block compressed, and those written before it that are."""
        while self._pending and (self._pending[0].done() or len(self._pending) >= 4 * num_cores()):
            self._member.write(self._pending.popleft().result())
        self._pending.append(self._pool.submit(_deflate, block, self._window))
        self._size, self._crc = self._size + len(block), zlib.crc32(block, self._crc)
        self._window = (self._window + bytes(block[-_DEFLATE_WINDOW:]))[-_DEFLATE_WINDOW:]


def _deflate(block: memoryview, window: bytes) -> bytes:
    """A part of a raw DEFLATE stream, with `window` before it, that ends at a whole byte."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS, zdict=window)
    return compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH)
