"""Backends of other packages: real distributions, installed and found by their entry points."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from install_helpers import install_into, with_path, write_wheel
from media_helpers import moving_gradient, write_clip

FAST = ("--num-denoising-steps", "1", "--window-size", "8", "--overlap", "2")

PLAIN = """
from dc_rt.engine import onnx_runtime

def open_engines(folder, manifest, cpu_offload):
    open_engine, _ = onnx_runtime.open_engines(folder, manifest, cpu_offload)
    return open_engine, "an abacus"
"""

ENTRY_POINTS = """
[dc_rt.backends]
abacus = plain_backend:open_engines
broken = broken_backend:open_engines
onnx = broken_backend:open_engines
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """A folder with a distribution that adds two backends, one of which lacks a module, and claims a third's name."""
    folder = tmp_path_factory.mktemp("plugins")
    files = {
        "plain_backend.py": PLAIN,
        "broken_backend.py": "import module_that_nobody_has",
        "entry_points.txt": ENTRY_POINTS,
    }
    install_into(folder / "installed", write_wheel(folder, "abacus-backends", "1.0", files))
    return folder / "installed"


def infer(backend, plugins):
    write_clip(Path("clip.mp4"), moving_gradient(3, 64, 64), Fraction(24))
    command = [sys.executable, "-m", "dc_rt.cli", "infer", "clip.mp4", "--backend", backend, *FAST]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=with_path(plugins))


def test_a_backend_of_another_package_runs_a_video(plugins):
    done = infer("abacus", plugins)
    assert done.returncode == 0, done.stderr
    assert "abacus on an abacus" in done.stdout.splitlines()[0]
    assert Path("demo_output/clip_depth.mp4").stat().st_size > 0


def test_an_unknown_name_is_answered_with_all_that_there_are(plugins):
    done = infer("abakus", plugins)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "There is no --backend abakus; choose one of auto, onnx, tensorrt, torch, abacus, broken."
    )


def test_a_backend_that_cannot_be_imported_is_one_sentence_that_names_its_package(plugins):
    done = infer("broken", plugins)
    assert done.returncode == 1
    (sentence,) = done.stderr.strip().splitlines()
    assert "module_that_nobody_has" in sentence
    assert "update or reinstall the package abacus-backends" in sentence


def test_a_backend_that_is_built_in_is_nobody_elses(plugins):
    done = infer("onnx", plugins)
    assert done.returncode == 0, done.stderr
    assert "onnx on the CPU" in done.stdout.splitlines()[0]
