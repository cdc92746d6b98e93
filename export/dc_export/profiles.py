"""Named size profiles, from `profiles.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from dc_rt.engine.manifest import Profile, Range, Shape
from dc_rt.errors import UserError

DEFAULT = "film"  # of engines, unless another is asked for


def load_profile(name: str) -> Profile:
    """The profile called `name`. Raises `UserError` with the known names where there is none."""
    profiles = read_profiles()
    if name not in profiles:
        raise UserError(f"There is no profile {name!r}; choose one of {', '.join(profiles)}.")
    return profiles[name]


def read_profiles() -> dict[str, Profile]:
    """All profiles, by name."""
    tables = tomllib.loads(_profiles_file().read_text())
    return {name: _profile(name, table) for name, table in tables.items()}


def _profile(name: str, table: dict[str, Any]) -> Profile:
    frames = Range(*table["frames"])
    if "sizes" not in table:
        return Profile(name, Range(*table["height"]), Range(*table["width"]), frames)
    first, *others = (
        Shape(Range(height, height, height), Range(width, width, width)) for width, height in table["sizes"]
    )
    return Profile(name, first.height, first.width, frames, tuple(others))


def _profiles_file() -> Path:
    """The copy in the wheel; in a checkout, which has none, the tracked file."""
    package = Path(__file__).parent
    packaged = package / "profiles.toml"
    return packaged if packaged.exists() else package.parents[1] / "engines" / "profiles.toml"
