"""The Blender add-on, but for what takes Blender: its command, the run that it follows, results as it reads them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest

from dc_rt import __version__
from dc_rt.options import Outputs, Sampling, Source, rules
from dc_rt.stored import open_stored
from install_helpers import ROOT

sys.path.insert(0, str(ROOT / "integrations" / "blender"))

import make_zip
from depthcrafter_rt import program
from depthcrafter_rt.command import EXR_TYPES, SAMPLERS, SIZES, Choices
from depthcrafter_rt.errors import Problem
from depthcrafter_rt.follow import Run, in_minutes
from depthcrafter_rt.results import read_result

DEMO = ROOT / "examples" / "demo.mp4"
PROGRAM = [sys.executable, "-m", "dc_rt.cli"]
SECONDS = 100


def environment() -> dict[str, str]:
    """As the add-on starts it, but that the checkout is found from which the tests run."""
    return program.clean_environment(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}


def quick(video: Path, folder: Path, **chosen: Any) -> Choices:
    values: dict[str, Any] = {"max_res": 64, "steps": 1, "window_size": 12, "overlap": 4}
    return Choices(**values | {"video": str(video), "save_folder": str(folder)} | chosen)


def started(choices: Choices) -> Run:
    return Run([*PROGRAM, *choices.arguments()], environment())


def followed(run: Run, until=lambda run: False) -> Run:
    """The run, once it has ended, or this is so."""
    deadline = time.monotonic() + SECONDS
    while run.poll() and not until(run):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return run


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A run that was followed to its end: of a video with a name that is hard on shells and on Blender's paths."""
    folder = tmp_path_factory.mktemp("run")
    video = folder / "it's #1, 100% <ü>.mp4" if os.name != "nt" else folder / "it's #1, 100% ü.mp4"
    shutil.copy(DEMO, video)
    shares, doings = [], []

    def see(run):
        shares.append(run.share)
        doings.append(run.doing)
        return False

    run = followed(
        started(quick(video, folder / "results", process_length=20, more="--outputs npz,input.mp4,exr")), see
    )
    return run, shares, doings


# A run


def test_a_run_is_followed_to_its_result(result):
    run, shares, doings = result
    assert run.ending.record is not None, run.ending
    assert not run.ending.is_error
    known = [share for share in shares if share is not None]
    assert known == sorted(known)
    assert any(0 < share < 1 for share in known)
    assert doings[0] == "Starting"
    assert any("of 20 frames" in doing for doing in doings)
    read, stored = read_result(run.ending.record), open_stored(run.ending.record)
    assert (read.height, read.width, len(read.depth)) == (stored.height, stored.width, stored.num_frames)
    assert read.shape == pytest.approx(float(stored.height / (stored.width * stored.pixel_aspect)))
    assert (read.source_height, read.source_width, read.fps, read.is_constant) == (192, 320, 12, True)
    assert (read.depth[0].name, read.first_number) == ("frame_0001.exr", 1)
    assert read.picture is not None
    assert read.picture.name == f"{read.name}_input.mp4"
    assert not read.is_far_white
    for path, depth in zip(read.depth, np.load(run.ending.record.with_suffix(".npz"))["depth"], strict=True):
        with OpenEXR.File(str(path), separate_channels=True) as file:
            # What Blender's image textures show: all three, and nothing of a lone Z.
            channels = file.channels()
            assert set(channels) == set("RGB")
            assert all((channels[name].pixels == depth).all() for name in "RGB")


def test_a_cancelled_run_is_kept_and_resumed(tmp_path):
    choices = quick(DEMO, tmp_path, max_res=128, process_length=28)
    run = followed(started(choices), lambda run: (run.share or 0) > 0.4)
    run.cancel()
    run.cancel()
    assert followed(run).ending.sentence == "The run was cancelled; what was done is kept, and the same run resumes it."
    assert not run.ending.is_error
    assert not list(tmp_path.glob("*.json"))
    run = followed(started(choices))
    assert any(note.startswith("Resumed after frame ") for note in run.notes)
    assert any("is a demonstration" in note for note in run.notes)
    assert run.ending.record is not None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to kill with")
def test_a_run_that_is_killed_is_said_to_be_resumable(tmp_path):
    run = followed(started(quick(DEMO, tmp_path)), lambda run: run.doing != "Starting")
    os.kill(run.pid, signal.SIGKILL)
    ending = followed(run).ending
    assert ending.is_error
    assert ending.sentence.startswith("dc-rt was killed (exit status -9); what was done is kept")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signal that only asks")
def test_a_run_is_stopped_without_waiting_long(tmp_path):
    run = followed(started(quick(DEMO, tmp_path)), lambda run: run.doing != "Starting")
    run.stop(0.0)
    assert not run.poll()
    with pytest.raises(ProcessLookupError):
        os.kill(run.pid, 0)
    assert run.ending.sentence.startswith("The run was cancelled")


