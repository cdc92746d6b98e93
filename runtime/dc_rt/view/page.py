"""One HTML file that shows a result, with all of it inside (docs/view.md)."""

from __future__ import annotations

from pathlib import Path

from dc_rt.geometry import Lens
from dc_rt.stored import Stored


def write_page(stored: Stored, path: Path, lens: Lens, frames: range) -> None:
    """Write it."""
    raise NotImplementedError
