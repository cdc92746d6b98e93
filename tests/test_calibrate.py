"""Metric depth: a and b of 1/z = a d + b, from points and from pictures of known depth."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
from numpy.typing import NDArray

from command_helpers import assert_refused, dc_rt
from dc_rt import Outputs, UserError
from dc_rt.calibrate import Known, fit, read_points, read_reference
from dc_rt.job import Calibration, Truth
from dc_rt.media.raw import RawFile
from media_helpers import write_image
from raw_helpers import Kept
from test_raw import rewritten

A, B = 0.8, 0.05
FRAMES, HEIGHT, WIDTH = 3, 48, 64


def disparity(num_points: int, seed: int = 0) -> NDArray[np.float64]:
    """In [0.1,1], as float32 has it."""
    points = np.random.default_rng(seed).uniform(0.1, 1, num_points)
    return points.astype(np.float32).astype(np.float64)


def with_outliers(z: NDArray[np.float64], share: float, seed: int = 1) -> NDArray[np.float64]:
    """Some of the depths far off, in both directions."""
    rng = np.random.default_rng(seed)
    wrong = rng.permutation(len(z))[: round(share * len(z))]
    z = z.copy()
    z[wrong] *= np.exp(rng.choice([-1, 1], len(wrong)) * rng.uniform(0.3, 3, len(wrong)))
    return z


@pytest.mark.parametrize("num_points", [5, 10, 100, 30_000])
@pytest.mark.parametrize("a_and_b", [(0.8, 0.05), (5.0, 1e-3), (0.02, 0.4)])
def test_a_and_b_and_z_are_found_although_a_fifth_of_the_points_is_wrong(
    num_points: int, a_and_b: tuple[float, float]
) -> None:
    a, b = a_and_b
    for seed in range(3):
        d = disparity(num_points, seed)
        z = with_outliers(1 / (a * d + b), 0.2, seed)
        found = fit(d, z, 0.1, 1)
        np.testing.assert_allclose([found.a, found.b], [a, b], rtol=1e-4)
        everywhere = np.linspace(0.1, 1, 1000, dtype=np.float32)
        np.testing.assert_allclose(found.depth(everywhere), 1 / (a * everywhere.astype(np.float64) + b), rtol=1e-4)
        assert np.count_nonzero(~found.used) == num_points // 5


def test_outliers_that_agree_with_each_other_do_not_win() -> None:
    d = disparity(200)
    z = 1 / (A * d + B)
    z[::5] = 1 / (0.1 * d[::5] + 0.5)
    found = fit(d, z, 0.1, 1)
    np.testing.assert_allclose([found.a, found.b], [A, B], rtol=1e-4)


def test_noise_is_averaged_and_told_in_the_errors() -> None:
    d = disparity(10_000)
    noise = 0.02
    z = with_outliers(1 / (A * d + B) * np.exp(np.random.default_rng(2).normal(0, noise, len(d))), 0.2)
    found = fit(d, z, 0.1, 1)
    np.testing.assert_allclose([found.a, found.b], [A, B], rtol=0.02)
    assert 0.8 * noise < found.errors[found.used].std() < 1.1 * noise


def test_the_same_points_give_the_same_fit_to_the_bit() -> None:
    d = disparity(50)
    z = with_outliers(1 / (A * d + B) * np.exp(np.random.default_rng(2).normal(0, 0.05, len(d))), 0.2)
    first, second = fit(d, z, 0.1, 1), fit(d, z, 0.1, 1)
    assert (first.a, first.b) == (second.a, second.b)


@pytest.mark.parametrize(
    ("d", "z", "message"),
    [
        ([0.5, 0.6], [2, 1], "takes at least 3 points at several depths, and the points have 2; add more"),
        ([], [], "the points have 0"),
        ([0.5] * 4, [2, 2, 2, 2], "All of the points have one depth, which leaves a and b open"),
        ([0.5] * 9 + [0.6], [2.0] * 9 + [9.0], "All of those of the points that agree have one depth"),
        ([0.2, 0.4, 0.6, 0.8], [1, 2, 3, 4], r"nearer is farther away \(a = -.*\); z is to be the distance in metres"),
        (
            [0.5, 0.6, 0.8, 1.0],
            [10, 5, 2.5, 5 / 3],
            r"of 0\.1 to 0\.4 would lie beyond infinity .*add points of what is",
        ),
    ],
)
def test_points_that_say_too_little_or_something_else_are_one_sentence(
    d: list[float], z: list[float], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit(np.array(d, np.float64), np.array(z, np.float64), 0.1, 1)


def ramp(frame: int) -> NDArray[np.float32]:
    """Disparity that grows to the right and downwards, and from frame to frame: float32 [H,W]."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (0.2 + 0.005 * x + 0.003 * y + 0.1 * frame).astype(np.float32)


