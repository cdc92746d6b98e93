"""What a cluster needs beside Ray: engine sets on their way, what a node does, and sentences for what is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from command_helpers import assert_refused, contents, dc_rt
from dc_rt import __version__
from dc_rt.batch.connect import in_a_sentence
from dc_rt.batch.node import Runner, look, obstacle
from dc_rt.batch.schedule import Schedule
from dc_rt.engine.discovery import BUNDLED
from dc_rt.engine.manifest import MANIFEST, Manifest
from dc_rt.engine.parcel import Parcel, Received
from dc_rt.errors import UserError
from dc_rt.job import Event, Finished, JobCancelled, Listener, Planned, Task
from dc_rt.job.events import from_json
from dc_rt.job.worker import outcome_of
from dc_rt.lock import Held
from dc_rt.models import ModelOptions
from dc_rt.options import Options
from media_helpers import moving_gradient, write_clip

QUICK = Options.by_name({"max_res": 64, "steps": 1, "window_size": 12, "overlap": 4, "outputs": ["npz"]})
LONG = Options.by_name({"max_res": 64, "steps": 200, "window_size": 12, "overlap": 4, "outputs": ["npz"]})
HOLD = """
import sys
from pathlib import Path
from dc_rt.engine.parcel import Parcel, Received
received = Received(Parcel.of(Path(sys.argv[1])), Path(sys.argv[2]))
received.begin()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED, tmp_path / "engines"))


@pytest.fixture
def runner(engines: Path) -> Iterator[Runner]:
    made = Runner(str(Path.cwd()), Parcel.of(engines), ModelOptions(), lease_seconds=60)
    assert made.missing() == ()
    yield made
    made.close()


def send(parcel: Parcel, received: Received, size: int = 1 << 16) -> list[str]:
    """As a driver and a node do it; the names of what was sent."""
    missing = received.begin()
    for piece in parcel.pieces(missing, size):
        received.write(*piece)
    if missing:
        assert received.finish() == received.folder
    return sorted(missing)


def task(name: str, options: Options = QUICK, num_frames: int = 14) -> Task:
    write_clip(Path(name), moving_gradient(num_frames, 64, 64))
    return Task(str(Path(name).absolute()), str(Path("out").absolute()), options, skip_done=True)


