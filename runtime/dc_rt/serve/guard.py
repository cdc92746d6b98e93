"""Who may ask, before anything of a request is looked at: the Host, the Origin, the token, the size of its body.

And what every answer has: headers that keep browsers from misusing it, and one sentence of JSON if it is an error.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dc_rt.serve.errors import Refused, refusal, usual_sentence
from dc_rt.serve.settings import Limits, Settings

COOKIE = "dc_rt_session"
UPLOAD = "/jobs/upload"
LARGEST_REQUEST = 1 << 20  # bytes of a body that is no video

_OPEN = ("/", "/health", "/ready")  # to whoever has no token
_OPEN_FOLDER = "/page/"
_READING = ("GET", "HEAD", "OPTIONS")

_NO_TOKEN = "This service asks for a token; send it in the header Authorization, as Bearer TOKEN."
_WRONG_TOKEN = "The token is not the one that this service was started with; send that one, as Bearer TOKEN."

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Wraps an application: lets through only what may ask."""

    def __init__(self, app: ASGIApp, settings: Settings, on_refusal: Callable[[int], None]) -> None:
        """`on_refusal` is told the status of every answer that is an error."""
        self._app = app
        self._settings = settings
        self._on_refusal = on_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send, self._on_refusal)
        try:
            headers = Headers(scope=scope)
            check_host(headers, self._settings.names)
            check_origin(scope, headers)
            self._check_token(scope, headers)
            bounded = receive if scope["path"] == UPLOAD else _bounded(receive, headers, self._settings.limits, answer)
        except Refused as refused:
            await refused.response()(scope, receive, answer.send)
            return
        await self._app(scope, bounded, answer.send)

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        path, token = scope["path"], self._settings.token
        if token is None or path in _OPEN or path.startswith(_OPEN_FOLDER):
            return
        if not (_knows(headers, token) or has_session(headers, token, COOKIE)):
            is_wrong = "authorization" in headers
            raise Refused(401, _WRONG_TOKEN if is_wrong else _NO_TOKEN, {"WWW-Authenticate": "Bearer"})


class _Answer:
    """Passes an answer on, with the headers that all have; what is no JSON and an error becomes one sentence."""

    def __init__(self, send: Send, on_refusal: Callable[[int], None]) -> None:
        self._send = send
        self._on_refusal = on_refusal
        self._is_replaced = False
        self.has_begun = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = MutableHeaders(raw=list(message["headers"]))
            status, body = message["status"], b""
            if status >= 400:
                self._on_refusal(status)
            if status >= 400 and not headers.get("content-type", "").startswith("application/json"):
                kept = {name: headers[name] for name in ("allow", "content-range") if name in headers}
                response = refusal(status, usual_sentence(status), kept)
                headers, body = response.headers, bytes(response.body)
                self._is_replaced = True
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
            await self._send({**message, "headers": headers.raw})
            if self._is_replaced:
                await self._send({"type": "http.response.body", "body": body})
        elif not self._is_replaced:
            await self._send(message)


def session_of(token: str) -> str:
    """What a browser keeps in the place of the token: it cannot be turned back into it."""
    return hmac.new(token.encode(), b"dc-rt session", hashlib.sha256).hexdigest()


def _knows(headers: Headers, token: str) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and is_same(given.strip(), token)


def has_session(headers: Headers, token: str, cookie: str) -> bool:
    """Whether a request has the cookie of that name which stands for the token."""
    return is_same(cookie_of(headers, cookie), session_of(token))


def cookie_of(headers: Headers, name: str) -> str:
    """The value of a cookie; empty where the request has none of that name."""
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return cookie.value if cookie else ""


def is_same(given: str, expected: str) -> bool:
    """Whether two secrets are one, which takes as long to find out whatever they are."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


def check_host(headers: Headers, names: frozenset[str]) -> None:
    """Raise `Refused` for a Host that is none of this machine's `names`.

    A page whose name was made to point here (DNS rebinding) calls this machine by that name; an address is none.
    """
    name = _without_port(headers.get("host", "")).lower()
    if name == "localhost" or name in names:
        return
    try:
        ipaddress.ip_address(name)
    except ValueError:
        raise Refused(
            400,
            "The request calls this machine by a name that it does not go by; use its address, or start the service "
            "with --allow-host NAME.",
        ) from None


def check_origin(scope: Scope, headers: Headers) -> None:
    """Raise `Refused` for a request of another site's page: browsers say so of all that change something."""
    if scope["method"] in _READING:
        return
    origin = headers.get("origin")
    is_own = origin is None or origin.partition("://")[2].lower() == headers.get("host", "").lower()
    if not is_own or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise Refused(403, "The request comes from a page of another site; use the page of this service.")


def _without_port(host: str) -> str:
    if host.startswith("["):  # IPv6
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _bounded(receive: Receive, headers: Headers, limits: Limits, answer: _Answer) -> Receive:
    """`receive`, of no more than a request without a video has, and of what does not come too slowly."""
    too_large = f"The request has more than {LARGEST_REQUEST} bytes; send videos to {UPLOAD}."
    stated = headers.get("content-length", "0")
    if stated.isdecimal() and int(stated) > LARGEST_REQUEST:
        raise Refused(413, too_large)
    received, is_whole = 0, False

    async def receive_some() -> Message:
        nonlocal received, is_whole
        try:
            # Behind the body comes that the client has gone, for which a stream waits as long as it takes.
            async with asyncio.timeout(None if is_whole else limits.pause_seconds):
                message = await receive()
        except TimeoutError:
            if not answer.has_begun:
                raise HTTPException(408, "The request came too slowly; send it again.") from None
            message = await receive()  # nobody asked for that body: the client is listening
        received += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        if received > LARGEST_REQUEST:
            raise HTTPException(413, too_large)
        return message

    return receive_some
