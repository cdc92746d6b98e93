"""Results read back: whichever output holds the depth, in whichever sense and along whichever curve it was written."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Iterator
from functools import reduce
from itertools import islice, product
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from command_helpers import assert_refused, dc_rt
from dc_rt import Outputs, UserError
from dc_rt.depth import normalised
from dc_rt.job import Calibration, Truth
from dc_rt.job.deliver import deliver
from dc_rt.media.raw import RawFile
from dc_rt.media.read_depth import open_depth
from dc_rt.stored import Stored, open_stored
from raw_helpers import Kept

FAR = {"polarity": "far-white", "gamma": 2.2}


def delivered(kept: Kept, folder: Path, *outputs: str, **options: Any) -> Stored:
    deliver(kept.raw, Outputs(outputs, **options), folder)
    return open_stored(folder / "clip.json")


def depth_of(stored: Stored) -> NDArray[np.float32]:
    return np.stack(list(stored.depth()))


def true_depth(kept: Kept, depth_range: tuple[float, float] | None = None) -> NDArray[np.float32]:
    with RawFile(kept.raw) as file:
        raw = np.stack(list(file.frames()))
    return normalised(raw, depth_range or (float(raw.min()), float(raw.max())))


# Of lossy videos what they lose, by far; of numbers along a curve what its slope makes of their rounding.
@pytest.mark.parametrize(
    ("output", "options", "read", "largest"),
    [
        ("npz", {}, "clip.npz", 0),
        ("npz", FAR, "clip.npz", 1e-6),
        ("npz", {"values": "raw"}, "clip.npz", 1e-7),
        ("npz", {"values": "raw", "polarity": "far-white"}, "clip.npz", 1e-6),
        ("exr", {}, "clip", 0),
        ("exr", {"exr": "nuke"}, "clip", 1e-7),
        ("exr", {"exr": "blender", "exr_type": "half"}, "clip", 1.001 * 2.0**-12),
        ("exr", {"exr": "fusion", **FAR}, "clip", 1e-6),
        ("png", {}, "clip", 0.501 / 65535),
        ("tiff", FAR, "clip", 2 / 65535),
        ("depth.mp4", {"depth_codec": "ffv1"}, "clip_depth.mkv", 0.501 / 65535),
        ("depth.mp4", {"depth_codec": "prores", "polarity": "far-white"}, "clip_depth.mov", 0.02),
        ("depth.mp4", {}, "clip_depth.mp4", 0.05),
    ],
)
def test_every_output_gives_the_depth_that_it_was_written_from(
    kept: Kept, tmp_path: Path, output: str, options: dict[str, Any], read: str, largest: float
) -> None:
    stored = delivered(kept, tmp_path, output, **options)
    assert stored.depth_path == tmp_path / read
    found, true = depth_of(stored), true_depth(kept)
    assert found.dtype == np.float32
    assert found.shape == true.shape == (stored.num_frames, stored.height, stored.width)
    assert abs(found - true).max() <= largest
    if not stored.is_lossy and options != FAR:
        assert stored.depth_error <= largest


def test_the_most_exact_output_is_read_and_none_that_was_changed(kept: Kept, tmp_path: Path) -> None:
    folder = tmp_path / "all"
    shutil.copytree(kept.folder, folder)
    order = []
    for _ in range(4):
        path = open_stored(folder / "clip.json").depth_path
        order.append(path.name if path.is_file() else sorted(path.iterdir())[0].name)
        if path.is_file():
            path.write_bytes(path.read_bytes() + b"\0")
        else:
            shutil.rmtree(path)
    assert order == ["clip.npz", "frame_0000.exr", "clip.raw.zarr.zip", "clip_depth.mp4"]
    with pytest.raises(UserError, match="No file that holds the depth of"):
        open_stored(folder / "clip.json")


def test_depth_of_each_shot_and_of_a_given_range_is_read_from_raw_values(kept: Kept, tmp_path: Path) -> None:
    stored = delivered(kept, tmp_path, "npz", values="raw", range="0.2,0.6")
    np.testing.assert_allclose(depth_of(stored), true_depth(kept, (0.2, 0.6)), atol=1e-7)


def test_whole_numbers_of_raw_values_are_no_depth(kept: Kept, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="hold too little"):
        delivered(kept, tmp_path, "png", values="raw")


def test_pictures_are_those_of_the_input_video_and_else_of_the_source(kept: Kept, tmp_path: Path) -> None:
    with_video = list(delivered(kept, tmp_path / "a", "npz", "input.mp4").images())
    again = list(delivered(kept, tmp_path / "b", "npz").images())
    assert len(with_video) == len(again) == 12
    for coded, exact in zip(with_video, again, strict=True):
        assert coded.shape == exact.shape
        assert coded.dtype == np.uint8
        assert abs(coded.astype(int) - exact).mean() < 6


def test_pictures_of_another_video_are_refused(kept: Kept, tmp_path: Path) -> None:
    video = tmp_path / "clip.mp4"
    shutil.copy(kept.video, video)
    stored = delivered(Kept(video, kept.folder, kept.raw), tmp_path / "out", "npz")
    record = json.loads(stored.path.read_text())
    record["source"] |= {"path": str(video), "num_frames": record["source"]["num_frames"] + 1}
    stored.path.write_text(json.dumps(record))
    with pytest.raises(UserError, match="is not the video that"):
        list(open_stored(stored.path).images())
    video.unlink()
    with pytest.raises(UserError, match=r"input\.mp4"):
        list(open_stored(stored.path).images())


def test_metres_come_back_through_the_lens_of_their_calibration(kept: Kept, tmp_path: Path) -> None:
    points = tmp_path / "points.csv"
    with RawFile(kept.raw) as file:
        frame, (height, width) = file.frame(0), (file.height, file.width)
    source = json.loads((kept.folder / "clip.json").read_text())["source"]
    rows = ["frame,x,y,z"]
    for y, x in [(5, 5), (20, 40), (height - 6, width - 6), (30, 90), (60, 20)]:
        at = (x + 0.5) * source["width"] / width - 0.5, (y + 0.5) * source["height"] / height - 0.5
        rows.append(f"0,{at[0]},{at[1]},{1 / (0.8 * frame[y, x] + 0.05)}")
    points.write_text("\n".join(rows))
    Calibration(kept.raw, Truth(points), None, tmp_path, focal=500).run()
    stored = open_stored(tmp_path / "clip_metric.json")
    assert stored.lens is not None
    assert stored.lens.focal == pytest.approx(500 / source["width"])
    with np.load(tmp_path / "clip_metric.npz") as archive:
        metres = archive["depth"]
    assert stored.lens.near <= metres.min() * 1.001
    np.testing.assert_allclose(stored.lens.distance(depth_of(stored)), metres, rtol=1e-4)
    assert_refused(dc_rt("view", stored.path, "--far", 2), r"is in metres, by its calibration; leave --far 2\.0 out\.")


@pytest.mark.parametrize("contents", ["{}", "[1]", "no JSON", '{"result": {}}'])
def test_what_is_no_record_of_a_run_is_refused(tmp_path: Path, contents: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(contents)
    with pytest.raises(UserError, match=r"is no record of a run.*NAME\.json"):
        open_stored(path)
    with pytest.raises(UserError, match="cannot be read"):
        open_stored(tmp_path / "missing.json")


READ = ("result", "options", "source", "shots", "times", "files", "model")  # of a record
WRONG: tuple[Any, ...] = (None, "x", -1, float("nan"), {}, ["0:0"])


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a record holds something; of a list and of the files the first of them."""
    yield at
    inside = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, each in islice(inside, 1) if at == ("files",) else inside:
        yield from places(each, (*at, key))


