"""The page of `dc-rt view`: exact, complete, closed to the network, and of the frames that were asked for."""

from __future__ import annotations

import hashlib
import html
import io
import json
import re
import shutil
import subprocess
import sys
import zlib
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from command_helpers import dc_rt
from dc_rt import Outputs, UserError
from dc_rt.cli.view import Frames, record_of
from dc_rt.geometry import Lens
from dc_rt.job.deliver import deliver
from dc_rt.media.pyav import open_input
from dc_rt.stored import Stored, open_stored
from dc_rt.view import page as page_module
from dc_rt.view.packing import Size, depth_error, pack_depth, pack_picture
from dc_rt.view.page import Packing, write_page
from raw_helpers import Kept

STATIC = Path(page_module.__file__).with_name("static")
SHAPES = [(1, 1), (1, 9), (9, 1), (17, 23)]


def unpacked(packed: bytes, height: int, width: int, bits: int) -> NDArray[np.uint16]:
    """What the page makes of packed depth, in plain loops."""
    data = zlib.decompress(packed)
    count, mask = height * width, (1 << bits) - 1
    assert len(data) == 2 * count
    values = np.zeros((height, width), np.int64)
    for y in range(height):
        for x in range(width):
            zigzag = data[y * width + x] << 8 | data[count + y * width + x]
            # Where there is no neighbour on a side, that of the other one is expected, and 0 where there is none.
            left = int(values[y, x - 1] if x else values[y - 1, x] if y else 0)
            above = int(values[y - 1, x] if y else left)
            corner = int(values[y - 1, x - 1]) if x and y else above
            guess = sorted((left, above, left + above - corner))[1]
            values[y, x] = (guess + (zigzag >> 1 ^ -(zigzag & 1))) & mask
    return values.astype(np.uint16)


def any_depth(height: int, width: int) -> NDArray[np.float32]:
    """With both ends of the range in it, and steps between them."""
    depth = np.random.default_rng(3).random((height, width), np.float32)
    depth.flat[0], depth.flat[-1] = 0, 1
    return depth


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_depth_is_unpacked_to_within_half_a_step(height: int, width: int, bits: int) -> None:
    depth = any_depth(height, width)
    found = unpacked(pack_depth(depth, Size(height, width), bits), height, width, bits) / ((1 << bits) - 1)
    assert np.abs(found - depth.astype(np.float64)).max() <= depth_error(bits)
    assert depth_error(16) < 2 / 65535


