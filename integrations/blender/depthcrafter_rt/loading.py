"""A result on disk into a scene, as its settings say."""

from pathlib import Path

import bpy

from .results import read_result
from .scene import load_relief, load_scene
from .settings import CAMERA, RELIEF, settings_of


def load(record: Path, scene: bpy.types.Scene, load_as: str) -> tuple[str, ...]:
    """Load the result whose record is `NAME.json`; what a person should know of it, a sentence each.

    Args:
        record: its path.
        scene: that it is added to.
        load_as: `CAMERA`, `RELIEF` or `NOTHING`.

    Raises:
        Problem: as of `read_result`.
    """
    load_with = {CAMERA: load_scene, RELIEF: load_relief}.get(load_as)
    if load_with is None:
        return ()
    settings = settings_of(scene)
    loaded = load_with(read_result(record), scene, settings.first_frame, settings.sets_scene)
    return loaded.notes
