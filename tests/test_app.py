"""The app without its page: folders that go with it, jobs of browsers, who may ask, what is shown; without Gradio."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.clips import DEMO
from command_helpers import assert_refused, contents, dc_rt
from dc_rt.errors import UserError
from dc_rt.models import ModelOptions
from dc_rt.options import Outputs, Sampling, Source, rules

pytest.importorskip("fastapi", reason="FastAPI is not installed: it comes with the extras app and serve")

from starlette.requests import ClientDisconnect

from dc_rt.serve.crew import Crew
from dc_rt.serve.settings import PASSWORD, Limits
from dc_rt.serve.store import Store
from dc_rt.webapp import form, shown
from dc_rt.webapp.desk import Desk, Story
from dc_rt.webapp.gate import SIGN_IN, Gate
from dc_rt.webapp.home import Home
from dc_rt.webapp.run import examples

QUICK = {"max_res": 64, "steps": 1, "process_length": 12}
MARKUP = "<img src=x onerror=alert(1)> \"'.mp4"


@pytest.mark.skipif(find_spec("gradio") is not None, reason="Gradio is installed")
def test_without_gradio_one_sentence_says_what_to_install():
    assert_refused(dc_rt("app", "--port", "0"), r"needs Gradio, which is not installed; run `.*\[app\]'?`\.$")


def test_beyond_this_machine_there_must_be_a_password():
    with pytest.raises(UserError, match="there is no password; give password_file='FILE', or no_password=True"):
        PASSWORD.check_reach("0.0.0.0", None, False)
    PASSWORD.check_reach("127.0.0.1", None, False)


def test_the_examples_are_there():
    assert [path.name for path in examples()] == ["demo.mp4", "balls.mp4"]


# Folders


def finished(home: Home, name: str) -> Path:
    """What a job that has finished leaves."""
    results = home.jobs / "jobs" / name / "results"
    results.mkdir(parents=True)
    for file in (f"{name}.json", f"{name}_depth.mp4"):
        (results / file).write_text(file)
    return results


def test_a_folder_goes_with_its_app(tmp_path):
    home = Home(tmp_path / "made" / "here", keeps=False)
    finished(home, "clip")
    assert home.close() == []
    assert not (tmp_path / "made").exists()


def test_what_was_in_a_folder_stays_there(tmp_path):
    folder = tmp_path / "mine"
    (folder / "jobs").mkdir(parents=True)
    (folder / "mine.txt").write_text("mine")
    Home(folder, keeps=False).close()
    assert sorted(path.name for path in folder.iterdir()) == ["jobs", "mine.txt"]


def test_results_that_are_kept_replace_nothing(tmp_path):
    folder = tmp_path / "work"
    (folder / "clip").mkdir(parents=True)
    home = Home(folder, keeps=True)
    finished(home, "clip")
    (home.jobs / "jobs" / "unfinished" / "results").mkdir(parents=True)
    assert home.close() == [folder / "clip-2"]
    assert set(contents(folder)) == {"clip-2/clip.json", "clip-2/clip_depth.mp4"}


def test_what_a_killed_app_left_is_cleared_and_what_was_to_be_kept_is_kept(tmp_path):
    folder = tmp_path / "work"
    for keeps, name in ((False, "lost"), (True, "kept")):
        killed = Home(folder, keeps)
        finished(killed, name)
        killed._lock.close()  # as the system does when a process ends
    running = Home(folder, keeps=False)
    beside = Home(folder, keeps=False)
    assert sorted(path.name for path in folder.iterdir()) == sorted([running.own.name, beside.own.name, "kept"])
    assert set(contents(folder / "kept")) == {"kept.json", "kept_depth.mp4"}
    beside.close()
    running.close()


def test_what_no_app_has_made_is_not_removed(tmp_path):
    folder, elsewhere = tmp_path / "work", tmp_path / "elsewhere"
    for made in (folder / ".dc-rt-app-notes", folder / ".dc-rt-app-0123abcd", elsewhere):
        made.mkdir(parents=True)
        (made / "mine").write_text("mine")
    (elsewhere / "lock").touch()
    (folder / ".dc-rt-app-89abcdef").symlink_to(elsewhere)
    before = contents(folder), contents(elsewhere)
    Home(folder, keeps=False).close()
    assert (contents(folder), contents(elsewhere)) == before


# Jobs


class Office(NamedTuple):
    """A desk, with the worker behind it, which begins when it is told to, and the folder where videos come in."""

    desk: Desk
    crew: Crew
    uploads: Path


@pytest.fixture
def office(tmp_path):
    uploads = tmp_path / "uploads" / "some"
    uploads.mkdir(parents=True)
    limits = Limits(num_frames=70)
    store = Store(tmp_path / "jobs", limits)
    crew = Crew(store, lambda job, seconds: None, ModelOptions(), [{}])
    yield Office(Desk(store, crew, ModelOptions(), limits, uploads.parent), crew, uploads)
    crew.close(5)
    store.close()


def upload(office: Office, name: str = "demo.mp4") -> Path:
    return Path(shutil.copy(DEMO, office.uploads / name))


def wait(job) -> None:
    until = time.monotonic() + 60
    while not job.state.is_ended and time.monotonic() < until:
        time.sleep(0.02)


def test_a_video_is_run_for_its_browser_alone(office):
    desk = office.desk
    job = desk.submit("one", upload(office, MARKUP), QUICK | {"outputs": ["depth.mp4", "exr"]})
    behind = desk.submit("two", upload(office), QUICK)
    assert (desk.place(job), desk.place(behind)) == (0, 1)
    desk.cancel(behind)
    office.crew.start()
    wait(job)
    assert job.state.status == "finished", job.state.error
    assert desk.find("one", job.id) is job
    assert desk.find("two", job.id) is None
    assert [each.id for each in desk.jobs_of("two")] == [behind.id]
    assert [file.name.rpartition(".")[2] for file in job.files()] == ["mp4", "json", "zip"]
    assert len(job.all_files()) == 3 + 12
    html = shown.card(job, desk.story(job), None) + shown.results(job)
    assert "is a demonstration" in html
    assert "12 frames" in html
    assert "<img" not in html
    assert MARKUP in unescape(html)


def test_the_same_video_with_the_same_options_is_resumed_after_a_cancel(office):
    video = upload(office)
    job = office.desk.submit("one", video, QUICK)
    office.desk.cancel(job)
    assert job.state.status == "cancelled"
    assert office.desk.submit("one", video, QUICK | {"steps": 2}) is not job
    assert office.desk.submit("two", video, QUICK) is not job
    assert office.desk.submit("one", video, QUICK) is job
    assert job.state.status == "queued"


def test_a_button_that_is_pressed_twice_queues_a_video_once(office):
    video = upload(office)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: office.desk.submit("one", video, QUICK), range(2))
    assert first is second
    assert office.desk.submit("one", video, QUICK) is first
    assert office.desk.jobs_of("one") == [first]


def test_an_example_comes_in_again_when_old_uploads_were_removed(office):
    first = office.desk.take_in(DEMO)
    first.unlink()
    assert office.desk.take_in(DEMO) == first
    office.desk.look_at(first)


def test_what_cannot_be_run_is_refused_before_it_waits(office, tmp_path):
    text = office.uploads / "text.mp4"
    text.write_text("no video")
    outside = Path(shutil.copy(DEMO, tmp_path / "outside.mp4"))
    link = office.uploads / "link.mp4"
    link.symlink_to(outside)
    with pytest.raises(UserError, match=r"gone\.mp4 was removed, .*; choose it again"):
        office.desk.submit("one", office.uploads / "gone.mp4", QUICK)
    for wrong in (text, outside, link, office.uploads):
        with pytest.raises(UserError, match="is no video of a kind that is taken"):
            office.desk.submit("one", wrong, QUICK)
    video = upload(office)
    office.desk.look_at(video)
    with pytest.raises(UserError, match="There is no option"):
        office.desk.submit("one", video, {"colour": "red"})
    with pytest.raises(UserError, match="not for clients"):
        office.desk.submit("one", video, {"result_name": "x"})
    with pytest.raises(UserError) as refusal:
        office.desk.submit("one", video, QUICK | {"window_size": 12, "overlap": 99})
    assert form.said(refusal.value).startswith("“Overlap of windows” must be smaller than “Frames a window” 12")
    assert office.desk.jobs_of("one") == []


def test_the_story_is_of_the_last_run():
    story = Story()
    story.hear("Status", {"status": "running"})
    story.hear("Warned", {"sentence": "of the first run"})
    story.hear("Status", {"status": "running"})
    story.hear("Resumed", {"num_frames": 32})
    assert (story.warnings, story.num_resumed) == ([], 32)


# The page's words


def test_every_option_that_a_client_may_set_has_its_field_once():
    names = [*form.FIRST, *(name for _, names in form.panels() for name in names)]
    assert sorted(names) == sorted(form.rows())
    assert {"size", "outputs", "window_size", "depth_codec", "exr", "stereo", "shots", "seed"} <= set(names)


def test_options_have_the_range_and_the_default_of_their_rule():
    table = form.rows()
    known = {name: default for kind in (Sampling, Source, Outputs) for name, _, default in rules(kind)}
    assert all(row["default"] == known[name] for name, row in table.items() if name != "outputs")
    assert not any("\0" in row["help"] for row in table.values())


def test_what_is_emptied_has_its_default_and_whole_numbers_are_whole():
    assert form.given(["steps", "gamma", "shots", "size"], (3.0, 1.5, None, "")) == {"steps": 3, "gamma": 1.5}


@pytest.mark.parametrize(
    ("size", "words"), [(12, "12 bytes"), (4700, "4.7 kB"), (999_600, "1.0 MB"), (2.5e10, "25 GB")]
)
def test_sizes_are_shown_as_people_read_them(size, words):
    assert shown.size_in_words(size) == words


# Who may ask


class Asked:
    """A gate before an app that answers everything with 200."""

    def __init__(self, tmp_path, password=None, limits=None, is_broken_off=False):
        async def app(scope, receive, send):
            if is_broken_off:
                (tmp_path / "uploads" / "tmp1").touch()
                raise ClientDisconnect
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"inside"})

        (tmp_path / "uploads").mkdir()
        (tmp_path / "uploads" / "some").mkdir()
        (tmp_path / "uploads" / "some" / "clip.mp4").touch()
        self.gate = Gate(
            app,
            names=frozenset(),
            password=password,
            port=7860,
            uploads=tmp_path / "uploads",
            limits=limits or Limits(free_bytes=0),
        )

    def __call__(self, path, method="GET", body=b"", **headers):
        """Status and headers of the answer."""
        return asyncio.run(self.answer(path, method, body, **headers))

    async def answer(self, path, method, body, **headers):
        found = {"host": "127.0.0.1:7860"} | {name.replace("_", "-"): value for name, value in headers.items()}
        raw = [(name.encode(), value.encode()) for name, value in found.items()]
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": raw, "scheme": "http"}
        sent = []

        async def receive():
            return {"type": "http.request", "body": body}

        async def send(message):
            sent.append(message)

        await self.gate(scope, receive, send)
        if not sent:
            return None
        return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}


def test_only_what_the_page_needs_is_let_through(tmp_path):
    ask, uploads = Asked(tmp_path), tmp_path / "uploads"
    (tmp_path / "secret").touch()
    (uploads / "out").symlink_to(tmp_path / "secret")
    for path in ("/", "/config", f"/gradio_api/file={uploads}/some/clip.mp4", "/results/id/clip_depth.mp4"):
        assert ask(path)[0] == 200, path
    files = (f"{uploads}/../secret", f"{uploads}/out", "/etc/passwd", "http://example.org", f"{uploads}/\0", "")
    others = (
        "/gradio_api/proxy=http://example.org",
        "/monitoring",
        "/docs",
        "/gradio_api/deep_link",
        "/gradio_api/vibe-code",
    )
    for path in (*(f"/gradio_api/file={file}" for file in files), *others):
        assert ask(path)[0] == 404, path
    for path in ("/gradio_api/run/predict", "/gradio_api/call/run", "/gradio_api/process_recording", "/login", "/"):
        assert ask(path, "POST")[0] == 404, path


def test_a_call_with_a_file_that_did_not_come_in_is_refused(tmp_path):
    ask, join = Asked(tmp_path), "/gradio_api/queue/join"

    def called(path):
        return ask(join, "POST", json.dumps({"data": [1, {"some": [{"path": path}]}]}).encode())[0]

    assert called(f"{tmp_path}/uploads/some/clip.mp4") == 200
    for path in ("http://example.org/clip.mp4", "/etc/passwd", f"{tmp_path}/uploads/../secret", None, "\0"):
        assert called(path) == 403, path
    assert ask(join, "POST", b"no JSON")[0] == 400
    assert ask(join, "POST", b"{}", content_length=str(2 << 20))[0] == 413


def test_other_names_and_pages_of_other_sites_are_refused(tmp_path):
    ask = Asked(tmp_path)
    assert ask("/", host="evil.example.org")[0] == 400
    assert ask("/gradio_api/upload", "POST", origin="http://evil.example.org")[0] == 403
    assert ask("/gradio_api/upload", "POST", origin="http://127.0.0.1:7860", content_length="9")[0] == 200


def test_an_upload_is_refused_by_what_all_of_its_files_come_to_and_by_the_disk(tmp_path):
    ask, path = Asked(tmp_path, limits=Limits(upload_bytes=5e6, free_bytes=0)), "/gradio_api/upload"
    assert ask(path, "POST", content_length="5000000")[0] == 200
    assert ask(path, "POST", content_length="7000000")[0] == 413
    assert ask(path + "/", "POST", content_length="7000000")[0] == 413
    assert ask(path, "POST")[0] == 411
    ask.gate._limits = Limits(free_bytes=1e18)
    assert ask(path, "POST", content_length="9")[0] == 507


def test_of_an_upload_that_is_broken_off_nothing_stays(tmp_path):
    ask = Asked(tmp_path, is_broken_off=True)
    assert ask("/gradio_api/upload", "POST", content_length="9") is None
    assert contents(tmp_path / "uploads") == {"some/clip.mp4": b""}


def test_a_browser_gets_a_name_that_nobody_guesses_and_keeps_it(tmp_path):
    ask = Asked(tmp_path)
    first, second = ask("/")[1]["set-cookie"], ask("/")[1]["set-cookie"]
    assert first != second
    assert {"HttpOnly", "SameSite=strict"} <= set(first.split("; "))
    cookie = first.partition(";")[0]
    assert "set-cookie" not in ask("/", cookie=cookie)[1]
    assert ask.gate.browser_of(dict([cookie.split("=", 1)])) == cookie.partition("=")[2]
    assert ask.gate.browser_of({"dc_rt_browser_7860": "../../x"}) == ""


def test_with_a_password_nothing_is_let_through_without_it(tmp_path):
    ask = Asked(tmp_path, password="a-password-of-25-letters!")
    assert ask("/")[1]["location"] == SIGN_IN
    for path in ("/config", "/gradio_api/queue/data", "/results/id/x", "/assets/x.js"):
        assert ask(path)[0] == 401, path
    assert ask(SIGN_IN)[0] == 200
    assert ask(SIGN_IN, "POST", b"password=wrong")[0] == 401

    async def at_once():
        passwords = b"password=wrong", b"password=a-password-of-25-letters%21"
        return await asyncio.gather(*(ask.answer(SIGN_IN, "POST", each) for each in passwords))

    assert [status for status, _ in asyncio.run(at_once())] == [401, 429]
    status, headers = ask(SIGN_IN, "POST", b"password=a-password-of-25-letters%21")
    assert (status, headers["location"]) == (303, "/")
    assert ask("/config", cookie=headers["set-cookie"].partition(";")[0])[0] == 200
    assert ask("/config", cookie="dc_rt_password_7860=x")[0] == 401
