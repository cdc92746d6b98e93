"""Requests that mean harm, and how `dc-rt serve` must answer each."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from bench.checks import Checks
from bench.clips import DEMO
from bench.serving.service import QUICK, SLOW, TOKEN, Answer, Service

QUEUE = 2
MOST_LISTENERS = 200
VIDEO = "Content-Type: application/octet-stream"


class Attempt(NamedTuple):
    """A request, the statuses of which it must be answered with one, and what sends it."""

    name: str
    statuses: tuple[int, ...]
    send: Callable[[], Answer]


@dataclass(frozen=True)
class Target:
    """A service with small limits, a finished job of it, and a folder beside its own with what is not to be opened."""

    service: Service
    job: Mapping[str, Any]
    folder: Path

    def get(self, name: str, status: int, path: str, **headers: str) -> Attempt:
        """A request without a body."""
        return Attempt(name, (status,), lambda: self.service.ask("GET", path, headers=headers))

    def post(self, name: str, statuses: tuple[int, ...], body: Any, **headers: str) -> Attempt:
        """A request for a job of a file that the server has."""
        return Attempt(name, statuses, lambda: self.service.ask("POST", "/jobs", body, headers))

    def upload(
        self,
        name: str,
        statuses: tuple[int, ...],
        body: bytes,
        filename: str = "x.mp4",
        options: str = json.dumps(QUICK),
        kind: str = "application/octet-stream",
    ) -> Attempt:
        """A video that is sent."""
        path = f"/jobs/upload?filename={quote(filename)}&options={quote(options)}"
        return Attempt(name, statuses, lambda: self.service.ask("POST", path, body, {"Content-Type": kind}))


def attacked(folder: Path, checks: Checks) -> list[dict[str, Any]]:
    """Try all of it; the table of what was tried and answered."""
    rows: list[dict[str, Any]] = []
    with _target(folder) as target:
        service = target.service
        for tried in (_addresses, _paths, _tokens, _browsers, _sizes, _videos, _options, _names):
            for attempt in tried(target):
                answer = attempt.send()
                if answer.status == 201:  # taken: the queue is small
                    service.ask("POST", f"/jobs/{answer.json['id']}/cancel")
                right = answer.status in attempt.statuses and (answer.status < 400 or _is_sentence(answer))
                said = answer.body[:200].decode(errors="replace") if answer.status >= 400 or not right else ""
                print(f"  {answer.status} {'right' if right else 'WRONG'}  {attempt.name}  {said}", flush=True)
                rows.append({"request": attempt.name, "status": answer.status, "right": right})
        full = [service.ask("POST", "/jobs", {"path": "clip.mp4", "options": SLOW}) for _ in range(QUEUE + 2)]
        statuses = [each.status for each in full]
        checks.see("a full queue is refused", statuses[-1] == 429 and _is_sentence(full[-1]), statuses)
        _listeners(service, full[-2].json["id"], checks)
        found = sorted(path.name for path in folder.iterdir())
        checks.see("nothing is written outside of the folder", found == ["attacked", "root", "secret.mp4"], found)
        drafts = [path.name for path in (service.folder / "incoming").iterdir()]
        checks.see("nothing is left of what was refused", not drafts, drafts or "")
        checks.see("the service is ready afterwards", service.ask("GET", "/ready").status == 200)
        tracebacks = [line for line in service.log if "Traceback" in line]
        checks.see("its log has no traceback", not tracebacks, tracebacks or "")
    wrong = [row for row in rows if not row["right"]]
    checks.see("attacks are refused in a sentence", not wrong, wrong or f"{len(rows)} requests")
    return rows


def _listeners(service: Service, id: str, checks: Checks) -> None:
    """More listeners than there may be, of a job that waits; once they have gone, there is room again."""
    with ExitStack() as listening:
        for _ in range(MOST_LISTENERS):
            next(listening.enter_context(closing(service.events(id))))
        refused = service.ask("GET", f"/jobs/{id}/events")
        checks.see(f"{MOST_LISTENERS + 1} listeners are too many", refused.status == 503 and _is_sentence(refused))
    until = time.monotonic() + 20
    statuses = [503]
    while statuses[-1] == 503 and time.monotonic() < until:
        time.sleep(0.2)
        statuses.append(_first_status(service, id))
    checks.see("there is room again once they have gone", statuses[-1] == 200, f"after {len(statuses) - 1} tries")


def _first_status(service: Service, id: str) -> int:
    """What a listener is answered with."""
    try:
        next(service.events(id))
    except RuntimeError:
        return 503
    return 200


@contextmanager
def _target(folder: Path) -> Iterator[Target]:
    root = folder / "root"
    root.mkdir()
    secret = shutil.copy(DEMO, folder / "secret.mp4")
    shutil.copy(DEMO, root / "clip.mp4")
    (root / "link.mp4").symlink_to(secret)
    os.mkfifo(root / "pipe.mp4")
    (root / "list.mp4").write_text(f"ffconcat version 1.0\nfile {secret}\n")
    limits = ("--max-upload", "0.001", "--max-queue", str(QUEUE), "--max-frames", "100")
    with Service(folder / "attacked", "--root", str(root), *limits, token=TOKEN) as service:
        job = service.upload(DEMO, QUICK)
        list(service.events(job["id"]))
        yield Target(service, service.job(job["id"]), folder)


def _addresses(target: Target) -> Iterator[Attempt]:
    """Files that are none of the job's, none of the page's, and no files."""
    files, known = f"/jobs/{target.job['id']}/files", quote(target.job["files"][0]["name"])
    for path in (
        *("../job.json", "..%2fjob.json", "%2e%2e/job.json", "..%252fjob.json", "....//job.json", "..%5cjob.json"),
        *(
            "/etc/passwd",
            "%2fetc%2fpasswd",
            "../../../../../../../../etc/passwd",
            f"{known}/..",
            f"{known}/../../job.json",
        ),
        *("%00", f"{known}%00", f"{known}%00.mp4", "%ff%fe", "a" * 5000, "."),
    ):
        yield target.get(f"GET .../files/{path[:40]}", 404, f"{files}/{path}")
    for path in (
        *("/page/../settings.py", "/page/..%2fsettings.py", "/page/%2e%2e/__init__.py", "/page//etc/passwd"),
        *("/jobs/..%2f..%2fetc", "/jobs/nosuchjob/events", f"/jobs/{target.job['id']}%00"),
    ):
        yield target.get(f"GET {path.replace(target.job['id'], 'ID')}", 404, path)
    yield target.get("a range outside of the file", 416, f"{files}/{known}", Range="bytes=99999999-")
    yield Attempt("a method that there is not", (405,), lambda: target.service.ask("PUT", "/jobs"))


def _paths(target: Target) -> Iterator[Attempt]:
    """Files of the server's that are under no root, or no videos."""
    secret = str(target.folder / "secret.mp4")
    for path in (
        *("../secret.mp4", secret, "clip.mp4/../../secret.mp4", "link.mp4", "pipe.mp4", "list.mp4", "/dev/zero"),
        *(
            "/etc/passwd",
            ".",
            "",
            "clip.mp4\0",
            "file:clip.mp4",
            "http://127.0.0.1/clip.mp4",
            "concat:clip.mp4",
            "a" * 5000,
        ),
    ):
        name = f"POST path {path.replace(secret, '.../secret.mp4')[:40]!r}"
        yield target.post(name, (404, 415, 422), {"path": path, "options": QUICK})
    yield target.post("100,000 brackets", (400, 422), b"[" * 100_000, **{"Content-Type": "application/json"})
    yield target.post("JSON that is no text", (400, 422), b'{"path": "\xff"}', **{"Content-Type": "application/json"})
    yield target.post("JSON as text", (415,), b'{"path": "clip.mp4"}', **{"Content-Type": "text/plain"})


