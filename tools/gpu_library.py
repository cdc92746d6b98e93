"""Install the library that suits this machine's card, into the environment that runs this: see `dc_rt.library`.

`make engines` runs it in both environments, so that what was built in one runs in the other.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from dc_rt.errors import UserError, worded
from dc_rt.gpu import find_card
from dc_rt.library import FLAVOURS_ASKED, Library, choose_library
from dc_rt.options import as_flag
from requirements import extra_requirements, name_of

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def missing(library: Library) -> list[str]:
    """The packages of its extra that are not installed, as pyproject.toml requires them."""
    return [line for line in extra_requirements(library.extra) if not _is_installed(line)]


def install(library: Library, constraints: Path) -> None:
    """Install its extra, in the versions of a file of constraints. Raises `UserError` where pip cannot."""
    lines = extra_requirements(library.extra)
    names = {name_of(line) for line in lines}
    remove_other(library)
    with tempfile.TemporaryDirectory() as folder:
        # The versions that are tested; cuda-bindings for CUDA 13 alone, beside which the extra has a ceiling.
        tested = Path(folder, "constraints.txt")
        pins = [line for line in constraints.read_text().splitlines() if name_of(line) in names]
        tested.write_text("\n".join(pins if library.cuda == 13 else []))
        command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
        done = subprocess.run([*command, "-c", str(tested), *lines], check=False)
    if done.returncode:
        raise UserError(
            f"{library.package} cannot be installed into {sys.prefix} (pip says why above); see that its index can be "
            "reached, or take the other library (FLAVOUR=rtx or FLAVOUR=tensorrt)."
        )


def remove_other(library: Library) -> None:
    """Take out the same library of the other CUDA. Both are one module: where they lie over one another, both go."""
    if others(library):
        every = sorted(name for name in _installed() if name.startswith(_stem(library)))
        subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", *every], check=True)


def others(library: Library) -> list[str]:
    """The packages of the same library for the other CUDA that are installed."""
    return sorted(
        name for name in _installed() if name.startswith(_stem(library)) and not name.startswith(library.package)
    )


def _stem(library: Library) -> str:
    return library.package.removesuffix(str(library.cuda))


def _installed() -> set[str]:
    """Names of all packages, as indexes have them: files may have underscores for hyphens."""
    return {found.name.lower().replace("_", "-") for found in distributions()}


def _is_installed(requirement: str) -> bool:
    """Whether the package is there, in a version from the least on: a ceiling is pip's to keep."""
    try:
        found = version(name_of(requirement))
    except PackageNotFoundError:
        return False
    _, _, bounds = requirement.partition(">=")
    least, _, below = bounds.partition(",<")
    return _numbers(found) >= _numbers(least) and (not below or _numbers(found) < _numbers(below))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


def main() -> None:
    """Decide, say it, and install what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flavour", default="auto", choices=FLAVOURS_ASKED)
    parser.add_argument("--constraints", type=Path, default=CONSTRAINTS, help="the versions that are tested")
    arguments = parser.parse_args()
    try:
        card = find_card()
        library = choose_library(card, arguments.flavour)
        print(f"{card or 'No GPU'}: {library}", flush=True)
        if missing(library) or others(library):
            print(f"Installing {library.package} into {sys.prefix}", flush=True)
            install(library, arguments.constraints)
    except UserError as error:
        raise SystemExit(worded(error.sentence, as_flag)) from None


if __name__ == "__main__":
    main()
