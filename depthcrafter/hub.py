"""Files of a model on the Hugging Face hub, in the cache that `huggingface_hub` keeps.

The hub is asked first: which commit, which files, whether they may be had, how large they are. What is missing is
fetched after that, into the cache's own layout (blobs named by their hashes, for each commit a snapshot of links to
them), so that what either program has fetched serves both. The fetching itself is ours: the library throws away what it
has of a file that is cut off, and waits in silence for minutes where nothing answers. Nothing here needs PyTorch.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_hf_file_metadata, get_token, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_session, hf_raise_for_status
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from dc_rt.errors import UserError
from depthcrafter.report import Report

CHUNK_BYTES = 1 << 16  # and so many are lost at most where a download is cut off
TIMEOUT = 30.0  # seconds without a byte
# Between attempts to go on with a file that was cut off, as long as none of them brings anything.
RETRY_WAITS = (0.5, 1.0, 2.0)
# In a log there is a line for each of these shares of the whole.
LOGGED_SHARE = 0.1

# Which of a repository's files are needed; raises UserError where they are not among them.
Choose = Callable[[Collection[str]], list[str]]

# What a session raises when it gets no answer: from `requests`, of OSError's kind, up to huggingface-hub 1.0; from then
# on from an HTTPX that the library names.
_NO_ANSWER = (OSError, HTTPError)
_COMMIT = re.compile("[0-9a-f]{40}")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository: its name there, its address, the hub's hash of its contents and its size in bytes."""

    name: str
    url: str
    etag: str
    size: int