def _tokens(target: Target) -> Iterator[Attempt]:
    id = target.job["id"]
    for name, given in {
        "no token": "",
        "a wrong token": f"Bearer {TOKEN}x",
        "the beginning of the token": f"Bearer {TOKEN[:-1]}",
        "another scheme": f"Basic {TOKEN}",
        "a token that is no text": "Bearer \xff\xfe",
    }.items():
        for method, path in (
            *(
                ("GET", "/jobs"),
                ("GET", f"/jobs/{id}/files/x"),
                ("GET", f"/jobs/{id}/events"),
                ("DELETE", f"/jobs/{id}"),
            ),
            *(("POST", "/jobs/upload"), ("POST", "/session"), ("GET", "/metrics"), ("GET", "/options")),
        ):
            headers = {"Authorization": given}
            # As defaults: a function looks names up when it is called.
            send = lambda method=method, path=path, headers=headers: target.service.ask(method, path, None, headers)  # noqa: E731
            yield Attempt(f"{name}: {method} {path.replace(id, 'ID')}", (401,), send)
    yield target.get("the token in the address", 401, f"/jobs?token={quote(TOKEN)}", Authorization="")
    yield target.get("the token as a cookie", 401, "/jobs", Authorization="", Cookie=f"dc_rt_session={quote(TOKEN)}")


