"""Build a version, check its wheel in a new environment, and tag it; or refuse in one sentence. Nothing is uploaded."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSION_FILE = ROOT / "runtime" / "dc_rt" / "_version.py"
CHANGELOG = ROOT / "CHANGELOG.md"
DIST = ROOT / "dist"


class Refused(Exception):
    """Why nothing is released, and the fix."""


def check(version: str) -> None:
    """Raise `Refused` unless this checkout can become the version."""
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise Refused(f"{version!r} is no version of three numbers; give one: make release VERSION=1.2.3")
    stated = re.search(r'__version__ = "(.*)"', VERSION_FILE.read_text(encoding="utf-8"))
    if not stated or stated[1] != version:
        found = stated[1] if stated else "no version"
        raise Refused(f"{VERSION_FILE.relative_to(ROOT)} has {found}, not {version}; write the version there first.")
    if not re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", CHANGELOG.read_text("utf-8"), re.MULTILINE):
        raise Refused(f"CHANGELOG.md has no line `## [{version}] - YYYY-MM-DD`; say there what has changed.")
    if changed := git("status", "--porcelain"):
        raise Refused(f"There are changes that are not committed ({changed.split()[1]}, ...); commit or remove them.")
    if git("tag", "--list", tag_of(version)):
        raise Refused(f"There is a tag {tag_of(version)} already; choose the next version.")


def build(folder: Path) -> tuple[Path, Path]:
    """The wheel and the source distribution, in `dist/`; the builder is put into `folder`."""
    run(sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), "hatchling")
    for old in DIST.glob("*"):
        old.unlink()
    run(sys.executable, "-m", "hatchling", "build", "--directory", str(DIST), PYTHONPATH=str(folder))
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    return wheel, sdist


def try_wheel(wheel: Path, version: str, folder: Path, wheels: Path | None) -> None:
    """Run the wheel in a new environment in `folder`, with nothing of the checkout but a clip.

    Args:
        wheel: what is tried.
        version: the one that it must have.
        folder: an empty one.
        wheels: where what the wheel needs is taken from; None is pip's index.
    """
    run(sys.executable, "-m", "venv", str(folder / "venv"))
    scripts = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    source = ["--no-index", "--find-links", str(wheels.resolve())] if wheels else []
    run(str(scripts / "python"), "-m", "pip", "install", "--quiet", *source, str(wheel))
    read = "from importlib.metadata import version; print(version('depthcrafter-rt'))"
    found = run(str(scripts / "python"), "-c", read, cwd=folder).strip()
    if found != version:
        raise Refused(f"{wheel.name} says that it is version {found}, not {version}; build it again.")
    run(str(scripts / "dc-rt"), "--help", cwd=folder)
    clip = str(ROOT / "examples" / "demo.mp4")
    run(str(scripts / "dc-rt"), "infer", clip, "--process-length", "2", "--max-res", "128", cwd=folder)
    if not (folder / "demo_output" / "demo_depth.mp4").is_file():
        raise Refused(f"{wheel.name} ran a clip and wrote no demo_depth.mp4; `make test` may say why.")


def release(version: str, wheels: Path | None) -> None:
    """Check, build, try and tag.

    Raises:
        Refused: the version cannot be released, or a step went wrong; there is no tag then.
    """
    check(version)
    with tempfile.TemporaryDirectory() as name:
        wheel, sdist = build(Path(name) / "builder")
        print(f"Built {wheel.name} and {sdist.name} in dist/")
        try_wheel(wheel, version, Path(name), wheels)
    git("tag", "--annotate", tag_of(version), "--message", f"Version {version}")
    print(f"Tagged {tag_of(version)}; nothing is uploaded: git push origin {tag_of(version)}")


def tag_of(version: str) -> str:
    """The tag of a version."""
    return f"v{version}"


def git(*words: str) -> str:
    """What git prints."""
    return run("git", *words, cwd=ROOT)


def run(*words: str, cwd: Path = ROOT, **variables: str) -> str:
    """What a command prints; raises `Refused` where it fails. It finds no package of this checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it says nothing"]
        raise Refused(f"`{' '.join(words)}` ended with status {done.returncode}: {last[0]}")
    return done.stdout


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Build, check and tag a version; nothing is uploaded.")
    parser.add_argument("version", help="x.y.z, as runtime/dc_rt/_version.py and CHANGELOG.md have it")
    parser.add_argument("--wheels", type=Path, help="a folder of wheels, in the place of an index")
    arguments = parser.parse_args()
    try:
        release(arguments.version, arguments.wheels)
    except Refused as refused:
        sys.exit(str(refused))


if __name__ == "__main__":
    main()