@dataclass(frozen=True)
class Snapshot:
    """The needed files of one commit of a repository; those in `missing` are yet to be fetched."""

    repo: str
    commit: str
    missing: tuple[RemoteFile, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the files lie, or will, under their names in the repository."""
        return _storage(self.repo) / "snapshots" / self.commit


class _Fault(Exception):
    """Why the hub gives nothing: the cause, and what to do about it; together a sentence."""

    def __init__(self, cause: str, fix: str) -> None:
        super().__init__(f"{cause}; {fix}.")
        self.cause = cause


def ask_hub(repo: str, revision: str | None, choose: Choose, report: Report) -> Snapshot:
    """What `repo` has at `revision` and what of it is missing here; nothing is fetched yet.

    A commit whose files are all in the cache is not asked about. Where the hub cannot say, the cache's copy of the
    revision serves, if it is whole; unless the user has turned the hub off (HF_HUB_OFFLINE), that is reported.

    Args:
        repo: a hub id, "owner/name".
        revision: branch, tag or commit; the main branch unless given.
        choose: given the names of all files, returns those that are needed.
        report: is told when the hub could not be asked.

    Raises:
        UserError: the hub does not give the files and the cache lacks some, or `choose` found what it needs in neither.
    """
    if _COMMIT.fullmatch(revision or "") and (cached := _cached(repo, revision, choose)):
        return cached
    try:
        with _answers(repo, revision):
            info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT)
            files = {file.rfilename: file.lfs.size if file.lfs else file.size for file in info.siblings or ()}
            if not _COMMIT.fullmatch(info.sha or ""):
                raise ValueError("it names no commit")
        snapshot = Snapshot(repo, info.sha)
        absent = [name for name in choose(files) if not _is_there(snapshot.folder / name, files[name])]
        with _answers(repo, revision):
            missing = tuple(_metadata(repo, snapshot.commit, name) for name in absent)
    except _Fault as fault:
        if cached := _cached(repo, revision, choose):
            if not isinstance(fault.__cause__, OfflineModeIsEnabled):
                report(f"{fault.cause}; the copy in the cache serves, commit {cached.commit}.")
            return cached
        raise UserError(str(fault)) from fault
    if not missing:
        with _storing(_storage(repo)):
            _remember(snapshot, revision)
    return Snapshot(repo, snapshot.commit, missing)


def fetch(snapshots: Sequence[tuple[Snapshot, str | None]], report: Report) -> None:
    """Fetch what is missing of `snapshots`, each with the revision that was asked for, and say how much that is first.

    Files go on where an earlier attempt was cut off, and are held against the hub's hash of them.

    Raises:
        UserError: a download broke off, the disk is full or cannot be written, or what arrived is damaged.
    """
    total = here = 0
    for snapshot, _ in snapshots:
        # Another commit may have brought the same contents: there is only a link to make then.
        absent = [file for file in snapshot.missing if not _is_there(_blob(snapshot.repo, file), file.size)]
        if absent:
            size = sum(file.size for file in absent)
            count = f"{len(absent)} file{'s' * (len(absent) > 1)}"
            report(f"{snapshot.repo}, commit {snapshot.commit}: {count} to download, {_in_words(size)}")
            total += size
            here += sum(_size(_partial(snapshot.repo, file)) for file in absent)
    if total:
        cache = Path(constants.HF_HUB_CACHE)
        report(
            f"Downloading {_in_words(total)} to {cache}" + (f"; {_in_words(here)} are there already" if here else "")
        )
        _check_room(cache, total - here)
    with _progress(total, here, report) if total else contextlib.nullcontext(lambda size: None) as advance:
        for snapshot, revision in snapshots:
            for file in snapshot.missing:
                _fetch_file(snapshot, file, advance)
            with _storing(_storage(snapshot.repo)):
                _remember(snapshot, revision)


def _metadata(repo: str, commit: str, name: str) -> RemoteFile:
    """Ask for a file's head: whoever may not have the file is told so here."""
    url = hf_hub_url(repo, name, revision=commit)
    head = get_hf_file_metadata(url, timeout=TIMEOUT)
    if head.size is None or not re.fullmatch(r"[\w-]+", head.etag or ""):  # the tag becomes a file's name
        raise ValueError(f"it gives no hash or size of {name}")
    return RemoteFile(name, url, head.etag, head.size)


def _fetch_file(snapshot: Snapshot, file: RemoteFile, advance: Callable[[int], None]) -> None:
    storage = _storage(snapshot.repo)
    blob = _blob(snapshot.repo, file)
    lock = Path(constants.HF_HUB_CACHE) / ".locks" / storage.name / f"{file.etag}.lock"
    with _storing(storage):
        blob.parent.mkdir(parents=True, exist_ok=True)
        lock.parent.mkdir(parents=True, exist_ok=True)
    # The library's own lock, so that neither fetches what the other is fetching.
    with WeakFileLock(lock):
        if not _is_there(blob, file.size):
            _receive(snapshot.repo, file, advance)
            with _storing(storage):
                _partial(snapshot.repo, file).replace(blob)
        with _storing(storage):
            _link(snapshot.folder / file.name, blob)


def _receive(repo: str, file: RemoteFile, advance: Callable[[int], None]) -> None:
    """Bring the partial file of `file` to its whole size, from where it is."""
    partial = _partial(repo, file)
    with _storing(partial.parent), partial.open("ab", buffering=0) as stream:
        if stream.tell() > file.size:
            advance(-stream.tell())
            stream.truncate(0)
            stream.seek(0)
        waits = iter(RETRY_WAITS)
        while (start := stream.tell()) < file.size:
            reason = f"{file.size - start} bytes were not sent"
            try:
                with _get(file.url, start) as (whole, chunks):
                    if whole and start:  # a server that knows no ranges
                        advance(-start)
                        stream.truncate(0)
                        stream.seek(0)
                    for chunk in chunks:
                        _write(stream, chunk)
                        advance(len(chunk))
            except HfHubHTTPError as error:
                if error.response.status_code < 500:
                    raise UserError(str(_fault(error, repo, None))) from error
                reason = f"HTTP {error.response.status_code}"
            except _NO_ANSWER as error:
                reason = _reason(error)
            if stream.tell() > start:
                waits = iter(RETRY_WAITS)
            elif (wait := next(waits, None)) is not None:
                time.sleep(wait)
            else:
                raise UserError(
                    f"The download of {file.name} from {repo} broke off at {_in_words(start)} of "
                    f"{_in_words(file.size)} ({reason}); run the same command again, and it goes on from there."
                )
        damaged = not _has_hash(partial, file)
        if damaged:
            stream.truncate(0)
    if damaged:
        raise UserError(
            f"{file.name} from {repo} arrived damaged: its hash is not the one that the hub names; "
            "run the same command again, and it is downloaded anew."
        )


@contextlib.contextmanager
def _get(url: str, start: int) -> Iterator[tuple[bool, Iterator[bytes]]]:
    """The bytes of `url` from `start` on; and whether they are those of the whole file instead."""
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    session: Any = get_session()
    if callable(getattr(session, "stream", None)):
        with session.stream("GET", url, headers=headers, timeout=TIMEOUT, follow_redirects=True) as response:
            hf_raise_for_status(response)
            yield response.status_code == 200, response.iter_bytes(CHUNK_BYTES)
    else:  # the `requests` of huggingface-hub before 1.0
        with session.get(url, headers=headers, timeout=TIMEOUT, stream=True) as response:
            hf_raise_for_status(response)
            yield response.status_code == 200, response.iter_content(CHUNK_BYTES)


def _write(stream: Any, chunk: bytes) -> None:
    left = memoryview(chunk)
    while left:
        try:
            left = left[stream.write(left) :]
        except OSError as error:
            raise _storage_error(error, Path(stream.name).parent) from error


def _has_hash(path: Path, file: RemoteFile) -> bool:
    """Whether the contents are what the hub names: by SHA-256 for a large file, by git's hash for a small one."""
    if re.fullmatch("[0-9a-f]{64}", file.etag):
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == file.etag
    if _COMMIT.fullmatch(file.etag):
        return hashlib.sha1(b"blob %d\0" % file.size + path.read_bytes()).hexdigest() == file.etag
    return True  # a mirror's own kind of tag


def _cached(repo: str, revision: str | None, choose: Choose) -> Snapshot | None:
    """The cache's copy of a revision, if it has all that is needed."""
    storage = _storage(repo)
    commit = revision or constants.DEFAULT_REVISION
    if not _COMMIT.fullmatch(commit):
        try:
            commit = (storage / "refs" / commit).read_text().strip()
        except OSError:
            return None
    folder = storage / "snapshots" / commit
    # A link whose blob is gone is no file.
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    try:
        choose(names)
    except UserError:
        return None
    return Snapshot(repo, commit)


def _remember(snapshot: Snapshot, revision: str | None) -> None:
    """Note which commit a branch or tag is, for when the hub cannot be asked."""
    revision = revision or constants.DEFAULT_REVISION
    if _COMMIT.fullmatch(revision):
        return
    ref = _storage(snapshot.repo) / "refs" / revision
    ref.parent.mkdir(parents=True, exist_ok=True)
    if not ref.is_file() or ref.read_text() != snapshot.commit:
        ref.write_text(snapshot.commit)


def _link(pointer: Path, blob: Path) -> None:
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.unlink(missing_ok=True)
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:
        # No links here, as on most Windows systems: the library too has the file itself in the snapshot then.
        blob.replace(pointer)


def _storage(repo: str) -> Path:
    return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=repo, repo_type="model"))


