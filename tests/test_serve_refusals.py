"""What the service refuses, with a 4xx and one sentence: paths, tokens, other sites' pages, sizes, files, options."""

import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from command_helpers import assert_refused as assert_not_begun
from command_helpers import dc_rt
from serve_helpers import DEMO, QUICK, Service, assert_refused, root_of

pytest.importorskip("fastapi", reason="FastAPI is not installed: it comes with the extra serve")

TOKEN = "a-token-that-nobody-guesses"
LIMITS = (
    "--max-upload",
    "0.001",
    "--max-frames",
    "50",
    "--max-steps",
    "100000",
    "--max-pixels",
    "65000",
    "--max-queue",
    "2",
)
FEW = QUICK | {"process_length": 2}
ENDLESS = QUICK | {"steps": 100_000, "process_length": 40}


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Without a token, with small limits."""
    folder = tmp_path_factory.mktemp("service")
    root = folder / "root"
    root.mkdir()
    shutil.copy(DEMO, folder / "secret.mp4")
    shutil.copy(DEMO, root / "clip.mp4")
    (root / "list.mp4").write_text(f"ffconcat version 1.0\nfile {folder / 'secret.mp4'}\n")
    (root / "images").mkdir()
    (root / "images" / "frame0.png").write_text("#EXTM3U\n")
    with suppress(OSError):  # on Windows not everybody may make links
        (root / "link.mp4").symlink_to(folder / "secret.mp4")
        (root / "linked").mkdir()
        (root / "linked" / "frame0.png").symlink_to(folder / "secret.png")
    with Service(folder / "jobs", "--root", str(root), *LIMITS) as service:
        yield service
        assert not [line for line in service.log if "Traceback" in line]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """With a token, on a disk that is too full by its settings."""
    folder = tmp_path_factory.mktemp("guarded")
    with Service(folder / "jobs", "--min-free", "100000000", token=TOKEN) as service:
        yield service
        assert not [line for line in service.log if "Traceback" in line or TOKEN in line]


def upload(service, body, options=QUICK, kind="application/octet-stream"):
    query = urlencode({"filename": "clip.mp4", "options": json.dumps(options)})
    return service.ask("POST", f"/jobs/upload?{query}", body, {"Content-Type": kind})


# Paths and names.


@pytest.mark.parametrize(
    "path",
    [
        "../secret.mp4",
        "clip.mp4/../../secret.mp4",
        "link.mp4",
        "{folder}/secret.mp4",
        "{folder}/nothing.mp4",
        "nothing.mp4",
        "/etc/passwd",
        "/dev/zero",
        "%2e%2e/secret.mp4",
        "clip.mp4\0",
        "\ud800.mp4",
        "file:clip.mp4",
        "http://localhost/clip.mp4",
        "-",
        "a" * 4000,
    ],
)
def test_what_is_under_no_root_is_refused_as_what_is_nowhere(service, path):
    body = json.dumps({"path": path.format(folder=service.folder.parent), "options": QUICK}).encode()
    answer = service.ask("POST", "/jobs", body, {"Content-Type": "application/json"})
    if path.isascii():
        assert_refused(answer, 404)
        assert answer.json["error"] == (
            "There is no such video under a root of this service; name one by its path under a root."
        )
    else:
        assert_refused(answer, 422)


@pytest.mark.parametrize(("path", "status"), [("list.mp4", 415), ("images", 422), ("linked", 422), (".", 422)])
def test_what_is_under_a_root_and_no_video_is_refused(service, path, status):
    answer = service.ask("POST", "/jobs", {"path": path, "options": QUICK})
    assert_refused(answer, status)
    assert str(root_of(service)) not in answer.json["error"]


@pytest.fixture(scope="module")
def done(service):
    """The id of a job that has finished."""
    id = upload(service, DEMO.read_bytes(), FEW).json["id"]
    *_, last = service.events(id)
    assert last.data["status"] == "finished"
    return id


@pytest.mark.parametrize(
    "name",
    [
        *("../job.json", "..%2fjob.json", "%2e%2e%2fjob.json", "..%5cjob.json", "....//job.json", "/etc/passwd"),
        *("%00", "clip_vis.mp4%00", "%ff", ".", "events.jsonl", "upload.mp4", "a" * 3000),
    ],
)
def test_a_file_that_is_none_of_the_jobs_is_not_there(service, done, name):
    assert_refused(service.ask("GET", f"/jobs/{done}/files/{name}"), 404)


@pytest.mark.parametrize("path", ["/page/..%2fapp.py", "/page/%2e%2e%2fapp.py", "/page/../app.py", "/jobs/..", "/x"])
def test_an_address_that_is_none_is_not_there(service, path):
    assert_refused(service.ask("GET", path), 404)


@pytest.mark.parametrize(
    ("name", "shown", "results"),
    [
        ("../../escaped.mp4", "escaped.mp4", "escaped"),
        ("C:\\clips\\NUL.mp4", "NUL.mp4", "NUL_"),
        ("a\nb\0c\u202e.mp4", "abc.mp4", "abc"),
        ("été 1.mov", "été 1.mov", "été_1"),
        ("...", "...", "video"),
        ("", "video", "video"),
        ("<script>", "<script>", "script"),
        ("x" * 900 + ".mp4", "x" * 200, "x" * 40),
    ],
)
def test_a_name_from_a_client_is_shown_and_names_nothing(name, shown, results):
    from dc_rt.serve.names import result_name, shown_name

    assert shown_name(name) == shown
    assert result_name(shown_name(name)) == results


# Who asks.


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", "/jobs"), ("POST", "/jobs"), ("POST", "/jobs/upload"), ("GET", "/jobs/x"), ("DELETE", "/jobs/x")),
        *(("GET", "/jobs/x/events"), ("GET", "/jobs/x/files/y"), ("POST", "/session"), ("GET", "/options")),
        *(("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/x")),
    ],
)
def test_nothing_of_jobs_is_told_without_the_token(guarded, method, path):
    for given in ("", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer \xff"):
        answer = guarded.ask(method, path, headers={"Authorization": given})
        assert_refused(answer, 401, "token")
        assert answer.headers["www-authenticate"] == "Bearer"


def test_the_page_and_the_health_need_no_token(guarded):
    for path in ("/", "/page/page.js", "/health"):
        assert guarded.ask("GET", path, headers={"Authorization": ""}).status == 200


def test_a_session_stands_for_the_token_in_a_browser(guarded):
    answer = guarded.ask("POST", "/session")
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert {"HttpOnly", "SameSite=strict"} <= set(attributes)
    assert TOKEN not in cookie
    assert guarded.ask("GET", "/jobs", headers={"Authorization": "", "Cookie": cookie}).status == 200
    for wrong in (f"{cookie}0", f"{cookie.partition('=')[0]}={TOKEN}", "dc_rt_session", "=;=", cookie.upper()):
        assert_refused(guarded.ask("GET", "/jobs", headers={"Authorization": "", "Cookie": wrong}), 401)
    assert "Max-Age=0" in guarded.ask("DELETE", "/session").headers["set-cookie"]


def test_a_page_of_another_site_can_neither_ask_nor_change_anything(service):
    new = {"path": "clip.mp4", "options": QUICK}
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": ""},
        {"Origin": f"http://127.0.0.1:{service.port + 1}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        assert_refused(service.ask("POST", "/jobs", new, headers), 403, "another site")
        assert_refused(service.ask("DELETE", "/jobs/x", None, headers), 403)
    for host in ("evil.example", f"evil.example:{service.port}", "127.0.0.1.evil.example", ""):
        assert_refused(service.ask("GET", "/jobs", None, {"Host": host}), 400, "--allow-host NAME")
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        body = json.dumps(new).encode()
        assert_refused(service.ask("POST", "/jobs", body, {"Content-Type": kind}), 415, "JSON")
    for kind in ("multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "text/plain"):
        assert_refused(upload(service, DEMO.read_bytes(), kind=kind), 415, "application/octet-stream")
    own = {"Origin": service.url, "Sec-Fetch-Site": "same-origin", "Host": f"localhost:{service.port}"}
    assert_refused(
        service.ask("POST", "/jobs", {"path": "x"}, own | {"Origin": f"http://localhost:{service.port}"}), 404
    )


# How much.


def test_too_large_a_video_is_refused_by_what_it_says_and_while_it_comes(service):
    said = service.send_bare("Content-Length: 1000000000000", "Content-Type: video/mp4")
    assert_refused(said, 413, "1,000,000 bytes")
    unsaid = service.send_bare("Transfer-Encoding: chunked", "Content-Type: video/mp4", pieces=200)
    assert_refused(unsaid, 413, "1,000,000 bytes")
    assert not list((service.folder / "incoming").iterdir())


def test_what_is_no_video_is_refused_when_it_is_large(service):
    for body in (b"[" * (2 << 20), b'{"path": "' + b"a" * (2 << 20)):
        assert_refused(service.ask("POST", "/jobs", body, {"Content-Type": "application/json"}), 413)
    answer = service.ask("POST", "/jobs", b"[" * 100_000, {"Content-Type": "application/json"})
    assert_refused(answer, 400)


def test_a_video_that_is_too_long_or_has_too_many_pixels_is_refused(service):
    demo = DEMO.read_bytes()  # 60 frames of 320x192
    assert_refused(upload(service, demo), 422, r"60 frames .* at most 50 .* process_length=50")
    few = QUICK | {"process_length": 2}
    assert_refused(upload(service, demo, options=few | {"size": "400x200"}), 422, "400x200 pixels, and at most 65,000")


def test_a_full_queue_is_refused_until_there_is_room(service):
    jobs = [upload(service, DEMO.read_bytes(), ENDLESS) for _ in range(5)]
    refused = [answer for answer in jobs if answer.status == 429]
    assert refused
    assert_refused(refused[0], 429, "queue is full, with 2 jobs")
    assert int(refused[0].headers["retry-after"]) > 0
    taken = [answer.json["id"] for answer in jobs if answer.status == 201]
    assert_refused(service.ask("POST", "/jobs", {"path": "clip.mp4", "options": ENDLESS}), 429)
    for id in taken:
        service.ask("POST", f"/jobs/{id}/cancel")
        assert service.ask("DELETE", f"/jobs/{id}").status == 204
    assert upload(service, DEMO.read_bytes(), FEW).status == 201


def test_a_full_disk_is_refused(guarded):
    assert_refused(upload(guarded, DEMO.read_bytes()), 507, "disk")
    assert_refused(guarded.ask("GET", "/ready"), 503, "disk")


# What.


@pytest.mark.parametrize(
    "content",
    [
        b"no video at all",
        b"",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"#EXTM3U\n".ljust(188, b"\n").join([b"G"] * 4),
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nc=IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"\x1a\x45\xdf\xa3" + bytes(100),
        b"RIFF\x00\x00\x00\x00AVI " + bytes(100),
        b"G" + bytes(187) + b"G" + bytes(187) + b"G" + b"\nc=IN IP4 127.0.0.1\r\n",
        bytes(4) + b"ftypisom" + bytes(1000),
    ],
)
def test_what_is_no_video_is_refused_before_it_is_queued(service, content):
    before = len(service.ask("GET", "/jobs").json["jobs"])
    answer = upload(service, content)
    assert answer.status in (415, 422)
    assert_refused(answer, answer.status)
    assert str(service.folder) not in answer.json["error"]
    assert len(service.ask("GET", "/jobs").json["jobs"]) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nothing": 1}, "no option 'nothing'"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"steps": "many"}, "whole number"),
        ({"steps": 10**400}, ""),
        ({"exposure": 10**400}, "kinds"),
        ({"exposure": float("nan")}, "finite"),
        ({"seed": None, "outputs": {"a": 1}}, "outputs must be names"),
        ({"outputs": ["-"]}, "no outputs='-' here"),
        ({"outputs": ["\ud800"]}, "no outputs"),
        ({"shots": "/etc/passwd"}, "shots must be one of none, auto"),
        ({"result_name": "x"}, "result_name is not for clients"),
        ({"name": "../x"}, ""),
        ({"--overwrite": True}, "overwrite is not for clients"),
        ({"keep": "raw"}, "keep is not for clients"),
        ({"fps": 12}, "clip.mp4 is a video file, and fps=12"),
        ({"size": "99999x1"}, "size must be"),
    ],
)
def test_options_that_there_are_not_are_refused_in_a_sentence(service, options, message):
    answer = upload(service, DEMO.read_bytes(), FEW | options)
    assert_refused(answer, 422, message)


@pytest.mark.parametrize("text", ["{", "[1]", "1", "[" * 3000, "null", '"x"'])
def test_options_that_are_no_json_of_names_are_refused(service, text):
    assert_refused(service.ask("POST", f"/jobs/upload?options={quote(text)}", DEMO.read_bytes()), 422, "JSON")


def test_requests_that_are_not_as_described_are_refused_in_a_sentence(service):
    for body in (b"{", b"[]", b"{}", b'{"path": 1}', b'{"path": "x", "more": 1}', b'{"path": "\xff"}', b""):
        answer = service.ask("POST", "/jobs", body, {"Content-Type": "application/json"})
        assert answer.status in (400, 422)
        assert_refused(answer, answer.status)
    assert_refused(service.ask("GET", "/jobs?limit=0"), 422, "limit")
    assert_refused(service.ask("GET", "/jobs?limit=x"), 422, "limit")
    assert_refused(service.ask("GET", "/jobs?after=x"), 404)
    wrong = service.ask("PATCH", "/jobs")
    assert_refused(wrong, 405)
    assert wrong.headers["allow"] == "GET, POST"


# What is refused before it begins.


def test_a_service_that_others_could_reach_asks_for_a_token(tmp_path):
    done = dc_rt("serve", "--host", "0.0.0.0", "--folder", tmp_path)
    assert_not_begun(done, r"--host 0\.0\.0\.0 lets other machines in.*--token-file FILE, or --no-token")
    short = tmp_path / "token"
    short.write_text("short\n")
    assert_not_begun(dc_rt("serve", "--token-file", short), "at least 16 characters")
    assert_not_begun(dc_rt("serve", "--token-file", tmp_path / "none"), "cannot be read")


def test_one_folder_has_one_service(service, tmp_path):
    assert_not_begun(dc_rt("serve", "--folder", service.folder, "--port", "0"), "Another service has its jobs in")
    taken = dc_rt("serve", "--folder", tmp_path / "other", "--port", service.port)
    assert_not_begun(taken, rf"port {service.port} \([^()]*\); give another --port")


def test_an_address_that_is_none_of_this_machine_is_refused(tmp_path):
    for host in ("a..b", "x" * 300, "192.0.2.1"):
        done = dc_rt("serve", "--folder", tmp_path, "--host", host, "--no-token", "--port", "0")
        assert_not_begun(done, rf"Nothing can listen on {host}, port 0 \([^()]+\); give another --port or --host")


def test_without_the_extra_one_sentence_says_what_installs_it():
    program = "import sys; sys.modules['fastapi'] = None; from dc_rt.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program, "serve"], capture_output=True, text=True, check=False)
    assert_not_begun(done, r"needs FastAPI.* not all installed; run `[^`]*pip[^`]*install[^`]*\[serve\][^`]*`\.")
    assert not Path("dc-rt-jobs").exists()
