"""Parts of the service by themselves: the journal, slow clients, videos that hang a decoder, jobs that are old."""

import errno
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict

import pytest

from bench.clips import DEMO
from dc_rt.errors import UserError
from dc_rt.models import ModelOptions
from dc_rt.options import Options

pytest.importorskip("fastapi", reason="FastAPI is not installed: it comes with the extra serve")

import uvicorn

from dc_rt.serve.app import create_app
from dc_rt.serve.checks import Check, DiskFull, Found, check
from dc_rt.serve.crew import Crew
from dc_rt.serve.journal import Journal
from dc_rt.serve.kinds import video_suffix
from dc_rt.serve.metrics import Metrics
from dc_rt.serve.server import configured
from dc_rt.serve.service import Service
from dc_rt.serve.settings import Limits, Settings
from dc_rt.serve.store import Store, expired


def read_all(journal, last_id=0):
    reader, found = journal.reader(last_id), []
    while entries := reader.read():
        found += entries
    return found


def test_a_journal_goes_on_behind_a_line_that_was_cut_off(tmp_path):
    path = tmp_path / "events.jsonl"
    journal = Journal(path)
    for number in range(3):
        journal.append("Progress", {"share": number})
    with path.open("ab") as file:
        file.write(b'{"id": 4, "event": "Prog')
    journal = Journal(path)
    assert journal.last_id == 3
    journal.append("Status", {"status": "queued"})
    assert [(entry.id, entry.kind) for entry in read_all(journal, 2)] == [(3, "Progress"), (4, "Status")]


