"""Memory on GPUs as NVML tells it: the code that runs beside a GPU, on a stand-in for NVIDIA's library."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.speed import gpu_memory
from bench.speed.gpu_memory import Peak, Watch

ROOT = Path(__file__).parents[1]
MB = 1_000_000


@dataclass
class Process:
    pid: int
    usedGpuMemory: int | None


@dataclass
class Memory:
    used: int


@dataclass
class Nvml:
    """What of pynvml is used, of GPUs whose memory a test sets."""

    used: list[int]
    processes: list[list[Process]] = field(default_factory=lambda: [[]])

    def nvmlDeviceGetCount(self):
        return len(self.used)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return self.processes[handle]

    def nvmlDeviceGetMemoryInfo(self, handle):
        return Memory(self.used[handle])


@pytest.fixture
def watching():
    """Starts watches, and stops them at the end."""
    begun = []

    def begin(nvml):
        begun.append(Watch(nvml, seconds=0.002))
        return begun[-1]

    yield begin
    for watch in begun:
        watch.stop()


def test_the_peak_is_that_of_this_process_though_it_has_passed(watching):
    other, mine = Process(1, 5000 * MB), Process(os.getpid(), 100 * MB)
    nvml = Nvml([6000 * MB], [[other, mine]])
    watch = watching(nvml)
    mine.usedGpuMemory = 900 * MB
    deadline = time.monotonic() + 10
    while watch._of_process < 900 * MB and time.monotonic() < deadline:
        time.sleep(0.002)
    mine.usedGpuMemory = 200 * MB
    assert watch.peak() == Peak(900 * MB, "process")


def test_what_lies_on_several_gpus_is_added(watching):
    nvml = Nvml([0, 0], [[Process(os.getpid(), 100 * MB)], [Process(os.getpid(), 50 * MB)]])
    assert watching(nvml).peak() == Peak(150 * MB, "process")


@pytest.mark.parametrize("processes", [[[]], [[Process(os.getpid(), None)]], [[Process(1, 700 * MB)]]])
def test_where_the_driver_does_not_tell_it_is_what_the_gpu_has_in_use_more_than_before(watching, processes):
    nvml = Nvml([1000 * MB], processes)
    watch = watching(nvml)
    nvml.used[0] = 1800 * MB
    assert watch.peak() == Peak(800 * MB, "device")
    nvml.used[0] = 900 * MB
    assert watch.peak() == Peak(800 * MB, "device")


FAKE = """
import os

class NVMLError(Exception): ...
class Of:
    def __init__(self, **values): self.__dict__ |= values

def nvmlInit(): ...
def nvmlDeviceGetCount(): return 1
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetComputeRunningProcesses(handle): return [Of(pid=os.getpid(), usedGpuMemory=1234 * 10**6)]
def nvmlDeviceGetMemoryInfo(handle): return Of(used=2 * 10**9)
"""

# Makes modules that are installed look as if they were not, also to what only looks for them.
HIDING = """
import importlib.machinery, os
found = importlib.machinery.PathFinder.find_spec
hidden = set(os.environ["HIDDEN"].split())

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in hidden else found(name, path, target)

importlib.machinery.PathFinder.find_spec = find_spec
"""
TINY = ("--size", "64x64", "--frames", "2", "--window", "2", "--steps", "1", "--runs", "1", "--cold-runs", "0")


def latency(tmp_path, *backends, hidden="", fake_nvml=False):
    """`bench/latency.py` with the bundled engines, where some modules are not installed; its table, and its record."""
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "sitecustomize.py").write_text(HIDING)
    if fake_nvml:
        (modules / "pynvml.py").write_text(FAKE)
    path = os.pathsep.join([str(modules), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "HIDDEN": hidden, "COLUMNS": "200"}
    engines = ROOT / "runtime" / "dc_rt" / "bundled"
    chosen = ("--backends", *backends) if backends else ()
    command = [sys.executable, "bench/latency.py", *TINY, "--engines", engines, "--results", tmp_path / "out", *chosen]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "latency.json").exists()
    return done.stdout


def test_the_benchmark_tells_the_memory_of_the_gpu_and_of_the_process(tmp_path):
    said = latency(tmp_path, "onnx", fake_nvml=True)
    (line,) = [line for line in said.splitlines() if "peak GPU memory, MB" in line]
    assert "1234" in line
    assert "26000" in line  # of the original, as published
    (line,) = [line for line in said.splitlines() if "peak memory, MB" in line]
    assert float(line.split("│")[2]) > 50
    assert "Memory on a GPU is not told" not in said
    assert "465 (1914 before)" in said


@pytest.mark.parametrize(
    ("hidden", "backends", "reasons"),
    [
        ("torch", (), ["PyTorch eager: absent, as PyTorch is not installed", "torch.compile: absent", "no speed-up"]),
        (
            "onnx matplotlib packaging pynvml",
            ("onnx",),
            ["no roofline", "no chart", "sizes are", "nvidia-ml-py"],
        ),
        ("xformers", ("onnx", "xformers"), ["PyTorch, xformers: absent, as xformers is not installed"]),
        (
            "tensorrt tensorrt_rtx",
            ("onnx", "tensorrt"),
            ["TensorRT or TensorRT-RTX: absent, as neither TensorRT nor TensorRT-RTX is installed"],
        ),
    ],
    ids=["torch", "onnx", "xformers", "tensorrt"],
)
def test_a_column_that_cannot_be_had_is_named_and_the_rest_is_measured(tmp_path, hidden, backends, reasons):
    said = latency(tmp_path, *backends, hidden=hidden)
    for reason in reasons:
        assert reason in said, said
    assert "in all" in said


def test_where_there_is_no_nvml_a_reason_is_given(monkeypatch):
    monkeypatch.setattr(gpu_memory, "MODULE", "a_module_that_is_none")
    assert str(gpu_memory.missing()).startswith("nvidia-ml-py is not installed (")
    assert Watch.begin() is None