def _blob(repo: str, file: RemoteFile) -> Path:
    return _storage(repo) / "blobs" / file.etag


def _partial(repo: str, file: RemoteFile) -> Path:
    return _storage(repo) / "blobs" / f"{file.etag}.part"


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _is_there(path: Path, size: int | None) -> bool:
    """Whether the file is there in its size; one of another size was damaged and is fetched anew."""
    return path.is_file() and size in (None, path.stat().st_size)


def _check_room(cache: Path, needed: int) -> None:
    folder = next(path for path in (cache, *cache.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{_in_words(needed)} are to be downloaded and {_in_words(free)} are free in {cache}; "
            "make room there, or let HF_HOME name a folder on a larger disk."
        )


@contextlib.contextmanager
def _storing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _storage_error(error, folder) from error


def _storage_error(error: OSError, folder: Path) -> UserError:
    if error.errno in _DISK_FULL:
        return UserError(
            f"The disk of {folder} is full; make room there, or let HF_HOME name a folder on a larger disk, and run "
            "the same command again: a download goes on where it was."
        )
    return UserError(
        f"The cache of downloads, {folder}, cannot be used ({error.strerror or error}); "
        "let HF_HOME name a folder that can."
    )


@contextlib.contextmanager
def _answers(repo: str, revision: str | None) -> Iterator[None]:
    try:
        yield
    except UnicodeError as error:  # a token with letters that no header can have
        raise _bad_token() from error
    except HfHubHTTPError as error:
        raise _fault(error, repo, revision) from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise _no_hub(error) from error
    except _NO_ANSWER as error:
        raise _fault(error, repo, revision) from error
    except ValueError as error:
        raise _no_hub(error) from error


def _fault(error: Exception, repo: str, revision: str | None) -> _Fault:
    """The true cause of what the hub answered, or of its silence."""
    hub, page = constants.ENDPOINT, f"{constants.ENDPOINT}/{repo}"
    if isinstance(error, OfflineModeIsEnabled):
        return _Fault(
            f"{repo} is not all in the cache, {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE keeps this machine from "
            "fetching it",
            "unset HF_HUB_OFFLINE, or give a folder instead",
        )
    if not isinstance(error, HfHubHTTPError):
        return _Fault(
            f"{hub} cannot be reached ({_reason(error)}), and {repo} is not all in the cache",
            "check the network and HTTPS_PROXY, or give a folder instead",
        )
    status, headers = error.response.status_code, error.response.headers
    code, has_token = headers.get("X-Error-Code"), get_token() is not None
    if code == "GatedRepo" and not has_token:
        return _Fault(
            f"{repo} is gated: its licence must be accepted, and no token says that you did",
            f"accept it on {page}, then log in with `hf auth login` or set HF_TOKEN",
        )
    if code == "GatedRepo":
        return _Fault(
            f"{repo} is gated, and the account of the token that is sent has no access to it",
            f"accept its licence on {page} with that account; a fine-grained token must be allowed gated repositories",
        )
    if code == "RevisionNotFound":
        return _Fault(
            f"{repo} has no revision {revision!r}",
            f"give a branch, a tag or a full commit hash, see {page}/commits/main",
        )
    if status == 401 and has_token:
        return _bad_token()
    if status in (401, 404):
        private = "a private one needs a token that may read it" if has_token else "a private one needs a token"
        return _Fault(
            f"There is no repository {repo} on {hub}, nor a folder of that name here",
            f"check its spelling ({private})",
        )
    if status == 429:
        wait = headers.get("Retry-After", "")
        when = f"in {wait} s" if wait.isdecimal() else "in some minutes"
        more = "" if has_token else "; those who log in with `hf auth login` may ask more"
        return _Fault(
            f"{hub} has had too many requests from here (HTTP 429)", f"run the same command again {when}{more}"
        )
    if status >= 500:
        return _Fault(
            f"{hub} fails (HTTP {status}), and {repo} is not all in the cache",
            "run the same command again in some minutes",
        )
    said = headers.get("X-Error-Message") or f"HTTP {status}"
    return _Fault(f"{hub} refuses {repo} ({_first_line(said)})", f"see {page}")


def _no_hub(error: Exception) -> _Fault:
    return _Fault(
        f"What answers at {constants.ENDPOINT} is not a hub ({_reason(error)})",
        "check whether a proxy or a login page is in between, and whether HF_ENDPOINT is right",
    )


def _bad_token() -> _Fault:
    origin = "from HF_TOKEN" if os.environ.get("HF_TOKEN") else f"from {constants.HF_TOKEN_PATH}"
    return _Fault(
        f"{constants.ENDPOINT} does not know the token that is sent, {origin}",
        f"make a new one on {constants.ENDPOINT}/settings/tokens, then log in with `hf auth login` or set HF_TOKEN",
    )


def _reason(error: BaseException) -> str:
    """The innermost cause in a few words: libraries wrap it in their own, several deep."""
    reason, cause = _first_line(str(error)) or type(error).__name__, error.__cause__ or error.__context__
    while cause:
        if isinstance(cause, OSError) and cause.strerror:
            reason = cause.strerror
        cause = cause.__cause__ or cause.__context__
    return reason


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0].rstrip(".:")


def _in_words(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.{2 if unit == 'GB' else 0}f} {unit}"
    return f"{size} bytes"


@contextlib.contextmanager
def _progress(total: int, here: int, report: Report) -> Iterator[Callable[[int], None]]:
    """How far the download is: a bar on a terminal, now and then a line elsewhere."""
    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:
        columns = (TextColumn("download"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("download", total=total, completed=here)
            yield lambda size: bar.advance(task, size)
        return
    done, said, began = here, here, time.monotonic()

    def advance(size: int) -> None:
        nonlocal done, said
        done += size
        if done - said >= LOGGED_SHARE * total or done == total:
            said = done
            speed = _in_words(int((done - here) / max(time.monotonic() - began, 1e-3)))
            report(f"{_in_words(done)} of {_in_words(total)} ({done / total:.0%}), {speed}/s")

    yield advance
