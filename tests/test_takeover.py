"""Workers that are stopped amid a video, taken over from, and continued: nothing is lost, and nothing written twice."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from command_helpers import contents
from dc_rt import DepthCrafter, Job, UserError
from dc_rt.engine.discovery import BUNDLED
from dc_rt.job import Event, Resumed, Task, Worker
from dc_rt.job.spool import SpoolLock
from dc_rt.job.worker import WorkerDied
from dc_rt.lease import Held, LeaseLost
from dc_rt.models import ModelOptions
from dc_rt.options import Options

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="stops processes, and looks whether they are stopped")

DEMO = Path(__file__).parents[1] / "examples" / "demo.mp4"
SECONDS = 1.0
DEADLINE_SECONDS = 60
OPTIONS = {
    "max_res": 64,
    "num_denoising_steps": 1,
    "window_size": 12,
    "overlap": 4,
    "process_length": 28,
    "outputs": "depth.mp4,input.mp4,npz,png,iw3",
}

# A process that imports this stops before it changes a file: the NTH time that EVENT comes (as Python's audit hooks
# have it) with PART in the path, once these three are in the file. So every instant between two changes can be tried.
BREAKPOINT = """
import os, signal, sys

_WRITES = os.O_WRONLY | os.O_RDWR

def _stop(event, arguments):
    global _count, _wanted, _is_stopping
    if _is_stopping or event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"):
        return
    if event == "open" and not (arguments[2] or 0) & _WRITES:
        return
    try:
        with open(os.environ["STOP_AT"]) as file:
            wanted = file.read()
    except OSError:
        return
    if wanted != _wanted:
        _count, _wanted = 0, wanted
    of, part, nth, _ = wanted.split("|")
    if event != of or part not in str(arguments[0]):
        return
    _count += 1
    if _count == int(nth):
        _is_stopping = True
        os.unlink(os.environ["STOP_AT"])
        os.kill(os.getpid(), signal.SIGSTOP)
        _is_stopping = False

_count, _wanted, _is_stopping = 0, None, False
sys.addaudithook(_stop)
"""


class Stoppable:
    """A worker that can be stopped before a chosen change of a file."""

    def __init__(self, folder: Path, name: str, pool: ThreadPoolExecutor) -> None:
        (folder / "breakpoint").mkdir(exist_ok=True)
        (folder / "breakpoint" / "sitecustomize.py").write_text(BREAKPOINT)
        self._stop_at = folder / f"{name}.stop"
        paths = os.pathsep.join([str(folder / "breakpoint"), os.environ.get("PYTHONPATH", "")])
        environment = {"PYTHONPATH": paths, "STOP_AT": str(self._stop_at)}
        self._worker = Worker(ModelOptions(engines=str(BUNDLED)), environment, SECONDS)
        self._pool = pool
        self._num_stops = 0

    def begin(self, task: Task) -> Future[str]:
        """Have it run a task; how that ended."""
        return self._pool.submit(self._outcome, task)

    def end(self, task: Task) -> str:
        """Have it run a task until nobody else holds it; how that ended."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while (outcome := self._outcome(task)) == "held":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return outcome

    def begin_until(self, task: Task, event: str, part: str, nth: int) -> Future[str]:
        """Have it run a task, when it gets that, until it is stopped."""
        self._num_stops += 1  # so that each is another one
        self._stop_at.write_text(f"{event}|{part}|{nth}|{self._num_stops}")
        running = self._pool.submit(self.end, task)
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self.is_stopped:
            assert not running.done(), f"it was not stopped: {running.result()}"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return running

    def go_on(self) -> None:
        assert self._worker.pid
        os.kill(self._worker.pid, signal.SIGCONT)

    def close(self) -> None:
        self._worker.close()

    @property
    def is_stopped(self) -> bool:
        if not self._worker.pid:
            return False
        return Path(f"/proc/{self._worker.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def _outcome(self, task: Task) -> str:
        try:
            self._worker.run(task)
        except Held:
            return "held"
        except LeaseLost:
            return "lost"
        return "done"


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Stoppable]]:
    folder = tmp_path_factory.mktemp("workers")
    with ThreadPoolExecutor(3) as pool, ExitStack() as stack:
        workers = [Stoppable(folder, f"worker{number}", pool) for number in range(3)]
        for worker in workers:
            stack.callback(worker.close)
        yield workers


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, bytes]]:
    """Results of runs by their numbers of frames."""
    found = {}
    with DepthCrafter.load(BUNDLED) as model:
        for num_frames in (28, 40):
            folder = tmp_path_factory.mktemp("undisturbed")
            options = Options.by_name(OPTIONS | {"process_length": num_frames})
            Job(model, DEMO, options.sampling, options.source, options.outputs, folder).run()
            found[num_frames] = contents(folder, without=".json")
    return found


def task(folder: Path, **options: object) -> Task:
    return Task(str(DEMO), str(folder), Options.by_name(OPTIONS | options), skip_done=True)