def test_a_record_that_was_tampered_with_gives_a_result_or_one_sentence(kept: Kept, tmp_path: Path) -> None:
    whole = delivered(kept, tmp_path, "png").record
    path = tmp_path / "clip.json"
    num_refused = 0
    for at, wrong in product((at for at in places(whole) if at[:1] and at[0] in READ), WRONG):
        record: Any = json.loads(json.dumps(whole))
        holder = reduce(getitem, at[:-1], record)
        holder[at[-1]] = wrong
        path.write_text(json.dumps(record))
        try:
            stored = open_stored(path)
            depth = next(stored.depth())
            if at[0] == "source":
                next(stored.images())
        except UserError:
            num_refused += 1
            continue
        assert np.isfinite([*stored.times, stored.fps, stored.seconds, float(stored.pixel_aspect)]).all(), (at, wrong)
        assert np.isfinite(depth).all(), (at, wrong)
    assert num_refused > 100


@pytest.mark.parametrize("contents", ["[" * 100_000, '{"result": ' * 50_000])
def test_a_record_that_is_nested_without_end_is_refused(tmp_path: Path, contents: str) -> None:
    (tmp_path / "clip.json").write_text(contents)
    with pytest.raises(UserError, match="is no record of a run"):
        open_stored(tmp_path / "clip.json")


def test_an_array_of_more_pixels_than_any_video_has_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.npz"
    with zipfile.ZipFile(path, "w") as file, file.open("depth.npy", "w") as member:
        header = {"shape": (1, 1 << 30, 1 << 30), "fortran_order": False, "descr": "<f4"}
        np.lib.format.write_array_header_1_0(member, header)
    with pytest.raises(UserError, match="at most"):
        open_depth(path)


def test_a_record_that_says_too_little_is_refused(kept: Kept, tmp_path: Path) -> None:
    stored = delivered(kept, tmp_path, "npz")
    whole = json.loads(stored.path.read_bytes())
    for part, name in (("options", "values"), ("result", "seconds"), ("source", "path"), ("model", "name")):
        less = {key: value for key, value in whole[part].items() if key != name}
        stored.path.write_text(json.dumps(whole | {part: less}))
        with pytest.raises(UserError, match="or one of an earlier version, which says too little; run it again"):
            open_stored(stored.path)
    for part in ("shots", "times", "files"):
        stored.path.write_text(json.dumps(whole | {part: None}))
        with pytest.raises(UserError, match="says too little"):
            open_stored(stored.path)
