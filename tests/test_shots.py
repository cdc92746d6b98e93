"""A video shot by shot: each as if it were alone, through interruptions and damage."""

import dataclasses
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dc_rt import DepthCrafter, Job, Source, UserError
from dc_rt.engine.discovery import BUNDLED
from dc_rt.job import Planned, Resumed, ShotsFound, WindowDone, plan_video
from dc_rt.job.fingerprint import differences, fingerprint
from dc_rt.job.spool import Spool
from dc_rt.options import Sampling
from job_helpers import Fault, choose, fail_at, run_job
from media_helpers import spoilt, write_clip, write_images

SIZE = 64
# Of one frame, of fewer than the overlap, of less and more than a window, of whole chunks and not.
LENGTHS = (13, 1, 3, 23, 8, 9)
STARTS = tuple(sum(LENGTHS[:i]) for i in range(len(LENGTHS)))
TOTAL = sum(LENGTHS)
# With a stride below 8 a window may end before any frame of its shot is decoded. Raw depth is in [0,1]: in a range of
# just that it is normalised to itself.
SAMPLING = {"window_size": 10, "overlap": 4, "steps": 1}
OPTIONS = choose("npz", **SAMPLING, range="0,1")
FLAGS = ("--window-size", "10", "--overlap", "4", "--num-denoising-steps", "1", "--save-npz", "--range", "0,1")


def picture(seed):
    """Smooth colours, uint8 [H,W,3], unlike those of another seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : 1 : SIZE * 1j, 0 : 1 : SIZE * 1j]
    waves = [np.sin(2 * np.pi * (rng.uniform(0.5, 3) * x + rng.uniform(0.5, 3) * y + rng.random())) for _ in range(3)]
    return np.round(127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


def shot(seed, length):
    """A picture that moves by a pixel a frame."""
    return np.stack([np.roll(picture(seed), i, axis=1) for i in range(length)])


def lossless(path, frames):
    return write_clip(path, frames, Fraction(24), codec="ffv1", pixel_format="bgr0")


def depth_of(folder, name="clip"):
    return np.load(Path(folder, f"{name}.npz"))["depth"]


def record_of(folder, name="clip"):
    return json.loads(Path(folder, f"{name}.json").read_text())


@pytest.fixture(scope="module")
def frames():
    return np.concatenate([shot(seed, length) for seed, length in enumerate(LENGTHS)])


@pytest.fixture(scope="module")
def clip(frames, tmp_path_factory):
    return lossless(tmp_path_factory.mktemp("clip") / "clip.mkv", frames)


@pytest.fixture(scope="module")
def cuts(clip):
    """The clip's list of shots."""
    path = clip.with_name("cuts.csv")
    path.write_text("\n".join(map(str, STARTS)))
    return str(path)


@pytest.fixture(scope="module")
def alone(frames, tmp_path_factory):
    """Depth and range of every shot in a clip of its own."""
    folder = tmp_path_factory.mktemp("alone")
    model = DepthCrafter.load(BUNDLED)
    found = []
    for start, length in zip(STARTS, LENGTHS, strict=True):
        run_job(model, lossless(folder / "clip.mkv", frames[start : start + length]), folder, OPTIONS)
        result = record_of(folder)["result"]
        found.append((depth_of(folder), result["depth_min"], result["depth_max"]))
    return found


@pytest.fixture(scope="module")
def expected(alone):
    """Depth of the whole clip, shot by shot."""
    return np.concatenate([depth for depth, *_ in alone])


def of_shots(shots, **values):
    return choose("npz", **SAMPLING, **({"range": "0,1"} | values), shots=shots)


# What a shot is


def test_each_shot_is_bit_for_bit_what_it_is_alone(bundled, clip, cuts, alone, expected):
    run_job(bundled, clip, Path("out"), of_shots(cuts))
    np.testing.assert_array_equal(depth_of("out"), expected)
    record = record_of("out")
    assert [entry["start_frame"] for entry in record["shots"]] == list(STARTS)
    assert [entry["end_frame"] for entry in record["shots"]] == [*STARTS[1:], TOTAL]
    assert [entry["seconds"] for entry in record["shots"]] == pytest.approx([start / 24 for start in STARTS])
    found = [(entry["depth_min"], entry["depth_max"]) for entry in record["shots"]]
    assert found == [(low, high) for _, low, high in alone]
    assert record["result"]["depth_min"] == min(low for low, _ in found)
    assert record["result"]["depth_max"] == max(high for _, high in found)
    assert record["options"]["shots"] == cuts


