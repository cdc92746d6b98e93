"""A video from file to files, through interruptions and faults."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import pytest

from dc_rt import DepthCrafter, UserError
from dc_rt.engine.discovery import BUNDLED
from dc_rt.job.spool import Spool
from job_helpers import Fault, choose, fail_at, run_job
from media_helpers import moving_gradient, write_clip

OPTIONS = choose("npz", "exr", window_size=10, overlap=3, steps=1)
COMMAND = ("--window-size", "10", "--overlap", "3", "--num-denoising-steps", "1", "--save-npz", "--save-exr")
RESULTS = (
    "clip.npz",
    "clip_depth.mp4",
    "clip_vis.mp4",
    "clip_input.mp4",
    *(f"clip/frame_{i:04d}.exr" for i in range(40)),
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, moving_gradient(40, 64, 128, seed=3), Fraction(24))


@pytest.fixture(scope="module")
def expected(clip, tmp_path_factory):
    """The results of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("expected")
    model = DepthCrafter.load(BUNDLED)
    run_job(model, clip, folder, OPTIONS)
    return folder


def assert_same_results(folder, expected):
    for name in RESULTS:
        assert (folder / name).read_bytes() == (expected / name).read_bytes(), name
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in expected.iterdir())


@pytest.mark.parametrize(
    ("stage", "count"),
    [("denoiser", 2), ("vae_decoder", 3), ("read", 15), ("read", 25), ("write", 12), ("clip_encoder", 4)],
)
def test_a_run_that_fails_anywhere_leaves_nothing_half_done_and_is_gone_on_with(bundled, clip, expected, stage, count):
    folder = Path("out")
    began = time.monotonic()
    with pytest.raises(Fault):
        run_job(bundled, clip, folder, OPTIONS, fail_at(stage, count))
    assert time.monotonic() - began < 30
    assert [path.name for path in folder.iterdir()] == [".clip.spool"]
    resumed = []
    run_job(bundled, clip, folder, OPTIONS, lambda stage, *_: resumed.append(stage))
    assert "resumed" in resumed
    assert_same_results(folder, expected)


def test_a_run_that_fails_in_its_first_window_leaves_nothing(bundled, clip):
    with pytest.raises(Fault):
        run_job(bundled, clip, Path("out"), OPTIONS, fail_at("denoiser", 1))
    assert not Path("out").exists()


def test_a_run_that_fails_again_and_again_gets_there(bundled, clip, expected):
    for _ in range(4):
        with pytest.raises(Fault):
            run_job(bundled, clip, Path("out"), OPTIONS, fail_at("denoiser", 2))
    run_job(bundled, clip, Path("out"), OPTIONS)
    assert_same_results(Path("out"), expected)
    assert json.loads(Path("out/clip.json").read_text())["timings"]["times_resumed"] == 4


def test_a_fault_while_results_are_written_leaves_no_result_and_costs_no_inference(bundled, clip, expected):
    writes = 40 + 6 + 20  # depth and states of the first pass, and half of the second
    with pytest.raises(Fault):
        run_job(bundled, clip, Path("out"), OPTIONS, fail_at("write", writes))
    assert [path.name for path in Path("out").iterdir()] == [".clip.spool"]
    stages = []
    run_job(bundled, clip, Path("out"), OPTIONS, lambda stage, *_: stages.append(stage))
    assert "denoiser" not in stages
    assert_same_results(Path("out"), expected)


def test_changed_options_are_named_and_restart_throws_the_run_away(bundled, clip, expected):
    with pytest.raises(Fault):
        run_job(bundled, clip, Path("out"), OPTIONS, fail_at("denoiser", 3))
    other = choose(window_size=12, overlap=3, steps=2, seed=1)
    with pytest.raises(UserError, match=r"steps .*window_size .*seed .*restart=True"):
        run_job(bundled, clip, Path("out"), other)
    stages = []
    run_job(bundled, clip, Path("out"), OPTIONS, lambda stage, *_: stages.append(stage), restart=True)
    assert "resumed" not in stages
    assert_same_results(Path("out"), expected)


def test_a_changed_video_and_changed_engines_are_noticed(bundled, model, clip):
    video = Path("clip.mp4")
    video.write_bytes(clip.read_bytes())
    with pytest.raises(Fault):
        run_job(bundled, video, Path("out"), OPTIONS, fail_at("denoiser", 3))
    with pytest.raises(UserError, match="another engines"):
        run_job(model, video, Path("out"), OPTIONS)
    write_clip(video, moving_gradient(40, 64, 128, seed=4), Fraction(24))
    with pytest.raises(UserError, match="another video"):
        run_job(bundled, video, Path("out"), OPTIONS)


def test_what_is_written_may_change_when_a_run_goes_on(bundled, clip):
    with pytest.raises(Fault):
        run_job(bundled, clip, Path("out"), OPTIONS, fail_at("denoiser", 3))
    fewer = choose(window_size=10, overlap=3, steps=1)
    run_job(bundled, clip, Path("out"), fewer)
    assert sorted(path.suffix for path in Path("out").iterdir()) == [".json", ".mp4", ".mp4", ".mp4"]


