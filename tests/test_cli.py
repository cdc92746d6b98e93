"""`dc-rt` as its users type it, on real files."""

import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import OpenEXR
import pytest

from dc_rt import DepthCrafter, Noise
from dc_rt.engine.discovery import BUNDLED
from dc_rt.engine.manifest import File, Manifest
from dc_rt.media import inferno, read_frames
from media_helpers import moving_gradient, real_clip, write_audio, write_clip

FAST = ("--num-denoising-steps", "1", "--max-res", "128", "--window-size", "16", "--overlap", "5")


def dc_rt(*arguments, **environment):
    """Run the command; a traceback on its standard error fails the test at once."""
    command = [sys.executable, "-m", "dc_rt.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def decode(path):
    """All frames as uint8 [T,H,W,3], and the frame rate."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), stream.average_rate


@pytest.mark.parametrize(
    ("name", "size", "num_frames"),
    [("bikes.mp4", (64, 128), 40), ("carphone_pristine.mp4", (64, 128), 30), ("bigbuckbunny.mp4", (64, 128), 20)],
)
def test_real_clips_become_videos_of_their_length_size_and_rate(name, size, num_frames):
    clip = real_clip(name)
    done = dc_rt("infer", clip, *FAST, "--process-length", num_frames)
    assert done.returncode == 0, done.stderr
    stem = clip.stem
    with av.open(str(clip)) as container:
        rate = container.streams.video[0].average_rate
    for kind in ("depth", "vis", "input"):
        frames, fps = decode(f"demo_output/{stem}_{kind}.mp4")
        assert frames.shape == (num_frames, *size, 3)
        assert fps == rate
    written, _ = decode(f"demo_output/{stem}_input.mp4")
    expected = np.stack(list(read_frames(clip, *size, limit=num_frames)))
    assert np.abs(written.astype(int) - expected).mean() < 4  # what H.264 loses
    assert sorted(path.name for path in Path("demo_output").iterdir()) == sorted(
        [f"{stem}.json", f"{stem}_depth.mp4", f"{stem}_input.mp4", f"{stem}_vis.mp4"]
    )


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """One run with every output: a generated clip of 23 frames at 12.5 frames a second."""
    folder = tmp_path_factory.mktemp("run")
    clip = write_clip(folder / "clip.mp4", moving_gradient(23, 96, 130, seed=0), Fraction(25, 2))
    out = folder / "out"
    done = dc_rt("infer", clip, *FAST, "--save-folder", out, "--save-npz", "--save-exr", "--save-png", "--seed", 7)
    assert done.returncode == 0, done.stderr
    return clip, out, done.stdout


@pytest.fixture(scope="module")
def whole_depth(whole_run):
    """What the API yields for that run, normalised."""
    frames = read_frames(whole_run[0], 128, 128)
    options: dict[str, Any] = {"steps": 1, "window_size": 16, "overlap": 5}
    depth = np.stack(list(DepthCrafter.load(BUNDLED)(frames, noise=Noise(7), **options)))
    return (depth - depth.min()) / (depth.max() - depth.min())


def test_the_npz_is_the_yielded_depth_normalised(whole_run, whole_depth):
    depth = np.load(whole_run[1] / "clip.npz")["depth"]
    assert depth.dtype == np.float32
    assert (depth.min(), depth.max()) == (0, 1)
    np.testing.assert_array_equal(depth, whole_depth)


def test_the_exr_files_are_the_yielded_depth_normalised(whole_run, whole_depth):
    files = sorted((whole_run[1] / "clip").glob("*.exr"))
    assert [file.name for file in files] == [f"frame_{i:04d}.exr" for i in range(23)]
    for file, depth in zip(files, whole_depth, strict=True):
        channels = OpenEXR.File(str(file)).channels()
        assert list(channels) == ["Z"]
        assert channels["Z"].pixels.dtype == np.float32
        np.testing.assert_array_equal(channels["Z"].pixels, depth)


def test_the_png_files_are_the_yielded_depth_normalised(whole_run, whole_depth):
    files = sorted((whole_run[1] / "clip").glob("*.png"))
    assert len(files) == 23
    with av.open(str(files[4])) as container:
        pixels = next(container.decode(video=0)).to_ndarray()
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, np.round(whole_depth[4] * 65535))


def test_the_videos_show_the_yielded_depth(whole_run, whole_depth):
    grey, fps = decode(whole_run[1] / "clip_depth.mp4")
    colour, _ = decode(whole_run[1] / "clip_vis.mp4")
    assert fps == Fraction(25, 2)
    assert grey.shape == colour.shape == (23, 128, 128, 3)
    assert np.abs(grey.mean(axis=-1) - 255 * whole_depth).mean() < 3
    expected = np.stack([inferno(depth) for depth in whole_depth]).astype(int)
    assert np.abs(colour - expected).mean() < 10  # colour has half the resolution in H.264


def test_the_record_tells_how_the_result_came_about(whole_run):
    record = json.loads((whole_run[1] / "clip.json").read_text())
    assert record["model"]["name"] == DepthCrafter.load(BUNDLED).engines.manifest.model.name
    assert record["engines"]["backend"] == "onnx"
    assert record["options"]["seed"] == 7
    assert record["options"]["steps"] == 1
    source = record["source"]
    assert [source[key] for key in ("num_frames", "height", "width", "fps")] == [23, 96, 130, 12.5]
    assert [source[key] for key in ("decode_errors", "frames_patched", "frames_missing", "notes")] == [0, 0, 0, []]
    assert record["result"]["num_frames"] == 23
    assert record["result"]["depth_min"] < record["result"]["depth_max"]
    stages = record["timings"]["stages"]
    assert set(stages) == {"read", "clip_encoder", "vae_encoder", "denoiser", "vae_decoder", "write"}
    graphs = sum(stages[graph] for graph in ("clip_encoder", "vae_encoder", "denoiser", "vae_decoder"))
    assert 0 < graphs <= record["timings"]["seconds"]
    assert {"onnxruntime", "numpy", "av", "python", "depthcrafter-rt"} <= set(record["versions"])


def test_the_terminal_says_which_model_and_engines_and_why(whole_run):
    lines = whole_run[2].splitlines()
    assert lines[0].startswith("Model nano (fp32) of the bundled set, onnx on the CPU")
    assert re.match(r"Engines .*bundled: the bundled set, as there is no --engines", lines[1])
    assert "23 of 23 frames, 130x96 at 12.5 frames/s -> 128x128 at 12.5 frames/s" in lines[3]
    assert "\x1b" not in whole_run[2]


def test_a_stride_keeps_the_clips_duration():
    clip = write_clip(Path("clip.mp4"), moving_gradient(31, 64, 64, seed=1), Fraction(30))
    assert dc_rt("infer", clip, *FAST, "--target-fps", 10).returncode == 0
    for kind in ("depth", "vis", "input"):
        with av.open(f"demo_output/clip_{kind}.mp4") as container:
            times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
            assert times == [Fraction(i, 10) for i in range(11)]
            # The last one is shown for a thirtieth of a second, as the source has no more frames.
            assert container.duration / 1e6 == pytest.approx(31 / 30, abs=1e-3)
    written, _ = decode("demo_output/clip_input.mp4")
    expected = np.stack(list(read_frames(clip, 64, 64)))[::3]
    assert np.abs(written.astype(int) - expected).mean() < 4


def test_a_dataset_decides_the_size():
    clip = write_clip(Path("clip.mp4"), moving_gradient(1, 64, 64, seed=1), Fraction(24))
    assert dc_rt("infer", clip, *FAST, "--dataset", "NYUv2").returncode == 0
    assert decode("demo_output/clip_vis.mp4")[0].shape == (1, 448, 640, 3)


def test_both_names_of_the_steps_are_taken():
    clip = write_clip(Path("clip.mp4"), moving_gradient(2, 64, 64, seed=1), Fraction(24))
    assert dc_rt("infer", clip, "--num-inference-steps", 2).returncode == 0
    assert json.loads(Path("demo_output/clip.json").read_text())["options"]["steps"] == 2


def test_a_folder_of_images_is_a_video():
    source = write_clip(Path("source.mp4"), moving_gradient(3, 64, 64, seed=1), Fraction(24))
    assert dc_rt("infer", source, *FAST, "--save-png", "--save-folder", "first").returncode == 0
    assert dc_rt("infer", "first/source", *FAST).returncode == 0
    frames, fps = decode("demo_output/source_depth.mp4")
    assert len(frames) == 3
    assert fps == 24


def test_results_are_not_written_among_the_images_that_are_read():
    source = write_clip(Path("source.mp4"), moving_gradient(3, 64, 64, seed=1), Fraction(24))
    assert dc_rt("infer", source, *FAST, "--save-png", "--save-folder", "shots").returncode == 0
    before = {path.name: path.read_bytes() for path in Path("shots/source").iterdir()}
    done = dc_rt("infer", "shots/source", *FAST, "--save-png", "--save-folder", "shots")
    assert_one_sentence(done, "mixed with the results")
    assert {path.name: path.read_bytes() for path in Path("shots/source").iterdir()} == before


def test_a_shorter_run_leaves_no_frames_of_a_longer_one():
    clip = write_clip(Path("clip.mp4"), moving_gradient(5, 64, 64, seed=1), Fraction(24))
    assert dc_rt("infer", clip, *FAST, "--save-exr").returncode == 0
    Path("demo_output/clip/notes.txt").write_text("mine")
    assert dc_rt("infer", clip, *FAST, "--save-exr", "--process-length", 2).returncode == 0
    assert sorted(path.name for path in Path("demo_output/clip").iterdir()) == [
        "frame_0000.exr",
        "frame_0001.exr",
        "notes.txt",
    ]


def test_one_bad_video_of_several_does_not_stop_the_others():
    good = write_clip(Path("good.mp4"), moving_gradient(2, 64, 64, seed=1), Fraction(24))
    done = dc_rt("infer", "missing.mp4", good, *FAST)
    assert done.returncode == 1
    assert "missing.mp4" in done.stderr
    assert Path("demo_output/good_depth.mp4").exists()
    assert not list(Path("demo_output").glob("missing*"))


def test_a_fault_of_the_programs_own_is_shown_and_the_other_videos_are_run():
    """Engines that cannot run what their manifest promises stand for any such fault."""
    onnx = pytest.importorskip("onnx", reason="only what exports graphs can make one that fails")
    folder = Path(shutil.copytree(BUNDLED, "set"))
    graph = onnx.load(folder / "vae_decoder.onnx")
    graph.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 8
    onnx.save(graph, folder / "vae_decoder.onnx")
    manifest = Manifest.read(folder)
    graphs = {**manifest.graphs, "vae_decoder": (File.of(folder / "vae_decoder.onnx"),)}
    dataclasses.replace(manifest, graphs=graphs).write(folder)
    clips = [write_clip(Path(f"{width}.mp4"), moving_gradient(2, 64, width)) for width in (128, 64)]
    command = [sys.executable, "-m", "dc_rt.cli", "infer", *map(str, clips), *FAST, "--engines", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("128.mp4 failed through a fault in dc-rt itself")
    assert sorted(path.name for path in Path("demo_output").iterdir()) == [
        *("64.json", "64_depth.mp4", "64_input.mp4", "64_vis.mp4")
    ]


def test_two_videos_of_one_name_are_refused():
    done = dc_rt("infer", "a/clip.mp4", "b/clip.mp4")
    assert_one_sentence(done, "called clip")


def assert_one_sentence(done, message):
    """One sentence that says what is wrong, exit status 1, and nothing written."""
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.strip().endswith(".")
    assert not Path("demo_output").exists()


@pytest.fixture
def clip():
    return write_clip(Path("clip.mp4"), moving_gradient(12, 64, 96, seed=0), Fraction(24))


def test_no_such_file():
    assert_one_sentence(dc_rt("infer", "nowhere.mp4"), "no file nowhere.mp4")


def test_not_a_video():
    Path("notes.mp4").write_text("These are notes.\n" * 100)
    assert_one_sentence(dc_rt("infer", "notes.mp4"), "not a video")


def test_an_empty_file():
    Path("empty.mp4").touch()
    assert_one_sentence(dc_rt("infer", "empty.mp4"), "empty")


@pytest.mark.parametrize("share", [0.3, 0.9])
@pytest.mark.parametrize("flags", ["faststart", ""])
def test_a_truncated_file(share, flags):
    options = {"movflags": flags} if flags else {}
    clip = write_clip(Path("whole.mp4"), moving_gradient(60, 128, 128, seed=0), Fraction(24), container_options=options)
    contents = clip.read_bytes()
    Path("cut.mp4").write_bytes(contents[: int(share * len(contents))])
    assert_one_sentence(dc_rt("infer", "cut.mp4", *FAST), "cut short")


def test_a_file_without_a_video_stream():
    write_audio(Path("sound.mp4"))
    assert_one_sentence(dc_rt("infer", "sound.mp4"), "no video stream")


def test_no_frame_left_after_striding(clip):
    assert_one_sentence(dc_rt("infer", clip, "--target-fps", 1, "--process-length", 0), "No frame is left")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--window-size", 16, "--overlap", 16), "overlap"),
        (("--window-size", 16, "--overlap", 17), "overlap"),
        (("--overlap", -1), "--overlap must be"),
        (("--window-size", 0), "--window-size must be at least 1"),
        (("--window-size", 300), "window"),
        (("--num-denoising-steps", 0), "--num-denoising-steps must be at least 1"),
        (("--target-fps", 0), "--target-fps must be greater than 0"),
        (("--process-length", -2), "--process-length must be at least 0"),
        (("--max-res", 10), "--max-res"),
        (("--dataset", "kitty"), "KITTI"),
        (("--seed", -1), "seed"),
        (("--guidance-scale", "nan"), "guidance"),
        (("--backend", "cuda"), "backend"),
        (("--cpu-offload", "all"), "offload"),
        (("--attention", "dazzle", "--backend", "torch"), "no --attention dazzle; choose one of sdpa, flash"),
        (("--attention", "math"), "--attention math is of PyTorch, .* use --backend torch"),
        (("--attention", "xformers", "--provider", "cpu"), "the backend is onnx; use --backend torch"),
        (("--engines", "nowhere"), "no engine set in nowhere"),
    ],
)
def test_an_impossible_option(clip, arguments, message):
    assert_one_sentence(dc_rt("infer", clip, *arguments), message)


def test_a_size_outside_the_profile(clip):
    folder = Path(shutil.copytree(BUNDLED, "narrow"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["profile"] |= {"name": "narrow", "width": {"min": 512, "opt": 512, "max": 512}}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert_one_sentence(dc_rt("infer", clip, "--engines", folder), "profile narrow")


def test_an_engine_set_that_is_incomplete_changed_or_of_another_version(clip):
    folder = Path(shutil.copytree(BUNDLED, "set"))
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    assert_one_sentence(dc_rt("infer", clip, "--engines", folder), "format version 99")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    contents = bytearray((folder / "vae_encoder.onnx").read_bytes())
    contents[1000] ^= 255
    (folder / "vae_encoder.onnx").write_bytes(contents)
    assert_one_sentence(dc_rt("infer", clip, DC_RT_ENGINES=str(folder)), "vae_encoder.onnx was changed")
    (folder / "vae_encoder.onnx").unlink()
    assert_one_sentence(dc_rt("infer", clip, "--engines", folder), "lacks vae_encoder.onnx")


def test_a_folder_that_cannot_be_written(clip):
    Path("taken").write_text("a file")
    done = dc_rt("infer", clip, *FAST, "--save-folder", "taken")
    assert_one_sentence(done, "cannot be written.*taken")
    assert Path("taken").read_text() == "a file"


def test_an_interrupt_stops_at_once_and_leaves_nothing():
    clip = write_clip(Path("long.mp4"), moving_gradient(100, 256, 256, seed=0), Fraction(24))
    command = [sys.executable, "-m", "dc_rt.cli", "infer", str(clip), "--num-denoising-steps", "50"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert any("256x256" in line for line in process.stdout), "it ended before it began"
    while not Path("demo_output").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors.strip() == "Interrupted; nothing of long.mp4 was kept."
    assert not Path("demo_output").exists()


def test_doctor_tells_what_this_machine_can_run():
    done = dc_rt("doctor", COLUMNS="300")
    assert done.returncode == 0
    found = {line.split()[1]: line for line in done.stdout.splitlines()[1:] if len(line.split()) > 1}
    assert found["onnx"].startswith("ok")
    assert "--provider: cpu" in found["onnx"]
    assert "nano" in found["engines"]
    assert "bundled set" in found["engines"]
    assert {"GPU", "tensorrt", "torch", "video", "processor"} <= set(found)
