"""Point clouds, a binary PLY file a frame (docs/scene.md)."""

from __future__ import annotations

from pathlib import Path

from dc_rt.geometry import Lens
from dc_rt.stored import Stored


def write_ply(stored: Stored, folder: Path, lens: Lens, frames: range) -> None:
    """Write them."""
    raise NotImplementedError
