"""Who may ask the app for what, before anything of a request is looked at.

Gradio has routes that this page has no use for, some of which fetch what they are told to, or write files: only those
that the page needs are let through. Each browser gets a name that nobody can guess, in a cookie: its jobs are told by
it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dc_rt.serve.errors import Refused
from dc_rt.serve.guard import check_host, check_origin, cookie_of, has_session, is_same, session_of
from dc_rt.serve.kinds import is_under
from dc_rt.serve.settings import Limits

log = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"
UPLOAD = "/gradio_api/upload"
_CALL = "/gradio_api/queue/join"
SIGN_IN = "/sign-in"
RESULTS = "/results"

_BROWSER_BYTES = 16
_BROWSER = re.compile(r"[\w-]{22}")  # so many bytes in base64
_LARGEST_REQUEST = 1 << 20  # bytes of a body that is no video
_WRONG_SECONDS = 1.0  # that a wrong password takes: guessing one takes for ever

_OPEN = (SIGN_IN, "/page/")  # to whoever has no password
_GET = (
    "/config",
    "/theme.css",
    "/favicon.ico",
    "/assets/",
    "/static/",
    "/page/",
    f"{RESULTS}/",
    "/gradio_api/startup-events",
    "/gradio_api/heartbeat/",
    "/gradio_api/queue/data",
    "/gradio_api/upload_progress",
    "/gradio_api/info",
    "/gradio_api/app_id",
)
_POST = (UPLOAD, _CALL, "/gradio_api/cancel", "/gradio_api/reset", SIGN_IN)
_FILE = "/gradio_api/file="

# Gradio's page has scripts and styles within it, and makes functions of text.
_POLICY = (
    "default-src 'none'; script-src 'self' blob: 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob:; "
    "worker-src 'self' blob:; manifest-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # with none, forms would not say which page they come from
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Gate:
    """Wraps the app: lets through only who may ask, and what the page asks for."""

    def __init__(
        self, app: ASGIApp, *, names: frozenset[str], password: str | None, port: int, uploads: Path, limits: Limits
    ) -> None:
        """Cookies are of all ports of a machine: their names have the app's own.

        Args:
            app: what is asked.
            names: that a request may call this machine, beside addresses and `localhost`, in lower case.
            password: that who asks must know; None where anybody may ask.
            port: that the app listens on.
            uploads: the folder of the files that are shown by their path; files in itself are on their way.
            limits: how much comes in, and how slowly.
        """
        self._app = app
        self._names = names
        self._password = password
        self._browser_cookie, self._session_cookie = f"dc_rt_browser_{port}", f"dc_rt_password_{port}"
        self._uploads = Path(os.path.realpath(uploads))
        self._limits = limits
        self._num_coming = 0
        self._guessing = asyncio.Lock()
        self._ending = asyncio.Event()

    def browser_of(self, cookies: dict[str, str]) -> str:
        """The name of the browser that a request comes from, by its cookies; empty where it has none yet."""
        name = cookies.get(self._browser_cookie, "")
        return name if _BROWSER.fullmatch(name) else ""

    def end(self) -> None:
        """The app is to end: the streams of pages that are open end as if the pages had been closed."""
        self._ending.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets here
            return
        headers = Headers(scope=scope)
        if scope["method"] == "GET":
            receive = _until(self._ending, receive)
        told = _with_headers(send, self._new_browser(scope, headers))
        try:
            check_host(headers, self._names)
            check_origin(scope, headers)
            self._check_needed(scope)
            is_upload = scope["path"].rstrip("/") == UPLOAD
            if is_upload:
                self._check_upload(headers)
            bounded = _in_time(receive, self._limits) if is_upload else _bounded(receive, headers)
            if scope["path"].rstrip("/") == _CALL:
                bounded = await self._checked_call(bounded)
        except Refused as refused:
            await PlainTextResponse(refused.sentence, refused.status)(scope, receive, told)
            return
        if answer := await self._asked_for_password(scope, headers, bounded):
            await answer(scope, bounded, told)
        elif is_upload:
            await self._take_upload(scope, bounded, told)
        else:
            await self._app(scope, bounded, told)

    def _check_needed(self, scope: Scope) -> None:
        path, method = scope["path"], scope["method"]
        if method in ("GET", "HEAD"):
            is_needed = path == "/" or path == SIGN_IN or path.startswith(_GET) or self._is_upload(path)
        else:
            is_needed = method == "POST" and path.rstrip("/") in _POST
        if not is_needed:
            raise Refused(404, "There is nothing at this address; the page is at /.")

    def _check_upload(self, headers: Headers) -> None:
        """Gradio has a limit for each of the very many files that one request may have, and none for the disk."""
        stated = headers.get("content-length", "")
        if not stated.isdecimal():
            raise Refused(411, "The upload does not say how large it is; choose the video on the page.")
        if int(stated) > self._limits.upload_bytes + _LARGEST_REQUEST:
            raise Refused(413, f"The upload has more than {self._limits.upload_bytes:,.0f} bytes; send a smaller one.")
        if int(stated) > shutil.disk_usage(self._uploads).free - self._limits.free_bytes:
            raise Refused(507, "The disk has no room for the video; try again when there is some.")

    async def _take_upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Gradio leaves what has come of an upload that is broken off, with a name of its own until it is whole."""
        self._num_coming += 1
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            log.info("an upload was broken off, or came too slowly")
        finally:
            self._num_coming -= 1
            if not self._num_coming:
                for part in self._uploads.iterdir():
                    if part.is_file():
                        part.unlink(missing_ok=True)

    def _is_upload(self, path: str) -> bool:
        """Whether it is the address of a file that came in here: Gradio would fetch others, of the web's too."""
        return path.startswith(_FILE) and self._came_in(path.removeprefix(_FILE))

    def _came_in(self, path: object) -> bool:
        if not isinstance(path, str) or "\0" in path:
            return False
        return is_under(Path(os.path.realpath(path)), (self._uploads,))

    async def _checked_call(self, receive: Receive) -> Receive:
        """`receive` of a call, whose files must have come in here: Gradio would fetch what has an address of the web's.

        Raises:
            Refused: it has another file, or is no JSON.
        """
        body, message = b"", await receive()
        while message["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
            message = await receive()
        try:
            paths = list(_paths_in(json.loads(body)))
        except (ValueError, RecursionError):
            raise Refused(400, "The call is no JSON.") from None
        if not all(map(self._came_in, paths)):
            raise Refused(403, "The file did not come in here; choose it on the page.")
        is_given = False

        async def receive_whole() -> Message:
            nonlocal is_given
            if is_given:
                return await receive()
            is_given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return receive_whole

    async def _asked_for_password(self, scope: Scope, headers: Headers, receive: Receive) -> Response | None:
        """What to answer whoever has not given the password, or gives it now; None where the app is to answer."""
        path, password = scope["path"], self._password
        if password is None:
            return RedirectResponse("/", 303) if path == SIGN_IN else None
        if path == SIGN_IN and scope["method"] == "POST":
            return await self._sign_in(Request(scope, receive), password)
        if path == SIGN_IN:
            return _sign_in_page()
        if path.startswith(_OPEN) or has_session(headers, password, self._session_cookie):
            return None
        if path == "/":
            return RedirectResponse(SIGN_IN, 303)
        return PlainTextResponse("This app asks for a password; open its page.", 401)

    async def _sign_in(self, request: Request, password: str) -> Response:
        try:
            form = parse_qs((await request.body()).decode())
        except UnicodeDecodeError:
            form = {}
        # Before the guess is looked at: of many at once, the right one would be answered first.
        if self._guessing.locked():
            return _sign_in_page("Somebody has just given a wrong password; try again in a second.", 429)
        if not is_same(form.get("password", [""])[0].strip(), password):
            async with self._guessing:
                await asyncio.sleep(_WRONG_SECONDS)
            return _sign_in_page("This is not the password that the app was started with.", 401)
        answer = RedirectResponse("/", 303)
        is_secure = request.url.scheme == "https"
        answer.set_cookie(
            self._session_cookie, session_of(password), httponly=True, samesite="strict", secure=is_secure
        )
        return answer

    def _new_browser(self, scope: Scope, headers: Headers) -> str:
        """The cookie that a browser gets which has none and opens the page; else empty."""
        if scope["path"] != "/" or _BROWSER.fullmatch(cookie_of(headers, self._browser_cookie)):
            return ""
        cookie = SimpleCookie({self._browser_cookie: secrets.token_urlsafe(_BROWSER_BYTES)})
        for name, value in (("path", "/"), ("samesite", "strict"), ("httponly", True)):
            cookie[self._browser_cookie][name] = value
        return cookie.output(header="").strip()


def _paths_in(value: Any) -> Iterator[Any]:
    """All that a call gives as the path of a file, however deep."""
    if isinstance(value, dict):
        if "path" in value:
            yield value["path"]
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _paths_in(each)


def _sign_in_page(error: str = "", status: int = 200) -> Response:
    page = (PAGE / "sign_in.html").read_text(encoding="utf-8")
    return HTMLResponse(page.replace("<!--error-->", error), status)


def _with_headers(send: Send, cookie: str) -> Send:
    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(raw=list(message["headers"]))
            for name, value in _HEADERS.items():
                headers[name] = value
            for name in ("server", "access-control-allow-origin", "access-control-allow-credentials"):
                if name in headers:
                    del headers[name]
            if cookie:
                headers.append("Set-Cookie", cookie)
                headers["Cache-Control"] = "no-store"
            message = {**message, "headers": headers.raw}
        await send(message)

    return told


def _in_time(receive: Receive, limits: Limits) -> Receive:
    """`receive` of an upload; one that comes too slowly is as good as gone."""
    ends = time.monotonic() + limits.upload_seconds

    async def receive_some() -> Message:
        try:
            async with asyncio.timeout(min(limits.pause_seconds, max(ends - time.monotonic(), 0))):
                return await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}

    return receive_some


def _until(ending: asyncio.Event, receive: Receive) -> Receive:
    """`receive`, which is told that the page has left once `ending` is set."""

    async def receive_or_end() -> Message:
        received, ended = asyncio.ensure_future(receive()), asyncio.ensure_future(ending.wait())
        try:
            await asyncio.wait({received, ended}, return_when=asyncio.FIRST_COMPLETED)
            return received.result() if received.done() else {"type": "http.disconnect"}
        finally:
            received.cancel()
            ended.cancel()

    return receive_or_end


def _bounded(receive: Receive, headers: Headers) -> Receive:
    """`receive`, of no more than a request without a video has; raises `Refused` where more is announced."""
    too_large = Refused(413, f"The request has more than {_LARGEST_REQUEST} bytes; videos are chosen on the page.")
    stated = headers.get("content-length", "0")
    if stated.isdecimal() and int(stated) > _LARGEST_REQUEST:
        raise too_large
    received = 0

    async def receive_some() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > _LARGEST_REQUEST:  # of one that says nothing of its length: it is as good as gone
            return {"type": "http.disconnect"}
        return message

    return receive_some
