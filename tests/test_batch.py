"""Many videos on several processes: what is run, skipped, retried, shared and reported, as users and Python do it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from command_helpers import assert_refused, contents, dc_rt
from dc_rt import DepthCrafter, Job
from dc_rt.batch.inputs import find_tasks
from dc_rt.batch.local import LocalSlots
from dc_rt.batch.progress import Overall
from dc_rt.batch.report import Outcome
from dc_rt.batch.schedule import Schedule
from dc_rt.job import Event, Listener, Task, WindowDone
from dc_rt.lease import Leases
from dc_rt.models import ModelOptions
from dc_rt.options import Options
from media_helpers import moving_gradient, write_clip, write_images

FAST = ("--max-res", "64", "--num-denoising-steps", "1", "--window-size", "12", "--overlap", "4")
QUICK = Options.by_name({"max_res": 64, "steps": 1, "window_size": 12, "overlap": 4, "outputs": ["npz"]})


def clip(name: str, num_frames: int = 14, seed: int = 0) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_clip(path, moving_gradient(num_frames, 64, 64, seed))


def batch(*arguments: object, **how: Any) -> subprocess.CompletedProcess[str]:
    return dc_rt("batch", *arguments, *FAST, **how)


def report(path: str = "out/dc-rt-batch.json") -> dict[str, Any]:
    found = json.loads(Path(path).read_bytes())
    assert isinstance(found, dict)
    return found


def statuses(path: str = "out/dc-rt-batch.json") -> dict[str, str]:
    return {Path(each["video"]).as_posix(): each["status"] for each in report(path)["videos"]}


def results(folder: str) -> dict[str, bytes]:
    return contents(Path(folder), without=".json")


class InProcess:
    """The slot of a model of this process, which does before each run what it is told."""

    num_slots = 1

    def __init__(self, model: DepthCrafter, before: Callable[[Task], None] = lambda task: None) -> None:
        self.model, self.before = model, before
        self.ran: list[str] = []

    def run(self, slot: int, task: Task, listener: Listener) -> list[Path]:
        self.ran.append(Path(task.video).name)
        self.before(task)
        options = task.options
        sampling, source, outputs = options.sampling, options.source, options.outputs
        return Job(self.model, task.video, sampling, source, outputs, task.save_folder, listener=listener).run()

    def cancel(self) -> None:
        self.model.engines.interrupt()

    def close(self) -> None:
        pass


def run(schedule: Schedule) -> list[Outcome]:
    schedule.start()
    return ended(schedule)


def ended(schedule: Schedule) -> list[Outcome]:
    while not schedule.wait(0.05):
        pass
    return [entry.outcome for entry in schedule.entries]


def tasks(*inputs: str, restart: bool = False) -> list[Task]:
    found = find_tasks([Path(each) for each in inputs], Path("out"), QUICK, restart)
    return [entry for entry in found if isinstance(entry, Task)]


def test_a_tree_gives_the_bytes_of_runs_one_by_one_and_a_bad_file_stops_nothing() -> None:
    clip("in/a b.mp4")
    clip("in/deep/er/Ünï.mp4", 20, seed=1)
    write_images(Path("in/plates"), moving_gradient(5, 64, 64))
    Path("in/bad.mp4").write_bytes(b"no video")
    Path("in/notes.txt").touch()
    done = batch("in", "--save-folder", "out", "--workers", 2)
    assert done.returncode == 1
    (bad,) = done.stderr.splitlines()
    assert bad.startswith(f"{Path('in/bad.mp4')} is not a video that can be read")
    assert dc_rt("infer", "in/a b.mp4", "in/plates", *FAST, "--save-folder", "one").returncode == 0
    assert dc_rt("infer", "in/deep/er/Ünï.mp4", *FAST, "--save-folder", "one/deep/er").returncode == 0
    assert results("out") == results("one")

    found = report()
    assert statuses() == {
        "in/a b.mp4": "finished",
        "in/bad.mp4": "failed",
        "in/deep/er/Ünï.mp4": "finished",
        "in/plates": "finished",
    }
    assert found["counts"] == {"finished": 3, "skipped": 0, "elsewhere": 0, "failed": 1, "unfinished": 0}
    assert [each["frames"] for each in found["videos"]] == [14, None, 20, 5]
    assert not found["interrupted"]
    assert found["started"] <= found["ended"]
    assert [each["note"] for each in found["videos"]] == ["", bad, "", ""]
    assert {each["tries"] for each in found["videos"]} == {1}  # no second try would mend it
    files = [Path(file) for each in found["videos"] for file in each["files"]]
    assert {file.relative_to("out").as_posix() for file in files} == contents(Path("out")).keys() - {"dc-rt-batch.json"}
    for line in ("a b.mp4", "14 ", "3 finished, 1 failed", "bad.mp4"):
        assert line in done.stdout


def test_what_is_done_is_skipped_until_its_video_or_an_option_is_another() -> None:
    clip("in/a.mp4")
    clip("in/b.mp4", seed=1)
    clip("in/c.mp4", seed=2)
    Path("list.csv").write_text("video,seed\nin/a.mp4,\nin/b.mp4,\nin/c.mp4,\n")
    assert batch("list.csv", "--save-folder", "out").returncode == 0
    before = results("out")
    Path("in/a.mp4").touch()
    again = batch("list.csv", "--save-folder", "out")
    assert again.returncode == 0
    assert set(statuses().values()) == {"skipped"}
    assert "was done before" in again.stdout
    assert "Model" not in again.stdout  # none is opened for it
    assert results("out") == before

    clip("in/a.mp4", seed=3)
    Path("list.csv").write_text("video,seed\nin/a.mp4,\nin/b.mp4,7\nin/c.mp4,\n")
    batch("list.csv", "--save-folder", "out")
    assert statuses() == {"in/a.mp4": "finished", "in/b.mp4": "finished", "in/c.mp4": "skipped"}
    after = results("out")
    assert {name[:4] for name in after if after[name] != before[name]} == {"in/a", "in/b"}


def test_a_list_gives_each_video_its_options(bundled: DepthCrafter) -> None:
    clip("in/a.mp4")
    Path("list.jsonl").write_text(
        '{"video": "in/a.mp4", "process_length": 5, "save_folder": "x"}\n{"video": "in/a.mp4", "outputs": "npz,exr"}\n'
    )
    outcomes = run(Schedule(tasks("list.jsonl"), InProcess(bundled), retry=0))
    assert [outcome.frames for outcome in outcomes] == [5, 14]
    assert Path("out/x/a.npz").is_file()
    assert len([*Path("out/in/a").glob("*.exr")]) == 14


def test_what_may_go_away_is_tried_again_after_the_others_and_what_cannot_is_not(bundled: DepthCrafter) -> None:
    for name in "abc":
        clip(f"in/{name}.mp4")
    Path("in/d.mp4").touch()
    fails = {"a.mp4": 1, "b.mp4": 9}

    def before(task: Task) -> None:
        name = Path(task.video).name
        if fails.get(name, 0) > 0:
            fails[name] -= 1
            raise OSError("the disk is away")

    slots = InProcess(bundled, before)
    a, b, c, d = run(Schedule(tasks("in"), slots, retry=2))
    assert slots.ran == ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "a.mp4", "b.mp4", "b.mp4"]
    refused = "a file cannot be read or written: the disk is away; check the disk and its permissions"
    assert (a.status, a.tries, a.note) == ("finished", 2, f"tried again, since {refused}")
    assert (b.status, b.tries, b.note) == ("failed", 3, f"tried 3 times; {refused}")
    assert (c.status, c.tries) == ("finished", 1)
    assert (d.status, d.tries) == ("failed", 1)


class Killing(LocalSlots):
    """Processes that are killed amid some videos, as often as it is told."""

    def __init__(self, kills: dict[str, int]) -> None:
        super().__init__(ModelOptions(), 2)
        self.kills = kills

    def run(self, slot: int, task: Task, listener: Listener) -> list[Path]:
        def listen(event: Event) -> None:
            listener(event)
            name = Path(task.video).name
            if isinstance(event, WindowDone) and self.kills.get(name, 0) > 0:
                self.kills[name] -= 1
                pid = self.workers[slot].pid
                assert pid
                os.kill(pid, signal.SIGTERM)

        return super().run(slot, task, listen)


def test_a_process_that_dies_is_started_anew_and_a_video_that_kills_it_each_time_fails(bundled: DepthCrafter) -> None:
    for seed, name in enumerate(["a", "b", "poison", "z"]):
        clip(f"in/{name}.mp4", 40, seed)
    slots = Killing({"a.mp4": 1, "poison.mp4": 9})
    try:
        a, b, poison, z = run(Schedule(tasks("in", restart=True), slots, retry=1))
    finally:
        slots.close()
    assert (a.status, a.tries) == ("finished", 2)
    assert "resumed after frame" in a.note  # it is not thrown away with what earlier batches left
    assert (b.status, z.status) == ("finished", "finished")
    assert (poison.status, poison.tries) == ("failed", 2)
    assert "ended without a word" in poison.note
    Job(bundled, "in/a.mp4", QUICK.sampling, QUICK.source, QUICK.outputs, "one").run()
    assert Path("out/a.npz").read_bytes() == Path("one/a.npz").read_bytes()


@pytest.fixture
def slots() -> Iterator[LocalSlots]:
    slots = LocalSlots(ModelOptions())
    yield slots
    slots.close()


def test_a_video_that_another_batch_is_at_is_waited_for(bundled: DepthCrafter, slots: LocalSlots) -> None:
    """One is done there meanwhile, one is given up there, the third is nobody else's."""
    for seed, name in enumerate(["done", "given up", "ours"]):
        clip(f"in/{name}.mp4", seed=seed)
    mine = tasks("in")
    leases = [Leases(60).take(task.targets.lease) for task in mine[:2]]
    schedule = Schedule(mine, slots, retry=0, look_again_seconds=0.1)
    schedule.start()
    while not (schedule.entries[0].was_held and schedule.entries[1].was_held and schedule.entries[2].files):
        assert not schedule.wait(0.05)
    assert Overall(schedule.entries).standing().num_ended == 1
    options = mine[0].options
    Job(bundled, mine[0].video, options.sampling, options.source, options.outputs, "out").run()
    for lease in leases:
        lease.release()
    done, given_up, ours = ended(schedule)
    assert (done.status, done.tries) == ("elsewhere", 0)
    assert (given_up.status, given_up.tries) == ("finished", 1)
    assert ours.status == "finished"


