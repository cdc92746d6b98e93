"""Running `dc-rt` as its users do, in a process of its own."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def dc_rt(
    *arguments: object, environment: dict[str, str] | None = None, **how: Any
) -> subprocess.CompletedProcess[str]:
    """Run the command; a traceback on its standard error fails the test at once."""
    command = [sys.executable, "-m", "dc_rt.cli", *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
    done = subprocess.run(
        command, text=True, errors="surrogateescape", env=os.environ | (environment or {}), check=False, **streams
    )
    assert "Traceback" not in (done.stderr or ""), done.stderr
    return done


def assert_refused(done: subprocess.CompletedProcess[str], message: str) -> None:
    """One sentence that says what is wrong, and exit status 1."""
    assert done.returncode == 1, done.stderr
    (sentence,) = done.stderr.splitlines()
    assert re.search(message, sentence), sentence
    assert sentence.endswith(".")


def contents(folder: Path, without: str = "", below: str = "") -> dict[str, bytes]:
    """All files by name, but those with the suffix `without` and those in the subfolder `below`."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != without and (not below or folder / below not in path.parents)
    }


def without_override() -> dict[str, Any]:
    """How to run a command so that folders without permissions are closed to it, though root starts it."""
    if sys.platform != "linux":
        if os.name == "nt" or os.geteuid() == 0:
            pytest.skip("here there is no way to close a folder to this user")
        return {}
    libc = ctypes.CDLL(None, use_errno=True)
    drop, capabilities = 24, (1, 2)  # PR_CAPBSET_DROP; CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH

    def give_up() -> None:
        for capability in capabilities if os.geteuid() == 0 else ():
            if libc.prctl(drop, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl")

    return {"preexec_fn": give_up}
