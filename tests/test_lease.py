"""Leases in processes of their own: one holds, and what is dead or silent is taken over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dc_rt import UserError
from dc_rt.lease import Held, LeaseLost, Leases, machine

LONG, SHORT = 3600, 1
DEADLINE_SECONDS = 60

WORKER = """
import sys
from pathlib import Path
from dc_rt.lease import Held, LeaseLost, Leases

path, leases, lease = Path(sys.argv[1]), Leases(float(sys.argv[2])), None
print("ready", flush=True)
for order in sys.stdin:
    try:
        match order.strip():
            case "take":
                lease = leases.take(path)
                answer = "taken, fence" if lease.needs_fence else "taken"
            case "check":
                lease.check()
                answer = "mine"
            case "fence":  # what a real worker does to the files
                lease.needs_fence = False
                answer = "fenced"
            case "release":
                lease.release()
                answer = "released"
    except Held as held:
        answer = f"held by {held}"
    except LeaseLost:
        answer = "lost"
    print(answer, flush=True)
"""

needs_signals = pytest.mark.skipif(os.name == "nt", reason="Windows stops no processes")


class Worker:
    """A process that takes the lease of `path`, checks and releases it as it is told."""

    def __init__(self, path: Path, seconds: float) -> None:
        command = [sys.executable, "-c", WORKER, str(path), str(seconds)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._answer() == "ready"

    def does(self, order: str) -> str:
        """What it answers."""
        assert self.process.stdin
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return self._answer()

    def takes_in_the_end(self) -> str:
        """What it answers once it does not find the lease held any more."""
        return in_the_end(lambda: self.does("take"), "held")

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def _answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()


def in_the_end(ask, held: str) -> str:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while (answer := ask()).startswith(held):
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return answer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shared" / ".clip.lease"


@pytest.fixture
def start(path: Path) -> Iterator[object]:
    workers: list[Worker] = []

    def begin(seconds: float = LONG) -> Worker:
        workers.append(Worker(path, seconds))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.process.kill()
        worker.process.communicate()


def files(path: Path) -> list[str]:
    return sorted(file.name for file in path.parent.iterdir())


def test_one_of_two_has_it_and_the_other_has_it_at_once_when_it_is_released(path, start):
    first, second = start(), start()
    assert first.does("take") == "taken"
    assert second.does("take") == f"held by process {first.process.pid} on {os.uname().nodename}"
    assert first.does("check") == "mine"
    assert first.does("release") == "released"
    assert second.does("take") == "taken"
    assert second.does("release") == "released"
    assert files(path) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows forks no processes")
@pytest.mark.parametrize("ends", ["releases it", "dies", "either"])
def test_of_those_that_race_for_it_one_has_it(path, ends):
    """Hundreds of rounds: whoever has it makes a file that must not be there, and removes it again."""
    code = f"""
import os, random, traceback
from pathlib import Path
from dc_rt.lease import Held, Leases

path, leases, held = Path({str(path)!r}), Leases({LONG}), 0
mine = path.with_name("mine")
while held < 30:
    process = os.fork()
    if process:
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if status == 2:
            break
        held += status == 0
        continue
    status = 2
    try:
        lease = leases.take(path)
        mine.touch(exist_ok=False)
        try:
            lease.check()
        finally:
            mine.unlink()
        if {ends!r} == "releases it" or ({ends!r} == "either" and random.random() < 0.5):
            lease.release()
        status = 0
    except Held:
        status = 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)
"""
    processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate()[1] for process in processes] == [""] * 3
    left = files(path)
    assert len(left) == {"releases it": 0, "dies": 1}.get(ends, len(left)), left


@needs_signals
def test_that_of_a_dead_process_is_taken_at_once(path, start):
    first, second = start(), start()
    assert first.does("take") == "taken"
    first.send(signal.SIGKILL)
    first.process.wait()
    assert second.does("take") == "taken"
    assert files(path) == [".clip.lease-2"]


@needs_signals
def test_that_of_a_stopped_process_is_taken_after_its_seconds_and_it_notices(path, start):
    first, second = start(SHORT), start()
    assert first.does("take") == "taken"
    first.send(signal.SIGSTOP)
    assert second.does("take").startswith("held")
    assert second.takes_in_the_end() == "taken, fence"
    first.send(signal.SIGCONT)
    assert first.does("check") == "lost"
    assert first.does("release") == "released"
    assert second.does("check") == "mine"


@needs_signals
def test_it_goes_through_three_hands_and_those_before_notice(path, start):
    workers = [start(SHORT) for _ in range(4)]
    for worker in workers[:3]:
        assert worker.takes_in_the_end().startswith("taken")
        worker.send(signal.SIGSTOP)
    assert workers[3].takes_in_the_end() == "taken, fence"
    for worker in workers[:3]:
        worker.send(signal.SIGCONT)
    assert [worker.does("check") for worker in workers] == ["lost", "lost", "lost", "mine"]
    assert workers[3].does("fence") == "fenced"
    assert [worker.does("release") for worker in workers] == ["released"] * 4
    assert files(path) == []


@needs_signals
def test_whoever_takes_it_from_a_dead_process_that_had_it_from_a_stopped_one_is_told(path, start):
    stopped, dead, last = start(SHORT), start(), start()
    assert stopped.does("take") == "taken"
    stopped.send(signal.SIGSTOP)
    assert dead.takes_in_the_end() == "taken, fence"
    dead.send(signal.SIGKILL)
    dead.process.wait()
    assert last.does("take") == "taken, fence"


@needs_signals
def test_nothing_that_needs_a_fence_is_forgotten_by_a_release(path, start):
    stopped, second, last = start(SHORT), start(), start()
    assert stopped.does("take") == "taken"
    stopped.send(signal.SIGSTOP)
    assert second.takes_in_the_end() == "taken, fence"
    assert second.does("release") == "released"
    assert last.does("take") == "taken, fence"


@needs_signals
def test_clocks_need_not_agree(path, start):
    """Nor run on: a file's time is only compared with what it was."""
    first, second = start(SHORT), start()
    assert first.does("take") == "taken"
    (lease,) = path.parent.iterdir()
    for hours in (-1000, 1000):
        os.utime(lease, (when := time.time() + 3600 * hours, when))
        since = time.monotonic()
        while time.monotonic() < since + 1.5 * SHORT:  # it beats, and nobody takes it over
            assert second.does("take").startswith("held")
            time.sleep(0.05)
    assert first.does("check") == "mine"
    first.send(signal.SIGSTOP)
    os.utime(lease, (when, when))
    assert second.takes_in_the_end() == "taken, fence"


