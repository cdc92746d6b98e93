"""What a raw file takes: bytes, and processor time to write and read it, against other lossless formats.

    python -m bench.speed.raw [VIDEO...]        # 1024x576, some minutes; the demonstration clip unless others are given

What is measured is nano's depth of each video at that size, and two made clips: smooth surfaces, and the same with
noise in every pixel, which is the worst case. Time is that of the processor, all threads together, and the best of
three. Formats whose library is not installed (h5py, numcodecs, blosc2) are left out, and it is said.
Prints a table, writes bench/results/raw.json, and with --docs the table in docs/raw.md.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bench.clips import DEMO, clip_frames
from bench.records import RESULTS, write_record
from bench.speed.machine import describe, in_words, versions
from bench.speed.readme_table import replaced
from dc_rt import DepthCrafter, Sampling
from dc_rt.cores import num_cores
from dc_rt.engine.discovery import BUNDLED
from dc_rt.media import ExrWriter, NpzWriter
from dc_rt.media.raw import RawFile, RawWriter
from dc_rt.windows import Float

SIZE = (576, 1024)
RAW = "Zarr 2 in ZIP: delta, shuffle, zlib of runs"
DOCS = Path(__file__).parents[2] / "docs" / "raw.md"
MARKERS = ("<!-- raw: made by bench/speed/raw.py -->", "<!-- raw: end -->")


@dataclass(frozen=True)
class Format:
    """A lossless format.

    Attributes:
        write: all frames, float32 [H,W], to a path.
        read: all frames from there, in order.
        read_one: one frame alone.
        needs: libraries beyond the runtime's.
    """

    write: Callable[[Path, Sequence[Float]], None]
    read: Callable[[Path], Iterable[Float]]
    read_one: Callable[[Path, int], Float]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One format on one clip: bytes a frame, and the milliseconds to write, to read and to read one alone."""

    depth: str
    format: str
    bytes: float
    write_ms: float
    read_ms: float
    read_one_ms: float


def nano_depth(video: Path, num_frames: int) -> list[Float]:
    """Nano's of a video."""
    with DepthCrafter.load(BUNDLED) as model:
        return list(model(clip_frames(video, *SIZE, num_frames), Sampling(window_size=6, overlap=2)))