def points(path: Path, text: str, height: int = HEIGHT, width: int = WIDTH) -> Known:
    path.write_text(text)
    return read_points(path, ramp, FRAMES, height, width)


def test_points_are_read_with_and_without_a_header(tmp_path: Path) -> None:
    plain = points(tmp_path / "a.csv", "0,10,20,1.5\n\n# measured by tape\n2, 63, 47, 3\n")
    assert plain.frames.tolist() == [0, 2]
    assert plain.z.tolist() == [1.5, 3]
    assert plain.where == ("line 1", "line 4")
    np.testing.assert_allclose(plain.disparity, [ramp(0)[20, 10], ramp(2)[47, 63]], rtol=1e-6)
    headed = points(tmp_path / "b.csv", "\ufeffZ,Frame,x,y\r\n1.5,0,10,20\r\n3,2,63,47\r\n")
    np.testing.assert_array_equal(headed.disparity, plain.disparity)
    assert headed.z.tolist() == [1.5, 3]


def test_places_are_those_of_the_source_whatever_the_size_of_the_depth(tmp_path: Path) -> None:
    # A pixel of a picture of twice the size lies a quarter of a pixel beside the centre of one of this size.
    found = points(tmp_path / "a.csv", "0,20,40,1\n0,21,41,1\n0,0,0,1\n", 2 * HEIGHT, 2 * WIDTH)
    exact = [0.2 + 0.005 * x + 0.003 * y for x, y in ((9.75, 19.75), (10.25, 20.25), (0, 0))]
    np.testing.assert_allclose(found.disparity, exact, rtol=1e-6)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0,1,2", r"Line 3 of .*a\.csv has 3 values; it takes four: frame,x,y,z\."),
        ("0,1,2,three", r"Line 3 of .*a\.csv is no point \(could not convert string to float: 'three'\)"),
        ("0,1,2,0", r"Line 3 of .*a\.csv is no point; the frame is a whole number, and z is greater than 0"),
        ("0.5,1,2,3", r"Line 3 of .*a\.csv is no point; the frame is a whole number"),
        ("0,1,2,nan", r"Line 3 of .*a\.csv is no point;"),
        ("inf,1,2,3", r"Line 3 of .*a\.csv is no point;"),
        ("3,1,2,3", r"Line 3 of .*a\.csv is of frame 3, and the results have frames 0 to 2; count them from 0\."),
        ("0,64,2,3", r"Line 3 of .*a\.csv is outside the picture: x = 64 and y = 2, and it has 64x48 pixels;"),
        ("0,2,-1,3", r"Line 3 of .*a\.csv is outside the picture"),
    ],
)
def test_a_line_that_is_wrong_is_named_by_its_number(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        points(tmp_path / "a.csv", f"frame,x,y,z\n0,1,2,3\n{line}\n")


def test_a_file_of_points_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read: .*; check the name"):
        read_points(tmp_path / "missing.csv", ramp, FRAMES, HEIGHT, WIDTH)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="is no text; give a CSV file of frame,x,y,z"):
        read_points(tmp_path / "a.csv", ramp, FRAMES, HEIGHT, WIDTH)


def metric(frame: int) -> NDArray[np.float32]:
    """What `ramp` is in metres, with holes of every kind."""
    z = (1 / (A * ramp(frame).astype(np.float64) + B)).astype(np.float32)
    z[0, :4] = [0, np.nan, np.inf, -1]
    return z


