"""Where the program `dc-rt` is, and the environment that it is started in. Knows nothing of Blender."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from .errors import Problem

NAME = "dc-rt"
HOW_TO = "set its path in the add-on's preferences"
_CHECK_SECONDS = 60

# What Blender sets for its own Python, or a user for Blender's, leads another Python astray.
_OF_PYTHON = "PYTHON"
_OF_ENVIRONMENTS = ("VIRTUAL_ENV", "CONDA_PREFIX", "__PYVENV_LAUNCHER__")


def find(configured: str) -> Path:
    """The executable.

    Args:
        configured: its path, or that of the virtual environment, or of the folder, that it is in; "" to look on PATH.

    Raises:
        Problem: it is not there.
    """
    if not configured:
        found = shutil.which(NAME)
        if not found:
            raise Problem(f"{NAME} is not on PATH; install it, or {HOW_TO}.")
        return Path(found)
    path = Path(configured).expanduser()
    if path.is_dir():
        for folder in (path / "bin", path / "Scripts", path):
            found = shutil.which(NAME, path=str(folder))
            if found:
                return Path(found)
        raise Problem(f"There is no {NAME} in {path}; {HOW_TO}.")
    if not path.is_file():
        raise Problem(f"There is no file {path}; {HOW_TO}.")
    return path


def clean_environment(of_blender: Mapping[str, str]) -> dict[str, str]:
    """The variables that the program is started with: Blender's, but those that are meant for Blender's own Python."""
    kept = {
        name: value
        for name, value in of_blender.items()
        if not name.upper().startswith(_OF_PYTHON) and name not in _OF_ENVIRONMENTS
    }
    # What is read here is UTF-8, also where the system's own encoding is another.
    return kept | {"PYTHONUTF8": "1"}


def quiet_process() -> dict[str, int | bool]:
    """Arguments of `subprocess`: no console window, and Ctrl-C on Blender's own terminal is not meant for it."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def check(configured: str, of_blender: Mapping[str, str]) -> str:
    """One sentence that says that the program is there and can be driven.

    Raises:
        Problem: it is not there, does not start, or is older than this add-on.
    """
    path = find(configured)
    try:
        done = subprocess.run(
            [str(path), "infer", "--help"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=clean_environment(of_blender) | {"COLUMNS": "200"},
            timeout=_CHECK_SECONDS,
            check=False,
            **quiet_process(),  # type: ignore[call-overload]
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Problem(f"{path} cannot be started ({error}); {HOW_TO}.") from error
    said = done.stdout.decode("utf-8", "replace")
    if done.returncode:
        last = (done.stderr.decode("utf-8", "replace").strip() or "it says nothing").splitlines()[-1]
        raise Problem(f"{path} does not run ({last}); install it again, or {HOW_TO}.")
    if "--events" not in said:
        raise Problem(f"{path} is no {NAME} that this add-on can follow: it has no --events; update it.")
    return f"{path} is there and can be used."