def events_of(runner: Runner, wanted: Task) -> Iterator[Event]:
    return (from_json(event) for events in runner.run(wanted.as_json()) for event in events)


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_is_said_how_to_install_it(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", moving_gradient(2, 64, 64))
    assert_refused(dc_rt("batch", tmp_path / "a.mp4", "--cluster", "auto"), r"^Ray is not installed.*\[cluster\]")
    assert not Path("demo_output").exists()


def test_devices_are_for_ray_to_choose(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", moving_gradient(2, 64, 64))
    refused = dc_rt("batch", tmp_path / "a.mp4", "--cluster", "auto", "--devices", "0,1")
    assert_refused(refused, "--cluster auto takes the GPUs .* leave --devices out")


SAID = {
    "none was started": (
        "auto",
        "Could not find any running Ray instance. Please specify the one to connect to",
        "No cluster was started on this machine, and .RAY_ADDRESS names none",
    ),
    "nobody answers": ("10.0.0.1:6379", "", "Nothing of Ray answers for the cluster at 10.0.0.1:6379"),
    "another version": (
        "10.0.0.1:6379",
        "Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\nThis process ...",
        "another version here .*Ray: 2.60.0 Python: 3.11.7",
    ),
    "anything else": ("10.0.0.1:6379", "Something\nnew", r"cannot connect to .* \(Something new\)"),
}


@pytest.mark.parametrize(("address", "said", "sentence"), SAID.values(), ids=SAID)
def test_what_ray_says_becomes_a_sentence(
    address: str, said: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=sentence):
        raise UserError(in_a_sentence(address, said))


def test_a_set_arrives_in_pieces_as_it_was(engines: Path, tmp_path: Path) -> None:
    parcel = Parcel.of(engines)
    received = Received(parcel, tmp_path / "cache")
    assert send(parcel, received) == sorted(file.name for file in parcel.files)
    sent = {MANIFEST, *(file.name for file in parcel.files)}
    assert contents(received.folder) == {name: data for name, data in contents(engines).items() if name in sent}
    Manifest.read(received.folder).check_contents(received.folder)


def test_a_set_that_is_there_is_not_sent_again(engines: Path, tmp_path: Path) -> None:
    parcel = Parcel.of(engines)
    send(parcel, Received(parcel, tmp_path / "cache"))
    assert send(parcel, Received(parcel, tmp_path / "cache")) == []


def test_a_damaged_file_is_sent_again_alone(engines: Path, tmp_path: Path) -> None:
    parcel = Parcel.of(engines)
    received = Received(parcel, tmp_path / "cache")
    send(parcel, received)
    damaged = received.folder / parcel.files[0].name
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    assert send(parcel, Received(parcel, tmp_path / "cache")) == [damaged.name]
    Manifest.read(received.folder).check_contents(received.folder)


def test_a_transfer_that_broke_off_leaves_no_set(engines: Path, tmp_path: Path) -> None:
    parcel = Parcel.of(engines)
    broken = Received(parcel, tmp_path / "cache")
    pieces = list(parcel.pieces(broken.begin(), 1 << 16))
    for piece in pieces[:-1]:
        broken.write(*piece)
    assert not (broken.folder / MANIFEST).exists()
    with pytest.raises(UserError, match="is not what its manifest says"):
        broken.finish()
    assert not (broken.folder / MANIFEST).exists()
    assert send(parcel, Received(parcel, tmp_path / "cache")) != []
    Manifest.read(broken.folder).check_contents(broken.folder)


def test_two_batches_do_not_send_one_set_at_once(engines: Path, tmp_path: Path) -> None:
    parcel, cache = Parcel.of(engines), tmp_path / "cache"
    command = [sys.executable, "-c", HOLD, str(engines), str(cache)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(Held):
            Received(parcel, cache).begin()
        other.kill()
    assert send(parcel, Received(parcel, cache)) != []


def test_a_set_on_shared_storage_is_used_where_it_is(engines: Path) -> None:
    parcel = Parcel.of(engines)
    assert parcel.place() == engines
    (engines / parcel.files[0].name).unlink()
    assert parcel.place() == BUNDLED  # the same one
    (engines / MANIFEST).write_text("{}")
    other = Parcel(str(engines), b"{ }", parcel.files)
    assert other.place() is None


def test_a_set_with_files_missing_is_not_sent(engines: Path) -> None:
    parcel = Parcel.of(engines)
    (engines / parcel.files[0].name).unlink()
    with pytest.raises(UserError, match=f"lacks {parcel.files[0].name}"):
        Parcel.of(engines)


def test_a_node_says_why_it_cannot_run_videos(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch()
    assert obstacle(__version__, str(token)) == ""
    assert f"it has dc-rt {__version__}, and the batch was started with 9.9" in obstacle("9.9", str(token))
    assert f"does not see the files in {tmp_path}" in obstacle(__version__, str(tmp_path / "elsewhere"))


def test_what_is_seen_of_a_video_tells_other_files_apart(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"12")
    assert look(str(tmp_path / "a.mp4")) == 2
    assert look(str(tmp_path)) == look(str(tmp_path / "shot.%04d.png")) == 0
    assert look(str(tmp_path / "b.mp4")) is None


def test_a_node_runs_videos_one_after_the_other_with_its_model_open(runner: Runner) -> None:
    told = [list(events_of(runner, task(name))) for name in ("a.mp4", "b.mp4")]
    assert [type(events[-1]) for events in told] == [Finished, Finished]
    assert [sum(isinstance(event, Planned) for event in events) for events in told] == [1, 1]
    opened = [sum(type(event).__name__ == "ModelOpened" for event in events) for events in told]
    assert opened == [1, 0]
    assert [outcome_of(events)[-1].name for events in told] == ["a.json", "b.json"]


def test_a_node_ends_what_was_cancelled(runner: Runner) -> None:
    told = events_of(runner, task("a.mp4", LONG))
    next(event for event in told if isinstance(event, Planned))
    runner.cancel()
    with pytest.raises(JobCancelled):
        outcome_of(told)
    assert isinstance(list(events_of(runner, task("b.mp4")))[-1], Finished)


class Growing:
    """Slots of which the second comes once the first has begun, and which end together."""

    def __init__(self) -> None:
        self.used: set[int] = set()
        self._both = threading.Barrier(2)

    @property
    def num_slots(self) -> int:
        return 2 if self.used else 1

    def run(self, slot: int, task: Task, listener: Listener) -> list[Path]:
        self.used.add(slot)
        self._both.wait(timeout=60)
        return []

    def cancel(self) -> None:
        pass

    def close(self) -> None:
        pass


def test_slots_that_come_later_are_used() -> None:
    slots: Any = Growing()
    schedule = Schedule([Task("a.mp4", "out"), Task("b.mp4", "out")], slots, retry=0)
    schedule.start()
    while not schedule.wait(0.1):
        pass
    assert slots.used == {0, 1}
    assert [entry.status for entry in schedule.entries] == ["finished", "finished"]