@pytest.mark.skipif(not shutil.which("node"), reason="Node.js is not installed, to run what the page decodes with")
def test_the_pages_own_decoder_gives_the_same(tmp_path: Path) -> None:
    cases = [(height, width, bits) for height, width in [*SHAPES, (60, 80)] for bits in (8, 11, 16)]
    for number, (height, width, bits) in enumerate(cases):
        (tmp_path / f"{number}.bin").write_bytes(pack_depth(any_depth(height, width), Size(height, width), bits))
    script = f"""
        const fs = require("fs");
        globalThis.self = {{}};
        require("vm").runInThisContext(fs.readFileSync({json.dumps(str(STATIC / "unpack.js"))}, "utf8"));
        (async () => {{
          for (const [number, [height, width, bits]] of {json.dumps(cases)}.entries()) {{
            const values = await unpackDepth(new Blob([fs.readFileSync(`${{number}}.bin`)]), width, height, bits);
            fs.writeFileSync(`${{number}}.out`, Buffer.from(values.buffer));
          }}
          const spoilt = fs.readFileSync("{len(cases) - 1}.bin");
          spoilt[spoilt.length >> 1] ^= 16;
          const [height, width, bits] = {json.dumps(cases[-1])};
          const failed = await unpackDepth(new Blob([spoilt]), width, height, bits).then(() => false, () => true);
          console.log(failed);
        }})();
    """
    done = subprocess.run(["node", "-e", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "true", "a damaged frame was decoded"
    for number, (height, width, bits) in enumerate(cases):
        found = np.fromfile(tmp_path / f"{number}.out", "<u2").reshape(height, width)
        packed = (tmp_path / f"{number}.bin").read_bytes()
        np.testing.assert_array_equal(found, unpacked(packed, height, width, bits))


def test_smaller_depth_is_pixels_of_the_larger_and_pictures_are_as_small() -> None:
    depth = any_depth(40, 60)
    size = Size(40, 60).within(33)
    assert size == Size(22, 33)
    found = unpacked(pack_depth(depth, size, 16), 22, 33, 16)
    assert {*found.flat} <= {*np.rint(depth.astype(np.float64) * 65535).astype(np.uint16).flat}
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, 30:] = 200, 40, 90
    decoded = decoded_picture(pack_picture(picture, size))
    assert decoded.shape == (22, 33, 3)
    assert np.abs(decoded[:, 25:].astype(int) - [200, 40, 90]).mean() < 4
    assert Size(1000, 3).within(100) == Size(100, 1)


def decoded_picture(contents: bytes) -> NDArray[np.uint8]:
    with open_input(io.BytesIO(contents)) as file:
        frame = next(file.decode(video=0))
    # WebP has the matrix of ITU-R BT.601, in the narrow range.
    return np.asarray(frame.reformat(format="rgb24", src_colorspace="ITU601").to_ndarray(), np.uint8)


@dataclass
class Written:
    """A page, taken apart."""

    text: str
    about: dict[str, Any]
    frames: list[tuple[bytes, bytes]]


def take_apart(path: Path) -> Written:
    text = path.read_text(encoding="utf-8")
    (about,) = re.findall(r'<script type="application/json" id="about">(.*?)</script>', text)
    frames = re.findall(
        r'<script type="text/plain">([\w+/=]+) ([\w+/=]+)</script><script>viewer\.take\(\)</script>', text
    )
    return Written(text, json.loads(about), [(b64decode(depth), b64decode(picture)) for depth, picture in frames])


@pytest.fixture(scope="module")
def stored(kept: Kept, tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """A result with float32 depth, and its pictures."""
    folder = tmp_path_factory.mktemp("result")
    deliver(kept.raw, Outputs(("npz", "input.mp4")), folder)
    return open_stored(folder / "clip.json")


def changed(stored: Stored, folder: Path, name: str = "clip", **parts: Any) -> Stored:
    """The same with another name, and parts of its record as they are given."""
    record = json.loads(stored.path.read_text()) | parts
    for file in stored.path.parent.glob("clip*"):
        if file.suffix != ".json":
            shutil.copy(file, folder / file.name.replace("clip", name, 1))
    record["files"] = {each.replace("clip", name, 1): size for each, size in record["files"].items()}
    (folder / f"{name}.json").write_text(json.dumps(record))
    return open_stored(folder / f"{name}.json")


def write(stored: Stored, path: Path, frames: range | None = None, **packing: int) -> Written:
    taken = frames or range(stored.num_frames)
    write_page(stored, path, stored.lens or Lens(), taken, Packing(**packing), lambda line: None)
    return take_apart(path)


def test_a_page_has_every_frame_of_the_result(stored: Stored, tmp_path: Path) -> None:
    written = write(stored, tmp_path / "page.html")
    height, width = stored.height, stored.width
    assert (written.about["height"], written.about["width"]) == (height, width)
    assert written.about["times"] == list(stored.times)
    assert len(written.frames) == stored.num_frames == 12
    both = zip(written.frames, stored.depth(), stored.images(), strict=True)
    for number, ((packed, picture), depth, image) in enumerate(both):
        if number in (0, 11):
            found = unpacked(packed, height, width, 16) / 65535
            assert np.abs(found - depth.astype(np.float64)).max() <= depth_error(16)
        assert np.abs(decoded_picture(picture).astype(int) - image).mean() < 6
    assert written.text.endswith("</body>\n</html>\n")


def test_nothing_but_the_pages_own_scripts_may_run_and_nothing_be_asked_for(stored: Stored, tmp_path: Path) -> None:
    text = write(stored, tmp_path / "page.html").text
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="(.*?)"', text)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert {*rules} == {"default-src", "script-src", "style-src", "worker-src", "base-uri", "form-action"}

    def allowed(contents: str) -> str:
        return f"'sha256-{b64encode(hashlib.sha256(contents.encode()).digest()).decode()}'"

    scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert {*rules["script-src"].split()} == {allowed(script) for script in scripts}
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    assert rules["style-src"] == allowed(style)
    for file in STATIC.iterdir():
        if file.suffix in (".js", ".css"):
            assert not re.search("</script|</style|<!--", file.read_text(encoding="utf-8"), re.IGNORECASE), file
    assert not re.search(r"""\s(src|href|on\w+|style)=["']""", (STATIC / "index.html").read_text(encoding="utf-8"))


def test_a_name_that_is_markup_is_text(stored: Stored, tmp_path: Path) -> None:
    name = """<script>alert("1")<!-- & ü's #1 100%"""
    written = write(changed(stored, tmp_path, name), tmp_path / "page.html")
    assert written.about["name"] == name
    assert f"<title>{html.escape(name)}</title>" in written.text
    assert "<script>alert" not in written.text
    # However a browser reads it: as many elements as there are in the page of any other name.
    assert written.text.count("<script") == write(stored, tmp_path / "other.html").text.count("<script")


def test_frames_keep_their_numbers_and_their_times(stored: Stored, tmp_path: Path) -> None:
    times = [0.0, 0.1, 0.15, 0.4, 0.5, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.7]
    ranges = {"depth_min": 0.0, "depth_max": 1.0}
    starts = [0, 5, 8, 12]
    shots = [{"start_frame": a, "end_frame": b, **ranges} for a, b in pairwise(starts)]
    result = json.loads(stored.path.read_text())["result"] | {"sample_aspect_ratio": "4:3", "seconds": 2.0}
    other = changed(stored, tmp_path, times=times, shots=shots, result=result)
    about = write(other, tmp_path / "page.html", range(2, 12, 3)).about
    assert about["numbers"] == [2, 5, 8, 11]
    assert about["times"] == [0.15, 0.9, 1.2, 1.7]
    assert about["end"] == 2.0
    assert about["shots"] == [0, 1, 2]
    assert about["pixelAspect"] == pytest.approx(4 / 3)
    about = write(other, tmp_path / "page.html", range(4, 7)).about
    assert (about["numbers"], about["end"], about["shots"]) == ([4, 5, 6], 1.1, [0, 1])
    (only,) = write(other, tmp_path / "page.html", range(3, 4)).frames
    assert decoded_picture(only[1]).shape == (stored.height, stored.width, 3)
    # Of another shape by rounding alone: the picture is as wide to its height as before.
    about = write(other, tmp_path / "page.html", range(1), longest=31).about
    shape = about["width"] * about["pixelAspect"] / about["height"]
    assert shape == pytest.approx(stored.width * 4 / 3 / stored.height)


def test_a_page_that_is_too_large_is_refused_before_and_while_it_is_written(
    stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "pages"
    folder.mkdir()

    def plain_at_first() -> Iterator[NDArray[np.float32]]:
        for number, depth in enumerate(stored.depth()):
            yield depth if number > 7 else np.zeros_like(depth)

    for result, words in (stored, "would be about"), (replace(stored, _depth=plain_at_first), "has come to"):
        monkeypatch.undo()
        num_bytes = len(write(result, tmp_path / "page.html").text)
        monkeypatch.setattr(page_module, "MOST_BYTES", num_bytes - 3000 if words == "has come to" else num_bytes // 2)
        with pytest.raises(UserError, match=rf"{words}.*every=2.*last.*max_size=640.*depth_bits=12"):
            write(result, folder / "page.html")
        assert not list(folder.iterdir()), "something was left"


def test_what_the_page_did_not_write_is_left_alone(stored: Stored, tmp_path: Path) -> None:
    notes = tmp_path / "notes.html"
    notes.write_text("<!doctype html>mine")
    with pytest.raises(UserError, match=r"notes\.html was not written by this command"):
        write(stored, notes)
    assert notes.read_text() == "<!doctype html>mine"
    with pytest.raises(UserError, match="is a folder"):
        write(stored, tmp_path)
    write(stored, tmp_path / "page.html")
    write(stored, tmp_path / "page.html")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of a process's files")
@pytest.mark.parametrize("kind", ["out", "ply", "glb"])
def test_what_the_disk_has_no_room_for_leaves_no_draft(stored: Stored, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    place = {"out": folder / "page.html", "ply": folder, "glb": folder / "mesh.glb"}[kind]
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    limited += "from dc_rt.cli import main; main()"
    command = [sys.executable, "-c", limited, "view", str(stored.path), f"--{kind}", str(place)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"cannot be written (File too large); name another place with --{kind}." in done.stderr
    assert list(folder.iterdir()) == []


def test_a_page_may_have_the_longest_name_and_what_cannot_be_written_is_said(stored: Stored, tmp_path: Path) -> None:
    write(stored, tmp_path / f"{'n' * 250}.html")
    with pytest.raises(UserError, match=r"cannot be written \(File name too long\); name another place with out"):
        write(stored, tmp_path / f"{'n' * 251}.html")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/page\.html cannot be written \(.*\); name another place with out"):
        write(stored, tmp_path / "file" / "page.html")
    assert not list(tmp_path.glob(".*"))


def test_the_command_takes_what_is_beside_the_record(stored: Stored, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    changed(stored, folder)
    record = folder / "clip.json"
    (folder / "clip").mkdir()
    for given in ("clip.json", "clip.npz", "clip_input.mp4", "clip.mov", "clip", ""):
        if given.endswith(".mov"):
            (folder / given).touch()
        assert record_of(folder / given) == record, given
    changed(stored, folder, "clip_2")
    assert record_of(folder / "clip_2_input.mp4").name == "clip_2.json"
    with pytest.raises(UserError, match="has the records of 2 results"):
        record_of(folder)
    (folder / "clip_3.npz").touch()
    with pytest.raises(UserError, match=r"No record of a run is beside .*clip_3\.npz"):
        record_of(folder / "clip_3.npz")
    with pytest.raises(UserError, match="has the frames 0 to 11"):
        Frames(3, 12, 1).of(stored)


def test_the_command_says_how_large_the_page_is_and_writes_it(stored: Stored, tmp_path: Path) -> None:
    changed(stored, tmp_path)
    options = ["--first", 2, "--last", 8, "--every", 2, "--max-size", 48, "--depth-bits", 12, "--far", 40]
    done = dc_rt("view", tmp_path / "clip_input.mp4", *options)
    assert done.returncode == 0, done.stderr
    forecast, last = done.stdout.splitlines()
    for words in (
        "about 0.6 MB, 4 frames of 12, 48x24",
        "--max-size 128 keeps all of it",
        "within 1.2e-04 of clip.npz",
    ):
        assert words in forecast
    assert last.startswith(str(tmp_path / "clip_view.html"))
    about = take_apart(tmp_path / "clip_view.html").about
    assert about["lens"] == {"focal": 1.0, "near": 1.0, "far": 40.0}


def test_what_is_vendored_is_what_was_vendored() -> None:
    record = json.loads((STATIC / "three.json").read_text())
    assert hashlib.sha256((STATIC / "three.js").read_bytes()).hexdigest() == record["sha256"]
    assert "MIT" in (STATIC / "three.LICENSE").read_text(encoding="utf-8")
    assert "SPDX-License-Identifier: MIT" in (STATIC / "three.js").read_text(encoding="utf-8")


def test_depth_of_a_lossy_video_is_said_to_be_so(kept: Kept, tmp_path: Path) -> None:
    deliver(kept.raw, Outputs(("depth.mp4", "input.mp4")), tmp_path)
    stored = open_stored(tmp_path / "clip.json")
    told: list[str] = []
    write_page(stored, tmp_path / "page.html", Lens(), range(1), Packing(), told.append)
    (forecast,) = told
    assert "clip_depth.mp4, a lossy video" in forecast
    details = dict(take_apart(tmp_path / "page.html").about["details"])
    assert details["Depth"].endswith("which is a lossy video.")
