"""A frame as a mesh, in a binary glTF file (docs/scene.md)."""

from __future__ import annotations

from pathlib import Path

from dc_rt.geometry import Lens
from dc_rt.stored import Stored


def write_glb(stored: Stored, path: Path, lens: Lens, frame: int) -> None:
    """Write it."""
    raise NotImplementedError