def test_what_is_no_video_is_refused_in_the_sentence_of_dc_rt(tmp_path):
    video = tmp_path / "notes.mp4"
    video.write_text("no video at all")
    ending = followed(started(quick(video, tmp_path / "results"))).ending
    assert ending.is_error
    assert "notes.mp4" in ending.sentence
    assert ending.sentence.endswith(".")
    assert "\n" not in ending.sentence


def test_a_mistyped_option_is_said(tmp_path):
    ending = followed(started(quick(DEMO, tmp_path, more="--no-such-option"))).ending
    assert ending.is_error
    assert "exit status 2" in ending.sentence


def script(folder: Path, *lines: str) -> Path:
    """A program called dc-rt that does this."""
    path = folder / "dc-rt"
    path.write_text("\n".join([f"#!{sys.executable}", *lines]), encoding="utf-8")
    path.chmod(0o755)
    return path


needs_scripts = pytest.mark.skipif(os.name == "nt", reason="a script is no program on Windows")


@needs_scripts
def test_lines_that_are_no_events_are_left_out(tmp_path):
    path = script(
        tmp_path,
        "print('[]')",
        "print('{')",
        'print(\'{"event": "News"}\')',
        'print(\'{"event": "Progress", "stage": "denoiser", "share": null, "seconds_left": null, '
        '"num_frames": 3, "num_frames_in_all": 0}\')',
        "raise SystemExit('It is over.')",
    )
    run = followed(Run([str(path)], environment()))
    assert run.share is None
    assert run.ending.sentence == "dc-rt ended with exit status 1 (It is over); check its options, and its path."


@needs_scripts
def test_a_long_line_on_standard_error_does_not_hold_a_run_up(tmp_path):
    path = script(tmp_path, "import sys", "sys.stderr.write('x' * 2_000_000 + '\\n')", 'print(\'{"event": "News"}\')')
    assert followed(Run([str(path)], environment())).ending.is_error


@needs_scripts
def test_a_run_that_does_not_hear_is_killed_in_the_end(tmp_path, monkeypatch):
    path = script(tmp_path, "import time", 'print(\'{"event": "News"}\', flush=True)', "time.sleep(60)")
    run = Run([str(path)], environment())
    monkeypatch.setattr("depthcrafter_rt.follow.CANCEL_SECONDS", 0.0)
    run.cancel()
    assert followed(run).ending.sentence.startswith("The run was cancelled")


def test_a_bug_of_dc_rt_is_said_to_be_one(tmp_path):
    event = {"event": "Failed", "sentence": "KeyError: 'x'", "is_bug": True, "is_resumable": True}
    code = f"import json; print(json.dumps({event!r}))"
    ending = followed(Run([sys.executable, "-c", code], environment())).ending
    assert ending.sentence == "dc-rt failed through a fault of its own (KeyError: 'x'); please report it."


# The program


def test_the_program_is_found_by_its_path_its_environment_or_on_path(tmp_path, monkeypatch):
    folder = tmp_path / ("Scripts" if os.name == "nt" else "bin")
    folder.mkdir()
    path = folder / ("dc-rt.exe" if os.name == "nt" else "dc-rt")
    path.write_text("")
    path.chmod(0o755)
    assert program.find(str(tmp_path)) == program.find(str(folder)) == program.find(str(path)) == path
    monkeypatch.setenv("PATH", str(folder))
    assert program.find("") == path
    monkeypatch.setenv("PATH", str(tmp_path))
    for configured in ("", str(tmp_path / "nowhere"), str(Path(__file__).parent)):
        with pytest.raises(Problem, match=r"preferences\.$"):
            program.find(configured)


@needs_scripts
def test_a_check_says_what_a_program_is(tmp_path):
    for lines, said in (
        (["print('--events')"], "is there and can be used"),
        (["print('--steps')"], "no --events; update it"),
        (["raise SystemExit('a library is missing')"], "a library is missing"),
    ):
        path = script(tmp_path, *lines)
        try:
            sentence = program.check(str(path), os.environ)
        except Problem as problem:
            sentence = str(problem)
        assert said in sentence
        assert sentence.endswith(".")
    path.write_text("no program")
    with pytest.raises(Problem, match="cannot be started"):
        program.check(str(path), os.environ)
    with pytest.raises(Problem, match="cannot be started"):
        Run([str(path)], environment())


def test_variables_for_the_python_of_blender_do_not_reach_the_program():
    of_blender = {"PATH": "/bin", "PYTHONPATH": "/x", "PYTHONHOME": "/y", "VIRTUAL_ENV": "/z", "DC_RT_ENGINES": "/e"}
    kept = program.clean_environment(of_blender)
    assert kept == {"PATH": "/bin", "DC_RT_ENGINES": "/e", "PYTHONUTF8": "1"}


# The command


