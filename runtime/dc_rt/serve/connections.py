"""Connections: no more than there are files for, and none that keeps a request to itself for long.

Whoever opens very many, or sends a request a byte at a time, would otherwise take from the jobs the files that they
open. The server beneath waits for the head of a request for ever.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from dc_rt.serve.settings import Limits

AT_ONCE = 128
"""Connections that are taken before any of them is looked at: what a burst of them may exceed the limit by."""

_KEPT_FILES = AT_ONCE + 100  # for jobs, events, results and what Python itself has open
_FILES_EACH = 2  # the connection, and the result that it is sent


def protocol(limits: Limits) -> Callable[..., asyncio.Protocol]:
    """What makes the protocol of each connection, for `uvicorn.Config`."""
    return partial(_Connection, limits.head_seconds, min(limits.num_connections, _most_for_files()))


class _Connection(H11Protocol):
    def __init__(self, head_seconds: float, most: int, **of_server: Any) -> None:
        super().__init__(**of_server)
        self._head_seconds = head_seconds
        self._most = most
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as the server has it
        """Somebody has connected."""
        super().connection_made(transport)
        if len(self.connections) > self._most:
            transport.abort()
        else:
            self._mind_the_head()

    def data_received(self, data: bytes) -> None:
        """Some of a request has come."""
        super().data_received(data)
        self._mind_the_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended."""
        self._have_patience_no_more()
        super().connection_lost(exc)

    def _mind_the_head(self) -> None:
        """Once there is a head, the body has a time of its own (`dc_rt.serve.uploads`)."""
        if self.conn.their_state is not h11.IDLE:
            self._have_patience_no_more()
        elif self._patience is None:
            self._patience = self.loop.call_later(self._head_seconds, self._give_up)

    def _have_patience_no_more(self) -> None:
        if self._patience:
            self._patience.cancel()
        self._patience = None

    def _give_up(self) -> None:
        self._patience = None
        if self.conn.their_state is h11.IDLE:
            self.transport.close()


def _most_for_files() -> int:
    """How many connections this process may have open at once, so that files are left for all else."""
    if sys.platform == "win32":
        return 1 << 16
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 1 << 16
    return max((soft - _KEPT_FILES) // _FILES_EACH, 1)