def dc_rt(clip, *arguments, **options):
    command = [sys.executable, "-m", "dc_rt.cli", "infer", clip, *COMMAND, "--save-folder", "out", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_killed_runs_end_in_the_results_of_one_that_was_not(clip, expected):
    """Three kills at different instants, then to the end. `bench/kill.py` does it fifty times."""
    command = [sys.executable, "-m", "dc_rt.cli", "infer", clip, *COMMAND, "--save-folder", "out"]
    state = Path("out/.clip.spool/state")
    for kill in range(3):
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.001)
        time.sleep(0.03 * kill)
        process.kill()
        process.wait()
        assert not Path("out/clip.json").exists(), "the run was over before it was killed"
    done = dc_rt(clip)
    assert done.returncode == 0, done.stderr
    assert "resumed after frame" in done.stdout
    assert_same_results(Path("out"), expected)


def test_a_run_killed_while_its_results_are_moved_into_place_is_gone_on_with(clip, expected):
    """Amid the frames; then its successor, before the record, which comes last."""
    code = """
import os, signal, sys
last = int(sys.argv.pop(1))
moves = 0
def die(event, arguments):
    global moves
    if event == "os.rename" and ".spool" not in str(arguments[1]):
        moves += 1
        if moves == last:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
from dc_rt.cli import main
main()
"""
    last = len(RESULTS) + 1
    for moves, in_place in ((20, 19), (last, last - 1)):
        command = [sys.executable, "-c", code, str(moves), "infer", clip, *COMMAND, "--save-folder", "out"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert len([name for name in RESULTS if Path("out", name).exists()]) >= in_place
        assert not Path("out/clip.json").exists()
    done = dc_rt(clip)
    assert done.returncode == 0, done.stderr
    assert_same_results(Path("out"), expected)


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(clip, expected):
    """A limit on the size of files stands for the disk: the depth of 40 frames needs 1.3 MB."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (900_000, 900_000))

    done = dc_rt(clip, preexec_fn=limit)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (sentence,) = done.stderr.strip().splitlines()
    assert sentence.startswith("The results cannot be written")
    assert "the same command resumes it" in sentence
    assert os.listdir("out") == [".clip.spool"]  # noqa: PTH208
    done = dc_rt(clip)
    assert done.returncode == 0, done.stderr
    assert_same_results(Path("out"), expected)


def test_a_second_run_on_the_same_result_says_so_and_stops(clip):
    with Spool(Path("out/.clip.spool"), {}, 64, 128):
        second = dc_rt(clip)
    assert second.returncode == 1
    assert "Another run is working on this result" in second.stderr
    assert not list(Path("out").glob("clip*"))


def stop_in_its_first_window(command):
    """Start a run, and have it wait once it has the lock."""
    while True:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and not Path("out/.clip.spool/depth.f32").exists():
            time.sleep(0.001)
        process.send_signal(signal.SIGSTOP)
        if process.poll() is None and not Path("out/.clip.spool/state").exists():
            return process
        process.kill()  # it was too fast
        process.communicate()
        shutil.rmtree("out")


def reads(process, path):
    """Whether a process has a file open."""
    with suppress(OSError):  # a file that it has just closed
        files = Path(f"/proc/{process.pid}/fd").iterdir()
        return any(file.readlink() == path.resolve() for file in files)
    return False


def interrupt_while_it_reads(video, command):
    """Interrupt a run after it has looked at its video and before it has the lock; what it says."""
    while True:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        while "128x64" not in process.stdout.readline() and process.poll() is None:
            pass
        while not reads(process, video) and process.poll() is None:
            pass
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        if process.returncode == 130:
            return errors
        assert "Another run is working on this result" in errors  # it was too fast


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs to see what files a process reads")
def test_a_second_run_that_is_interrupted_does_the_first_one_no_harm(clip, expected):
    """Interrupted before it has the lock: while it reads the video, of which there is much that is nothing."""
    video = Path("clip.mp4")
    video.write_bytes(clip.read_bytes() + (1).to_bytes(4) + b"free" + (16 + 2**29).to_bytes(8))
    os.truncate(video, video.stat().st_size + 2**29)
    command = [sys.executable, "-m", "dc_rt.cli", "infer", video, *COMMAND, "--save-folder", "out"]
    first = stop_in_its_first_window(command)
    assert interrupt_while_it_reads(video, command) == "Interrupted; nothing of clip.mp4 was kept.\n"
    first.send_signal(signal.SIGCONT)
    _, errors = first.communicate()
    assert (first.returncode, errors) == (0, "")
    assert_same_results(Path("out"), expected)


def test_a_disk_that_is_sure_to_be_too_small_is_found_out_before(bundled, clip, monkeypatch):
    usage = type("Usage", (), {"free": 1_000_000})
    monkeypatch.setattr("dc_rt.job.forecast.shutil.disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"up to 4\.3 MB in out, where 1\.0 MB are free"):
        run_job(bundled, clip, Path("out"), OPTIONS)
    assert not Path("out").exists()
