"""The most memory that this process has had on GPUs, as the driver counts it: of libraries, and of CUDA itself.

NVML tells it of each process, through the package nvidia-ml-py (module pynvml). On some systems it does not, such as
Windows and containers that number processes otherwise: what the GPUs have in use more than before is then taken, which
is of other programs too.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from dc_rt.installation import pip_install

MODULE = "pynvml"
SECONDS = 0.02  # between two looks


@dataclass(frozen=True)
class Peak:
    """The most bytes so far, and what they are of: "process", or "device" where the driver does not tell."""

    bytes: int
    of: str


def missing() -> str | None:
    """Why GPU memory cannot be told here, in words; None where it can."""
    if not find_spec(MODULE):
        return f"nvidia-ml-py is not installed (`{pip_install('nvidia-ml-py')}`)"
    nvml = import_module(MODULE)
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return f"there is no NVIDIA driver ({error})"
    return None


class Watch:
    """Looks at the memory of this process every few milliseconds, in a thread, from when it is made until `stop`."""

    def __init__(self, nvml: Any, seconds: float = SECONDS) -> None:
        """`nvml` is pynvml, initialised; what the GPUs have in use now is not counted as this process's."""
        self._nvml = nvml
        self._devices = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        self._before = self._in_use()
        self._of_process = self._of_device = 0
        self._told = False
        self._seconds = seconds
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="GPU memory", daemon=True)
        self._thread.start()

    @classmethod
    def begin(cls) -> Watch | None:
        """A watch on the GPUs of this machine; None where there is nothing to watch."""
        return None if missing() else cls(import_module(MODULE))

    def peak(self) -> Peak:
        """So far."""
        self._look()
        with self._lock:
            return Peak(self._of_process, "process") if self._told else Peak(self._of_device, "device")

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(self._seconds):
            self._look()

    def _look(self) -> None:
        mine = self._mine()
        with self._lock:
            if mine is not None:
                self._told = True
                self._of_process = max(self._of_process, mine)
            self._of_device = max(self._of_device, self._in_use() - self._before)

    def _mine(self) -> int | None:
        """Bytes of this process on all GPUs; None where the driver says nothing of it."""
        pid, found = os.getpid(), None
        for device in self._devices:
            for process in self._nvml.nvmlDeviceGetComputeRunningProcesses(device):
                if process.pid == pid and process.usedGpuMemory is not None:
                    found = (found or 0) + int(process.usedGpuMemory)
        return found

    def _in_use(self) -> int:
        return sum(int(self._nvml.nvmlDeviceGetMemoryInfo(device).used) for device in self._devices)
