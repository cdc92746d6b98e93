"""Jobs that are watched, cancelled, resumed and thrown away, in this process and in one of their own."""

import json
import threading
import time
from fractions import Fraction
from pathlib import Path

import pytest

from dc_rt import Job, JobCancelled, Sampling, UserError
from dc_rt.engine.discovery import BUNDLED
from dc_rt.job import (
    AlreadyDone,
    Cancelled,
    ChildJob,
    Event,
    Failed,
    Finished,
    HeldByAnother,
    ModelOpened,
    Planned,
    Progressed,
    Resumed,
    ShotsFound,
    TakenOver,
    Warned,
    WindowDone,
)
from dc_rt.job.events import as_json, from_json
from media_helpers import moving_gradient, write_clip

SHORT = Sampling(steps=1, window_size=10, overlap=3)
LONG = Sampling(steps=40, window_size=40, overlap=3)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, moving_gradient(40, 128, 192, seed=3), Fraction(24))


def results(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.suffix == ".mp4"}


def in_a_thread(job):
    """Start it; what it ends with is put into a list."""
    ended = []

    def run():
        try:
            ended.append(job.run())
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, ended


def test_events_tell_a_run_from_the_plan_to_the_files(bundled, clip):
    told = []
    files = Job(bundled, clip, SHORT, save_folder="out", listener=told.append).run()
    assert isinstance(told[0], Planned)
    assert (told[0].num_frames, told[0].height, told[0].width) == (40, 128, 192)
    assert isinstance(told[-1], Finished)
    assert told[-1].files == tuple(map(str, files))
    done = {}
    for event in told:
        if isinstance(event, Progressed):
            assert event.seconds >= 0
            done[event.stage] = done.get(event.stage, 0) + event.num_frames
    evaluated = told[0].num_evaluated
    assert done == {
        "read": 40,
        "clip_encoder": 40,
        "vae_encoder": 40,
        "denoiser": evaluated,
        "vae_decoder": 40,
        "write": 40,
    }
    assert [event.num_frames for event in told if isinstance(event, WindowDone)] == [7, 14, 21, 28, 35, 40]


def test_events_come_through_json_unchanged():
    events: list[Event] = [
        Planned("a b.mp4", 9, 64, 64, 24.0, 9, 64, 64, 24.0, 45, ("a note", "another")),
        ShotsFound(3, 62),
        Resumed(3, 30),
        Progressed("read", 1, 0.5),
        WindowDone(7),
        Warned("It rains."),
        Finished(("a", "b"), 9, 1.5),
        Cancelled(True),
        Failed("The disk is full.", False, True),
        ModelOpened(("Model nano", "Engines engines/nano")),
        AlreadyDone(("a", "b"), 9),
        HeldByAnother("process 7 on render3"),
        TakenOver(),
    ]
    for event in events:
        assert from_json(json.loads(json.dumps(as_json(event)))) == event


def test_a_graph_under_way_is_cancelled_within_two_seconds_and_the_model_can_run_on(bundled, clip):
    begun = threading.Event()

    def listen(event):
        if isinstance(event, Progressed) and event.stage == "vae_encoder":
            begun.set()

    job = Job(bundled, clip, LONG, save_folder="out", listener=listen)
    assert job.status == "new"
    thread, ended = in_a_thread(job)
    assert begun.wait(60)
    time.sleep(0.3)  # into the denoiser, whose evaluations take that long each
    began = time.monotonic()
    job.cancel()
    thread.join()
    assert time.monotonic() - began < 2
    assert isinstance(ended[0], JobCancelled)
    assert job.status == "cancelled"
    assert not job.is_resumable
    assert not Path("out").exists()
    assert Job(bundled, clip, SHORT, save_folder="out").run()


def test_a_cancelled_job_is_resumed_to_the_same_results(bundled, clip):
    Job(bundled, clip, SHORT, save_folder="whole").run()
    told = []

    def listen(event):
        told.append(event)
        if event == WindowDone(14):
            job.cancel()

    job = Job(bundled, clip, SHORT, save_folder="out", listener=listen)
    with pytest.raises(JobCancelled):
        job.run()
    assert told[-1] == Cancelled(is_resumable=True)
    assert results("out") == {}
    resumed = []
    Job(bundled, clip, SHORT, save_folder="out", listener=resumed.append).run()
    assert any(isinstance(event, Resumed) and event.num_frames >= 14 for event in resumed)
    assert results("out") == results("whole")


def test_an_unfinished_run_is_thrown_away_but_not_while_one_is_at_it(bundled, clip):
    def listen(event):
        if isinstance(event, WindowDone):
            with pytest.raises(UserError, match="Another run is working on this result"):
                job.discard()
            job.cancel()

    job = Job(bundled, clip, SHORT, save_folder="out", listener=listen)
    with pytest.raises(JobCancelled):
        job.run()
    assert job.is_resumable
    job.discard()
    assert not job.is_resumable
    assert list(Path("out").iterdir()) == []
    job.discard()  # there is nothing: nothing happens


def test_a_job_runs_once(bundled, clip):
    job = Job(bundled, clip, SHORT, save_folder="out")
    job.run()
    assert job.status == "finished"
    with pytest.raises(RuntimeError, match="this job is finished"):
        job.run()


def test_a_child_gives_the_results_and_the_events_of_a_job(bundled, clip):
    Job(bundled, clip, SHORT, save_folder="whole").run()
    told = []
    child = ChildJob(BUNDLED, clip, SHORT, save_folder="out", listener=told.append)
    files = child.run()
    assert child.status == "finished"
    assert isinstance(told[0], ModelOpened)
    assert isinstance(told[1], Planned)
    assert told[-1] == Finished(tuple(map(str, files)), 40, told[-1].seconds)
    assert results("out") == results("whole")


def test_a_child_that_is_cancelled_ends_and_is_resumed(bundled, clip):
    Job(bundled, clip, SHORT, save_folder="whole").run()
    child = ChildJob(
        BUNDLED,
        clip,
        SHORT,
        save_folder="out",
        listener=lambda event: child.cancel() if isinstance(event, WindowDone) else None,
    )
    with pytest.raises(JobCancelled):
        child.run()
    assert child.status == "cancelled"
    assert child.is_resumable
    ChildJob(BUNDLED, clip, SHORT, save_folder="out").run()
    assert results("out") == results("whole")


def test_a_child_that_does_not_hear_is_killed(monkeypatch, clip):
    """One that has no time to say that it was cancelled."""
    monkeypatch.setattr("dc_rt.job.worker.PATIENCE_SECONDS", 0.0)
    child = ChildJob(BUNDLED, clip, LONG, save_folder="out")
    thread, ended = in_a_thread(child)
    while not Path("out/.clip.spool").exists():
        time.sleep(0.01)
    began = time.monotonic()
    child.cancel()
    thread.join()
    assert time.monotonic() - began < 2
    assert isinstance(ended[0], JobCancelled)


def test_what_a_child_refuses_is_the_sentence(clip):
    with pytest.raises(UserError, match=r"There is no file nowhere\.mp4"):
        ChildJob(BUNDLED, "nowhere.mp4").run()
    with pytest.raises(UserError, match="There is no engine set in nowhere"):
        ChildJob("nowhere", clip).run()
