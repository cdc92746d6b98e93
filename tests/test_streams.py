"""Standard output and error that cannot be written to: the results are there all the same."""

import json
import os
import subprocess
import sys
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import pytest

from command_helpers import contents, dc_rt
from media_helpers import moving_gradient, write_clip

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="streams are closed otherwise on Windows")

FAST = ("--num-denoising-steps", "1", "--window-size", "16", "--overlap", "5")
NAMES = ["p.json", "p_depth.mp4", "p_input.mp4", "p_vis.mp4"]


@pytest.fixture
def clip():
    return write_clip(Path("p.mp4"), moving_gradient(2, 64, 64), Fraction(24))


def pipe_without_a_reader():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full_device():
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    return os.open("/dev/full", os.O_WRONLY)


def terminal_that_was_closed():
    outer, inner = os.openpty()
    os.close(outer)
    return inner


@pytest.mark.parametrize(
    ("output", "reason", "status"),
    [
        (pipe_without_a_reader, "Broken pipe", 0),
        (full_device, "No space left on device", 1),
        (terminal_that_was_closed, "Input/output error", 1),
    ],
)
def test_output_that_cannot_be_written_to_costs_no_result(clip, output, reason, status):
    descriptor = output()
    done = dc_rt("infer", clip, *FAST, stdout=descriptor)
    shown = dc_rt("--help", stdout=descriptor)
    os.close(descriptor)
    sentence = f"Nothing more can be written to standard output ({reason}); the work goes on.\n"
    assert (done.stderr, done.returncode) == (sentence, status)
    assert sorted(contents(Path("demo_output"))) == NAMES
    assert (shown.stderr, shown.returncode) == (sentence, status)


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_streams_cost_no_result_and_nothing_is_written_into_files_in_their_place(clip, closed):
    def close():
        for descriptor in closed:
            os.close(descriptor)

    done = dc_rt("infer", "nowhere.mp4", clip, *FAST, preexec_fn=close)
    assert done.returncode == 1
    assert ("There is no file nowhere.mp4" in done.stderr) == (2 not in closed)
    assert ("p_depth.mp4" in done.stdout) == (1 not in closed)
    found = contents(Path("demo_output"))
    assert sorted(found) == NAMES
    assert "model" in json.loads(found["p.json"])
    for command in ("--help", "doctor"):
        assert dc_rt(command, preexec_fn=close).returncode == 0


def test_an_error_that_nobody_can_hear_is_told_by_the_status(clip):
    descriptor = full_device()
    done = dc_rt("infer", "nowhere.mp4", clip, *FAST, stderr=descriptor)
    os.close(descriptor)
    assert done.returncode == 1
    assert sorted(contents(Path("demo_output"))) == NAMES


def test_a_name_that_the_output_cannot_encode_is_shown_with_escapes(clip):
    names = ["caf\u00e9 \u6df1", *([os.fsdecode(b"Jos\xe9")] if sys.platform == "linux" else [])]
    clips = [clip.rename(f"{name}.mp4") for name in names if write_clip(clip, moving_gradient(2, 64, 64))]
    done = dc_rt("infer", *clips, "nowh\u00e9re.mp4", *FAST, environment={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 1
    assert r"caf\xe9 \u6df1_depth.mp4" in done.stdout
    assert r"nowh\xe9re.mp4" in done.stderr
    if len(clips) > 1:
        assert r"Jos\udce9_depth.mp4" in done.stdout
    assert sorted(contents(Path("demo_output"))) == sorted(
        f"{name}{suffix}" for name in names for suffix in (".json", "_depth.mp4", "_input.mp4", "_vis.mp4")
    )


def test_the_progress_bar_is_drawn_on_a_terminal_of_any_encoding(clip):
    video = clip.rename("caf\u00e9.mp4")
    outer, inner = os.openpty()
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "TERM": "xterm"}
    command = [sys.executable, "-m", "dc_rt.cli", "infer", str(video), *FAST]
    process = subprocess.Popen(command, stdout=inner, stderr=subprocess.PIPE, env=environment)
    os.close(inner)
    shown = b""
    with suppress(OSError):  # the end of a terminal
        while more := os.read(outer, 4096):
            shown += more
    os.close(outer)
    assert process.communicate()[1] == b""
    assert process.returncode == 0
    assert b"100 %" in shown
    assert rb"caf\xe9_depth.mp4" in shown


def test_doctor_and_help_are_shown_in_any_encoding():
    for command in ("doctor", "--help"):
        done = dc_rt(command, environment={"PYTHONIOENCODING": "ascii"})
        assert done.returncode == 0
        assert done.stdout.isascii()
        assert len(done.stdout.splitlines()) > 5
