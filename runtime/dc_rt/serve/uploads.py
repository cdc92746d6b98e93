"""A video that is sent: written to the disk as it comes, and refused as soon as it is too much."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from starlette.requests import ClientDisconnect, Request

from dc_rt.serve.errors import Refused
from dc_rt.serve.settings import Limits

_BLOCK = 1 << 20  # bytes that are written at a time

# What a page of another site can send without being asked whether it may.
_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")


def content_type(request: Request) -> str:
    """What a request says that its body is, without parameters, in lower case; empty where it says nothing."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_upload(request: Request, limits: Limits, free_bytes: float) -> None:
    """Raise `Refused` for what is said of a video up front: its type, and its size."""
    kind = content_type(request)
    if kind in _FORMS:
        raise Refused(
            415, f"A video is not sent as {kind}; send the file itself, with Content-Type: application/octet-stream."
        )
    stated = request.headers.get("content-length", "0")
    size = int(stated) if stated.isdecimal() else 0
    _check_size(size, limits, free_bytes)


async def receive(request: Request, path: Path, limits: Limits, free_bytes: Callable[[], float]) -> int:
    """Write a request's body to `path`, and give its size.

    Raises:
        Refused: it is too large or too slow, the disk has no room for it, or it is empty.
    """
    ends = time.monotonic() + limits.upload_seconds
    size = 0
    block = bytearray()
    stream = aiter(request.stream())
    with path.open("wb") as file:
        while True:
            try:
                async with asyncio.timeout(min(limits.pause_seconds, max(ends - time.monotonic(), 0))):
                    chunk = await anext(stream, None)
            except TimeoutError:
                raise Refused(408, "The video came too slowly; send it again over a faster connection.") from None
            except ClientDisconnect:
                raise Refused(400, "The video did not come to its end; send it again.") from None
            if chunk is not None:
                size += len(chunk)
                _check_size(size, limits)
                block += chunk
            if block and (chunk is None or len(block) >= _BLOCK):
                _check_size(size, limits, free_bytes() + size)
                await asyncio.to_thread(file.write, bytes(block))
                block.clear()
            if chunk is None:
                break
    if not size:
        raise Refused(422, "There is no video in the request; send the file as its body.")
    return size


def _check_size(size: int, limits: Limits, free_bytes: float | None = None) -> None:
    if size > limits.upload_bytes:
        raise Refused(413, f"The video has more than {limits.upload_bytes:,.0f} bytes; send a smaller one.")
    if free_bytes is not None and size > free_bytes:
        raise Refused(507, "The disk has no room for the video; try again when there is some.")
