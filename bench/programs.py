"""Programs and packages in environments of their own: they bring others, in versions of their choice."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def new_environment(folder: Path, *requirements: str, python: str = sys.executable) -> Path:
    """The folder of programs of an environment that is made at `folder`, with these installed."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    programs = folder / "bin"
    subprocess.run([programs / "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], check=True)
    return programs
