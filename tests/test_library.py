"""Which library is for which card: the table of decisions, and what is said where there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dc_rt import UserError
from dc_rt.gpu import ENVIRONMENT, Card, check_devices, find_card
from dc_rt.installation import install_command
from dc_rt.library import RTX_TARGETS, NoLibrary, choose_library

ROOT = Path(__file__).parents[1]
NEW, OLD, ANCIENT = "580.65.06", "550.54.15", "470.82"
GIB = 1 << 30

# Card, compute capability, driver, system, processor, what is asked for; flavour, package, targets, part of the reason.
TABLE = [
    ("RTX 3060", (8, 6), NEW, "linux", "x86_64", "auto", "rtx", "tensorrt-rtx-cu13", RTX_TARGETS, "one of its targets"),
    ("RTX 3090", (8, 6), NEW, "linux", "x86_64", "auto", "rtx", "tensorrt-rtx-cu13", RTX_TARGETS, "8.6"),
    ("RTX 4090", (8, 9), NEW, "linux", "x86_64", "auto", "rtx", "tensorrt-rtx-cu13", RTX_TARGETS, "8.9"),
    ("RTX 5090", (12, 0), NEW, "linux", "x86_64", "auto", "rtx", "tensorrt-rtx-cu13", RTX_TARGETS, "12.0"),
    ("A100", (8, 0), NEW, "linux", "x86_64", "auto", "tensorrt", "tensorrt-cu13", ("8.0",), "data centres"),
    ("H100", (9, 0), NEW, "linux", "x86_64", "auto", "tensorrt", "tensorrt-cu13", ("9.0",), "data centres"),
    ("B200", (10, 0), NEW, "linux", "x86_64", "auto", "tensorrt", "tensorrt-cu13", ("10.0",), "data centres"),
    ("T4", (7, 5), NEW, "linux", "x86_64", "auto", "tensorrt", "tensorrt-cu13", ("7.5",), "Turing"),
    ("RTX 3060, CUDA 12", (8, 6), OLD, "linux", "x86_64", "auto", "rtx", "tensorrt-rtx-cu12", RTX_TARGETS, "targets"),
    ("H100, CUDA 12", (9, 0), OLD, "linux", "x86_64", "auto", "tensorrt", "tensorrt-cu12", ("9.0",), "data centres"),
    ("RTX 4090, Windows", (8, 9), NEW, "win32", "AMD64", "auto", "rtx", "tensorrt-rtx-cu13", RTX_TARGETS, "8.9"),
    ("GB10, arm64", (12, 1), NEW, "linux", "aarch64", "auto", "rtx", "tensorrt-rtx-cu13", RTX_TARGETS, "12.1"),
    ("GH200, arm64", (9, 0), NEW, "linux", "aarch64", "auto", "tensorrt", "tensorrt-cu13", ("9.0",), "data centres"),
    ("RTX 4090, asked", (8, 9), NEW, "linux", "x86_64", "tensorrt", "tensorrt", "tensorrt-cu13", ("8.9",), "asked for"),
    ("A100, asked", (8, 0), NEW, "linux", "x86_64", "rtx", "rtx", "tensorrt-rtx-cu13", RTX_TARGETS, "asked for"),
    ("Orin", (8, 7), NEW, "linux", "aarch64", "auto", "tensorrt", "tensorrt-cu13", ("8.7",), "Jetson"),
    (None, None, None, "linux", "x86_64", "auto", "rtx", "tensorrt-rtx-cu13", RTX_TARGETS, "without a GPU"),
    (None, None, None, "win32", "ARM64", "auto", "rtx", "tensorrt-rtx-cu13", RTX_TARGETS, "without a GPU"),
]


def card(name, capability, driver):
    return Card(name, capability, driver, 24 * GIB, 23 * GIB) if name else None


@pytest.mark.parametrize(
    ("name", "capability", "driver", "system", "machine", "asked", "flavour", "package", "targets", "reason"),
    TABLE,
    ids=[f"{row[0]}-{row[3]}-{row[5]}" for row in TABLE],
)
def test_each_card_has_its_library(name, capability, driver, system, machine, asked, flavour, package, targets, reason):
    library = choose_library(card(name, capability, driver), asked, system, machine)
    assert (library.flavour, library.package, library.targets) == (flavour, package, targets)
    assert reason in library.reason
    assert f"[{library.extra}]" in install_command(library.extra)


@pytest.mark.parametrize(
    ("name", "capability", "driver", "system", "machine", "asked", "reason", "fix"),
    [
        ("GTX 1080", (6, 1), NEW, "linux", "x86_64", "auto", "compute capability 6.1", "make install-gpu"),
        ("V100", (7, 0), NEW, "linux", "x86_64", "auto", "need 7.5", "another card"),
        ("RTX 3060", (8, 6), ANCIENT, "linux", "x86_64", "auto", "driver 470.82 is too old", "580 or later"),
        ("GH200", (9, 0), OLD, "linux", "aarch64", "auto", "nothing on arm64", "580 or later"),
        ("H100", (9, 0), NEW, "linux", "x86_64", "rtx", "no target of TensorRT-RTX", "flavour tensorrt"),
        ("T4", (7, 5), NEW, "linux", "x86_64", "rtx", "cannot build the UNet", "flavour tensorrt"),
        (None, None, None, "linux", "x86_64", "tensorrt", "there is none here", "flavour rtx"),
        (None, None, None, "darwin", "arm64", "auto", "neither for darwin", "dc-export onnx"),
    ],
)
def test_where_there_is_none_a_sentence_says_why_and_what_to_do(
    name, capability, driver, system, machine, asked, reason, fix
):
    with pytest.raises(NoLibrary) as caught:
        choose_library(card(name, capability, driver), asked, system, machine)
    assert reason in caught.value.reason
    assert fix in caught.value.fix
    assert str(caught.value).endswith(".")


def test_a_flavour_that_is_none_is_refused():
    with pytest.raises(UserError, match="choose one of auto, tensorrt, rtx"):
        choose_library(None, "openvino")


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """A program called nvidia-smi that lists cards as NVIDIA's does, the only one there is."""
    if sys.platform == "win32":
        pytest.skip("it is a shell script")

    def install(*lines, status=0):
        script = tmp_path / "bin" / "nvidia-smi"
        script.parent.mkdir(exist_ok=True)
        body = "\n".join(f"echo '{line}'" for line in lines)
        script.write_text(f"#!/bin/sh\n{body}\nexit {status}\n")
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
        monkeypatch.delenv(ENVIRONMENT, raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    return install


FIRST = "NVIDIA GeForce RTX 4090, 8.9, 580.65.06, 24564, 23000, GPU-1111"
SECOND = "NVIDIA GeForce RTX 3060, 8.6, 580.65.06, 12288, 11000, GPU-2222"


def test_the_card_is_what_the_driver_says(driver):
    driver(FIRST)
    found = find_card()
    assert found == Card("NVIDIA GeForce RTX 4090", (8, 9), "580.65.06", 24564 << 20, 23000 << 20)
    assert found is not None
    assert found.driver_version == (580, 65, 6)


@pytest.mark.parametrize(
    ("visible", "name"), [("1", "3060"), ("1,0", "3060"), ("GPU-2222", "3060"), ("0", "4090"), ("", None), ("-1", None)]
)
def test_of_several_it_is_the_one_that_cuda_would_take(driver, monkeypatch, visible, name):
    driver(FIRST, SECOND)
    assert "4090" in str(find_card())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = find_card()
    assert name in str(found) if name else found is None


def test_a_driver_that_fails_or_knows_nothing_of_a_card_is_no_card(driver):
    driver("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", status=9)
    assert find_card() is None
    driver("Tesla K80, [N/A], 470.82, [N/A], [N/A], GPU-3333")
    assert find_card() is None


def test_devices_that_are_not_here_are_refused(driver):
    driver(FIRST, SECOND)
    check_devices(())
    check_devices(("0", "1", "GPU-2222", "MIG-1"))
    for name in "2", "GPU-3333", "cpu", "":
        with pytest.raises(UserError, match=f"no GPU {name} here.*there are 0 .*4090.*1 .*3060"):
            check_devices(("0", name))
    driver(status=9)
    with pytest.raises(UserError, match="no NVIDIA driver tells of one here"):
        check_devices(("0",))


def test_another_card_can_be_planned_for(monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, "NVIDIA H100, 9.0, 580.65, 81559, 80000")
    assert find_card() == Card("NVIDIA H100", (9, 0), "580.65", 81559 << 20, 80000 << 20)
    monkeypatch.setenv(ENVIRONMENT, "none")
    assert find_card() is None
    monkeypatch.setenv(ENVIRONMENT, "a big one")
    with pytest.raises(UserError, match="COMPUTE CAPABILITY"):
        find_card()


@pytest.mark.parametrize(
    ("planned", "found", "advice"),
    [
        ("NVIDIA H100, 9.0, 580.65, 81559, 80000", "tensorrt-cu13", "tensorrt]"),
        ("NVIDIA GeForce RTX 3060, 8.6, 550.54, 12288, 12000", "tensorrt-rtx-cu12", "rtx-cu12]"),
        ("NVIDIA GeForce GTX 1080, 6.1, 580.65, 8192, 8000", "compute capability 6.1", "make install-gpu"),
        ("NVIDIA GeForce RTX 3060, 8.6, 470.10, 12288, 12000", "driver 470.10 is too old", "580 or later"),
    ],
)
def test_the_doctor_prints_the_row_that_applies_and_the_one_command(planned, found, advice):
    command = [sys.executable, "-m", "dc_rt.cli", "doctor"]
    environment = os.environ | {ENVIRONMENT: planned, "COLUMNS": "900"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    (line,) = [line for line in done.stdout.splitlines() if line.split()[1:2] == ["library"]]
    assert found in line
    assert advice in line
