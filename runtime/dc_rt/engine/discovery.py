"""Which engine set to use when the user names none."""

from __future__ import annotations

import os
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
    """The complete engine sets among the subfolders of `folder`; their contents are not hashed."""
    complete = {}
    for path in sorted(folder.glob(f"*/{MANIFEST}")):
        try:
            manifest = Manifest.read(path.parent)
            manifest.check_complete(path.parent)
        except UserError:
            continue
        complete[path.parent] = manifest
    return complete
