"""Results from kept depth: those of a direct run byte for byte, without a model."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import typer

from command_helpers import assert_refused, dc_rt
from dc_rt import Delivery, DepthCrafter, Job, JobCancelled, Outputs, UserError, deliver, probe
from dc_rt.cli.deliver import deliver_all
from dc_rt.engine.discovery import BUNDLED
from dc_rt.job import Event, Finished, Planned, Progressed, WindowDone
from dc_rt.media.raw import RAW_SUFFIX, RawFile
from job_helpers import choose
from media_helpers import moving_gradient, write_clip, write_images
from raw_helpers import CHOSEN, EVERYTHING, Kept, results, run_kept
from test_raw import rewritten
from test_shown import spoilt, write_timed

WITHOUT_PICTURES = tuple(name for name in EVERYTHING if name != "input.mp4")

# Engines, and the library that runs them, are absent for the command that follows.
ABSENT = f"""
import sys
sys.modules["onnxruntime"] = None
def refuse(event, arguments):
    if event == "open" and str(arguments[0]).startswith({str(BUNDLED)!r}):
        raise AssertionError(f"{{arguments[0]}} was opened")
sys.addaudithook(refuse)
from dc_rt.cli import main
main()
"""


def test_the_command_gives_the_bytes_of_the_direct_run_without_engines(kept: Kept, tmp_path: Path) -> None:
    command = [
        "deliver",
        str(kept.raw),
        "--save-folder",
        str(tmp_path / "out"),
        "--save-npz",
        "--save-exr",
        "--save-png",
    ]
    done = subprocess.run([sys.executable, "-c", ABSENT, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "12 of 12 frames" in done.stdout
    assert results(tmp_path / "out") == results(kept.folder)


@pytest.mark.parametrize(
    "options",
    [
        {"range": "0.2,0.7", "gamma": 2.2},
        {"range": "shot", "polarity": "far-white"},
        {"values": "raw"},
        {"size": "source"},
        {"size": "100x60", "upscale": "bilinear"},
    ],
    ids=lambda options: "-".join(options),
)
def test_other_options_give_the_bytes_of_a_direct_run_with_these(
    bundled: DepthCrafter, kept: Kept, tmp_path: Path, options: dict[str, Any]
) -> None:
    direct = run_kept(bundled, kept.video, tmp_path / "direct", **options)
    assert direct.raw.read_bytes() == kept.raw.read_bytes()
    deliver(kept.raw, Outputs(EVERYTHING, **options), tmp_path / "out")
    assert results(tmp_path / "out") == results(direct.folder)


def strange_clips(folder: Path) -> dict[str, Path]:
    """Clips whose frames are lost, come unevenly, have wide pixels, or are taken every other one."""
    whole = write_clip(folder / "whole.mp4", moving_gradient(30, 64, 96), 30, options={"bf": "0", "g": "10"})
    uneven = [33 * i for i in range(6)] + [163 + 200 * (i + 1) for i in range(6)]
    return {
        "lost": spoilt(whole, folder / "lost.mp4", slice(3, 9)),
        "uneven": write_timed(folder / "uneven.mkv", uneven, Fraction(1, 1000)),
        "wide": write_timed(folder / "wide.mp4", range(9), Fraction(1, 24), sample_aspect_ratio=Fraction(4, 3)),
        "images": write_images(folder / "images", moving_gradient(5, 70, 90)),
    }


@pytest.mark.parametrize("name", ["lost", "uneven", "wide", "images"])
def test_times_gaps_and_shapes_are_those_of_the_video_though_it_is_gone(
    bundled: DepthCrafter, tmp_path: Path, name: str
) -> None:
    video = strange_clips(tmp_path)[name]
    direct = run_kept(bundled, video, tmp_path / "direct", process_length=20, target_fps=15 if name == "lost" else -1)
    raw = direct.folder / f"{video.stem}{RAW_SUFFIX}"
    deliver(raw, Outputs(EVERYTHING), tmp_path / "with")
    assert results(tmp_path / "with") == results(direct.folder)
    shutil.rmtree(video) if video.is_dir() else video.unlink()
    deliver(raw, Outputs(WITHOUT_PICTURES), tmp_path / "without")
    expected = results(direct.folder)
    del expected[f"{video.stem}_input.mp4"]
    assert results(tmp_path / "without") == expected
    records = [json.loads((tmp_path / each / f"{video.stem}.json").read_text()) for each in ("direct", "without")]
    for key in ("model", "engines", "source", "result", "times"):
        assert records[0][key] == records[1][key]


def test_what_is_to_be_said_of_the_results_is_said_before_them(kept: Kept, tmp_path: Path) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Planned):
            assert not (tmp_path / "out").exists()
            said.extend(event.notes)

    for name, values, expected in (
        ("png", "raw", ["raw depth beyond 0 and 1 is cut to these in png"]),
        ("npz", "raw", []),
        ("side-by-side", "normalised", ["300x61 is odd: H.264 is stored as yuv444p", "no sound"]),
    ):
        said: list[str] = []
        outputs = Outputs((name,), values=values, size="100x61")
        Delivery(kept.raw, outputs, tmp_path / "out", listener=listen).run()
        assert [note for note in said if not note.startswith(tuple(expected))] == []
        assert len(said) == len(expected)
        shutil.rmtree(tmp_path / "out")


def test_the_record_says_what_was_done(kept: Kept, tmp_path: Path) -> None:
    told: list[Event] = []
    files = Delivery(kept.raw, Outputs(("npz",), gamma=2.0), tmp_path / "out", listener=told.append).run()
    assert files == [tmp_path / "out" / "clip.npz", tmp_path / "out" / "clip.json"]
    direct, found = (json.loads((folder / "clip.json").read_text()) for folder in (kept.folder, tmp_path / "out"))
    for key in ("model", "demonstration", "engines", "source", "result"):
        assert found[key] == direct[key]
    assert found["options"] == direct["options"] | {"outputs": ["npz"], "gamma": 2.0, "keep": "none"}
    assert list(found["files"]) == ["clip.npz"]
    assert isinstance(told[0], Planned)
    assert (told[0].num_frames, told[0].height, told[0].width, told[0].num_evaluated) == (12, 64, 128, 0)
    assert sum(event.num_frames for event in told if isinstance(event, Progressed)) == 12
    assert isinstance(told[-1], Finished)
    assert told[-1].files == tuple(map(str, files))


def test_what_the_raw_file_says_is_that_of_the_run(kept: Kept) -> None:
    direct = json.loads((kept.folder / "clip.json").read_text())
    with RawFile(kept.raw) as file:
        attributes = file.attributes
    for key in ("model", "demonstration", "engines", "source"):
        assert attributes[key] == direct[key]
    assert attributes["options"].items() <= direct["options"].items()
    assert attributes["options"]["steps"] == 1
    assert attributes["numbers"] == list(range(12))
    (shot,) = attributes["shots"]
    assert (shot["low"], shot["high"]) == (direct["result"]["depth_min"], direct["result"]["depth_max"])
    assert Path(attributes["video"]["path"]) == kept.video
    assert direct["files"][kept.raw.name] == kept.raw.stat().st_size


def test_results_of_the_direct_run_are_replaced_and_the_raw_file_stays(
    bundled: DepthCrafter, kept: Kept, tmp_path: Path
) -> None:
    folder = tmp_path / "direct"
    shutil.copytree(kept.folder, folder)
    raw = folder / kept.raw.name
    before = results(folder)
    deliver(raw, Outputs(EVERYTHING, gamma=2.0), folder)
    after = results(folder)
    assert after.keys() == before.keys()
    assert after["clip.npz"] == before["clip.npz"] or after["clip_depth.mp4"] != before["clip_depth.mp4"]
    assert raw.read_bytes() == kept.raw.read_bytes()
    sampling, source, _ = choose(**CHOSEN)
    Job(bundled, kept.video, sampling, source, Outputs(EVERYTHING), folder).run()
    assert results(folder) == before
    assert raw.read_bytes() == kept.raw.read_bytes()
    assert raw.name in json.loads((folder / "clip.json").read_text())["files"]


def test_results_are_called_as_the_raw_file_is(kept: Kept, tmp_path: Path) -> None:
    raw = tmp_path / f"take 2.b{RAW_SUFFIX}"
    shutil.copy(kept.raw, raw)
    deliver(raw, Outputs(("npz", "exr")), tmp_path / "out")
    assert (tmp_path / "out" / "take 2.b.npz").read_bytes() == (kept.folder / "clip.npz").read_bytes()
    assert (tmp_path / "out" / "take 2.b" / "frame_0011.exr").exists()


def test_a_video_that_was_moved_is_asked_for_where_it_is_needed(
    bundled: DepthCrafter, kept: Kept, tmp_path: Path
) -> None:
    video = tmp_path / "clip.mp4"
    shutil.copy(kept.video, video)
    direct = run_kept(bundled, video, tmp_path / "direct")
    moved = video.rename(tmp_path / "moved.mov")
    assert deliver(direct.raw, Outputs(WITHOUT_PICTURES), tmp_path / "a")
    done = dc_rt("deliver", direct.raw, "--outputs", "npz,input.mp4", "--save-folder", tmp_path / "b")
    assert_refused(
        done, r"clip\.mp4, the video of .*, is not there, and is needed for the output input\.mp4; say where"
    )
    assert "--source FILE" in done.stderr
    assert not (tmp_path / "b").exists()
    done = dc_rt("deliver", direct.raw, "--source", moved, "--save-npz", "--save-folder", tmp_path / "c")
    assert done.returncode == 0, done.stderr
    expected = results(direct.folder)
    assert results(tmp_path / "c").items() <= expected.items()
    assert len(results(tmp_path / "c")) == 4


def test_a_video_that_was_renamed_gives_the_same_pictures_stereo_and_folder_for_iw3(
    bundled: DepthCrafter, kept: Kept, tmp_path: Path
) -> None:
    sampling, source, _ = choose(**CHOSEN)
    outputs = Outputs(("stereo", "iw3", "side-by-side"), stereo="left+right")
    Job(bundled, kept.video, sampling, source, outputs, tmp_path / "direct").run()
    renamed = tmp_path / "take 2.mp4"
    shutil.copy(kept.video, renamed)
    deliver(kept.raw, outputs, tmp_path / "out", source=renamed)
    assert results(tmp_path / "out") == results(tmp_path / "direct")


def test_another_or_a_changed_video_is_refused(kept: Kept, tmp_path: Path) -> None:
    other = tmp_path / "clip.mp4"
    other.write_bytes(kept.video.read_bytes() + b"\0")
    with pytest.raises(UserError, match=r"clip\.mp4 is not the video that .* is of, or was changed since; .* source="):
        Delivery(kept.raw, Outputs(("input.mp4",)), tmp_path / "out", source=other)
    assert deliver(kept.raw, Outputs(("npz",)), tmp_path / "out", source=other)


def test_what_cannot_be_delivered_is_one_sentence(kept: Kept, tmp_path: Path) -> None:
    for outputs in (Outputs(keep="raw"), Outputs(("raw",))):
        with pytest.raises(UserError, match=r"is a raw file already, and stays; leave keep='raw' out\.$"):
            deliver(kept.raw, outputs, tmp_path / "out")
    with pytest.raises(UserError, match=r"clip\.mp4 is no raw file of dc-rt; give a NAME\.raw\.zarr\.zip"):
        deliver(kept.video, Outputs(), tmp_path / "out")
    with pytest.raises(UserError, match="More than one video is called clip"):
        deliver_all([kept.raw, kept.raw], Outputs(), tmp_path / "out", None)
    other = tmp_path / f"other{RAW_SUFFIX}"
    with pytest.raises(UserError, match="is the video of one raw file; deliver them one by one"):
        deliver_all([kept.raw, other], Outputs(), tmp_path / "out", kept.video)
    assert not (tmp_path / "out").exists()


def test_the_video_is_never_overwritten_by_what_is_made_of_it(kept: Kept, tmp_path: Path) -> None:
    video = tmp_path / "clip_input.mp4"
    shutil.copy(kept.video, video)
    for outputs in Outputs(("input.mp4",), overwrite=True), Outputs(("npz", "input.mp4"), overwrite=True):
        with pytest.raises(UserError, match=r"clip_input\.mp4 is to be read, and would be overwritten by the results"):
            Delivery(kept.raw, outputs, tmp_path, source=video)
    assert video.read_bytes() == kept.video.read_bytes()


@pytest.mark.parametrize(
    ("ends", "options", "largest"),
    [
        ((-1.0, 65536.0), {}, "65536"),
        ((-7e4, 1.0), {"exr": "nuke"}, "70001"),
        ((0.0, 300.0), {"gamma": 0.5}, "90000"),
        ((0.0, 1e30), {"gamma": 0.5}, "inf"),
    ],
)
def test_depth_that_half_floats_do_not_hold_is_refused_before_any_work(
    kept: Kept, tmp_path: Path, ends: tuple[float, float], options: dict[str, Any], largest: str
) -> None:
    low, high = ends
    shutil.copy(kept.raw, tmp_path / kept.raw.name)
    raw = rewritten(tmp_path / kept.raw.name, **{".zattrs": {"shots": [{"start": 0, "low": low, "high": high}]}})
    asked = {"values": "raw", "exr_type": "half"} | options
    with pytest.raises(UserError, match=rf"Values of up to {largest} are more than half floats hold"):
        Delivery(raw, Outputs(("exr",), **asked), tmp_path / "out")
    Delivery(raw, Outputs(("exr",), **asked | {"values": "normalised"}), tmp_path / "out")
    Delivery(raw, Outputs(("npz",), **asked), tmp_path / "out")


def test_pictures_that_are_too_wide_to_be_put_together_are_refused_before_any_work(kept: Kept, tmp_path: Path) -> None:
    outputs = Outputs(("side-by-side",), size="16000x64", upscale="bilinear")
    with pytest.raises(UserError, match=r"takes no pictures of 48000x64; choose another size\.$"):
        Delivery(kept.raw, outputs, tmp_path / "out")


def test_what_is_to_be_known_of_the_files_is_said_before_they_are_written(kept: Kept, tmp_path: Path) -> None:
    heard: list[Event] = []
    outputs = Outputs(("depth.mp4",), size="97x63", upscale="bilinear", exr="nuke")
    deliver(kept.raw, outputs, tmp_path / "out", listener=heard.append)
    (notes,) = (event.notes for event in heard if isinstance(event, Planned))
    assert "97x63 is odd: H.264 is stored as yuv444p, which some players do not show" in notes
    assert any("the output exr is not written" in note for note in notes)


def test_a_raw_file_that_is_given_as_a_video_is_told_of_deliver(kept: Kept) -> None:
    with pytest.raises(UserError, match="holds kept depth and no video; write results from it with dc-rt deliver"):
        probe(kept.raw)


def test_the_option_of_earlier_versions_is_told_of_this_one() -> None:
    done = dc_rt("infer", "clip.mp4", "--keep-spool")
    assert done.returncode == 2
    assert done.stderr.startswith("There is no option --keep-spool any more; type `--keep raw`")


def test_one_raw_files_error_does_not_stop_the_others(
    kept: Kept, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged = tmp_path / f"damaged{RAW_SUFFIX}"
    damaged.write_bytes(kept.raw.read_bytes()[:-100])
    with pytest.raises(typer.Exit) as end:
        deliver_all([damaged, kept.raw], Outputs(("npz",)), tmp_path / "out", None)
    assert end.value.exit_code == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "damaged.raw.zarr.zip is damaged" in sentence
    assert (tmp_path / "out" / "clip.npz").read_bytes() == (kept.folder / "clip.npz").read_bytes()


@pytest.mark.parametrize(
    "changed",
    [
        *({missing: None} for missing in ("model", "options", "damage", "video", "plan")),
        {"plan": {"num_frames": 5, "stride": 1, "height": 64, "width": 128}},
        {"plan": {"num_frames": 12, "stride": 0, "height": 64, "width": 128}},
    ],
)
def test_a_raw_file_that_does_not_say_all_is_one_sentence(kept: Kept, tmp_path: Path, changed: dict[str, Any]) -> None:
    raw = tmp_path / kept.raw.name
    shutil.copy(kept.raw, raw)
    with pytest.raises(UserError, match="does not say what a raw file does of its run; make it anew"):
        deliver(rewritten(raw, **{".zattrs": changed}), Outputs(("npz",)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_of_the_users_are_kept_unless_told_otherwise(kept: Kept, tmp_path: Path) -> None:
    mine = tmp_path / "clip.npz"
    mine.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"clip\.npz was not written by dc-rt"):
        deliver(kept.raw, Outputs(("npz",)), tmp_path)
    assert mine.read_bytes() == b"mine"
    deliver(kept.raw, Outputs(("npz",), overwrite=True), tmp_path)
    assert mine.read_bytes() == (kept.folder / "clip.npz").read_bytes()


def test_a_delivery_that_is_cancelled_leaves_nothing(kept: Kept, tmp_path: Path) -> None:
    def cancel(event: Event) -> None:
        if isinstance(event, Progressed):
            delivery.cancel()

    delivery = Delivery(kept.raw, Outputs(EVERYTHING), tmp_path / "out", listener=cancel)
    with pytest.raises(JobCancelled):
        delivery.run()
    assert delivery.status == "cancelled"
    assert not delivery.is_resumable
    assert not (tmp_path / "out").exists()


def test_a_damaged_frame_ends_a_delivery_with_nothing_left(kept: Kept, tmp_path: Path) -> None:
    raw = tmp_path / kept.raw.name
    contents = bytearray(kept.raw.read_bytes())
    at = contents.index(b"depth/7.0.0")
    contents[at + 200] ^= 1
    raw.write_bytes(contents)
    with pytest.raises(UserError, match=r"Frame 7 of .* is damaged"):
        deliver(raw, Outputs(EVERYTHING), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unfinished_run_beside_it_is_resumed_as_if_nothing_was(
    bundled: DepthCrafter, kept: Kept, tmp_path: Path
) -> None:
    sampling, source, _ = choose(**CHOSEN)
    outputs = Outputs(EVERYTHING, keep="raw", gamma=2.0)

    def cancel(event: Event) -> None:
        if isinstance(event, WindowDone):
            job.cancel()

    job = Job(bundled, kept.video, sampling, source, outputs, tmp_path, listener=cancel)
    with pytest.raises(JobCancelled):
        job.run()
    assert job.is_resumable
    delivery = Delivery(kept.raw, Outputs(EVERYTHING), tmp_path)
    delivery.run()
    delivery.discard()
    assert results(tmp_path).items() >= results(kept.folder).items()
    again = Job(bundled, kept.video, sampling, source, outputs, tmp_path)
    assert again.is_resumable
    again.run()
    assert (tmp_path / kept.raw.name).read_bytes() == kept.raw.read_bytes()
    assert not (tmp_path / ".clip.spool").exists()


def test_a_delivery_that_is_killed_leaves_nothing_partial_and_is_done_by_the_same_command(
    kept: Kept, tmp_path: Path
) -> None:
    expected = results(kept.folder)
    options = ["--save-npz", "--save-exr", "--save-png", "--save-folder", str(tmp_path / "out")]
    command = [sys.executable, "-m", "dc_rt.cli", "deliver", str(kept.raw), *options]
    instants = random.Random(0)
    for _ in range(4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not (tmp_path / "out" / ".clip.spool").exists():
            time.sleep(0.002)
        time.sleep(instants.uniform(0, 0.3))
        process.kill()
        process.wait()
        found = {name: data for name, data in results(tmp_path / "out").items() if not name.startswith(".")}
        assert found.items() <= expected.items()
    done = dc_rt("deliver", kept.raw, *options)
    assert done.returncode == 0, done.stderr
    assert results(tmp_path / "out") == expected
    assert not (tmp_path / "out" / ".clip.spool").exists()


@pytest.mark.skipif(os.name == "nt", reason="there Ctrl-C goes to the whole console")
def test_ctrl_c_ends_it_with_one_sentence(kept: Kept, tmp_path: Path) -> None:
    options = ["--size", "3000x2000", "--upscale", "bilinear", "--save-npz", "--save-folder", str(tmp_path / "out")]
    command = [sys.executable, "-m", "dc_rt.cli", "deliver", str(kept.raw), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (tmp_path / "out" / ".clip.spool" / "results").exists():
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "Interrupted; nothing of " in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()
