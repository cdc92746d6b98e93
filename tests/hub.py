"""A small hub on loopback: repositories at commits, tokens, gates, files by ranges from a host of its own; and faults.

`python tests/hub.py PORT` serves a tiny random checkpoint under the real ids until it is interrupted:
HF_ENDPOINT=http://127.0.0.1:PORT HF_TOKEN=hf_reader dc-export onnx --out engines/tiny
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import http.server
import json
import re
import shutil
import sys
import tempfile
import threading
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path

from depthcrafter import CONFIGS, make_checkpoint

BASE = "stabilityai/stable-video-diffusion-img2vid-xt"
UNET = "tencent/DepthCrafter"
READER, STRANGER = "hf_reader", "hf_stranger"  # tokens: one with access to what is gated, one without


@dataclass
class Repository:
    """`commits`: for each hash a folder; `branches`: names of commits."""

    commits: dict[str, Path]
    branches: dict[str, str]
    gated: bool = False


@dataclass
class Hub:
    """What is served, what has been asked, and what goes wrong. Change it while it serves."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)  # "METHOD path range"
    leaked: list[str] = field(default_factory=list)  # tokens that reached the files' own host
    # Answered instead: a status for each path of which the pattern finds something, and headers to go with it.
    failing: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)  # file name: bytes of it after which every connection breaks
    damaged: set[str] = field(default_factory=set)  # names of files of which one byte is changed on its way
    claimed: dict[str, int] = field(default_factory=dict)  # file name: the size that the hub says it has
    rangeless: bool = False  # a server that sends whole files alone
    login_page: bool = False
    port: int = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def clear(self) -> None:
        """No faults, and nothing asked yet."""
        for state in (self.requests, self.leaked, self.failing, self.cut, self.damaged, self.claimed):
            state.clear()
        self.rangeless = self.login_page = False

    def serve(self, port: int = 0) -> http.server.ThreadingHTTPServer:
        """Serve from a thread of its own; `shutdown` and `server_close` end it."""
        handler = type("Handler", (_Handler,), {"hub": self})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


class _Handler(http.server.BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        self.hub.requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".rstrip())
        for pattern, (status, headers) in self.hub.failing.items():
            if re.search(pattern, path):
                return self._refuse(status, **headers)
        if self.hub.login_page:
            return self._send(200, b"<html>Please log in to the network.</html>", {"Content-Type": "text/html"})
        if match := re.fullmatch(r"/files/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path):
            return self._file(*match.groups())
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in ("", READER, STRANGER):
            return self._refuse(401, **{"X-Error-Message": "Invalid credentials in Authorization header"})
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+?)(?:/revision/(.+))?", path)
        resolve = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        match = api or resolve
        repository = self.hub.repositories.get(match[1]) if match else None
        if not match or not repository:
            # As the real one does, which tells nobody what private repositories there are.
            code = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}
            return self._refuse(404 if token else 401, **code)
        revision = match[2] or "main"
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            return self._refuse(404, **{"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"})
        if api:
            return self._listing(match[1], repository, commit)
        if repository.gated and token != READER:
            gate = {"X-Error-Code": "GatedRepo", "X-Error-Message": f"Access to model {match[1]} is restricted."}
            return self._refuse(403 if token else 401, **gate)
        return self._resolve(match[1], repository.commits[commit], commit, match[3])

    def _listing(self, name: str, repository: Repository, commit: str) -> None:
        folder = repository.commits[commit]
        siblings = []
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            contents = path.read_bytes()
            entry = {"rfilename": path.relative_to(folder).as_posix(), "size": len(contents), "blobId": _git(contents)}
            if _is_large(path):
                entry["lfs"] = {"sha256": _tag(path), "size": len(contents), "pointerSize": 134}
            siblings.append(entry)
        info = {"_id": "0" * 24, "id": name, "modelId": name, "sha": commit, "private": False, "tags": []}
        info |= {"gated": "auto" if repository.gated else False, "downloads": 1, "likes": 1, "siblings": siblings}
        self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, folder: Path, commit: str, file: str) -> None:
        path = folder / file
        if not path.is_file():
            return self._refuse(404, **{"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_tag(path)}"'}
        if not _is_large(path):
            return self._send(200, path.read_bytes(), headers)
        # Large files lie on another host, which must not be sent the token.
        headers |= {
            "X-Linked-ETag": headers["ETag"],
            "X-Linked-Size": str(self.hub.claimed.get(file, path.stat().st_size)),
        }
        headers["Location"] = f"http://localhost:{self.hub.port}/files/{name}/{commit}/{file}"
        return self._send(302, b"", headers)

    def _file(self, name: str, commit: str, file: str) -> None:
        if token := self.headers.get("Authorization"):
            self.hub.leaked.append(token)
        contents = bytearray((self.hub.repositories[name].commits[commit] / file).read_bytes())
        if file in self.hub.damaged:
            contents[-1] ^= 1
        range_ = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(range_[1]) if range_ and not self.hub.rangeless else 0
        headers = {"Content-Range": f"bytes {start}-{len(contents) - 1}/{len(contents)}"} if start else {}
        until = self.hub.cut.get(file, len(contents))
        self._send(206 if start else 200, bytes(contents[start:]), headers, max(until - start, 0))

    def _refuse(self, status: int, **headers: str) -> None:
        said = json.dumps({"error": headers.get("X-Error-Message", "")}).encode()
        self._send(status, said, {"Content-Type": "application/json"} | headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str], until: int | None = None) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(ConnectionError):  # whoever has no room for it hangs up
                self.wfile.write(body[:until])
            if until is not None and until < len(body):
                self.close_connection = True

    def log_message(self, *args: object) -> None:
        pass


def serve_real_ids(base: Path, unet: Path) -> Hub:
    """A hub (not serving yet) with a base and a UNet under the real ids, the base gated, as the real ones are."""
    hub = Hub()
    for name, folder in ((BASE, base), (UNET, unet)):
        commit = hashlib.sha1(name.encode()).hexdigest()
        hub.repositories[name] = Repository({commit: folder}, {"main": commit}, gated=name == BASE)
    return hub


def make_real_layout(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """A tiny random checkpoint with the files of the real ones: the base in both variants, the UNet in float16."""
    half = dataclasses.replace(CONFIGS["tiny"], dtype="float16")
    base, unet = make_checkpoint(folder / "half", half, seed)
    full, _ = make_checkpoint(folder / "full", "tiny", seed)
    for name in ("vae/diffusion_pytorch_model.safetensors", "image_encoder/model.safetensors"):
        shutil.copy(full / name, base / name)
    shutil.move(unet, folder / "unet")
    shutil.move(base, folder / "base")
    for repository in ("base", "unet"):
        (folder / repository / "README.md").write_text("# tiny\n")
    return folder / "base", folder / "unet"


def _is_large(path: Path) -> bool:
    return path.suffix == ".safetensors"


def _tag(path: Path) -> str:
    contents = path.read_bytes()
    return hashlib.sha256(contents).hexdigest() if _is_large(path) else _git(contents)


def _git(contents: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(contents) + contents).hexdigest()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        served = serve_real_ids(*make_real_layout(Path(made))).serve(int(sys.argv[1]))
        print(
            f"HF_ENDPOINT=http://127.0.0.1:{served.server_address[1]} HF_HUB_DISABLE_XET=1 HF_TOKEN={READER}",
            flush=True,
        )
        threading.Event().wait()