def made_depth(num_frames: int, noise: float) -> list[Float]:
    """A slope and a ball before it that moves, with normal noise of that size."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:1:576j, :1.8:1024j]
    frames = []
    for index in range(num_frames):
        ball = 0.3 - np.hypot(y - 0.5, x - 0.4 - 0.02 * index)
        depth = np.where(ball > 0, 0.6 + np.sqrt(np.maximum(ball, 0)) / 3, 0.2 + 0.3 * y)
        frames.append((depth + noise * rng.standard_normal(SIZE)).astype(np.float32))
    return frames


def measure(name: str, depth: str, frames: Sequence[Float]) -> Row:
    """Write, read and compare."""
    found = FORMATS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "depth")
        write_ms = _milliseconds(lambda: found.write(path, frames)) / len(frames)
        files = [path] if path.is_file() else list(path.iterdir())
        size = sum(file.stat().st_size for file in files) / len(frames)
        for frame, back in zip(frames, found.read(path), strict=True):
            assert frame.tobytes() == back.tobytes(), f"{name} is not lossless"
        read_ms = _milliseconds(lambda: [None for _ in found.read(path)]) / len(frames)
        read_one_ms = _milliseconds(lambda: found.read_one(path, len(frames) // 2))
    return Row(depth, name, size, write_ms, read_ms, read_one_ms)


def _milliseconds(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(3):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return 1000 * min(taken)


def _write_raw(path: Path, frames: Sequence[Float]) -> None:
    with RawWriter(path, (len(frames), *SIZE), {}) as writer:
        for number, frame in enumerate(frames):
            writer.write(frame, number)


def _read_raw(path: Path) -> Iterator[Float]:
    with RawFile(path) as file:
        yield from file.frames()


def _read_one_raw(path: Path, index: int) -> Float:
    with RawFile(path) as file:
        return file.frame(index)


def _write_npz(path: Path, frames: Sequence[Float]) -> None:
    with NpzWriter(path, (len(frames), *SIZE)) as writer:
        for frame in frames:
            writer.write(frame)


def _read_npz(path: Path) -> Iterator[Float]:
    with np.load(path) as arrays:
        yield from arrays["depth"]


def _read_one_npz(path: Path, index: int) -> Float:
    with np.load(path) as arrays:
        frame: Float = arrays["depth"][index]
        return frame


def _exr(compression: str) -> Format:
    def write(path: Path, frames: Sequence[Float]) -> None:
        with ExrWriter(path, compression=compression) as opened:
            for frame in frames:
                opened.write(frame)

    def read_one(path: Path, index: int) -> Float:
        return _read_exr(sorted(path.iterdir())[index])

    return Format(write, lambda path: map(_read_exr, sorted(path.iterdir())), read_one)


def _read_exr(path: Path) -> Float:
    import OpenEXR

    pixels: Float = OpenEXR.File(str(path)).channels()["Z"].pixels
    return pixels


def _chunks(encode: Callable[[Float], bytes], decode: Callable[[bytes], Float], *needs: str) -> Format:
    """A chunk a frame in a ZIP file, as raw files are, compressed in another way."""

    def write(path: Path, frames: Sequence[Float]) -> None:
        with zipfile.ZipFile(path, "w") as file, ThreadPoolExecutor(num_cores()) as pool:
            for index, chunk in enumerate(pool.map(encode, frames)):
                file.writestr(str(index), chunk)

    def read_one(path: Path, index: int) -> Float:
        with zipfile.ZipFile(path) as file:
            return decode(file.read(str(index)))

    def read(path: Path) -> Iterator[Float]:
        with zipfile.ZipFile(path) as file:
            yield from (decode(file.read(name)) for name in file.namelist())

    return Format(write, read, read_one, needs)


def _shuffled(frame: Float) -> bytes:
    return np.ascontiguousarray(frame.view(np.uint8).reshape(-1, 4).T).tobytes()


def _unshuffled(contents: bytes) -> Float:
    planes = np.frombuffer(contents, np.uint8).reshape(4, -1)
    return np.ascontiguousarray(planes.T).view(np.float32).reshape(SIZE)


def _stepped(frame: Float) -> bytes:
    """The differences of neighbours in a row, taken of the numbers' bits: Zarr's filter "delta"."""
    bits = frame.view(np.int32).ravel()
    return _shuffled(np.diff(bits, prepend=np.int32(0)).view(np.float32))


def _unstepped(contents: bytes) -> Float:
    steps = _unshuffled(contents).view(np.int32).ravel()
    return np.cumsum(steps, dtype=np.int32).view(np.float32).reshape(SIZE)


def _zlib(level: int) -> Format:
    return _chunks(
        lambda frame: zlib.compress(_shuffled(frame), level), lambda data: _unshuffled(zlib.decompress(data))
    )


def _zstd(before: Callable[[Float], bytes], after: Callable[[bytes], Float]) -> Format:
    def encode(frame: Float) -> bytes:
        from numcodecs import Zstd

        contents: bytes = Zstd(level=1).encode(before(frame))
        return contents

    def decode(contents: bytes) -> Float:
        from numcodecs import Zstd

        return after(Zstd().decode(contents))

    return _chunks(encode, decode, "numcodecs")


def _blosc2() -> Format:
    def encode(frame: Float) -> bytes:
        import blosc2

        filters = {"filters": [blosc2.Filter.BITSHUFFLE], "codec": blosc2.Codec.ZSTD}
        contents: bytes = blosc2.compress2(frame, clevel=1, nthreads=1, typesize=4, **filters)
        return contents

    def decode(contents: bytes) -> Float:
        import blosc2

        return np.frombuffer(blosc2.decompress2(contents), np.float32).reshape(SIZE)

    return _chunks(encode, decode, "blosc2")


def _write_hdf5(path: Path, frames: Sequence[Float]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        how: dict[str, Any] = {"chunks": (1, *SIZE), "shuffle": True, "compression": "gzip", "compression_opts": 1}
        depth = file.create_dataset("depth", (len(frames), *SIZE), np.float32, **how)
        for index, frame in enumerate(frames):
            depth[index] = frame


def _read_hdf5(path: Path) -> Iterator[Float]:
    import h5py

    with h5py.File(path) as file:
        yield from file["depth"]


def _read_one_hdf5(path: Path, index: int) -> Float:
    import h5py

    with h5py.File(path) as file:
        frame: Float = file["depth"][index]
        return frame


FORMATS = {
    RAW: Format(_write_raw, _read_raw, _read_one_raw),
    "the same, zlib 1": _chunks(
        lambda frame: zlib.compress(_stepped(frame), 1), lambda data: _unstepped(zlib.decompress(data))
    ),
    "shuffle, zlib 1": _zlib(1),
    "shuffle, zlib 6": _zlib(6),
    "NPZ, deflate 6": Format(_write_npz, _read_npz, _read_one_npz),
    "EXR, ZIP": _exr("zip"),
    "EXR, PIZ": _exr("piz"),
    "HDF5: shuffle, gzip 1": Format(_write_hdf5, _read_hdf5, _read_one_hdf5, ("h5py",)),
    "shuffle, zstd 1": _zstd(_shuffled, _unshuffled),
    "delta, shuffle, zstd 1": _zstd(_stepped, _unstepped),
    "blosc2: bitshuffle, zstd 1": _blosc2(),
}


def table(rows: Sequence[Row], machine: dict[str, Any]) -> str:
    """Rows as Markdown, a table a clip."""
    plain = 4 * SIZE[0] * SIZE[1]
    lines = []
    for depth in dict.fromkeys(row.depth for row in rows):
        lines += [f"| {depth} | MB a frame | of float32 | ms to write | to read | to read one alone |"]
        lines += ["|---|---:|---:|---:|---:|---:|"]
        for row in rows:
            if row.depth == depth:
                lines.append(
                    f"| {row.format} | {row.bytes / 1e6:.2f} | {row.bytes / plain:.0%} | {row.write_ms:.0f} | "
                    f"{row.read_ms:.0f} | {row.read_one_ms:.0f} |"
                )
        lines.append("")
    return "\n".join([*lines, f"{SIZE[1]}x{SIZE[0]}; processor time of all threads together. {in_words(machine)}."])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="*", type=Path, default=[DEMO])
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--docs", action="store_true", help="put the table into docs/raw.md")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    depths = {f"nano's of {video.name}": nano_depth(video, arguments.frames) for video in arguments.videos}
    depths |= {"smooth": made_depth(arguments.frames, 0), "noisy": made_depth(arguments.frames, 0.01)}
    rows = []
    for name, found in FORMATS.items():
        if missing := [library for library in found.needs if not find_spec(library)]:
            print(f"{name} is left out: {missing[0]} is not installed.")
            continue
        for depth, frames in depths.items():
            rows.append(measure(name, depth, frames))
            print(rows[-1], flush=True)
    machine: dict[str, Any] = describe() | versions(("numpy", "numcodecs", "h5py", "blosc2", "OpenEXR"))
    write_record({"machine": machine, "rows": [asdict(row) for row in rows]}, "raw", arguments.results)
    text = table(rows, machine)
    print(f"\n{text}")
    if arguments.docs:
        DOCS.write_text(replaced(DOCS.read_text(), f"{text}\n", MARKERS))


if __name__ == "__main__":
    main()
