"""Raw files: what they hold, who else reads them, and what damaged and foreign ones get."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dc_rt import UserError
from dc_rt.media.raw import RAW_SUFFIX, RawFile, RawWriter

ATTRIBUTES = {"source": {"path": "clip.mp4"}, "shots": [{"start": 0, "low": -1.0, "high": 2.0}]}


def any_depth(num_frames: int = 5, height: int = 37, width: int = 53) -> NDArray[np.float32]:
    """Slopes, noise, and every kind of number that float32 has: [T,H,W]."""
    rng = np.random.default_rng(0)
    depth = np.linspace(0, 1, num_frames * height * width, dtype=np.float32).reshape(num_frames, height, width)
    depth[1] += rng.standard_normal((height, width)).astype(np.float32)
    depth[2] = rng.integers(0, 2**32, (height, width), np.uint32).view(np.float32)
    depth[3, 0, :6] = [np.nan, np.inf, -np.inf, -0.0, 1e-45, float(np.finfo(np.float32).max)]
    return depth


def write_raw(path: Path, depth: NDArray[np.float32], **attributes: Any) -> Path:
    num_frames, height, width = depth.shape
    with RawWriter(path, (num_frames, height, width), ATTRIBUTES | attributes) as writer:
        for index, frame in enumerate(depth):
            writer.write(frame, 2 * index)
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_raw(tmp_path / f"clip{RAW_SUFFIX}", any_depth())


def test_every_bit_of_every_frame_comes_back_in_any_order(raw: Path) -> None:
    depth = any_depth()
    with RawFile(raw) as file:
        assert (file.num_frames, file.height, file.width) == depth.shape
        assert b"".join(frame.tobytes() for frame in file.frames()) == depth.tobytes()
        for index in (3, 0, 4, 2):
            assert file.frame(index).tobytes() == depth[index].tobytes()
        assert file.numbers == [0, 2, 4, 6, 8]
        assert file.attributes["shots"] == ATTRIBUTES["shots"]
        with pytest.raises(IndexError):
            file.frame(5)


def test_zarr_reads_it_with_its_attributes(raw: Path) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr comes with the extra test")
    group = zarr.open_group(zarr.storage.ZipStore(raw, mode="r"), mode="r")
    assert group["depth"][:].tobytes() == any_depth().tobytes()
    assert group["depth"][3].tobytes() == any_depth()[3].tobytes()
    assert group.attrs["version"] == 1
    assert group.attrs["source"] == {"path": "clip.mp4"}


def test_the_bytes_depend_neither_on_the_time_nor_on_the_threads(raw: Path, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from test_raw import any_depth, write_raw; "
        "write_raw(Path(sys.argv[1]), any_depth())"
    )
    for cores in (1, 4):
        again = tmp_path / f"{cores}{RAW_SUFFIX}"
        alone = f"import dc_rt.cores; dc_rt.cores.num_cores = lambda: {cores}; {program}"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)])}
        subprocess.run([sys.executable, "-c", alone, again], check=True, env=environment)
        assert again.read_bytes() == raw.read_bytes()


def test_a_file_of_an_incomplete_run_is_an_error_of_its_writer(tmp_path: Path) -> None:
    path = tmp_path / f"clip{RAW_SUFFIX}"
    with pytest.raises(ValueError, match="1 frames were written of 2"), RawWriter(path, (2, 3, 4), {}) as writer:
        writer.write(np.zeros((3, 4), np.float32), 0)
    with RawWriter(path, (1, 3, 4), {}) as writer:
        with pytest.raises(ValueError, match="does not fit"):
            writer.write(np.zeros((4, 3), np.float32), 0)
        writer.write(np.zeros((3, 4), np.float32), 0)
        with pytest.raises(ValueError, match="does not fit"):
            writer.write(np.zeros((3, 4), np.float32), 1)


def test_a_damaged_frame_is_named_and_the_others_are_read(raw: Path) -> None:
    with zipfile.ZipFile(raw) as file:
        member = file.getinfo("depth/2.0.0")
    contents = bytearray(raw.read_bytes())
    contents[member.header_offset + 30 + len(member.filename) + member.file_size // 2] ^= 1
    raw.write_bytes(contents)
    with RawFile(raw) as file:
        assert file.frame(3).tobytes() == any_depth()[3].tobytes()
        with pytest.raises(UserError, match=rf"^Frame 2 of {re.escape(str(raw))} is damaged \(.*\); copy .* anew\.$"):
            file.frame(2)


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
def test_a_file_that_is_cut_short_is_damaged(raw: Path, kept: float) -> None:
    raw.write_bytes(raw.read_bytes()[: int(kept * raw.stat().st_size)])
    with pytest.raises(UserError, match=r"is damaged \(.*\); copy the file again, or make it anew\.$"):
        RawFile(raw)


def rewritten(raw: Path, **changed: Any) -> Path:
    """The same file with other JSON files in it, by name."""
    other = raw.with_name(f"other{RAW_SUFFIX}")
    with zipfile.ZipFile(raw) as before, zipfile.ZipFile(other, "w") as after:
        for name in before.namelist():
            contents = before.read(name)
            if name in changed:
                contents = json.dumps(json.loads(contents) | changed[name]).encode()
            after.writestr(name, contents)
    return other


def test_a_file_of_another_version_is_one_sentence(raw: Path) -> None:
    with pytest.raises(UserError, match=r"is a raw file of version 2, and this dc-rt reads version 1; read it with"):
        RawFile(rewritten(raw, **{".zattrs": {"version": 2}}))


@pytest.mark.parametrize(
    "changed",
    [
        {"depth/.zarray": {"shape": [5, 37]}},
        {"depth/.zarray": {"shape": [5, 10**6, 10**6], "chunks": [1, 10**6, 10**6]}},
        {"depth/.zarray": {"dtype": "<f8"}},
        {"depth/.zarray": {"compressor": {"id": "blosc"}}},
        {".zattrs": {"numbers": [0, 2, 4, 6]}},
        {".zattrs": {"numbers": [0, 2, 2, 6, 8]}},
        {".zattrs": {"numbers": ["0", 2, 4, 6, 8]}},
    ],
)
def test_a_file_that_is_not_as_this_version_writes_it_is_damaged(raw: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"is damaged \(.*\); copy the file again, or make it anew\.$"):
        RawFile(rewritten(raw, **changed))


def test_a_chunk_of_another_size_is_a_damaged_frame(raw: Path) -> None:
    wider = rewritten(raw, **{"depth/.zarray": {"shape": [5, 37, 54], "chunks": [1, 37, 54]}})
    with RawFile(wider) as file, pytest.raises(UserError, match=r"^Frame 0 of .* is damaged \(it has another size\)"):
        file.frame(0)


def test_what_is_no_raw_file_is_one_sentence(tmp_path: Path) -> None:
    text, archive = tmp_path / "notes.txt", tmp_path / "depth.npz"
    text.write_text("no raw file")
    np.savez(archive, depth=any_depth())
    for path in (text, archive):
        with pytest.raises(UserError, match=r"is no raw file of dc-rt; give a NAME\.raw\.zarr\.zip"):
            RawFile(path)
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(UserError, match=r"cannot be read: .*; check the name and the permissions"):
            RawFile(path)
