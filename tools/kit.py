"""Split, join, check and install a kit of wheels, on a machine without a network. The standard library alone.

    python kit.py install            # join, check, and install into ./env, beside the PyTorch that this Python has
    python kit.py join               # put files together again that were split
    python kit.py split              # cut files above 45 MB into parts
    python kit.py check              # hold every file against SHA256SUMS

It lies in the kit that `make gpu-kit` makes, and works on the folder that it lies in unless given another.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import venv
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

PART_BYTES = 45_000_000
PART = ".part-"
SUMS = "SHA256SUMS"
WHEELS, REQUIREMENTS, ALONE, CHECKOUT = "wheels", "requirements.txt", "requirements-alone.txt", "checkout.tar.gz"
SOURCE, ENVIRONMENT, MACHINE = "depthcrafter-rt", "env", "packages-of-the-machine.pth"
BLOCK = 1 << 20


class KitError(Exception):
    """Something that the user can put right; says what, and the command that helps."""


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS of all files of the kit, as sha256sum reads it: of whole files, also of those to be split."""
    lines = [f"{digest(path)}  {path.relative_to(folder).as_posix()}" for path in _files(folder)]
    (folder / SUMS).write_text("\n".join(lines) + "\n", encoding="utf-8")


def split(folder: Path, size: int = PART_BYTES) -> list[Path]:
    """Put parts of at most `size` bytes in the place of every file that has more; gives the parts."""
    parts = []
    for path in [path for path in _files(folder) if path.stat().st_size > size]:
        with path.open("rb") as whole:
            number = 0
            while block := whole.read(size):
                part = path.with_name(f"{path.name}{PART}{number:03d}")
                part.write_bytes(block)
                parts.append(part)
                number += 1
        path.unlink()
    return parts


def join(folder: Path) -> list[Path]:
    """Put the parts of each file together, and remove them once its checksum is right; gives the files.

    Raises:
        KitError: a part is missing or damaged, or SHA256SUMS does not name the file.
    """
    sums = read_sums(folder)
    parts: dict[Path, list[Path]] = {}
    for part in sorted(folder.rglob(f"*{PART}*")):
        name, _, _ = part.name.rpartition(PART)
        parts.setdefault(part.with_name(name), []).append(part)
    for path, found in parts.items():
        expected = sums.get(path.relative_to(folder).as_posix())
        if expected is None:
            raise KitError(f"{SUMS} does not name {path.name}, of which there are parts; copy the kit again.")
        draft = path.with_name(f"{path.name}.joining")
        with draft.open("wb") as whole:
            for part in found:
                whole.write(part.read_bytes())
        if digest(draft) != expected:
            draft.unlink()
            raise KitError(
                f"The {len(found)} parts of {path.name} do not make the file that {SUMS} names: one is missing or "
                "damaged; copy them again, then run `python kit.py join`."
            )
        draft.replace(path)
        for part in found:
            part.unlink()
    return list(parts)


def check(folder: Path) -> int:
    """Hold every file that SHA256SUMS names against its checksum; gives how many.

    Raises:
        KitError: one is missing or another.
    """
    sums = read_sums(folder)
    for name, expected in sums.items():
        path = folder / name
        if not path.is_file():
            raise KitError(f"{name} is missing; run `python kit.py join`, or copy the kit again.")
        if digest(path) != expected:
            raise KitError(f"{name} was changed or damaged (its SHA-256 is not that of {SUMS}); copy it again.")
    return len(sums)


def read_sums(folder: Path) -> dict[str, str]:
    """SHA-256 by name; raises `KitError` where the folder is no kit."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise KitError(f"{folder} is no kit (it has no {SUMS}); make one with `make gpu-kit`.") from None
    pairs = (line.split("  ", 1) for line in lines if line)
    return {name: digest_of_it for digest_of_it, name in pairs}


def digest(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()


def install(folder: Path, without: Sequence[str] = ()) -> Path:
    """Install the kit into an environment of its own, `env`, which sees what this Python has: its PyTorch.

    Nothing that is there already is changed, and nothing is asked of a network.

    Args:
        folder: the kit.
        without: names of packages to leave out.

    Returns:
        The environment's Python.

    Raises:
        KitError: this Python has no PyTorch, the kit is not whole or is for another Python, or pip fails.
    """
    if not find_spec("torch"):
        raise KitError(
            f"{sys.executable} has no PyTorch, which the kit leaves to the machine; run kit.py with one that has "
            "(`python3 -c 'import torch'` tells)."
        )
    join(folder)
    print(f"{check(folder)} files are as they were made", flush=True)
    environment = folder / ENVIRONMENT
    venv.create(environment, with_pip=True, clear=True)
    python = environment / "bin" / "python"
    # An old one comes with the environment, before which PyTorch would not see the machine's.
    _pip(python, "uninstall", "--yes", "setuptools")
    _let_see(python, [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")])
    offline = ["install", "--no-index", "--find-links", str(folder / WHEELS)]
    _pip(python, *offline, *_wanted(folder / REQUIREMENTS, without))
    # What requires PyTorch, last and alone: pip would look at what that requires in its turn, which is not in the kit.
    if alone := _wanted(folder / ALONE, without):
        _pip(python, *offline, "--no-deps", *alone)
    with tarfile.open(folder / CHECKOUT) as archive:
        archive.extractall(folder, filter="data")
    return python


def _wanted(file: Path, without: Sequence[str]) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith(tuple(without))]


def _let_see(python: Path, folders: Sequence[str]) -> None:
    """Let an environment see the packages in these folders, after its own."""
    question = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = subprocess.run(question, capture_output=True, text=True, check=True).stdout.strip()
    Path(own, MACHINE).write_text("\n".join(folders) + "\n", encoding="utf-8")


def _pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    if subprocess.run(command, check=False).returncode:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise KitError(
            f"pip could not install the kit for Python {version} (it says why above); make one for it with "
            f"`make clean gpu-kit PYTHON=python{version}`."
        )


def _files(folder: Path) -> Iterator[Path]:
    """The files of the kit, but its checksums, in order."""
    made_here = {folder / name for name in (ENVIRONMENT, SOURCE)}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != SUMS and not made_here & set(path.parents):
            yield path


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("install", "join", "split", "check"))
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).resolve().parent)
    parser.add_argument("--without", nargs="+", default=[], metavar="PACKAGE", help="not to install")
    arguments = parser.parse_args(words)
    folder = arguments.folder.resolve()
    try:
        if arguments.action == "install":
            python = install(folder, arguments.without)
            print(f"Installed. Now: cd {folder / SOURCE} && make gpu-check PYTHON_GPU={python}")
        elif arguments.action == "check":
            print(f"{check(folder)} files are as they were made")
        else:
            for path in (join if arguments.action == "join" else split)(folder):
                print(path.relative_to(folder))
    except KitError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
