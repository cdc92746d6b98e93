"""The original is run in a process that sees no package of ours, although its own has the name of one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from install_helpers import ROOT, with_path

SCRIPT = ROOT / "examples" / "run_original.py"

# Stands for the original, which needs a GPU and weights: what it was given, and whose package it found.
RUN = """
import json, sys, pathlib, numpy
import depthcrafter
given = dict(word[2:].split("=", 1) for word in sys.argv[1:])
stem = pathlib.Path(given["video_path"]).stem
folder = pathlib.Path(given["save_folder"])
folder.mkdir()
(folder / "given.json").write_text(json.dumps(given | {"package": depthcrafter.__file__}))
numpy.savez(folder / f"{stem}.npz", depth=numpy.linspace(0, 1, 24, dtype=numpy.float32).reshape(2, 3, 4))
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "DepthCrafter"
    (folder / "depthcrafter").mkdir(parents=True)
    (folder / "depthcrafter" / "__init__.py").touch()
    (folder / "run.py").write_text(RUN)
    return folder


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=with_path(ROOT))


def test_the_original_is_run_and_compared(checkout: Path) -> None:
    Path("unet").mkdir()
    done = run(checkout, "a clip.mp4", "--python", sys.executable, "--unet", "unet", "--max-res", "640")
    assert done.returncode == 0, done.stderr
    given = json.loads(Path("original/given.json").read_text())
    assert Path(given.pop("package")).is_relative_to(checkout)
    assert given == {
        "video_path": str(Path("a clip.mp4").resolve()),
        "save_folder": str(Path("original").resolve()),
        "save_npz": "True",
        "unet_path": str(Path("unet").resolve()),
        "pre_train_path": "stabilityai/stable-video-diffusion-img2vid-xt",
        "max_res": "640",
        "process_length": "-1",
        "num_inference_steps": "5",
    }
    depth = np.load("original/a clip.npz")["depth"]
    np.savez("ours.npz", depth=depth / 2)
    compared = run(checkout, "a clip.mp4", "--compare", "ours.npz")
    assert compared.stdout == "mean |difference| 0.25000, 0.00000 after one scale and shift\n"
    np.savez("ours.npz", depth=depth[1:])
    assert "run both with the same options" in run(checkout, "a clip.mp4", "--compare", "ours.npz").stderr


def test_what_cannot_be_run_is_one_sentence(checkout: Path, tmp_path: Path) -> None:
    assert "has no run.py; give a checkout" in run(tmp_path, "clip.mp4").stderr
    assert "rename it" in run(checkout, "a,b.mp4").stderr
    assert "run the original first" in run(checkout, "clip.mp4", "--compare", "ours.npz").stderr
    (checkout / "run.py").write_text("raise SystemExit(3)")
    failed = run(checkout, "clip.mp4", "--python", sys.executable)
    assert failed.returncode == 1
    assert failed.stderr == "The original ended with status 3; see what it says above.\n"