def test_a_damaged_line_of_a_journal_is_passed_over(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(
        b'{"id": 1, "event": "A", "data": {}}\n\0\0\0\n[]\n{"event": 5}\n{"id": 5, "event": "B", "data": {}}\n'
    )
    assert [(entry.id, entry.kind) for entry in read_all(Journal(path))] == [(1, "A"), (5, "B")]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of a file's size to stand for a full disk")
def test_an_event_that_has_no_room_is_none_and_the_next_has_a_line_of_its_own(tmp_path):
    script = (
        "import resource, signal, sys, pathlib\n"
        "from dc_rt.serve.journal import Journal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "journal = Journal(pathlib.Path(sys.argv[1]))\n"
        "journal.append('Status', {})\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60, resource.RLIM_INFINITY))\n"
        "try:\n    journal.append('Warned', {'sentence': 'x' * 100})\nexcept OSError:\n    print('refused')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
        "journal.append('Status', {})\n"
    )
    path = tmp_path / "events.jsonl"
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"
    assert [(entry.id, entry.kind) for entry in read_all(Journal(path))] == [(1, "Status"), (2, "Status")]


def test_a_journal_is_read_in_pieces_however_long_it_is(tmp_path):
    journal = Journal(tmp_path / "events.jsonl")
    for number in range(5000):
        journal.append("Progress", {"share": number})
    reader = journal.reader(0)
    sizes = []
    while entries := reader.read():
        sizes.append(len(entries))
    assert sum(sizes) == 5000
    assert max(sizes) < 2000
    assert [entry.id for entry in read_all(journal, 4998)] == [4999, 5000]
    # A number from beyond the end is that of a journal of which something was lost: what comes is told.
    late = journal.reader(10**9)
    assert late.read() == []
    journal.append("Status", {"status": "failed"})
    assert [entry.kind for entry in late.read()] == ["Status"]


def question(folder, video=DEMO, **values):
    limits = {"num_frames": 100, "num_steps": 5, "num_pixels": 10**6, "free_bytes": 0, "seconds": 60.0} | values
    options = Options.by_name({"max_res": 64, "window_size": 12, "overlap": 4}).as_dict()
    return Check(str(video), "clip.mp4", options, asdict(ModelOptions()), str(folder), (), **limits)


def test_a_check_finds_what_a_video_is(tmp_path):
    assert check(question(tmp_path)) == Found(60, 192, 320)
    with pytest.raises(DiskFull, match=r"no room for the results of clip\.mp4"):
        check(question(tmp_path, free_bytes=10**18))
    with pytest.raises(UserError, match="steps may be 4 here at most, not 5"):
        check(question(tmp_path, num_steps=4))


def test_a_video_that_hangs_its_decoder_is_given_up(tmp_path):
    with pytest.raises(UserError, match=r"clip\.mp4 could not be looked through within 0\.05 seconds"):
        check(question(tmp_path, seconds=0.05))


def test_a_video_that_crashes_its_decoder_is_refused(tmp_path, monkeypatch):
    # What loads first in the process kills it, as a decoder would.
    (tmp_path / "sitecustomize.py").write_text("import os, sys\nif sys.argv[:1] == ['-m']: os.abort()\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    with pytest.raises(UserError, match=r"clip\.mp4 cannot be looked through: the decoder fails"):
        check(question(tmp_path))


@pytest.mark.parametrize(
    ("start", "suffix"),
    [
        (b"\x00\x00\x00\x18ftypisom", ".mp4"),
        (b"\x00\x00\x00\x14ftypqt  ", ".mov"),
        (b"\x00\x00\x00\x08wide", ".mov"),
        (b"\x1a\x45\xdf\xa3", ".mkv"),
        (b"RIFF....AVI LIST", ".avi"),
        (b"RIFF....WEBPVP8 ", None),
        ((b"G" + bytes(187)) * 3, ".ts"),
        (bytes(4) + (b"G" + bytes(191)) * 3, ".ts"),
        (b"#EXTM3U\n" + (b"G" + bytes(187)) * 3, None),
        (b"", None),
    ],
)
def test_a_kind_of_video_is_told_by_its_first_bytes(tmp_path, start, suffix):
    path = tmp_path / "upload.part"
    path.write_bytes(start)
    assert video_suffix(path) == suffix


@pytest.fixture
def serving(tmp_path):
    """A service in this process that takes no pauses, and its port."""
    limits = Limits(pause_seconds=0.2, head_seconds=0.2, num_streams=1, num_connections=3, keep_days=1)
    store = Store(tmp_path / "jobs", limits)
    metrics = Metrics(store)
    crew = Crew(store, metrics.ended, ModelOptions(), [])  # nobody runs anything
    service = Service(Settings(tmp_path / "jobs", limits=limits), ModelOptions(), store, crew, metrics)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(configured(create_app(service), limits))
    thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
    thread.start()
    yield service, listening.getsockname()[1]
    server.should_exit = True
    thread.join()
    store.close()


def add(service, **values):
    with service.store.draft() as folder:
        shutil.copy(DEMO, folder / "upload.mp4")
        options = Options.by_name({"result_name": "demo"}).as_dict()
        return service.store.add(folder, filename="demo.mp4", video="upload.mp4", options=options, **values)


@pytest.mark.parametrize(
    "sent", [b"", b"GET /health HTTP/1.1\r\nHost: loc", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET"]
)
def test_a_connection_without_the_head_of_a_request_is_closed(serving, sent):
    _, port = serving
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(sent)
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert answer.count(b"HTTP/1.1 200") == sent.count(b"\r\n\r\n")


def test_no_more_connections_are_open_than_there_may_be(serving):
    service, port = serving
    job = add(service)
    with ExitStack() as stack:
        kept = [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(3)]
        for connection in kept:  # one is told events, and the others are told that too many listen: all stay open
            connection.sendall(f"GET /jobs/{job.id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert connection.recv(12).startswith(b"HTTP/1.1 ")
        one_more = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        with suppress(ConnectionError):
            assert one_more.recv(1) == b""
    service.store.remove(job)


@pytest.mark.parametrize("path", ["/jobs", "/jobs/upload"])
def test_a_client_that_pauses_is_given_up(serving, path):
    service, port = serving
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            "Content-Length: 9\r\n\r\nabc".encode()
        )
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert (response.status, b"too slowly" in response.read()) == (408, True)
    assert not list((service.store.folder / "incoming").iterdir())


def test_no_more_streams_are_open_than_there_may_be(serving):
    service, port = serving
    job = add(service)
    streams = []
    for _ in range(2):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", f"/jobs/{job.id}/events")
        streams.append((connection, connection.getresponse()))
    (first, told), (_, refused) = streams
    assert (told.status, refused.status, refused.getheader("retry-after")) == (200, 503, "10")
    assert told.readline() == b"event: Status\n"
    # A job that is removed ends the streams of its events.
    service.store.remove(job)
    assert told.read().endswith(b"\n\n")
    first.close()


def test_a_stream_whose_request_does_not_come_to_its_end_goes_on(serving, caplog):
    service, port = serving
    job = add(service)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(
            f"GET /jobs/{job.id}/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n".encode()
        )
        time.sleep(3 * service.settings.limits.pause_seconds)
        job.change(status="failed", ended="2999-01-01T00:00:00.000Z", error="It was ended.")
        told = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert told.startswith(b"HTTP/1.1 200 ")
    assert told.count(b"event: Status") == 2
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_jobs_that_ended_long_ago_are_removed(serving):
    service, _ = serving
    old, new, waiting = (add(service) for _ in range(3))
    old.change(status="failed", ended="2020-01-01T00:00:00.000Z", error="It is old.")
    new.change(status="cancelled", ended="2999-01-01T00:00:00.000Z")
    assert expired(service.store.all(), "2021-01-01") == [old]
    assert [job.id for job in (waiting, new, old)] == [job.id for job in service.store.all()]


def test_what_is_no_job_is_left_alone_when_jobs_are_taken_up(serving, tmp_path, caplog):
    service, _ = serving
    job = add(service)
    job.change(status="running")
    copy = tmp_path / "copy"
    shutil.copytree(service.store.folder, copy)
    good = json.loads((job.folder / "job.json").read_text())
    damages: dict[str, object] = {
        "number": "1",
        "status": "asleep",
        "created": None,
        "filename": [],
        "options": 5,
        "num_frames": {},
    }
    written = {name: json.dumps(good | {name: value}) for name, value in damages.items()}
    written |= {"broken": "{", "empty": "", "a list": "[]", "deep": "[" * 100_000, "less": '{"number": 1}'}
    for name, contents in written.items():
        (copy / "jobs" / name).mkdir()
        (copy / "jobs" / name / "job.json").write_text(contents)
    store = Store(copy, Limits())
    # One that a killed service left running waits for its turn anew.
    assert [(each.id, each.state.status, each.state.number) for each in store.all()] == [(job.id, "queued", 1)]
    assert all(f"{name}/job.json is left alone" in caplog.text for name in written)
    assert all((copy / "jobs" / name).exists() for name in written)
    store.close()


def test_a_job_of_options_that_are_known_no_more_is_listed_with_its_files(serving):
    service, port = serving
    job = add(service)
    job.change(status="finished", options={"max_resolution": 64, "result_name": "demo"})
    (job.results / "demo_depth.mp4").write_bytes(b"depth")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/jobs")
    (listed,) = json.loads(connection.getresponse().read())["jobs"]
    assert [(file["name"], file["kind"]) for file in listed["files"]] == [("demo_depth.mp4", "depth.mp4")]
    assert not listed["is_resumable"]
    connection.close()


def test_a_job_that_the_disk_has_no_room_for_is_none(serving, tmp_path, monkeypatch):
    service, _ = serving

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Journal, "append", full)
    with pytest.raises(OSError, match="No space"):
        add(service)
    copy = tmp_path / "copy"
    shutil.copytree(service.store.folder, copy)
    store = Store(copy, Limits())
    assert (service.store.all(), store.all()) == ([], [])
    store.close()
