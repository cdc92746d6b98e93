"""The three commands of the README, in a fresh clone and in their order: engines, a video, the benchmark.

    python -m bench.soak.chain                              # nano, for 512x256 and for the shapes of film: half an hour
    python -m bench.soak.chain --profiles 512x256

The clone is of what is committed. Each command must end well: without a GPU a video runs on ONNX Runtime, and says so.
What they print is printed; writes bench/results/chain.json.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.records import write_record
from bench.speed.machine import describe

ROOT = Path(__file__).parents[2]
LATENCY = ("--runs", "1", "--cold-runs", "1")


def commands(profile: str) -> list[list[str]]:
    """What is typed, a command a line of the README."""
    clip = "examples/demo.mp4"
    return [
        ["make", "engines", "MODEL=nano", f"PROFILE={profile}"],
        [".venv/bin/dc-rt", "infer", clip, "--dry-run"],
        [".venv/bin/dc-rt", "infer", clip],
        [".venv/bin/python", "bench/latency.py", *LATENCY, "--name", "runtime"],
        [".venv-dev/bin/python", "bench/latency.py", *LATENCY, "--backends", "onnx", "tensorrt", "eager"],
        [".venv/bin/dc-rt", "doctor"],
    ]


def run(clone: Path, command: Sequence[str]) -> dict[str, Any]:
    """Run a command in the clone: the seconds that it took, and its exit status."""
    print(f"\n$ {' '.join(command)}", flush=True)
    began = time.monotonic()
    status = subprocess.run(command, cwd=clone, check=False).returncode
    return {"command": " ".join(command), "status": status, "seconds": round(time.monotonic() - began, 1)}


def main() -> None:
    """Run all of it for each profile; exits with 1 where a command fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profiles", nargs="+", default=["512x256", "film"])
    arguments = parser.parse_args()
    done = []
    for profile in arguments.profiles:
        with tempfile.TemporaryDirectory() as folder:
            clone = Path(folder, "clone")
            subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
            done += [run(clone, command) | {"profile": profile} for command in commands(profile)]
    write_record({"machine": describe(), "commands": done}, "chain")
    print()
    for each in done:
        print(f"{each['profile']:>8}  {each['seconds']:7.1f} s  exit status {each['status']}  {each['command']}")
    if any(each["status"] for each in done):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
