"""A result in space for browsers on other machines, by viser (docs/scene.md)."""

from __future__ import annotations

from dc_rt.geometry import Lens
from dc_rt.stored import Stored


def serve(stored: Stored, lens: Lens, frames: range, host: str, port: int) -> None:
    """Serve it until Ctrl-C or SIGTERM."""
    raise NotImplementedError
