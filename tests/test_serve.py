"""Jobs of the service: sent, watched, fetched, cancelled, resumed, and taken up again after the service was killed."""

import io
import json
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from bench.serving.service import TOKEN, descendants
from media_helpers import moving_gradient, write_images
from serve_helpers import DEMO, QUICK, Service, assert_refused, finished, inferred, root_of

pytest.importorskip("fastapi", reason="FastAPI is not installed: it comes with the extra serve")

# Of several windows, so that there is something to cancel and to kill; and what ends when it is cancelled.
LONG: dict[str, Any] = QUICK | {"steps": 8, "process_length": 28}
ENDLESS: dict[str, Any] = QUICK | {"steps": 100_000}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    root = folder / "root"
    (root / "takes").mkdir(parents=True)
    shutil.copy(DEMO, root / "takes" / "clip.mp4")
    write_images(root / "frames", moving_gradient(3, 64, 96))
    with Service(folder / "jobs", "--root", str(root), "--max-steps", "100000") as service:
        yield service
        assert not [line for line in service.log if "Traceback" in line]


@pytest.fixture(scope="module")
def done(service):
    """A job that has finished."""
    return finished(service, service.upload(DEMO, QUICK, "my clip.mp4")["id"])


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What `dc-rt infer` makes of the long run."""
    return inferred(tmp_path_factory.mktemp("expected"), **LONG)


def test_a_sent_video_becomes_the_files_of_dc_rt_infer(service, done, tmp_path):
    expected = inferred(tmp_path, name="my_clip", **QUICK)
    assert service.results(done) == expected
    assert [file["kind"] for file in done["files"]] == ["depth.mp4", "input.mp4", "vis.mp4", "record"]
    assert {file["name"]: file["bytes"] for file in done["files"][:3]} == {
        name: len(content) for name, content in expected.items()
    }
    assert (done["filename"], done["share"], done["num_frames"]) == ("my clip.mp4", 1.0, 60)
    assert (done["options"]["steps"], done["options"]["seed"]) == (1, 42)
    # The video is of no use any more.
    assert not list((service.folder / "jobs" / done["id"]).glob("upload*"))


def test_a_path_under_a_root_gives_the_same(service, done):
    answer = service.ask("POST", "/jobs", {"path": "takes/clip.mp4", "options": QUICK})
    assert (answer.status, answer.headers["location"]) == (201, f"/jobs/{answer.json['id']}")
    contents = list(service.results(finished(service, answer.json["id"])).values())
    assert contents == list(service.results(done).values())


def test_events_are_numbered_and_go_on_behind_the_last_that_was_heard(service, done):
    events = list(service.events(done["id"]))
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    kinds = [event.kind for event in events]
    assert kinds[:3] == ["Status", "Status", "Planned"]
    assert kinds[-2:] == ["Finished", "Status"]
    assert {"Progress", "WindowDone"} <= set(kinds)
    assert events[2].data["video"] == "my clip.mp4"
    assert events[-2].data["files"] == ["my_clip_depth.mp4", "my_clip_input.mp4", "my_clip_vis.mp4", "my_clip.json"]
    assert list(service.events(done["id"], after=5)) == events[5:]
    assert service.ask("GET", f"/jobs/{done['id']}/events", headers={"Last-Event-ID": str(len(events))}).status == 204
    assert service.ask("GET", f"/jobs/{done['id']}/events?last_event_id={len(events)}").status == 204
    assert_refused(service.ask("GET", f"/jobs/{done['id']}/events", headers={"Last-Event-ID": "x"}), 422)


def test_results_come_in_ranges(service, done):
    name = done["files"][0]["name"]
    path = f"/jobs/{done['id']}/files/{name}"
    whole = service.ask("GET", path)
    assert (whole.headers["content-type"], whole.headers["accept-ranges"]) == ("video/mp4", "bytes")
    part = service.ask("GET", path, headers={"Range": "bytes=10-19"})
    assert (part.status, part.body) == (206, whole.body[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.body)}"
    assert service.ask("GET", path, headers={"Range": "bytes=-7"}).body == whole.body[-7:]
    head = service.ask("HEAD", path)
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(whole.body)), b"")
    beyond = service.ask("GET", path, headers={"Range": f"bytes={len(whole.body)}-"})
    assert_refused(beyond, 416)
    assert beyond.headers["content-range"] == f"bytes */{len(whole.body)}"
    assert_refused(service.ask("GET", path, headers={"Range": "bytes=x"}), 400)


def test_a_folder_of_frames_is_one_zip_file_and_its_files_can_be_had_one_by_one(service):
    job = finished(service, service.upload(DEMO, QUICK | {"process_length": 3, "outputs": ["png", "exr"]})["id"])
    record, folder = (file["name"] for file in job["files"])
    assert (record, folder) == ("demo.json", "demo.zip")
    with zipfile.ZipFile(io.BytesIO(service.ask("GET", f"/jobs/{job['id']}/files/{folder}").body)) as archive:
        assert archive.testzip() is None
        assert len(archive.namelist()) == 6
        listed = {file["name"] for file in service.ask("GET", f"/jobs/{job['id']}/files").json}
        assert listed == {"demo.zip", "demo.json", *archive.namelist()}
        for name in archive.namelist():
            assert service.ask("GET", f"/jobs/{job['id']}/files/{quote(name)}").body == archive.read(name)


def test_a_folder_of_images_under_a_root_is_a_video(service):
    answer = service.ask("POST", "/jobs", {"path": "frames", "options": QUICK | {"fps": 12}})
    job = finished(service, answer.json["id"])
    assert (job["filename"], job["num_frames"], job["files"][0]["name"]) == ("frames", 3, "frames_depth.mp4")


def test_jobs_wait_for_their_turn_and_are_listed_newest_first(service):
    running = service.upload(DEMO, ENDLESS)["id"]
    waiting = [service.upload(DEMO, QUICK, f"{number}.mp4")["id"] for number in range(3)]
    listed = service.ask("GET", "/jobs?limit=2").json
    assert [job["id"] for job in listed["jobs"]] == waiting[:0:-1]
    assert listed["next"] == waiting[1]
    following = service.ask("GET", f"/jobs?limit=2&after={listed['next']}").json
    assert [job["id"] for job in following["jobs"]] == [waiting[0], running]
    assert [service.job(id)["position"] for id in waiting] == [1, 2, 3]
    # One that waits is cancelled at once, and the others move up.
    cancelled = service.ask("POST", f"/jobs/{waiting[0]}/cancel").json
    assert (cancelled["status"], cancelled["position"]) == ("cancelled", None)
    assert service.job(waiting[1])["position"] == 1
    assert_refused(service.ask("DELETE", f"/jobs/{running}"), 409, "cancel it first")
    assert_refused(service.ask("POST", f"/jobs/{running}/resume"), 409, "running")
    assert service.ask("DELETE", f"/jobs/{waiting[2]}").status == 204
    assert_refused(service.ask("GET", f"/jobs/{waiting[2]}"), 404)
    assert not (service.folder / "jobs" / waiting[2]).exists()
    assert service.ask("POST", f"/jobs/{running}/cancel").json["status"] == "cancelled"
    finished(service, waiting[1])
    for id in (running, *waiting[:2]):
        assert service.ask("DELETE", f"/jobs/{id}").status == 204


@pytest.mark.skipif(sys.platform != "linux", reason="children are looked for in /proc")
def test_cancelling_ends_the_process_and_what_is_resumed_has_the_same_bits(service, expected):
    id = service.upload(DEMO, LONG)["id"]
    for event in service.events(id):
        if event.kind == "WindowDone":
            break
    assert descendants(service.pid)
    job = service.ask("POST", f"/jobs/{id}/cancel").json
    assert (job["status"], job["is_resumable"], job["files"]) == ("cancelled", True, [])
    assert not descendants(service.pid)
    assert [event.data["status"] for event in service.events(id) if event.kind == "Status"][-1] == "cancelled"
    assert_refused(service.ask("POST", f"/jobs/{id}/cancel"), 409, "cancelled already")
    assert service.ask("POST", f"/jobs/{id}/resume").json["status"] in ("queued", "running")
    job = finished(service, id)
    assert "Resumed" in [event.kind for event in service.events(id)]
    assert service.results(job) == expected
    assert_refused(service.ask("POST", f"/jobs/{id}/resume"), 409, "finished")


def test_a_job_that_fails_says_why_in_one_sentence_that_names_no_path(service):
    gone = root_of(service) / "gone.mp4"
    shutil.copy(DEMO, gone)
    running = service.upload(DEMO, ENDLESS)["id"]
    id = service.ask("POST", "/jobs", {"path": "gone.mp4", "options": QUICK}).json["id"]
    gone.unlink()
    service.ask("POST", f"/jobs/{running}/cancel")
    *_, last = service.events(id)
    job = service.job(id)
    assert (job["status"], job["error"]) == ("failed", last.data["error"])
    assert job["error"] == "There is no file gone.mp4; check the name."
    assert str(root_of(service)) not in str(list(service.events(id)))
    # Once the cause is mended it is resumed.
    shutil.copy(DEMO, gone)
    assert service.ask("POST", f"/jobs/{id}/resume").status == 200
    finished(service, id)
    (told,) = (line for line in service.log if f"job {id} is failed" in line)
    assert told.endswith(f"s: {job['error']}")


@pytest.mark.skipif(sys.platform == "win32", reason="there only some users may make links")
def test_a_video_that_has_become_a_link_out_of_its_root_while_it_waited_is_not_read(service):
    swapped = root_of(service) / "swapped.mp4"
    shutil.copy(DEMO, swapped)
    running = service.upload(DEMO, ENDLESS)["id"]
    id = service.ask("POST", "/jobs", {"path": "swapped.mp4", "options": QUICK}).json["id"]
    swapped.unlink()
    swapped.symlink_to(DEMO)
    service.ask("POST", f"/jobs/{running}/cancel")
    list(service.events(id))
    assert service.job(id)["error"] == "swapped.mp4 is not where it was when the job was queued; queue it anew."


def test_the_page_the_metrics_and_the_description_are_there(service, done):
    page = service.ask("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert service.ask("GET", "/page/page.js").headers["content-type"].startswith("text/javascript")
    assert_refused(service.ask("GET", "/page/nothing.js"), 404)
    service.ask("GET", "/nothing")
    metrics = service.ask("GET", "/metrics").body.decode()
    numbers = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    assert float(numbers['dc_rt_jobs_total{outcome="finished"}']) >= 1
    assert float(numbers["dc_rt_frames_total"]) >= 60
    assert float(numbers['dc_rt_requests_refused_total{status="404"}']) >= 1
    assert float(numbers["dc_rt_upload_bytes_total"]) >= DEMO.stat().st_size
    assert float(numbers["dc_rt_jobs_running"]) == 0
    assert service.ask("GET", "/health").json == {"status": "alive"}
    assert service.ask("GET", "/ready").json == {"ready": True}
    described = service.ask("GET", "/openapi.json").json
    assert "/jobs/{id}/events" in described["paths"]
    assert_refused(service.ask("GET", "/docs"), 404)


def test_the_options_that_can_be_chosen_are_those_that_are_taken(service):
    told = service.ask("GET", "/options").json
    assert told["has_roots"]
    names = {row["name"] for row in told["options"]}
    assert {"steps", "max_res", "outputs", "shots"} <= names
    assert not names & {"result_name", "overwrite", "raw_size", "pipe_format"}
    defaults = {row["name"]: row["default"] for row in told["options"]}
    answer = service.ask("POST", "/jobs", {"path": "takes/clip.mp4", "options": {**defaults, **QUICK}})
    assert answer.status == 201
    assert answer.json["options"] == {**defaults, **QUICK}
    service.ask("POST", f"/jobs/{answer.json['id']}/cancel")


def test_a_service_that_is_killed_goes_on_after_a_restart_to_the_same_bits(tmp_path, expected):
    with Service(tmp_path / "jobs") as service:
        first, second = (service.upload(DEMO, LONG, name)["id"] for name in ("demo.mp4", "second.mp4"))
        heard = []
        for event in service.events(first):
            heard.append(event)
            if event.kind == "WindowDone":
                service.kill()
        assert heard[-1].kind != "Status"
        service.start()
        assert service.job(second)["position"] in (1, 2)
        rest = list(service.events(first, after=heard[-1].id))
        assert [event.id for event in (*heard, *rest)] == list(range(1, len(heard) + len(rest) + 1))
        assert "Resumed" in [event.kind for event in rest]
        service.ask("POST", f"/jobs/{second}/cancel")
        assert service.results(service.job(first)) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_a_service_that_is_told_to_end_puts_its_job_back_and_ends_its_streams(tmp_path):
    with Service(tmp_path / "jobs", token=TOKEN) as service:
        id = service.upload(DEMO, LONG)["id"]
        events = service.events(id)
        while (last := next(events)).kind != "WindowDone":
            pass
        if sys.platform == "linux":  # what decodes a video that somebody has sent is not told the token
            (child,) = descendants(service.pid)
            assert TOKEN.encode() not in Path(f"/proc/{child}/environ").read_bytes()
        assert service.stop() == 0
        assert all(event.kind != "Status" for event in events)
        assert json.loads((service.folder / "jobs" / id / "job.json").read_bytes())["status"] == "queued"
        service.start()
        *_, last = service.events(id, after=last.id)
        assert last.data["status"] == "finished"
