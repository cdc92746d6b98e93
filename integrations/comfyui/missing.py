"""What is said where dc-rt cannot be imported."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path


def what_to_install(error: ImportError) -> str:
    """What is missing, and the command that installs it into the Python that runs ComfyUI."""
    # dc_rt.installation knows better, and cannot be imported either. Linked into custom_nodes from a checkout, this
    # folder says where that is; a copy of it does not.
    checkout = Path(__file__).resolve().parents[2]
    source = str(checkout) if (checkout / "runtime" / "dc_rt").is_dir() else "PATH-OF-DEPTHCRAFTER-RT"
    words = [sys.executable or "python", "-m", "pip", "install", source]
    command = subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)
    return (
        f"dc-rt cannot be imported by the Python that runs ComfyUI ({error}); run `{command}` "
        "(Python 3.11 or later), then start ComfyUI again."
    )
