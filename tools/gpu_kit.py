"""Make a kit for a machine with a GPU and PyTorch but without a network: build/gpu-kit.

    python tools/gpu_kit.py make                            # wheels, this checkout, manifests, kit.py and SHA256SUMS
    python tools/gpu_kit.py split|join|check [FOLDER]       # as the kit's own kit.py does

The wheels are for the Python and the system that make them: `make gpu-kit PYTHON=python3.12` for another Python.
PyTorch, and what comes with it (triton, NVIDIA's libraries), is the machine's own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from email import message_from_bytes
from pathlib import Path

import kit
from requirements import name_of, requirements

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "build" / "gpu-kit"
EXTRAS = ["export", "rtx", "bench", "xformers"]
# A version of PyTorch that no index has: nothing but the stand-in can be taken for it.
STAND_IN = "2.13.0+machine"
# What requires PyTorch: it is installed without looking at what that requires in its turn.
ALONE = ("accelerate", "xformers")
# Packages that have no wheel on an index: theirs is made from a few lines, which only require the libraries.
FROM_SOURCE = "tensorrt-rtx-cu13"
PREPARED = Path("build", "gpu-check", "prepared")


def make(folder: Path, split: bool) -> None:
    """Make the kit anew; with `split`, files above 45 MB are left in parts.

    Raises:
        KitError: pip cannot get the wheels, or the manifests cannot be made.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    wanted = wanted_requirements()
    download(wanted, folder / kit.WHEELS)
    alone = [line for line in wanted if name_of(line) in ALONE]
    theirs = [line for name in ALONE for line in required_by(name, folder / kit.WHEELS)]
    _write_lines(folder / kit.REQUIREMENTS, [*(line for line in wanted if line not in alone), *theirs])
    _write_lines(folder / kit.ALONE, alone)
    prepare_manifests()
    pack_checkout(folder / kit.CHECKOUT)
    shutil.copy(kit.__file__, folder / "kit.py")
    kit.write_sums(folder)
    if split:
        kit.split(folder)


def wanted_requirements() -> list[str]:
    """What the kit installs, a requirement each: all but PyTorch, ONNX Runtime's GPU build, and of it nothing else."""
    lines = [line for line in requirements(EXTRAS, gpu=True) if name_of(line) != "torch"]
    # Its extras are NVIDIA's libraries, which came with PyTorch.
    return [line.replace("[cuda,cudnn]", "") for line in lines]


def download(wanted: Sequence[str], wheels: Path) -> None:
    """Have the wheels of these requirements and of all that they require, in the versions that are tested."""
    with tempfile.TemporaryDirectory() as temporary:
        stand_in = write_stand_in(Path(temporary))
        listed, constraints = Path(temporary, "requirements.txt"), Path(temporary, "constraints.txt")
        _write_lines(listed, [*wanted, f"torch=={STAND_IN}"])
        pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        _write_lines(constraints, [line for line in pins if name_of(line) != "torch"])
        command = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--quiet"]
        places = ["--find-links", temporary, "--wheel-dir", str(wheels)]
        binary = ["--only-binary=:all:", f"--no-binary={FROM_SOURCE}"]
        done = subprocess.run([*command, *places, *binary, "-c", str(constraints), "-r", str(listed)], check=False)
        if done.returncode:
            raise kit.KitError("pip cannot get the wheels (it says why above); see that its index can be reached.")
        (wheels / stand_in.name).unlink()


def required_by(name: str, wheels: Path) -> list[str]:
    """What a package requires by its wheel, always and beside PyTorch."""
    (path,) = wheels.glob(f"{name}-*.whl")
    with zipfile.ZipFile(path) as wheel:
        (about,) = (file for file in wheel.namelist() if file.endswith(".dist-info/METADATA"))
        stated = message_from_bytes(wheel.read(about)).get_all("Requires-Dist", [])
    return [line for line in stated if ";" not in line and name_of(line) != "torch"]


def write_stand_in(folder: Path) -> Path:
    """Write a wheel that stands for the machine's PyTorch: with it, pip neither takes one nor what one comes with."""
    path = folder / f"torch-{STAND_IN}-py3-none-any.whl"
    about = f"torch-{STAND_IN}.dist-info"
    contents = {
        "METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {STAND_IN}\n",
        "WHEEL": "Wheel-Version: 1.0\nGenerator: gpu_kit\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "RECORD": "",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in contents.items():
            wheel.writestr(f"{about}/{name}", text)
    return path


def prepare_manifests() -> None:
    """Write the manifests with which PyTorch runs the models before anything is exported."""
    command = [sys.executable, "-m", "bench.gpu_check.manifests"]
    if subprocess.run(command, cwd=ROOT, env=_environment(), check=False).returncode:
        raise kit.KitError("The manifests cannot be made (why is above); run `make dev`, then `make gpu-kit`.")


def pack_checkout(path: Path) -> None:
    """Pack the files that Git knows, as they are, and the prepared manifests."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]
    names += [found.relative_to(ROOT) for found in sorted((ROOT / PREPARED).rglob("*.json"))]
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            archive.add(ROOT / name, Path(kit.SOURCE, name))


def _environment() -> dict[str, str]:
    paths = [str(ROOT / "runtime"), str(ROOT / "export"), str(ROOT)]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("make", "split", "join", "check"))
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--split", action="store_true", help="leave files above 45 MB in parts")
    arguments = parser.parse_intermixed_args(words)
    if arguments.action != "make":
        return kit.main([arguments.action, str(arguments.folder)])
    try:
        make(arguments.folder.resolve(), arguments.split)
    except kit.KitError as error:
        print(error, file=sys.stderr)
        return 1
    size = sum(path.stat().st_size for path in arguments.folder.rglob("*") if path.is_file())
    print(f"{arguments.folder}: {size / 1e6:.0f} MB. On the machine with the GPU: python3 kit.py install")
    return 0


if __name__ == "__main__":
    sys.exit(main())