def test_without_cuts_windows_cross_them(bundled, clip, expected):
    run_job(bundled, clip, Path("out"), OPTIONS)
    assert not np.array_equal(depth_of("out"), expected)
    (entry,) = record_of("out")["shots"]
    assert (entry["start_frame"], entry["end_frame"]) == (0, TOTAL)


def test_each_shot_may_be_normalised_over_itself(bundled, clip, cuts, alone):
    run_job(bundled, clip, Path("out"), of_shots(cuts, range="shot"))
    depth = depth_of("out")
    for start, (raw, low, high) in zip(STARTS, alone, strict=True):
        own = depth[start : start + len(raw)]
        assert (own.min(), own.max()) == (0, 1)
        np.testing.assert_array_equal(own, (raw - np.float32(low)) / (np.float32(high) - np.float32(low)))


def test_the_shots_of_a_folder_of_images_are_what_they_are_alone(bundled, frames, cuts, expected):
    run_job(bundled, write_images(Path("clip"), frames, "{:03}.png"), Path("out"), of_shots(cuts))
    np.testing.assert_array_equal(depth_of("out"), expected)


def test_of_every_other_frame_a_shot_begins_with_its_first(bundled, frames, clip, cuts):
    """Two of them share no frame that is taken with the one before, and one of a single frame is left out."""
    run_job(bundled, clip, Path("out"), of_shots(cuts, target_fps=12))
    taken = [(start + 1) // 2 for start in STARTS]
    assert [entry["start_frame"] for entry in record_of("out")["shots"]] == sorted(set(taken))
    assert [entry["source_frame"] for entry in record_of("out")["shots"]] == [2 * start for start in sorted(set(taken))]
    third, fourth = taken[3], taken[4]
    run_job(bundled, lossless(Path("clip.mkv"), frames[::2][third:fourth]), Path("alone"), OPTIONS)
    np.testing.assert_array_equal(depth_of("out")[third:fourth], depth_of("alone"))


def test_a_shot_that_lost_its_first_frames_begins_with_the_next(bundled, frames):
    """And the one before ends with the last that there is."""
    whole = write_clip(Path("whole.mp4"), frames, 24, options={"g": "1", "bf": "0", "qp": "0"}, pixel_format="yuv444p")
    start = STARTS[3]
    clip = spoilt(whole, Path("clip.mp4"), slice(start - 1, start + 2))
    Path("cuts.csv").write_text(f"{start}\n{STARTS[4]}")
    run_job(bundled, clip, Path("out"), of_shots("cuts.csv"))
    shots = record_of("out")["shots"]
    assert [entry["start_frame"] for entry in shots] == [0, start - 1, STARTS[4] - 3]
    assert [entry["source_frame"] for entry in shots] == [0, start + 2, STARTS[4]]
    assert [entry["seconds"] for entry in shots] == pytest.approx([0, (start + 2) / 24, STARTS[4] / 24])
    run_job(bundled, whole, Path("undamaged"), of_shots("cuts.csv"))
    np.testing.assert_array_equal(depth_of("out")[STARTS[4] - 3 :], depth_of("undamaged", "whole")[STARTS[4] :])


def test_more_than_a_hundred_shots_run(bundled):
    """Of one or two frames each: the depth of one is that of every other with the same frames."""
    lengths = [1 + i % 2 for i in range(120)]
    lossless(Path("clip.mkv"), np.concatenate([shot(i % 4, length) for i, length in enumerate(lengths)]))
    starts = np.cumsum([0, *lengths[:-1]])
    Path("cuts.csv").write_text("\n".join(map(str, starts)))
    run_job(bundled, Path("clip.mkv"), Path("out"), of_shots("cuts.csv"))
    depth = depth_of("out")
    assert [entry["start_frame"] for entry in record_of("out")["shots"]] == starts.tolist()
    for i in range(4, 120):
        np.testing.assert_array_equal(depth[starts[i]], depth[starts[i % 4]])


# What is known before a run, and told of it


def test_work_is_counted_by_shots(bundled, clip, cuts):
    told: list[Any] = []
    sampling, source, outputs = of_shots(cuts)
    Job(bundled, clip, sampling, source, outputs, "out", listener=told.append).run()
    (planned,) = (event for event in told if isinstance(event, Planned))
    denoised = sum(event.num_frames for event in told if getattr(event, "stage", "") == "denoiser")
    assert planned.num_evaluated == denoised == 10 + 7 + 1 + 3 + 10 + 10 + 10 + 5 + 8 + 9
    assert "6 shots, each estimated by itself" in planned.notes
    done = [event.num_frames for event in told if isinstance(event, WindowDone)]
    assert done == sorted(done)
    assert done[-1] == TOTAL


def test_a_dry_run_counts_the_windows_of_all_shots_and_says_what_it_cannot_know(clip, cuts):
    def dry_run(shots):
        command = [sys.executable, "-m", "dc_rt.cli", "infer", clip, *FLAGS, "--dry-run", "--shots", shots]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "10 windows of up to 10 frames" in dry_run(cuts)
    assert "shots    6" in dry_run(cuts)
    assert "shots    not known: --shots auto finds them when it runs" in dry_run("auto")
    assert "shots  " not in dry_run("none")


def test_a_bad_list_is_said_before_any_work(bundled, clip):
    Path("cuts.csv").write_text("57\n")
    sampling, source, outputs = of_shots("cuts.csv")
    with pytest.raises(UserError, match=r"from frame 57 on, and the video's 57 frames end with 56"):
        Job(bundled, clip, sampling, source, outputs, "out")
    assert not Path("out").exists()


# Interruptions


@pytest.mark.parametrize("stage", ["write", "denoiser"])
def test_a_run_that_fails_again_and_again_ends_in_the_same_depth(bundled, clip, cuts, expected, stage):
    """At ever later reports of a stage, so that each run gets farther than the one before: also between two shots."""
    failed = 0
    for count in range(2, TOTAL, 3 if stage == "write" else 1):
        try:
            run_job(bundled, clip, Path("out"), of_shots(cuts), fail_at(stage, count))
            break
        except Fault:
            failed += 1
    else:
        run_job(bundled, clip, Path("out"), of_shots(cuts))
    assert failed >= 3
    np.testing.assert_array_equal(depth_of("out"), expected)
    assert [entry["start_frame"] for entry in record_of("out")["shots"]] == list(STARTS)


def test_a_run_killed_before_a_state_is_kept_ends_in_the_same_depth(clip, cuts, expected):
    """Every run keeps two states and is killed when it would keep the next: after windows, and between shots."""
    code = """
import os, signal, sys
kept = 0
def die(event, arguments):
    global kept
    if event == "os.rename" and str(arguments[1]).endswith("state"):
        kept += 1
        if kept == 3:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
from dc_rt.cli import main
main()
"""
    command = [sys.executable, "-c", code, "infer", clip, *FLAGS, "--shots", cuts, "--save-folder", "out"]
    told: list[Any] = []
    for _ in range(20):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        told += [line for line in done.stdout.splitlines() if "resumed after frame" in line]
        if done.returncode != -signal.SIGKILL:
            break
    assert done.returncode == 0, done.stderr
    assert [int(line.split()[3]) for line in told] == [13, 17, 29, 40]
    np.testing.assert_array_equal(depth_of("out"), expected)


def test_other_cuts_are_another_run(bundled, clip, cuts):
    with pytest.raises(Fault):
        run_job(bundled, clip, Path("out"), of_shots(cuts), fail_at("denoiser", 4))
    with pytest.raises(UserError, match=r"another shots \(13, 14, 17, 40, 48, now none\); give the same again"):
        run_job(bundled, clip, Path("out"), OPTIONS)
    with pytest.raises(UserError, match=r"another shots \(13, 14, 17, 40, 48, now auto\)"):
        run_job(bundled, clip, Path("out"), of_shots("auto"))
    Path("same.csv").write_text("frame\n" + Path(cuts).read_text())
    run_job(bundled, clip, Path("out"), of_shots("same.csv"))


def test_a_run_that_was_begun_before_there_were_shots_is_resumed(bundled, clip):
    """Of it, the state has the range in the place of shots, and the fingerprint says nothing of them."""
    run_job(bundled, clip, Path("whole"), OPTIONS)
    with pytest.raises(Fault):
        run_job(bundled, clip, Path("out"), OPTIONS, fail_at("denoiser", 4))
    state = Path("out/.clip.spool/state")
    arrays = dict(np.load(io.BytesIO(state.read_bytes()[32:])))
    record = json.loads(arrays["record"].tobytes())
    assert record["fingerprint"].pop("shots") == "none"
    (entry,) = record["progress"].pop("shots")
    record["progress"] |= {"min": entry["low"], "max": entry["high"]}
    record["progress"]["notes"].pop("shots")
    contents = io.BytesIO()
    np.savez(contents, **arrays | {"record": np.frombuffer(json.dumps(record).encode(), np.uint8)})
    state.write_bytes(hashlib.sha256(contents.getvalue()).digest() + contents.getvalue())
    stages = []
    run_job(bundled, clip, Path("out"), OPTIONS, lambda stage, *_: stages.append(stage))
    assert "resumed" in stages
    np.testing.assert_array_equal(depth_of("out"), depth_of("whole"))
    assert record_of("out")["shots"] == record_of("whole")["shots"]


def test_shots_are_part_of_what_a_run_shares_with_the_one_it_resumes(bundled, clip, cuts):
    def of(shots):
        return fingerprint(bundled.engines, plan_video(clip, Source(shots=shots)), Sampling())

    before = {name: value for name, value in of("none").items() if name != "shots"}
    assert differences(before, of("none")) == {}
    assert differences(before, of("auto")) == {"shots": ("none", "auto")}
    assert differences(of(cuts), of(cuts)) == {}
    assert differences(of("none"), of(cuts)) == {"shots": ("none", "13, 14, 17, 40, 48")}


def test_a_spool_tells_its_shots(tmp_path):
    depth = np.random.default_rng(0).uniform(0.2, 0.6, (5, 3, 4)).astype(np.float32)

    def spool():
        return Spool(tmp_path / "spool", {}, 3, 4)

    with spool() as opened:
        opened.append(depth[0])
        opened.append(depth[1])
        opened.commit(None, between_shots=True)
        opened.append(depth[2])  # never committed
    with spool() as opened:
        assert not opened.progress.complete
        assert (opened.num_frames, opened.shot_start) == (2, 2)
        opened.append(depth[3])
        opened.append(depth[4])
        opened.commit(None)
    with spool() as opened:
        assert opened.progress.complete
        assert [dataclasses.astuple(each) for each in opened.shots] == [
            (0, depth[:2].min(), depth[:2].max()),
            (2, depth[3:].min(), depth[3:].max()),
        ]
        kept = depth[[0, 1, 3, 4]]
        assert opened.range == (kept.min(), kept.max())
        np.testing.assert_array_equal(np.stack([*opened.frames()]), kept)


# Shots that are found


@pytest.fixture(scope="module")
def found_clip(tmp_path_factory):
    """Three shots whose cuts are found."""
    parts = [shot(seed, length) for seed, length in ((10, 15), (11, 22), (12, 9))]
    return lossless(tmp_path_factory.mktemp("found") / "clip.mkv", np.concatenate(parts))


@pytest.fixture(scope="module")
def found_depth(found_clip, tmp_path_factory):
    """Its depth with the cuts given."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "cuts.csv").write_text("15, 37")
    run_job(DepthCrafter.load(BUNDLED), found_clip, folder, of_shots(str(folder / "cuts.csv")))
    return depth_of(folder)


def test_cuts_are_found_before_the_model_runs(bundled, found_clip, found_depth):
    told: list[Any] = []
    sampling, source, outputs = of_shots("auto")
    Job(bundled, found_clip, sampling, source, outputs, "out", listener=told.append).run()
    stages = [getattr(event, "stage", type(event).__name__) for event in told]
    assert stages[:2] == ["Planned", "detect"]
    assert stages[stages.index("ShotsFound") - 1] == "detect"
    assert "detect" not in stages[stages.index("ShotsFound") :]
    assert ShotsFound(3, 10 + 9 + 10 + 10 + 10 + 9) in told
    np.testing.assert_array_equal(depth_of("out"), found_depth)
    assert [entry["start_frame"] for entry in record_of("out")["shots"]] == [0, 15, 37]
    assert record_of("out")["timings"]["stages"]["detect"] >= 0


@pytest.mark.parametrize("denoised", [1, 4])
def test_cuts_are_found_once_however_often_a_run_is_resumed(bundled, found_clip, found_depth, denoised):
    with pytest.raises(Fault):
        run_job(bundled, found_clip, Path("out"), of_shots("auto"), fail_at("denoiser", denoised))
    told: list[Any] = []
    sampling, source, outputs = of_shots("auto")
    Job(bundled, found_clip, sampling, source, outputs, "out", listener=told.append).run()
    assert "detect" not in [getattr(event, "stage", "") for event in told]
    assert any(isinstance(event, ShotsFound) for event in told)
    assert any(isinstance(event, Resumed) for event in told) == (denoised > 1)
    np.testing.assert_array_equal(depth_of("out"), found_depth)


def test_a_run_that_fails_while_it_looks_for_cuts_leaves_nothing(bundled, found_clip):
    with pytest.raises(Fault):
        run_job(bundled, found_clip, Path("out"), of_shots("auto"), fail_at("detect", 20))
    assert not Path("out").exists()


def test_the_command_says_how_many_shots_it_found(found_clip):
    command = [
        sys.executable,
        "-m",
        "dc_rt.cli",
        "infer",
        found_clip,
        *FLAGS,
        "--shots",
        "auto",
        "--save-folder",
        "out",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    assert "  its shots are found first, in a pass over all frames" in done.stdout
    assert "  3 shots, each estimated by itself" in done.stdout
