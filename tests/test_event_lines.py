"""`dc-rt infer --events jsonl`, as a program that has started it sees it."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from command_helpers import dc_rt
from dc_rt.cli.event_lines import EventLines
from dc_rt.engine.discovery import BUNDLED
from dc_rt.job.events import Warned
from media_helpers import moving_gradient, write_clip

QUICK = ("--max-res", 64, "--num-denoising-steps", 1, "--window-size", 12, "--overlap", 4, "--engines", BUNDLED)
# On Windows the one signal that a process can be sent.
BREAK: int = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM)
LONG = ("--num-denoising-steps", 8, "--window-size", 8, "--overlap", 4, "--engines", BUNDLED)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", moving_gradient(40, 128, 192))


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def started(clip: Path, folder: Path) -> subprocess.Popen[str]:
    """A long run, once its first line of progress is there."""
    command = [sys.executable, "-m", "dc_rt.cli", "infer", clip, *LONG, "--save-folder", folder, "--events", "jsonl"]
    pipe = subprocess.PIPE
    process = subprocess.Popen([*map(str, command)], text=True, stdin=pipe, stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    while json.loads(process.stdout.readline())["event"] != "WindowDone":
        pass
    return process


def test_standard_output_has_lines_of_json_alone_and_an_ending_for_every_video(clip: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.mp4"
    damaged.write_bytes(b"no video")
    done = dc_rt("infer", clip, damaged, *QUICK, "--save-folder", tmp_path / "out", "--events", "jsonl")
    assert done.returncode == 1
    lines = lines_of(done.stdout)
    of_clip = [line for line in lines if line["video"] == str(clip)]
    assert [line["event"] for line in of_clip if line["event"] != "Progress"] == [
        "Planned",
        *["WindowDone"] * 5,
        "Finished",
    ]
    assert "is a demonstration" in of_clip[0]["demonstration"]
    assert [Path(file).is_file() for file in of_clip[-1]["files"]] == [True] * 4
    shares = [line["share"] for line in of_clip if line["event"] == "Progress"]
    assert shares == sorted(shares)
    assert all(0 <= share <= 1 for share in shares)
    assert lines[-1]["event"] == "Failed"
    assert lines[-1]["video"] == str(damaged)
    assert lines[-1]["sentence"] in done.stderr
    assert "frames in" in done.stderr


def test_what_ends_the_command_before_it_begins_is_told_of_every_video(clip: Path) -> None:
    done = dc_rt("infer", clip, "b.mp4", "--num-denoising-steps", 0, "--events", "jsonl")
    assert done.returncode == 1
    sentences = {line["video"]: line["sentence"] for line in lines_of(done.stdout)}
    assert sentences.keys() == {str(clip), "b.mp4"}
    assert all(sentence.startswith("--num-denoising-steps must be at least 1") for sentence in sentences.values())


def test_events_and_depth_do_not_share_standard_output(clip: Path) -> None:
    for other in (("--outputs", "-"), ("--dry-run",)):
        done = dc_rt("infer", clip, *other, "--events", "jsonl")
        assert done.returncode == 1
        assert "has standard output for itself" in lines_of(done.stdout)[0]["sentence"]
    assert "There is no --events yaml" in dc_rt("infer", clip, "--events", "yaml").stderr


@pytest.mark.parametrize("how", ["line", "signal"])
def test_a_run_is_cancelled_by_a_line_and_by_a_signal_and_resumed_by_the_same_command(
    clip: Path, tmp_path: Path, how: str
) -> None:
    process = started(clip, tmp_path)
    if how == "line":
        assert process.stdin is not None
        process.stdin.write("cancel\n")
        process.stdin.flush()
    else:
        process.send_signal(BREAK)
    output, _ = process.communicate()
    assert process.returncode == 130
    assert lines_of(output)[-1] == {"event": "Cancelled", "is_resumable": True, "video": str(clip)}
    if how == "line":
        again = started(clip, tmp_path)
        again.send_signal(BREAK)
        _, said = again.communicate()
        assert re.search(r"resumed after frame \d+ of an unfinished run", said)


def test_a_run_that_nobody_follows_any_more_ends_and_is_kept(clip: Path, tmp_path: Path) -> None:
    process = started(clip, tmp_path)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert "The reader of standard output has left before the end; what was done is kept" in process.stderr.read()
    assert process.wait() == 1


@pytest.mark.skipif(os.name != "posix", reason="Windows has no pipes of this kind before Python 3.12")
def test_a_line_that_does_not_fit_into_the_pipe_arrives_whole() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)  # as the program at the other end may have it
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        lines, sentence = EventLines(writer), "x" * (1 << 20)
        telling = threading.Thread(target=lines.tell, args=(Path("clip.mp4"), Warned(sentence)))
        telling.start()
        assert json.loads(reader.readline())["sentence"] == sentence
        telling.join()


@pytest.mark.skipif(os.name != "posix", reason="the pipe is filled without waiting")
def test_a_reader_that_takes_nothing_does_not_delay_the_end_for_ever() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        lines = EventLines(writer)
        threading.Thread(target=lines.tell, args=(Path("clip.mp4"), Warned("x" * (1 << 20))), daemon=True).start()
        select.select([reader], [], [])  # its first bytes are there
        lines.cancel([Path("clip.mp4")])
        assert [json.loads(reader.readline())["event"] for _ in range(2)] == ["Warned", "Cancelled"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
def test_a_full_disk_is_not_taken_for_a_reader_that_has_left(clip: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dc_rt.cli", "infer", clip, *QUICK, "--save-folder", tmp_path, "--events", "jsonl"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*map(str, command)], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_lines_of_progress_do_not_flood_who_follows(clip: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    done = dc_rt("infer", clip, *QUICK, "--save-folder", tmp_path, "--events", "jsonl")
    seconds = time.monotonic() - began
    assert sum(line["event"] == "Progress" for line in lines_of(done.stdout)) <= 5 * seconds + 1