@needs_signals
def test_an_observer_that_was_stopped_itself_does_not_count_that_time(path, start):
    first, second = start(SHORT), start()
    assert first.does("take") == "taken"
    assert second.does("take").startswith("held")
    for worker in (first, second):
        worker.send(signal.SIGSTOP)
    time.sleep(2 * SHORT)
    second.send(signal.SIGCONT)  # first of the two
    assert second.does("take").startswith("held")
    first.send(signal.SIGCONT)
    assert first.does("check") == "mine"


def left_by(path: Path, **changed: object) -> Path:
    """The lease of a process that has died, as it would be with other contents."""
    code = "import os, sys, pathlib, dc_rt.lease as l; l.Leases(1).take(pathlib.Path(sys.argv[1])); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    (lease,) = path.parent.iterdir()
    lease.write_text(json.dumps(json.loads(lease.read_text()) | changed))
    return lease


@pytest.mark.parametrize("changed", [{"machine": "another"}, {"device": -1}], ids=lambda changed: next(iter(changed)))
def test_locks_are_trusted_on_the_same_machine_and_mount_alone(path, changed):
    """Whatever it is called: two machines may have one name, and two mounts of a folder may not show each other's."""
    left_by(path, **changed)
    leases = Leases(SHORT)
    with pytest.raises(Held, match=os.uname().nodename):
        leases.take(path)
    take_in_the_end(leases, path).release()
    left_by(path, holder="process 1 on elsewhere")
    leases.take(path).release()


def take_in_the_end(leases: Leases, path: Path):
    taken = []

    def ask() -> str:
        try:
            taken.append(leases.take(path))
        except Held:
            return "held"
        return "taken"

    in_the_end(ask, "held")
    return taken[0]


@pytest.mark.parametrize(
    "contents",
    [b"", b"\0" * 100, b"[]", b"{", b'{"token": 1}', b"[" * 100_000, b'{"seconds": "x", "machine": [], "holder": 1}'],
    ids=["empty", "zeros", "a list", "cut", "no machine", "deep", "wrong kinds"],
)
def test_what_is_no_lease_is_taken_over_after_the_seconds(path, contents):
    path.parent.mkdir()
    path.with_name(f"{path.name}-1").write_bytes(contents)
    lease = take_in_the_end(Leases(SHORT), path)
    assert lease.needs_fence  # whose it was is not known
    lease.needs_fence = False
    lease.release()
    assert files(path) == []


def test_that_of_a_later_version_is_understood_by_what_is_known_of_it(path):
    left_by(path, version=2, seconds=SHORT, region="eu")
    Leases().take(path).release()
    assert files(path) == []


@pytest.mark.parametrize("number", [7, 10**17])
def test_a_number_that_is_far_ahead_hangs_nothing(path, number):
    path.parent.mkdir()
    path.with_name(f"{path.name}-{number}").touch()
    lease = take_in_the_end(Leases(SHORT), path)
    assert files(path) == [f"{path.name}-{number + 1}"]
    lease.check()


def test_what_only_looks_like_a_lease_is_left_alone(path):
    path.parent.mkdir()
    others = [f"{path.name}-{rest}" for rest in ("x", "007", "٣", "1.part", "9" * 60)]
    for other in others:
        path.with_name(other).touch()
    Leases().take(path).release()
    assert files(path) == sorted(others)


def test_a_folder_that_cannot_be_written_to_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        Leases().take(tmp_path / "file" / ".clip.lease")


@needs_signals
def test_a_full_disk_is_an_error_of_the_system_and_nothing_is_left(path):
    """A process may write no byte, as on a disk that is full: files can be made there, and stay empty."""
    code = f"""
import resource
from pathlib import Path
from dc_rt.lease import Leases

resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    Leases().take(Path({str(path)!r}))
except OSError as error:
    print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("File too large\n", "")
    assert files(path) == []


def test_a_lease_lost_is_lost_for_good(path):
    lease = Leases().take(path)
    (file,) = path.parent.iterdir()
    file.write_text('{"token": "of another"}')
    with pytest.raises(LeaseLost):
        lease.check()
    lease.release()
    assert files(path) == [file.name]  # it is another's


@pytest.mark.parametrize("seconds", [0, -1, 1e9, float("nan")])
def test_times_that_no_lease_lasts_are_refused(seconds):
    with pytest.raises(UserError, match="seconds"):
        Leases(seconds)


def test_a_machine_is_the_same_in_all_its_processes():
    code = "from dc_rt.lease import machine; print(machine())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == machine()
