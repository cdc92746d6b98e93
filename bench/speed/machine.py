"""What a measurement was taken on, and the best that the machine does on the plainest work."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from dc_rt.cores import num_cores

PACKAGES = (
    *("depthcrafter-rt", "numpy", "av", "onnxruntime", "onnxruntime-gpu", "tensorrt-cu13", "tensorrt-rtx-cu13"),
    *("openvino", "torch", "diffusers", "transformers", "xformers"),
)


def describe() -> dict[str, str | int]:
    """Processor, cores, memory, system, and GPU where there is one."""
    cores = num_cores()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    machine: dict[str, str | int] = {
        "processor": _processor(),
        "cores": cores,
        "memory_gb": round(memory / 1e9),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if gpu := _gpu():
        machine["gpu"] = gpu
    return machine


def in_words(machine: dict[str, str | int]) -> str:
    """One line for below a table."""
    words = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB"
    return f"{machine['gpu']}; {words}" if "gpu" in machine else words


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Of Python and of packages, as far as they are installed: if nothing else is asked, of what does the work."""
    found = {"python": platform.python_version()}
    for package in packages:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def matmul_flops(precision: str, size: int = 2048) -> float:
    """Operations a second of a plain matrix product: of NumPy's and PyTorch's the faster one, on the GPU if any."""
    products: list[Callable[[], object]] = []
    a = np.random.default_rng(0).standard_normal((size, size), dtype=np.float32)
    if find_spec("torch"):
        import torch

        tensor = torch.from_numpy(a)
        if torch.cuda.is_available():
            tensor = tensor.cuda().to(torch.float16 if precision == "fp16" else torch.float32)
        products.append(_synchronised(lambda: tensor @ tensor))
    if not _on_gpu():
        products.append(lambda: a @ a)
    return 2 * size**3 / min(_fastest(product) for product in products)


def copy_bytes(size: int = 1 << 28) -> float:
    """Bytes a second of a plain copy, read and written: of NumPy's and PyTorch's the faster one, on the GPU if any."""
    copies: list[Callable[[], object]] = []
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    if find_spec("torch"):
        import torch

        x, y = torch.from_numpy(source), torch.from_numpy(target)
        if torch.cuda.is_available():
            x, y = x.cuda(), y.cuda()
        copies.append(_synchronised(lambda: y.copy_(x)))
    if not _on_gpu():
        copies.append(lambda: np.copyto(target, source))
    return 2 * size / min(_fastest(copy) for copy in copies)


def _fastest(work: Callable[[], object], runs: int = 7) -> float:
    """Seconds of the best of several: a bound, so that a machine's noise is left out."""
    seconds = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _synchronised(work: Callable[[], object]) -> Callable[[], object]:
    from bench.speed.backends import synchronise

    def run() -> None:
        work()
        synchronise()

    return run


def _on_gpu() -> bool:
    if not find_spec("torch"):
        return False
    import torch

    return bool(torch.cuda.is_available())


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpu() -> str | None:
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    return answer.stdout.strip().splitlines()[0] if answer.returncode == 0 and answer.stdout.strip() else None