def check_recovered(known: Known, num_points: int = FRAMES * (HEIGHT * WIDTH - 4), rtol: float = 1e-4) -> None:
    assert len(known.z) == num_points
    found = fit(known.disparity, known.z, 0.2, 0.9)
    np.testing.assert_allclose([found.a, found.b], [A, B], rtol=rtol)


def test_references_of_every_kind_give_the_same_fit(tmp_path: Path) -> None:
    pictures = [metric(frame) for frame in range(FRAMES)]
    np.savez_compressed(tmp_path / "z.npz", depth=np.stack(pictures))
    check_recovered(read_reference(tmp_path / "z.npz", ramp, FRAMES))
    (tmp_path / "exr").mkdir()
    for number, picture in enumerate(pictures):
        name = str(tmp_path / "exr" / f"f{9 + number}.exr")  # f9, f10, f11: not in the order of the letters
        OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION}, {"depth.Z": picture}).write(name)
    check_recovered(read_reference(tmp_path / "exr", ramp, FRAMES))
    (tmp_path / "png").mkdir()
    for number, picture in enumerate(pictures):
        millimetres = np.nan_to_num(np.round(picture * 1000), posinf=0).clip(0).astype(np.uint16)
        write_image(tmp_path / "png" / f"{number}.png", millimetres, "png", "gray16be")
    check_recovered(read_reference(tmp_path / "png", ramp, FRAMES), rtol=1e-3)
    one = read_reference(tmp_path / "exr" / "f11.exr", ramp, FRAMES, frame=2)
    assert set(one.frames) == {2}
    check_recovered(one, HEIGHT * WIDTH - 4)


def test_a_reference_in_another_unit_and_size_is_taken_at_its_places(tmp_path: Path) -> None:
    fine = np.kron(metric(1), np.ones((2, 2), np.float32))[:, :-2] * 100
    coarse = ramp(1)[:, :-1]
    np.savez(tmp_path / "z.npz", fine)
    known = read_reference(tmp_path / "z.npz", lambda _: coarse, FRAMES, unit=0.01, frame=1)
    found = fit(known.disparity, known.z, 0.2, 0.9)
    np.testing.assert_allclose([found.a, found.b], [A, B], rtol=0.01)


def test_a_large_reference_is_looked_at_in_part(tmp_path: Path) -> None:
    large = np.tile(metric(0), (10, 10))
    np.savez(tmp_path / "z.npz", large)
    known = read_reference(tmp_path / "z.npz", lambda _: np.tile(ramp(0), (10, 10)), FRAMES)
    check_recovered(known, 200_000)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((2, 4, 4), np.float32), "has 2 frames and the results have 3; give a reference of the same frames"),
        (np.ones(4, np.float32), r"holds an array float32 \(4,\); write depth as numbers \[T,H,W\]"),
        (np.array(["a"] * 4).reshape(2, 2), "holds an array <U1"),
        (np.asfortranarray(np.ones((3, 4, 4), np.float32)), "in C order"),
    ],
)
def test_a_reference_of_another_shape_is_one_sentence(tmp_path: Path, array: NDArray[np.generic], message: str) -> None:
    np.savez(tmp_path / "z.npz", array)
    with pytest.raises(UserError, match=message):
        read_reference(tmp_path / "z.npz", ramp, FRAMES)


def test_a_reference_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    np.savez(tmp_path / "cut.npz", depth=np.random.default_rng(0).random((3, 48, 64)))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "cut.npz").read_bytes()[:5000])
    OpenEXR.File({}, {"R": metric(0), "G": metric(0)}).write(str(tmp_path / "two.exr"))
    (tmp_path / "text.exr").write_text("no picture")
    write_image(tmp_path / "grey.png", np.ones((8, 8), np.uint8), "png", "gray")
    (tmp_path / "empty").mkdir()
    for name, message in {
        "cut.npz": "is no NPZ file that can be read",
        "two.exr": "has the channels .*; write depth in channel Z",
        "text.exr": "is no EXR file that can be read",
        "grey.png": "is gray, and a reference is",
        "empty": "There are no images in the folder",
        "missing.exr": "cannot be read: ",
        "missing.npz": "cannot be read: ",
        "missing.png": "missing.png cannot be read: ",
    }.items():
        with pytest.raises(UserError, match=message):
            read_reference(tmp_path / name, ramp, FRAMES)
    np.savez(tmp_path / "one.npz", metric(0))
    with pytest.raises(UserError, match=r"frames 0 to 2, and no frame 3, .*; give another reference_frame"):
        read_reference(tmp_path / "one.npz", ramp, FRAMES, frame=3)