INSTANTS = {
    "before it has a lease": ("open", ".lease-1", 1),
    "before it has a spool": ("os.mkdir", ".spool", 1),
    "in the first window": ("os.mkdir", "early", 1),
    "before a commit": ("open", "state.part", 2),
    "amid a commit": ("os.rename", "state.part", 2),
    "before results are written": ("os.mkdir", "results", 1),
    "while results are written": ("open", "demo.npz", 1),
    "while old frames are removed": ("os.rename", "/demo/frame_", 20),
    "while results are moved": ("os.rename", "results/demo/frame_", 9),
    "before the record is moved": ("os.rename", "results/demo.json", 1),
    "while the spool is removed": ("os.remove", "depth.f32", 1),
    "before it gives its lease back": ("os.remove", ".lease-1", 1),
}
QUICK = ("before it has a spool", "amid a commit", "while old frames are removed", "while the spool is removed")
QUICK_PAIRS = (("before a commit", "before a commit"), ("while old frames are removed", "before the record is moved"))


def instants(of: str) -> Any:
    return pytest.param(of, marks=() if of in QUICK else pytest.mark.soak)


def with_old_results(folder: Path, worker: Stoppable, *instants: str) -> None:
    """Where an instant takes it, results of a longer run are there."""
    if "while old frames are removed" in instants:
        assert worker.end(task(folder, process_length=40)) == "done"


@pytest.mark.parametrize("instant", [*map(instants, INSTANTS)])
def test_a_worker_that_is_stopped_and_continued_later_writes_nothing(instant, workers, undisturbed, tmp_path):
    first, second, _ = workers
    with_old_results(tmp_path, second, instant)
    running = first.begin_until(task(tmp_path), *INSTANTS[instant])
    assert second.end(task(tmp_path)) == "done"
    after = contents(tmp_path)
    first.go_on()
    assert running.result() in ("lost", "done")  # done: it saw that it is, or had just done it
    assert contents(tmp_path) == after
    assert contents(tmp_path, without=".json") == undisturbed[28]
    assert not [*tmp_path.glob(".*")]


def pairs() -> Iterator[Any]:
    """Of instants at which work is under way: of what the first has done the second sees nothing any more."""
    names = [*INSTANTS]
    amid, complete = names[1:-2], names.index("before results are written")
    for pair in product(amid, amid):
        if names.index(pair[0]) < complete or names.index(pair[1]) >= complete:
            yield pytest.param(*pair, marks=() if pair in QUICK_PAIRS else pytest.mark.soak)


@pytest.mark.parametrize(("instant", "next_instant"), [*pairs()])
def test_one_that_is_continued_amid_the_work_of_the_next_does_not_disturb_it(
    instant, next_instant, workers, undisturbed, tmp_path
):
    first, second, _ = workers
    with_old_results(tmp_path, second, instant, next_instant)
    running = first.begin_until(task(tmp_path), *INSTANTS[instant])
    event, part, _ = INSTANTS[next_instant]
    # The second may resume what the first did, so that it has less to do itself.
    next_running = second.begin_until(task(tmp_path), event, part.replace(".spool", "early"), 1)
    first.go_on()
    assert running.result() == "lost"
    second.go_on()
    assert next_running.result() == "done"
    assert contents(tmp_path, without=".json") == undisturbed[28]
    assert not [*tmp_path.glob(".*")]


def test_it_goes_through_three_hands(workers, undisturbed, tmp_path):
    first, second, third = workers
    running = first.begin_until(task(tmp_path), *INSTANTS["before a commit"])
    next_running = second.begin_until(task(tmp_path), *INSTANTS["while results are moved"])
    assert third.end(task(tmp_path)) == "done"
    after = contents(tmp_path)
    first.go_on()
    second.go_on()
    assert (running.result(), next_running.result()) == ("lost", "lost")
    assert contents(tmp_path) == after
    assert contents(tmp_path, without=".json") == undisturbed[28]
    assert not [*tmp_path.glob(".*")]


def test_what_a_dead_worker_did_is_resumed_at_once(undisturbed, workers, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        dying = Stoppable(tmp_path, "dying", pool)
        running = dying.begin_until(task(tmp_path / "out"), *INSTANTS["before results are written"])
        dying.close()
        with pytest.raises(WorkerDied):
            running.result()
    heard: list[Event] = []
    with Worker(ModelOptions(engines=str(BUNDLED)), lease_seconds=3600) as worker:
        worker.run(task(tmp_path / "out"), heard.append)
    assert [event.num_frames for event in heard if isinstance(event, Resumed)] == [28]
    assert contents(tmp_path / "out", without=".json") == undisturbed[28]
    assert not [*(tmp_path / "out").glob(".*")]


def test_a_spool_that_a_run_without_a_lease_is_at_is_another_workers(workers, tmp_path):
    folder = tmp_path / "out"
    lock = SpoolLock(folder / ".demo.spool")
    with Worker(ModelOptions(engines=str(BUNDLED)), lease_seconds=3600) as worker, pytest.raises(Held):
        worker.run(task(folder))
    lock.delete()
    assert not [*folder.glob(".*")]


def test_a_folder_that_cannot_be_written_to_is_said_in_a_sentence(tmp_path):
    (tmp_path / "out").touch()
    with (
        Worker(lease_seconds=3600) as worker,
        pytest.raises(UserError, match=r"Results cannot be written to .*out \(.*\)"),
    ):
        worker.run(task(tmp_path / "out"))
