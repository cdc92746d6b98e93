"""How this copy was installed, and the commands that add to it.

No package index has this package, so that its name alone cannot be installed; and whoever gave an index a package of
that name would have our users run what is in it. Every message that tells to install something asks here.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

PACKAGE = "depthcrafter-rt"
GPU_RUNTIME = "onnxruntime-gpu"

# The Makefile's environments have this file: its time is when they were last brought up to date.
_MADE = ".installed"


def install_command(extra: str, again: bool = False) -> str:
    """The command that installs an extra of this copy, `rtx` for example, into the environment that runs it.

    Args:
        extra: a key of pyproject.toml's optional dependencies.
        again: whether what is there already is to be replaced.
    """
    # What is tested is of CUDA 13, and would keep the libraries of CUDA 12 out.
    options, source = _source(tested=not extra.endswith("-cu12"))
    if not source:
        # Only whoever installed it knows from where.
        source = f"PATH-OF-ITS-FOLDER-OR-WHEEL[{extra}]"
    elif "://" in source:
        source = f"{PACKAGE}[{extra}] @ {source}"
    else:
        source = f"{source}[{extra}]"
    command = pip_install(*(["--force-reinstall"] if again else []), *options, source)
    # pip would put onnxruntime, which this package requires, over the one for GPUs.
    return f"{command} && {gpu_command()}" if _is_installed(GPU_RUNTIME) else command


def gpu_command() -> str:
    """The command that puts onnxruntime-gpu in the place of onnxruntime: both are one module."""
    checkout = _checkout()
    if checkout and _made():
        command = ["make", "-C", str(checkout), "install-gpu"]
        if Path(sys.prefix).resolve() != checkout / ".venv":
            command.append(f"GPU_VENV={sys.prefix}")
        return _words(*command)
    remove = sorted({"onnxruntime", *onnx_runtimes()})
    return f"{pip_uninstall(*remove)} && {pip_install(f'{GPU_RUNTIME}[cuda,cudnn]')}"


def pip_install(*what: str) -> str:
    """The command that installs packages into the environment that runs this."""
    return _pip("install", [], what)


def pip_uninstall(*packages: str) -> str:
    """The command that removes packages from the environment that runs this."""
    return _pip("uninstall", ["--yes"], packages)


def onnx_runtimes() -> list[str]:
    """The installed packages that are the module onnxruntime: two of them lie over one another."""
    return sorted({found.name for found in distributions() if _is_onnx_runtime(found)})


def _is_onnx_runtime(found: Distribution) -> bool:
    """Its execution providers are packages too, with a module each."""
    files = found.files if found.name.startswith(("onnxruntime", "ort-")) else None
    return any(file.as_posix() == "onnxruntime/__init__.py" for file in files or ())


def _pip(action: str, pip_options: list[str], arguments: tuple[str, ...]) -> str:
    """uv makes environments without pip."""
    if not find_spec("pip") and shutil.which("uv"):
        if "--force-reinstall" in arguments:
            arguments = ("--reinstall", *(word for word in arguments if word != "--force-reinstall"))
        return _words("uv", "pip", action, "--python", sys.executable, *arguments)
    return _words(sys.executable or "python3", "-m", "pip", action, *pip_options, *arguments)


def _words(*words: str) -> str:
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def _source(tested: bool) -> tuple[list[str], str]:
    """Options for pip, those for the versions that are `tested` too, and where this copy came from, if that is told."""
    if checkout := _checkout():
        constraints = checkout / "constraints.txt"
        # With the versions that are tested where the Makefile made the environment, since it does so too.
        pins = ["-c", str(constraints)] if tested and _made() and constraints.is_file() else []
        return [*pins, "-e"], str(checkout)
    recorded = _direct_url()
    url = str(recorded.get("url", ""))
    if "vcs_info" in recorded:
        vcs = recorded["vcs_info"]
        subdirectory = f"#subdirectory={recorded['subdirectory']}" if "subdirectory" in recorded else ""
        return [], f"{vcs['vcs']}+{url}@{vcs['commit_id']}{subdirectory}"
    if not url.startswith("file:"):
        return [], url
    path = Path(url2pathname(urlparse(url).path))
    return [], str(path) if path.exists() else ""


def _checkout() -> Path | None:
    """The checkout that this module runs from, if it does: installed with `pip install -e`, or not at all."""
    folder = Path(__file__).resolve().parents[2]
    return folder if (folder / "pyproject.toml").is_file() and (folder / "runtime" / "dc_rt").is_dir() else None


def _is_installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True


def _made() -> bool:
    return (Path(sys.prefix) / _MADE).exists()


def _direct_url() -> dict[str, Any]:
    """What PEP 610 has installers record of a source other than an index; empty where nothing is."""
    try:
        recorded = json.loads(distribution(PACKAGE).read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return {}
    return recorded if isinstance(recorded, dict) else {}
