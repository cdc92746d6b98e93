"""A `dc-rt serve` that is started, spoken to over HTTP, and killed."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

TOKEN = "a-token-of-twenty-nine-signs"
QUICK = {"max_res": 64, "steps": 1, "window_size": 12, "overlap": 4}
SLOW = {"max_res": 320, "steps": 2, "window_size": 12, "overlap": 4}
"""Options of runs of a second, and of ten."""

START_SECONDS = 60.0
ENDED = ("finished", "failed", "cancelled")


@dataclass(frozen=True)
class Answer:
    """What the service answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, which is JSON."""
        return json.loads(self.body)


def _answer(response: http.client.HTTPResponse) -> Answer:
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


@dataclass(frozen=True)
class SentEvent:
    """An event of a stream."""

    id: int
    kind: str
    data: Any


class Service:
    """A server in a process of its own, whose jobs are in `folder`; started again, it has the same port.

    Args:
        options: of `dc-rt serve`, beside the folder and the port.
        token: that it asks for, and that requests are sent with; none unless given.
    """

    def __init__(self, folder: Path, *options: str, token: str = "") -> None:
        self.folder = folder
        self.port = 0
        self.log: list[str] = []
        self._options = options
        self._token = token
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Of its page."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Of the server's process, while it is running."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Return once it listens; raises RuntimeError with what it printed where it does not."""
        command = [sys.executable, "-m", "dc_rt.cli", "serve", "--folder", str(self.folder), "--port", str(self.port)]
        self._process = subprocess.Popen(
            [*command, *self._options],
            env=os.environ | ({"DC_RT_TOKEN": self._token} if self._token else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        listens = threading.Event()
        threading.Thread(target=self._read, args=(self._process, listens), daemon=True).start()
        until = time.monotonic() + START_SECONDS
        while not listens.wait(0.05):
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError("dc-rt serve did not start: " + " ".join(self.log[-20:]))

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL, and no word to what it started."""
        if self._process:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """End it as a terminal does, with SIGTERM; its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, seconds: float = 60.0
    ) -> Answer:
        """Send a request, with the token; a body that is neither bytes nor a file is sent as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            if isinstance(body, dict | list):
                body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
            connection.request(method, path, body, self._authorization() | dict(headers or {}))
            response = connection.getresponse()
            return _answer(response)
        finally:
            connection.close()

    def send_bare(self, *headers: str, pieces: int = 0) -> Answer:
        """Upload as it is written by hand, with the token and these headers: so many pieces of 10 kB, ended by none."""
        own = (f"Host: 127.0.0.1:{self.port}", *(f"{name}: {value}" for name, value in self._authorization().items()))
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            lines = ("POST /jobs/upload?filename=x.mp4 HTTP/1.1", *own, *headers, "", "")
            connection.sendall("\r\n".join(lines).encode())
            with suppress(ConnectionError):  # it has answered, and listens no more
                for _ in range(pieces):
                    connection.sendall(b"2710\r\n" + bytes(10_000) + b"\r\n")
            response = http.client.HTTPResponse(connection)
            response.begin()
            return _answer(response)

    def upload(self, video: Path, options: Mapping[str, Any], filename: str = "") -> dict[str, Any]:
        """Send a video; the job that it became. Raises RuntimeError where it is refused."""
        query = urlencode({"filename": filename or video.name, "options": json.dumps(dict(options))})
        headers = {"Content-Type": "application/octet-stream"}
        answer = self.ask("POST", f"/jobs/upload?{query}", video.read_bytes(), headers)
        if answer.status != 201:
            raise RuntimeError(f"{video.name} was answered with {answer.status}: {answer.body.decode()}")
        job: dict[str, Any] = answer.json
        return job

    def job(self, id: str) -> dict[str, Any]:
        """As it is now."""
        job: dict[str, Any] = self.ask("GET", f"/jobs/{id}").json
        return job

    def events(self, id: str, after: int | None = None, seconds: float = 600.0) -> Generator[SentEvent, None, None]:
        """Events of a job from after that one, up to where the stream ends or breaks off."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        headers = self._authorization() | ({} if after is None else {"Last-Event-ID": str(after)})
        try:
            connection.request("GET", f"/jobs/{id}/events", headers=headers)
            response = connection.getresponse()
            if response.status == 204:  # all was told
                return
            if response.status != 200:
                raise RuntimeError(f"the events of {id} were answered with {response.status}: {response.read()!r}")
            yield from _parsed(response)
        except (ConnectionError, http.client.HTTPException):
            return
        finally:
            connection.close()

    def results(self, job: Mapping[str, Any]) -> dict[str, bytes]:
        """Contents of a job's files by name, but for its record, which has times in it."""
        files = [file["name"] for file in job["files"] if file["kind"] != "record"]
        return {name: self.ask("GET", f"/jobs/{job['id']}/files/{quote(name)}").body for name in files}

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _read(self, process: subprocess.Popen[str], listens: threading.Event) -> None:
        """All that it prints is read, so that it never waits for a reader."""
        assert process.stdout is not None
        for line in process.stdout:
            self.log.append(line.rstrip())
            if found := re.search(r"Listening on http://[^ ]*:(\d+)", line):
                self.port = int(found[1])
                listens.set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


def _parsed(response: http.client.HTTPResponse) -> Iterator[SentEvent]:
    """Whole events alone: one that was cut off before its empty line is none."""
    fields: dict[str, str] = {}
    while line := response.readline().decode():
        name, _, value = line.rstrip("\r\n").partition(":")
        if line.strip() and name:  # a line without a name is a comment
            fields[name] = value.removeprefix(" ")
        elif not line.strip() and "data" in fields:
            yield SentEvent(int(fields["id"]), fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}


def descendants(pid: int) -> list[int]:
    """Processes that this one started, and those that these did, as Linux lists them."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:  # it has ended
        return []
    return [each for child in children for each in (child, *descendants(child))]


def resident_mb(pid: int) -> float:
    """Memory of a process, in MB; 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(r"VmRSS:\s+(\d+) kB", status)  # none of one that has ended and was not waited for
    return int(found[1]) / 1000 if found else 0.0
