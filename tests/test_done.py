"""Results that are there already are known as what a run would give now, and as nothing else."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from dc_rt import DepthCrafter, UserError
from dc_rt.job import AlreadyDone, Event, Failed, Finished, Job, JobCancelled, Task, Worker, WorkerDied, plan_video
from dc_rt.job.done import Done, find_done, remove_spool_of
from dc_rt.job.targets import Targets
from dc_rt.lease import Held
from dc_rt.options import Options
from media_helpers import moving_gradient, write_clip

SMALL = Options.by_name({"steps": 1, "window_size": 8, "overlap": 2, "max_res": 64, "outputs": "depth.mp4,png"})


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clip(tmp_path / "a clip.mp4", moving_gradient(12, 64, 96, seed=5), Fraction(24))


def run(model: DepthCrafter, clip: Path, options: Options = SMALL) -> list[Path]:
    return Job(model, clip, options.sampling, options.source, options.outputs, "out").run()


def done(model: DepthCrafter, clip: Path, options: Options = SMALL) -> Done | None:
    plan = plan_video(clip, options.source)
    targets = Targets.of(clip, Path("out"), options.outputs)
    return find_done(targets, plan, model.engines.manifest, options.sampling, options.outputs)


def test_what_a_run_wrote_is_done_and_nothing_was_before(bundled: DepthCrafter, clip: Path) -> None:
    assert done(bundled, clip) is None
    files = run(bundled, clip)
    found = done(bundled, clip)
    assert found
    assert sorted(found.files) == sorted(files)
    assert found.num_frames == 12


def test_a_copy_of_the_video_of_another_time_is_known_by_its_contents(bundled: DepthCrafter, clip: Path) -> None:
    run(bundled, clip)
    os.utime(clip, (1, 1))
    assert done(bundled, clip)


def test_a_video_with_other_contents_is_to_be_done_again(bundled: DepthCrafter, clip: Path) -> None:
    run(bundled, clip)
    write_clip(clip, moving_gradient(12, 64, 96, seed=6), Fraction(24))
    assert done(bundled, clip) is None


@pytest.mark.parametrize(
    ("changed", "is_done"),
    [
        ({"steps": 2}, False),
        ({"seed": 1}, False),
        ({"process_length": 10}, False),
        ({"max_res": 128}, False),
        ({"outputs": "depth.mp4"}, True),
        ({"outputs": "depth.mp4,npz"}, False),
        ({"gamma": 2.0}, False),
        ({"keep": "raw"}, False),
        ({"overwrite": True}, True),
        ({"shots": "auto"}, False),
    ],
)
def test_other_options_are_done_only_if_they_would_change_nothing(
    bundled: DepthCrafter, clip: Path, changed: dict[str, object], is_done: bool
) -> None:
    run(bundled, clip)
    assert bool(done(bundled, clip, Options.by_name(changed, SMALL))) == is_done


@pytest.mark.parametrize("name", ["a clip_depth.mp4", "a clip/frame_0007.png", "a clip.json"])
def test_a_result_that_is_gone_or_cut_short_is_to_be_done_again(bundled: DepthCrafter, clip: Path, name: str) -> None:
    run(bundled, clip)
    path = Path("out", name)
    path.write_bytes(path.read_bytes()[:-1])
    if path.suffix != ".json":  # whose end is a line's: it is still what it was
        assert done(bundled, clip) is None
    path.unlink()
    assert done(bundled, clip) is None


def test_results_of_other_engines_are_to_be_done_again(bundled: DepthCrafter, clip: Path) -> None:
    run(bundled, clip)
    record = json.loads(Path("out/a clip.json").read_text())
    record["fingerprint"]["engines"] = "0" * 64
    Path("out/a clip.json").write_text(json.dumps(record))
    assert done(bundled, clip) is None
    del record["fingerprint"]  # as earlier versions wrote it
    Path("out/a clip.json").write_text(json.dumps(record))
    assert done(bundled, clip) is None


def test_names_that_are_no_text_are_done_too(bundled: DepthCrafter, clip: Path) -> None:
    name = clip.with_name(os.fsdecode(b"caf\xe9.mp4"))
    try:
        clip.rename(name)
    except OSError:
        pytest.skip("this file system takes text alone")
    options = Options.by_name({"outputs": "depth.mp4"}, SMALL)
    run(bundled, name, options)
    assert done(bundled, name, options)


def test_a_spool_is_removed_if_it_is_of_what_is_done_and_left_if_not(bundled: DepthCrafter, clip: Path) -> None:
    job = Job(bundled, clip, SMALL.sampling, SMALL.source, SMALL.outputs, "out", listener=lambda event: stop(event))

    def stop(event: Event) -> None:
        if type(event).__name__ == "WindowDone":
            job.cancel()

    with pytest.raises(JobCancelled):
        job.run()
    shutil.copytree("out/.a clip.spool", "kept")
    run(bundled, clip)
    found = done(bundled, clip)
    assert found
    targets = Targets.of(clip, Path("out"), SMALL.outputs)
    for fingerprint, is_left in ({**found.fingerprint, "seed": 7}, True), (found.fingerprint, False):
        shutil.copytree("kept", targets.spool, dirs_exist_ok=True)
        remove_spool_of(targets, replace(found, fingerprint=fingerprint))
        assert targets.spool.exists() == is_left


def test_a_worker_does_what_is_to_be_done_and_says_what_is_done_already(clip: Path) -> None:
    task = Task(str(clip), "out", SMALL, skip_done=True)
    told: list[Event] = []
    with Worker() as worker:
        first = worker.run(task, told.append)
        assert isinstance(told[-1], Finished)
        pid = worker.pid
        assert sorted(worker.run(task, told.append)) == sorted(first)
        assert isinstance(told[-1], AlreadyDone)
        assert told[-1].num_frames == 12
        with pytest.raises(UserError, match="nowhere"):
            worker.run(replace(task, video="nowhere.mp4"))
        worker.run(replace(task, skip_done=False), told.append)
        assert isinstance(told[-1], Finished)
        assert worker.pid == pid


def test_a_worker_that_is_killed_says_so_and_the_next_task_has_a_new_process(clip: Path) -> None:
    with Worker() as worker:

        def kill(event: Event) -> None:
            os.kill(worker.pid or 0, 9)

        task = Task(str(clip), "out", SMALL)
        with pytest.raises(WorkerDied):
            worker.run(task, kill)
        assert worker.run(task)


def test_what_is_done_needs_no_lease_unless_one_was_left_beside_it(clip: Path) -> None:
    task = Task(str(clip), "out", SMALL, skip_done=True)
    told: list[Event] = []
    with Worker(lease_seconds=60) as worker:
        worker.run(task)
    Path("out").chmod(0o555)  # where nothing is to be written, no lease can be taken either
    try:
        with Worker(lease_seconds=60) as worker:
            worker.run(task, told.append)
            assert isinstance(told[-1], AlreadyDone)
    finally:
        Path("out").chmod(0o755)
    Path("out/.a clip.lease-3").write_text("{}")  # of a process that died at its end
    os.utime("out/.a clip.lease-3", (1, 1))
    with Worker(lease_seconds=1) as worker, pytest.raises(Held):
        worker.run(task)
    assert Path("out/.a clip.lease-3").exists()


def test_a_worker_that_is_cancelled_as_its_run_ends_has_a_new_process_for_the_next_task(clip: Path) -> None:
    task = Task(str(clip), "out", SMALL)
    with Worker() as worker:

        def cancel_at_the_end(event: Event) -> None:
            if isinstance(event, Finished):
                worker.cancel()

        for _ in range(2):
            assert worker.run(task, cancel_at_the_end)
            assert worker.pid is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of a file's size to stand for a full disk")
def test_a_disk_that_refuses_is_an_error_of_the_disk_and_the_next_run_goes_on(clip: Path) -> None:
    import resource

    task = Task(str(clip), "out", SMALL)
    told: list[Event] = []
    with Worker() as worker:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
        try:
            with pytest.raises(OSError, match=os.strerror(errno.EFBIG)) as caught:
                worker.run(task, told.append)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert caught.value.errno == errno.EFBIG
        assert isinstance(told[-1], Failed)
        assert not told[-1].is_bug
    with Worker() as worker:
        assert worker.run(task)


def test_a_listener_that_fails_ends_the_run_and_the_next_hears_nothing_of_it(clip: Path) -> None:
    def refuse(event: Event) -> None:
        raise UserError("I have heard enough.")

    told: list[Event] = []
    with Worker() as worker:
        with pytest.raises(UserError, match="enough"):
            worker.run(Task(str(clip), "first", SMALL), refuse)
        worker.run(Task(str(clip), "second", SMALL), told.append)
    assert isinstance(told[-1], Finished)
    assert all(Path(file).parent == Path("second") for file in told[-1].files)


def test_a_worker_imports_nothing_from_the_folder_that_it_is_started_in(clip: Path) -> None:
    Path("numpy.py").write_text("raise SystemExit('this is not NumPy')")
    with Worker() as worker:
        assert worker.run(Task(str(clip), "out", SMALL))