def _browsers(target: Target) -> Iterator[Attempt]:
    """What a page of another site has a browser send."""
    new = {"path": "clip.mp4", "options": QUICK}
    yield target.get("a name that was made to point here", 400, "/jobs", Host="evil.example")
    yield target.post("another site's page", (403,), new, Origin="http://evil.example")
    yield target.post("a page without an origin", (403,), new, Origin="null")
    yield target.upload("a form", (415,), DEMO.read_bytes(), kind="multipart/form-data; boundary=x")


def _sizes(target: Target) -> Iterator[Attempt]:
    service = target.service
    yield Attempt("a terabyte, as it says", (413,), lambda: service.send_bare(VIDEO, "Content-Length: 1000000000000"))
    yield Attempt(
        "3 MB, without saying so", (413,), lambda: service.send_bare(VIDEO, "Transfer-Encoding: chunked", pieces=300)
    )
    yield Attempt("a length below 0", (400,), lambda: service.send_bare(VIDEO, "Content-Length: -1"))
    yield target.post("2 MB without a video", (413,), b"[" * (2 << 20), **{"Content-Type": "application/json"})
    yield target.upload("an upload of nothing", (422,), b"")


def _videos(target: Target) -> Iterator[Attempt]:
    demo = DEMO.read_bytes()
    refused = (415, 422)
    yield target.upload("text", refused, b"no video at all")
    yield target.upload("a play list of other files", refused, b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    yield target.upload(
        "a list of other files", refused, f"ffconcat version 1.0\nfile {target.folder}/secret.mp4\n".encode()
    )
    yield target.upload("a video that ends early", refused, demo[:1000])
    yield target.upload("a video of other bytes", (201, *refused), demo[:20_000] + bytes(60_000) + demo[80_000:])
    long = json.dumps(QUICK | {"process_length": -1})
    yield target.upload("a video of the right length", (201,), demo, options=long)
    yield target.upload("results that are too large", (422,), demo, options=json.dumps(QUICK | {"size": "20000x20000"}))


def _options(target: Target) -> Iterator[Attempt]:
    for name, options in {
        "an option that there is not": '{"engines": "/etc"}',
        "an option that names a file of the server's": '{"shots": "/etc/passwd"}',
        "a name for the results": '{"result_name": "../../x"}',
        "a whole number of 400 digits": f'{{"steps": 1{"0" * 400}}}',
        "a value that is no number": '{"exposure": NaN}',
        "values of other types": '{"steps": [], "outputs": {"a": 1}, "seed": null}',
        "options that are no JSON": "{",
        "options that are a list": "[1]",
        "a thousand brackets": "[" * 1000,
    }.items():
        yield target.upload(name, (422,), DEMO.read_bytes(), options=options)


def _names(target: Target) -> Iterator[Attempt]:
    """Names of videos that are paths, or that no file can have: they are shown, and name nothing."""
    for name in (
        *("../../escaped.mp4", "/tmp/escaped.mp4", "..\\escaped.mp4", "NUL.mp4", "a\nb\0c.mp4", "<script>.mp4", "."),
        *("", "é" * 400, "x" * 5000),
    ):
        yield target.upload(f"a video called {name[:24]!r}", (201, 422), DEMO.read_bytes(), filename=name)


def _is_sentence(answer: Answer) -> bool:
    """Whether a refusal is one sentence of JSON, with neither a traceback nor a path of this machine's in it."""
    if answer.body == b"Invalid HTTP request received.":  # what is no HTTP does not reach the service
        return True
    try:
        said = answer.json["error"]
    except (ValueError, KeyError, TypeError):
        return False
    is_one = set(answer.json) == {"error"} and said.endswith(".") and "\n" not in said
    return is_one and tempfile.gettempdir() not in said.replace("/tmp/escaped", "")
