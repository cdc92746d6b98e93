"""What an installation takes on the disk: a distribution and all that it requires, counted from what is installed."""

from __future__ import annotations

import importlib.metadata as metadata
import os
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

OURS = "depthcrafter-rt"
PACKAGES = ("dc_rt", "dc_export", "depthcrafter")


def installed_bytes(extras: Iterable[str]) -> int | None:
    """Size of the environment that installing this project with `extras` makes; None where a part is not installed."""
    if not find_spec("packaging"):  # which the runtime's environment may do without
        return None
    extras = tuple(extras)
    names = closure(OURS, extras)
    if names is None:
        return None
    # In a checkout the distribution's own files are but a link to its packages.
    return size_of(names - {OURS}) + sum(_folder_bytes(package) for package in PACKAGES)


def closure(name: str, extras: Iterable[str] = ()) -> set[str] | None:
    """Names of a distribution and of all that it requires, with these extras, on this machine.

    None where a direct requirement is not installed; missing ones further down are taken as not needed.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(name), extra) for extra in ("", *extras)]
    direct = len(waiting)
    while waiting:
        current, extra = waiting.pop(0)
        direct -= 1
        if (current, extra) in seen:
            continue
        seen.add((current, extra))
        try:
            requirements = metadata.requires(current) or []
        except metadata.PackageNotFoundError:
            continue
        found.add(current)
        for text in requirements:
            requirement = Requirement(text)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            required = canonicalize_name(requirement.name)
            if direct >= 0 and not _is_installed(required):
                return None
            waiting += [(required, wanted) for wanted in ("", *requirement.extras)]
    return found


def size_of(names: Iterable[str]) -> int:
    """Bytes of all files of these distributions; a file that two of them list counts once."""
    files: set[str] = set()
    for name in names:
        distribution = metadata.distribution(name)
        files.update(os.path.normpath(str(distribution.locate_file(file))) for file in distribution.files or [])
    return sum(_file_bytes(file) for file in files)


def _folder_bytes(package: str) -> int:
    spec = find_spec(package)
    assert spec is not None
    files = (
        file
        for folder in spec.submodule_search_locations or []
        for file in Path(folder).rglob("*")
        if "__pycache__" not in file.parts and file.is_file()
    )
    return sum(file.stat().st_size for file in files)


def _file_bytes(file: str) -> int:
    """0 for what is listed and no longer there, such as compiled files."""
    try:
        return Path(file).stat().st_size
    except FileNotFoundError:
        return 0


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
