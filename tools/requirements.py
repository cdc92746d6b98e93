"""Print what pyproject.toml requires, a line each, for pip; it is run before anything is installed."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - this is the file that tells
    sys.exit(
        f"Python 3.11 or newer is needed, and this is {sys.version.split()[0]}; choose another: make PYTHON=python3.13"
    )

import tomllib

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"

# A name, extras of its own, the lowest version, and what may stand behind it.
_RANGE = re.compile(r"([\w.-]+)(\[[^]]*\])?>=([\w.]+)(,[^;]*)?")


def requirements(extras: list[str], lowest: bool = False, gpu: bool = False) -> list[str]:
    """The requirements of the package and of `extras`, keys of the optional dependencies.

    Args:
        extras: what to install beside the runtime.
        lowest: give the lowest version of each range in the range's place.
        gpu: give onnxruntime-gpu in the place of onnxruntime: both are one module.

    Raises:
        ValueError: a requirement is neither pinned nor a range with a lowest version.
    """
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    stated = [*project["dependencies"]]
    for extra in extras:
        stated += project["optional-dependencies"][extra]
    lines = []
    for text in stated:
        if "==" not in text and not _RANGE.fullmatch(text):
            raise ValueError(f"{text!r} is no range with a lowest version, such as 'numpy>=2.1'.")
        line = _RANGE.sub(r"\1\2==\3", text) if lowest else text
        lines.append(re.sub(r"^onnxruntime(?=[<>=])", "onnxruntime-gpu[cuda,cudnn]", line) if gpu else line)
    return lines


def extra_requirements(extra: str) -> list[str]:
    """What an extra requires beside the package itself."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    return list(project["optional-dependencies"][extra])


def name_of(line: str) -> str:
    """The package that a requirement or a pin is of."""
    return re.split(r"[\[=<>~!; ]", line, maxsplit=1)[0]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Print what pyproject.toml requires, a line each, for pip.")
    parser.add_argument("extras", nargs="*", metavar="EXTRA")
    parser.add_argument("--lowest", action="store_true", help="the lowest versions of the ranges")
    parser.add_argument("--gpu", action="store_true", help="onnxruntime-gpu in the place of onnxruntime")
    arguments = parser.parse_args()
    print(*requirements(arguments.extras, arguments.lowest, arguments.gpu), sep="\n")


if __name__ == "__main__":
    main()
