"""A ComfyUI that is started from its checkout, given prompts, listened to and interrupted, as its own page does it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

Prompt = Mapping[str, Mapping[str, Any]]
"""Nodes by their ids, as ComfyUI's API has them."""

START_SECONDS, RUN_SECONDS = 120.0, 600.0
_ENDS = ("execution_success", "execution_error", "execution_interrupted")


@dataclass
class Message:
    """What the page is told: its kind, what it says, and when it came, of `time.monotonic`."""

    kind: str
    data: Mapping[str, Any]
    at: float


@dataclass
class Told:
    """All that was told of a prompt, up to its end."""

    messages: list[Message] = field(default_factory=list)

    @property
    def end(self) -> Message:
        """The last one, which says how it ended."""
        return self.messages[-1]

    @property
    def is_success(self) -> bool:
        """Whether it ended well."""
        return self.end.kind == "execution_success"

    @property
    def sentence(self) -> str:
        """Of the error; empty where there was none."""
        return str(self.end.data.get("exception_message", "")).strip()

    @property
    def cached(self) -> list[str]:
        """Ids of the nodes that were not run again."""
        return [node for each in self.messages if each.kind == "execution_cached" for node in each.data["nodes"]]

    def executed(self, node: str) -> Mapping[str, Any]:
        """What the page is to show of a node."""
        return next(
            each.data["output"] for each in self.messages if each.kind == "executed" and each.data["node"] == node
        )

    def progress(self, node: str) -> list[tuple[float, float]]:
        """Value and maximum of a node's progress bar, one after the other."""
        told = (each.data for each in self.messages if each.kind == "progress" and each.data["node"] == node)
        return [(data["value"], data["max"]) for data in told]


class ComfyUI:
    """A server with folders of its own under `folder`, whose custom nodes are the packs that it is given.

    Args:
        checkout: the folder that has main.py.
        python: that has what ComfyUI needs.
        folder: for its inputs, outputs and the rest.
        packs: folders of custom nodes, by the names that they are linked as.
        environment: variables beside those of this process.
    """

    def __init__(
        self,
        checkout: Path,
        python: Path,
        folder: Path,
        packs: Mapping[str, Path],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.input, self.output, self.log = folder / "input", folder / "output", folder / "log.txt"
        for name in ("input", "output", "custom_nodes", "models", "temp", "user"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for name, pack in packs.items():
            (folder / "custom_nodes" / name).symlink_to(pack.resolve(), target_is_directory=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._command = [
            str(python),
            str(checkout / "main.py"),
            "--cpu",
            "--disable-api-nodes",
            "--port",
            str(self._port),
        ]
        self._command += ["--base-directory", str(folder), "--database-url", f"sqlite:///{folder / 'comfyui.db'}"]
        self._environment = os.environ | dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Of its page."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """Of the server's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Return once it answers; raises RuntimeError with what it printed where it does not."""
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)
        until = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError):
                self.ask("/system_stats")
                return
            if self._process.poll() is not None or time.monotonic() > until:
                self.close()
                raise RuntimeError("ComfyUI did not start: " + self.log.read_text(errors="replace")[-2000:])
            time.sleep(0.2)

    def close(self) -> None:
        """End it."""
        if self._process:
            self._process.terminate()
            self._process.wait(30)

    def ask(self, path: str, body: Any = None) -> Any:
        """Ask for JSON, with a body of JSON if one is given."""
        contents = None if body is None else json.dumps(body).encode()
        with urlopen(Request(self.url + path, contents, {"Content-Type": "application/json"}), timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def run(self, prompt: Prompt) -> Told:
        """Queue a prompt and listen up to its end."""
        told = Told()
        for message in self.follow(prompt):
            told.messages.append(message)
        return told

    def follow(self, prompt: Prompt) -> Iterator[Message]:
        """Queue a prompt; what is told of it, as it comes. Raises RuntimeError where it is refused."""
        from websockets.sync.client import connect  # of the extra `soak`

        client = uuid.uuid4().hex
        address = f"ws://127.0.0.1:{self._port}/ws?clientId={client}"
        # ComfyUI does not answer that the page is closed.
        with connect(address, max_size=None, close_timeout=0.1) as page:
            try:
                queued = self.ask("/prompt", {"prompt": prompt, "client_id": client})
            except HTTPError as error:
                raise RuntimeError(f"the prompt was refused: {error.read().decode()}") from error
            until = time.monotonic() + RUN_SECONDS
            while time.monotonic() < until:
                received = page.recv(timeout=RUN_SECONDS)
                if isinstance(received, bytes):  # a picture
                    continue
                told = json.loads(received)
                if told["data"].get("prompt_id") == queued["prompt_id"]:
                    yield Message(told["type"], told["data"], time.monotonic())
                    if told["type"] in _ENDS:
                        return
        raise RuntimeError("the prompt did not end")

    def interrupt(self) -> None:
        """As the page's button does."""
        self.ask("/interrupt", {})

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