def truth_of(kept: Kept, path: Path, wrong: float = 0.2) -> Path:
    """Metric depth of every frame, as A and B make it of the kept one, a part of it wrong."""
    with RawFile(kept.raw) as file:
        z = np.stack([1 / (A * frame.astype(np.float64) + B) for frame in file.frames()])
    rng = np.random.default_rng(0)
    z = np.where(rng.random(z.shape) < wrong, z * np.exp(rng.uniform(0.2, 2, z.shape)), z)
    np.savez(path, depth=z.astype(np.float32))
    return path


def metres_of(kept: Kept) -> NDArray[np.float64]:
    with RawFile(kept.raw) as file:
        return np.stack([1 / (A * frame.astype(np.float64) + B) for frame in file.frames()])


def test_metres_are_written_as_they_are_known(kept: Kept, tmp_path: Path) -> None:
    truth = Truth(reference=truth_of(kept, tmp_path / "truth.npz"))
    files = Calibration(kept.raw, truth, None, tmp_path / "out", focal=640).run()
    assert [file.name for file in files] == ["clip_metric", "clip_metric.npz", "clip_metric.json"]
    with np.load(tmp_path / "out" / "clip_metric.npz") as arrays:
        metres, focal, a, b = arrays["depth"], arrays["focal"], arrays["a"], arrays["b"]
    assert metres.dtype == np.float32
    np.testing.assert_allclose(metres, metres_of(kept), rtol=1e-4)
    np.testing.assert_allclose([a, b], [[A], [B]], rtol=1e-4)
    with OpenEXR.File(str(tmp_path / "out" / "clip_metric" / "frame_0007.exr"), separate_channels=True) as exr:
        np.testing.assert_array_equal(exr.channels()["Z"].pixels, metres[7])
        in_header = [exr.header()[name] for name in ("focalX", "focalY")]
    # The source is 640x272, and the model ran at 128x64: a pixel is five of the source's wide, and 4.25 high.
    assert focal.tolist() == [128, 640 * 64 / 272]
    assert in_header == pytest.approx(focal)
    record = json.loads((tmp_path / "out" / "clip_metric.json").read_text())
    (fitted,) = record["calibration"]["shots"]
    assert (fitted["a"], fitted["b"]) == (a[0], b[0])
    assert fitted["num_points"] == metres.size
    assert 0.7 < fitted["num_used"] / metres.size < 0.81
    assert fitted["largest_error_of_z"] < 1e-4
    assert set(record["files"]) == {"clip_metric.npz", *(f"clip_metric/frame_{i:04d}.exr" for i in range(12))}


def test_points_on_the_command_line_give_the_same_metres_at_the_sources_size(kept: Kept, tmp_path: Path) -> None:
    known = metres_of(kept)
    lines = ["frame,x,y,z"]
    for frame, y, x in [(0, 4, 9), (0, 60, 100), (3, 30, 30), (5, 20, 90), (7, 50, 64), (11, 10, 120), (11, 63, 127)]:
        lines.append(f"{frame},{(x + 0.5) * 5 - 0.5},{(y + 0.5) * 4.25 - 0.5},{known[frame, y, x]}")
    lines.append("2,50,50,77")
    (tmp_path / "points.csv").write_text("\n".join(lines))
    options = ("--points", tmp_path / "points.csv", "--size", "source", "--upscale", "bilinear")
    done = dc_rt("calibrate", kept.raw, *options, "--save-folder", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"frames 0 to 11: 1/z = 0\.8\d* d \+ 0\.0[45]\d*, from 7 of 8 points, whose z it meets", done.stdout
    )
    with np.load(tmp_path / "out" / "clip_metric.npz") as arrays:
        assert arrays["depth"].shape == (12, 272, 640)
        np.testing.assert_allclose([arrays["a"], arrays["b"]], [[A], [B]], rtol=1e-4)
        np.testing.assert_allclose(arrays["depth"].min((1, 2)), known.min((1, 2)), rtol=0.02)
    record = json.loads((tmp_path / "out" / "clip_metric.json").read_text())
    points = record["calibration"]["shots"][0]["points"]
    assert [point["is_used"] for point in points] == [True] * 7 + [False]
    assert points[-1]["point"] == "line 9"
    again = dc_rt("calibrate", kept.raw, *options, "--focal", "0", "--save-folder", tmp_path / "out")
    assert_refused(again, r"--focal must be greater than 0, not 0; try --focal 1000\.")


