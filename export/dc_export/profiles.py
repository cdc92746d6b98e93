"""Named size profiles, from `profiles.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path

from dc_rt.engine import Profile, Range
from dc_rt.errors import UserError


def load_profile(name: str) -> Profile:
    """The profile called `name`. Raises `UserError` with the known names where there is none."""
    profiles = tomllib.loads(_profiles_file().read_text())
    if name not in profiles:
        raise UserError(f"There is no profile {name!r}; choose one of {', '.join(profiles)}.")
    return Profile(name, *(Range(*profiles[name][side]) for side in ("height", "width", "frames")))


def _profiles_file() -> Path:
    """The copy in the wheel; in a checkout, which has none, the tracked file."""
    package = Path(__file__).parent
    packaged = package / "profiles.toml"
    return packaged if packaged.exists() else package.parents[1] / "engines" / "profiles.toml"
