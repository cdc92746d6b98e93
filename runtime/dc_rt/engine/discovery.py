"""Which engine set to use when the user names none."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from dc_rt.engine.manifest import MANIFEST, Manifest
from dc_rt.errors import UserError

ENVIRONMENT = "DC_RT_ENGINES"
ENGINES_FOLDER = Path("engines")
BUNDLED = Path(__file__).parent.parent / "bundled"


def choose_engines(named: Path | None) -> tuple[Path, str]:
    """The engine set to use, and in words why: the named one, $DC_RT_ENGINES, the newest in ./engines, the bundled."""
    if named is not None:
        return named, "named by --engines"
    if environment := os.environ.get(ENVIRONMENT):
        return Path(environment), f"named by ${ENVIRONMENT}"
    if found := list_engines(ENGINES_FOLDER):
        newest = max(found, key=lambda folder: found[folder].created)
        return newest, f"the newest complete set in ./{ENGINES_FOLDER}"
    return BUNDLED, f"the bundled set, as there is no --engines, no ${ENVIRONMENT} and no set in ./{ENGINES_FOLDER}"


def list_engines(folder: Path) -> dict[Path, Manifest]:
    """The sets among the subfolders of `folder` that are complete as what they can be run as; nothing is hashed."""
    complete = {}
    for path in sorted(folder.glob(f"*/{MANIFEST}")):
        with suppress(UserError):
            manifest = Manifest.read(path.parent)
            if any(_is_complete(variant, path.parent) for variant in manifest.variants()):
                complete[path.parent] = manifest
    return complete


def _is_complete(manifest: Manifest, folder: Path) -> bool:
    try:
        manifest.check_complete(folder)
    except UserError:
        return False
    return True