def test_files_of_metres_have_numbers_rate_and_time_code(kept: Kept, tmp_path: Path) -> None:
    truth = Truth(reference=truth_of(kept, tmp_path / "truth.npz"))
    Calibration(kept.raw, truth, Outputs(start_number=9990), tmp_path / "out").run()
    files = sorted((tmp_path / "out" / "clip_metric").iterdir())
    assert (files[0].name, files[-1].name) == ("frame_09990.exr", "frame_10001.exr")
    headers = [OpenEXR.File(str(file)).header() for file in files]
    assert all("framesPerSecond" in header for header in headers)
    assert [header["timeCode"].frame for header in headers[:3]] == [0, 1, 2]


def test_every_shot_is_fitted_by_itself_and_needs_points(tmp_path: Path, kept: Kept) -> None:
    raw = tmp_path / "clip.raw.zarr.zip"
    shutil.copy(kept.raw, raw)
    with RawFile(raw) as file:
        (whole,) = file.attributes["shots"]
        shots = [whole, whole | {"start": 8}]
    two = rewritten(raw, **{".zattrs": {"shots": shots}})
    z = metres_of(kept)
    z[8:] = 1 / (2 * A * (1 / z[8:] - B) / A + 3 * B)
    np.savez(tmp_path / "z.npz", z.astype(np.float32))
    Calibration(two, Truth(reference=tmp_path / "z.npz"), None, tmp_path / "out").run()
    with np.load(tmp_path / "out" / "other_metric.npz") as arrays:
        np.testing.assert_allclose(arrays["depth"], z, rtol=1e-4)
        np.testing.assert_allclose(arrays["a"], [A, 2 * A], rtol=1e-4)
        np.testing.assert_allclose(arrays["b"], [B, 3 * B], rtol=1e-4)
    one = Truth(points=tmp_path / "points.csv")
    (tmp_path / "points.csv").write_text("0,0,0,1\n0,300,200,2\n0,600,20,3\n")
    with pytest.raises(UserError, match="and the points of the shot of frames 8 to 11 have 0; add more"):
        Calibration(two, one, None, tmp_path / "none").run()
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_calibrated_is_one_sentence(kept: Kept, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="either points='CSV' or reference='DEPTH'; give one of them"):
        Truth()
    with pytest.raises(UserError, match=r"unit must be greater than 0, not -1; try unit=0\.001"):
        Truth(reference=tmp_path / "z.npz", unit=-1)
    for name in "unit", "reference_frame":
        of_references: dict[str, Any] = {name: 2}
        with pytest.raises(UserError, match=f"{name} is of reference, and points say it themselves; leave it out"):
            Truth(points=tmp_path / "points.csv", **of_references)
    np.savez(tmp_path / "z.npz", depth=np.ones((12, 8, 8), np.float32))
    whole = Truth(reference=tmp_path / "z.npz", reference_frame=3)
    with pytest.raises(UserError, match=r"z\.npz has a frame for each of the results; leave reference_frame=3 out"):
        Calibration(kept.raw, whole, None, tmp_path / "out").run()
    (tmp_path / "points.csv").write_text("0,640,0,1\n")
    with pytest.raises(UserError, match=r"Line 1 of .* is outside the picture: .* it has 640x272 pixels"):
        Calibration(kept.raw, Truth(points=tmp_path / "points.csv"), None, tmp_path / "out").run()
    assert not (tmp_path / "out").exists()