def test_choices_are_those_of_dc_rt():
    known = {name: (rule, default) for kind in (Sampling, Source, Outputs) for name, rule, default in rules(kind)}
    chosen = {each.name: each.default for each in fields(Choices)} | {"first_frame": 0}
    for name in set(known) & set(chosen):
        assert chosen[name] == known[name][1], name
    assert set(SAMPLERS) == set(known["sampler"][0].choices)
    assert set(EXR_TYPES) == set(known["exr_type"][0].choices)
    for size in SIZES:
        assert Outputs(size=size).size == size


def test_a_command_that_cannot_be_is_refused():
    for choices in (Choices(""), Choices(str(DEMO), more="--name 'x")):
        with pytest.raises(Problem, match=r"^[A-Z].*; .*\.$"):
            choices.arguments()


# Results


def test_results_that_blender_cannot_show_are_refused(result, tmp_path):
    run, *_ = result
    original = json.loads(run.ending.record.read_text(encoding="utf-8"))
    folder = tmp_path / run.ending.record.stem
    shutil.copytree(run.ending.record.with_suffix(""), folder)
    path = tmp_path / run.ending.record.name

    def refusal(**options) -> str:
        path.write_text(json.dumps(original | {"options": original["options"] | options}), encoding="utf-8")
        with pytest.raises(Problem) as refused:
            read_result(path)
        return str(refused.value)

    for elsewhere in ("/etc/frame_0001.exr", "../clip/frame_0001.exr"):
        path.write_text(json.dumps(original | {"files": {elsewhere: 1}}), encoding="utf-8")
        with pytest.raises(Problem, match=r"is no record of a result of dc-rt; choose its NAME\.json"):
            read_result(path)
    assert "no red, green and blue" in refusal(exr="z")
    assert "no red, green and blue" in refusal(exr="blender")
    assert "raw or has a gamma" in refusal(gamma=2.0)
    assert "raw or has a gamma" in refusal(values="raw")
    next(folder.glob("*_0007.exr")).unlink()
    assert "frame_0007.exr is missing" in refusal()
    path.write_text(json.dumps(original | {"files": {}}), encoding="utf-8")
    for text in (None, "{", "[]", '{"result": {}}'):
        if text is not None:
            path.write_text(text, encoding="utf-8")
        with pytest.raises(Problem):
            read_result(path)
    with pytest.raises(Problem, match="cannot be read"):
        read_result(tmp_path / "none.json")


def test_frames_are_shown_at_their_times(result):
    run, *_ = result
    read = read_result(run.ending.record)

    def of(times, seconds, fps):
        return replace(read, times=tuple(times), seconds=seconds, fps=fps)

    ntsc = Fraction(24000, 1001)
    assert of((index / float(ntsc) for index in range(5000)), 5000 / float(ntsc), ntsc).is_constant
    # One is missing, and what is before it stays.
    missing = of([0.0, 0.1, 0.3, 0.4], 0.5, Fraction(8))
    assert not missing.is_constant
    assert missing.shown_at(10) == (0, 1, 1, 2, 3)
    # Frames of twice the length, and one that is too short to be shown.
    assert of([0.0, 0.2, 0.4, 0.41], 0.6, Fraction(7)).shown_at(10) == (0, 0, 1, 1, 2, 3)
    assert of([0.0], 0.04, Fraction(25)).shown_at(10) == (0,)


def test_times_left_are_said_as_people_say_them():
    assert [in_minutes(seconds) for seconds in (0.4, 65, 7261)] == ["0:00", "1:05", "2:01:01"]


# The zip


def test_the_zip_holds_the_add_on_and_its_manifest(tmp_path):
    path = make_zip.make_zip(tmp_path / "a")
    assert path.read_bytes() == make_zip.make_zip(tmp_path / "b").read_bytes()
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        manifest = tomllib.loads(archive.read("blender_manifest.toml").decode())
    assert names == {"blender_manifest.toml", *(each.name for each in make_zip.SOURCE.glob("*.py"))}
    assert (manifest["id"], manifest["version"]) == ("depthcrafter_rt", __version__)
    assert manifest["blender_version_min"] == "4.2.0"
    # What Blender's own validation asks of them.
    for text in (manifest["tagline"], *manifest["permissions"].values()):
        assert len(text) <= 64
        assert text[-1].isalnum()


def test_all_that_does_not_speak_to_blender_is_the_standard_library():
    names = ("command", "errors", "follow", "program", "results")
    code = f"import sys; sys.path.insert(0, {str(make_zip.SOURCE.parent)!r})\n" + "\n".join(
        f"import depthcrafter_rt.{name}" for name in names
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True)
    others = {path.stem for path in make_zip.SOURCE.glob("*.py")} - {*names, "__init__"}
    for name in others:
        assert "import bpy" in (make_zip.SOURCE / f"{name}.py").read_text(encoding="utf-8")
