"""The server beneath the application: it listens, says so, and ends within seconds when it is told to."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from dc_rt.serve.connections import AT_ONCE, protocol
from dc_rt.serve.settings import Limits

_GRACE_SECONDS = 5  # that requests which are under way may take once it is to end


def run(
    app: ASGIApp,
    limits: Limits,
    listening: socket.socket,
    on_start: Callable[[], None],
    on_end: Callable[[], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        app: the application.
        limits: how much of connections it takes.
        listening: takes the requests.
        on_start: is called once they are taken.
        on_end: is called once it is to end: streams must end by themselves, as the server waits for all that is open.
    """
    # The server raises the signals that it caught once more when it has ended: it has, in good order.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with suppress(KeyboardInterrupt):
        _Server(configured(app, limits), on_start, on_end).run(sockets=[listening])


def configured(app: ASGIApp, limits: Limits) -> uvicorn.Config:
    """How the server beneath is set up."""
    return uvicorn.Config(
        app,
        backlog=AT_ONCE,
        http=protocol(limits),  # type: ignore[arg-type]  # it is called as the class would be
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None], on_end: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start
        self._on_end = on_end
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin, and say so."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            self._on_start()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """A signal has come, amid whatever this thread does, which may hold locks."""
        if self._loop:
            self._loop.call_soon_threadsafe(self._on_end)
        super().handle_exit(sig, frame)
