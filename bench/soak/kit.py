"""The kit for machines without a network, made, installed and tried where there is none: a dry run of every step.

    python -m bench.soak.kit                                # makes a kit in a temporary folder: some minutes
    python -m bench.soak.kit --kit build/gpu-kit            # of one that is there: it is copied

The machine is an environment with PyTorch and NumPy alone. `kit.py install` and `make gpu-check` run in it without a
network (of their own, empty one: `unshare`); then `make gpu-check` again with each of TensorRT, ONNX Runtime and
diffusers taken out. Each must end well and say what was left out. Prints what it does; writes bench/results/kit.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.records import RESULTS, write_record
from bench.speed.machine import describe

ROOT = Path(__file__).parents[2]
MACHINE = ("torch", "numpy")
# Packages of the kit that are taken out, and what a row then says.
LIBRARIES = {
    "TensorRT": (
        ("tensorrt-rtx-cu13", "tensorrt-rtx-cu13-libs", "tensorrt-rtx-cu13-bindings"),
        "neither TensorRT nor TensorRT-RTX is installed",
    ),
    "ONNX Runtime": (("onnxruntime-gpu",), "onnxruntime is not installed"),
    "diffusers": (("diffusers",), "diffusers is not installed"),
}


def without_network() -> list[str]:
    """What is put before a command, so that it has no network; nothing where the system does not allow that."""
    wrapper = ["unshare", "--map-root-user", "--net"]
    works = shutil.which("unshare") and subprocess.run([*wrapper, "true"], check=False).returncode == 0
    return wrapper if works else []


def bare_environment(home: Path) -> dict[str, str]:
    """Of a user who has set nothing; with a proxy that nothing listens at, should there be a network after all."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return nowhere | {"PATH": os.environ["PATH"], "HOME": str(home), "PIP_CONFIG_FILE": os.devnull}


class Machine:
    """A Python with PyTorch and nothing of ours, and a kit beside it."""

    def __init__(self, folder: Path, kit: Path) -> None:
        self.kit = kit
        self._wrapper = without_network()
        self._environment = bare_environment(folder)
        self._python = folder / "machine" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", str(folder / "machine")], check=True)
        pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        its_own = [line for line in pins if line.split("==")[0] in MACHINE]
        subprocess.run([str(self._python), "-m", "pip", "install", "--quiet", *its_own], check=True)

    @property
    def has_no_network(self) -> bool:
        """Whether commands have none; else they are only kept from finding it."""
        return bool(self._wrapper)

    def install(self) -> float:
        """Install the kit; the seconds that it took."""
        began = time.monotonic()
        self._run([str(self._python), str(self.kit / "kit.py"), "install"], self.kit)
        return time.monotonic() - began

    def take_out(self, packages: Sequence[str]) -> None:
        """Uninstall packages of the kit."""
        self._run([*self._pip, "uninstall", "--yes", *packages], self.kit)

    def put_back(self, packages: Sequence[str]) -> None:
        """Install them again, from the kit."""
        self._run([*self._pip, "install", "--no-index", "--find-links", "wheels", "--no-deps", *packages], self.kit)

    def dry_run(self, flags: str) -> int:
        """`make gpu-check` on the CPU, as on the machine with the GPU; the exit status."""
        python = f"PYTHON_GPU={self.kit / 'env' / 'bin' / 'python'}"
        command = ["make", "gpu-check", python, f"GPU_CHECK_FLAGS=--dry-run {flags}"]
        print(f"\n$ {' '.join(command)}", flush=True)
        return subprocess.run(
            [*self._wrapper, *command], cwd=self.kit / "depthcrafter-rt", env=self._environment, check=False
        ).returncode

    @property
    def _pip(self) -> list[str]:
        return [str(self.kit / "env" / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check"]

    def _run(self, command: Sequence[str], folder: Path) -> None:
        print(f"\n$ {' '.join(command)}", flush=True)
        subprocess.run([*self._wrapper, *command], cwd=folder, env=self._environment, check=True)


def tried(machine: Machine, results: Path, flags: str, missing: str = "") -> dict[str, Any]:
    """A dry run with something missing, or nothing: its exit status, and rows by verdict and what they leave out."""
    began = time.monotonic()
    status = machine.dry_run(f"{flags} --results {results}")
    record = json.loads((results / "gpu-check-dry-run.json").read_text(encoding="utf-8"))
    rows = [row for step in record["steps"].values() for row in step["rows"]]
    verdicts = [row["status"] for row in rows]
    return {
        "missing": missing or "nothing",
        "status": status,
        "seconds": round(time.monotonic() - began, 1),
        "steps": sorted(record["steps"]),
        "rows": {verdict: verdicts.count(verdict) for verdict in sorted(set(verdicts))},
        "left_out": sorted({without_commands(row["note"]) for row in rows if row["status"] == "skipped"}),
    }


def without_commands(note: str) -> str:
    """A note without the commands that it advises: they name folders of the machine that it was tried on."""
    return re.sub(r" \(`.*`\)", "", note)


def is_good(run: Mapping[str, Any]) -> bool:
    """Whether a dry run ended well and says what was missing."""
    missing = run["missing"]
    return run["status"] == 0 and (missing == "nothing" or LIBRARIES[missing][1] in run["left_out"])


def main() -> None:
    """Make, install and try it; exits with 1 where a dry run fails or does not say what it leaves out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kit", type=Path, help="a kit that is there")
    parser.add_argument("--flags", default="", help="more of gpu-check's: --only STEPS, for example")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of kit.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        kit = folder / "kit"
        if arguments.kit:
            shutil.copytree(arguments.kit, kit, ignore=shutil.ignore_patterns("env", "depthcrafter-rt"))
        else:
            subprocess.run(
                [sys.executable, str(ROOT / "tools" / "gpu_kit.py"), "make", "--split", str(kit)], check=True
            )
        machine = Machine(folder, kit)
        seconds = machine.install()
        runs = [tried(machine, folder / "all", arguments.flags)]
        for library, (packages, _) in LIBRARIES.items():
            machine.take_out(packages)
            runs.append(tried(machine, folder / packages[0], arguments.flags, library))
            machine.put_back(packages)
    print(f"\ninstalled in {seconds:.0f} s; {'no network' if machine.has_no_network else 'an unroutable proxy'}")
    for run in runs:
        verdict = "good" if is_good(run) else "NOT GOOD"
        print(
            f"{run['missing']:>12} missing: {verdict}, exit status {run['status']}, {run['seconds']} s, {run['rows']}"
        )
    found = {"machine": describe(), "network": not machine.has_no_network, "install_seconds": round(seconds, 1)}
    write_record(found | {"dry_runs": runs}, "kit", arguments.results)
    if not all(map(is_good, runs)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