@pytest.mark.skipif(sys.platform != "linux", reason="there processes show their variables")
def test_each_process_sees_its_device_alone() -> None:
    clip("in/a.mp4")
    clip("in/b.mp4")
    slots = LocalSlots(ModelOptions(), 2, ("1", "GPU-5"))
    try:
        outcomes = run(Schedule(tasks("in"), slots, retry=0))
        assert [outcome.status for outcome in outcomes] == ["finished", "finished"]
        seen = [Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0") for worker in slots.workers]
    finally:
        slots.close()
    assert [b"CUDA_VISIBLE_DEVICES=1" in seen[0], b"CUDA_VISIBLE_DEVICES=GPU-5" in seen[1]] == [True, True]
    assert [worker.pid for worker in slots.workers] == [None, None]


def test_two_batches_share_a_folder_and_nothing_is_done_twice() -> None:
    for seed in range(3):
        clip(f"in/{seed}.mp4", 30, seed)
    command = [sys.executable, "-m", "dc_rt.cli", "batch", "in", *FAST, "--save-folder", "out", "--report"]
    both = [subprocess.Popen([*command, f"{name}.json"], stdout=subprocess.PIPE, text=True) for name in "xy"]
    for process in both:
        process.communicate()
        assert process.returncode == 0
    x, y = statuses("x.json"), statuses("y.json")
    for video in x:
        assert sorted((x[video], y[video]))[0] in ("elsewhere", "finished"), (x, y)
        assert (x[video], y[video]).count("finished") == 1, (x, y)
    assert [path.name for path in Path("out").iterdir() if path.name.startswith(".")] == []
    dc_rt("infer", *sorted(map(str, Path("in").iterdir())), *FAST, "--save-folder", "one")
    assert results("out") == results("one")


@pytest.mark.skipif(sys.platform == "win32", reason="there nobody can press Ctrl-C for another process")
def test_ctrl_c_and_sigterm_end_all_and_the_same_command_resumes() -> None:
    for seed in range(2):
        clip(f"in/{seed}.mp4", 80, seed)
    options = ("--max-res", "64", "--num-denoising-steps", "3", "--window-size", "12", "--overlap", "4")
    command = [sys.executable, "-m", "dc_rt.cli", "batch", "in", *options, "--save-folder", "out", "--workers", "2"]
    for number in signal.SIGINT, signal.SIGTERM:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout
        assert process.stdout.readline().startswith("Model")  # one of the processes has begun
        while not [*Path("out").glob(".*.spool/state")] and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate()
        assert process.returncode == 130
        assert errors == "Interrupted; the same command resumes it.\n"
        assert report()["interrupted"]
        assert report()["counts"]["unfinished"] >= 1
        assert all(each["files"] == [] for each in report()["videos"] if each["status"] == "unfinished")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "resumed after frame" in done.stdout
    dc_rt("infer", *sorted(map(str, Path("in").iterdir())), *options, "--save-folder", "one")
    assert results("out") == results("one")


def test_progress_grows_to_its_end_and_counts_each_video_by_its_work(bundled: DepthCrafter) -> None:
    clip("in/long.mp4", 60)
    clip("in/short.mp4", 12)
    Path("in/bad.mp4").touch()
    seen: list[float] = []

    class Watched(InProcess):
        def run(self, slot: int, task: Task, listener: Listener) -> list[Path]:
            def listen(event: Event) -> None:
                listener(event)
                seen.append(overall.standing().done or 0.0)

            return super().run(slot, task, listen)

    schedule = Schedule(tasks("in"), Watched(bundled), retry=0)
    overall = Overall(schedule.entries)
    run(schedule)
    assert overall.standing().done == 1
    assert overall.standing().num_ended == overall.standing().num_videos == 3
    at_the_end_of_the_long_one = sorted(seen)[len(seen) // 2]
    assert 0.5 < at_the_end_of_the_long_one < 1
    assert all(0 <= share <= 1 for share in seen)


def test_a_dry_run_lists_what_would_be_done_and_writes_nothing() -> None:
    clip("in/new.mp4")
    clip("in/old.mp4", seed=1)
    clip("in/twice.mp4")
    clip("in/twice.mov")
    Path("in/bad.mp4").touch()
    assert batch("in/old.mp4", "--save-folder", "out").returncode == 0
    before = contents(Path())
    done = batch("in", "--save-folder", "out", "--dry-run")
    assert done.returncode == 1
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "new.mp4: 14 frames at 64x64 into out" in lines["run"]
    assert "old.mp4: its results are in out" in lines["done"]
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["refused"] * 3
    assert "1 to be run" in done.stdout
    assert "1 done, 3 refused; nothing was written" in done.stdout
    assert contents(Path()) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("empty",), "There is no video in empty"),
        (("a.mp4", "--devices", "0,1", "--workers", "3"), "--devices 0,1 is a process for each of 2, not 3"),
        (("a.mp4", "--lease-seconds", "0"), "A lease lasts .* try --lease-seconds 60"),
        (("a.mp4", "--engines", "nowhere"), "nowhere"),
        (("a.mp4", "--report", "empty"), "The report cannot be written to empty .* another .*--report"),
    ],
)
def test_what_cannot_be_a_batch_is_one_sentence_before_any_work(arguments: tuple[str, ...], sentence: str) -> None:
    Path("empty").mkdir()
    assert_refused(dc_rt("batch", *arguments), sentence)
    assert [path.name for path in Path().iterdir()] == ["empty"]


def test_what_is_refused_is_said_before_any_video_is_run() -> None:
    Path("l.csv").write_text("video,max_res\na.mp4,big\n")
    done = subprocess.Popen(
        [sys.executable, "-m", "dc_rt.cli", "batch", "l.csv", str(clip("long.mp4", 60)), "--save-folder", "out"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert done.stderr is not None
        assert done.stderr.readline().startswith("l.csv line 2: --max-res must be a whole number")
        assert not Path("out/dc-rt-batch.json").exists()
    finally:
        done.kill()
        done.communicate()


def test_names_in_the_report_are_text_whatever_they_are() -> None:
    name = os.fsdecode(b"caf\xe9[red].mp4") if sys.platform == "linux" else "café[red].mp4"
    clip("plain.mp4").rename(name)
    done = batch(name, "--save-folder", "out")
    assert done.returncode == 0
    ((video, status),) = statuses().items()
    assert status == "finished"
    assert video.endswith("[red].mp4")
    assert "[red].mp4: 14 frames" in done.stdout
