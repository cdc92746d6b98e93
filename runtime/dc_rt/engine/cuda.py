"""What little of CUDA the TensorRT backend needs: the GPU, memory on it and beside it, a stream, captured graphs.

cuda-bindings is imported when it is first used, so that this module can be imported without it.
"""

from __future__ import annotations

import ctypes
import functools
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dc_rt.errors import UserError

GB = 1e9


class CudaError(RuntimeError):
    """A call of CUDA failed; `name` is the error's, such as "cudaErrorIllegalAddress"."""

    def __init__(self, function: str, name: str, explanation: str) -> None:
        super().__init__(f"{function}: {name} ({explanation})")
        self.name = name


class OutOfMemory(UserError):
    """There is too little memory: that of `place`, "GPU" or "computer", for `purpose`.

    What can be done about it depends on what runs and how: whoever knows gives another `fix`.
    """

    def __init__(self, purpose: str, place: str = "GPU", fix: str = "") -> None:
        fix = fix or f"close what else uses the {place}'s memory"
        super().__init__(f"The {place} has too little memory for {purpose}; {fix}.")
        self.purpose = purpose
        self.place = place


@dataclass(frozen=True)
class Gpu:
    """The GPU that CUDA chooses; CUDA_VISIBLE_DEVICES says which that is."""

    name: str
    capability: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.name}, compute capability {self.capability[0]}.{self.capability[1]}"


@functools.cache
def runtime() -> Any:
    """`cuda.bindings.runtime`; raises ImportError where cuda-bindings is not installed."""
    return import_module("cuda.bindings.runtime")


def call(function: str, *arguments: Any) -> Any:
    """Call a function of CUDA's runtime: its value, or None where it has none; raises `CudaError`."""
    error, *values = getattr(runtime(), function)(*arguments)
    if int(error):
        name, explanation = (
            getattr(runtime(), describe)(error)[1] for describe in ("cudaGetErrorName", "cudaGetErrorString")
        )
        raise CudaError(function, name.decode(), explanation.decode())
    return values[0] if len(values) == 1 else tuple(values) or None


def find_gpu() -> Gpu:
    """The GPU; raises `CudaError` where there is none, or no driver for it."""
    call("cudaGetDeviceCount")  # an error where the count would be 0
    attributes = runtime().cudaDeviceAttr
    major, minor = (
        call("cudaDeviceGetAttribute", attribute, 0)
        for attribute in (attributes.cudaDevAttrComputeCapabilityMajor, attributes.cudaDevAttrComputeCapabilityMinor)
    )
    return Gpu(call("cudaGetDeviceProperties", 0).name.decode(), (major, minor))


def free_bytes() -> int:
    """Memory of the GPU that nobody uses."""
    free, _ = call("cudaMemGetInfo")
    return int(free)


class DeviceMemory:
    """Memory on the GPU, which only grows; freed by `free`, or with the object."""

    def __init__(self) -> None:
        self.address = 0
        self.size = 0
        self._free = _nothing_to_free

    def reserve(self, size: int, purpose: str) -> None:
        """Have at least `size` bytes, perhaps elsewhere than before; nothing may be using them.

        Raises:
            OutOfMemory: the GPU has less; there then is no memory at all here.
        """
        if size <= self.size:
            return
        self.free()
        self.address = _allocate("cudaMalloc", size, purpose)
        self.size = size
        self._free = weakref.finalize(self, _release, "cudaFree", self.address)

    def free(self) -> None:
        """Give the memory back."""
        self._free()
        self.address = self.size = 0


class Staged:
    """An array on its way to or from the GPU: memory there and pinned memory here, which lets copies be asynchronous.

    Both only grow, so that addresses stay while the array's size does.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self.shape: tuple[int, ...] = ()
        self._device = DeviceMemory()
        self._pinned = 0
        self._pinned_size = 0
        self._free_pinned = _nothing_to_free

    @property
    def address(self) -> int:
        """Of the array on the GPU."""
        return self._device.address

    @property
    def array(self) -> NDArray[Any]:
        """The pinned memory: what it holds is there once the stream was waited for."""
        buffer = (ctypes.c_uint8 * self._num_bytes).from_address(self._pinned)
        return np.ctypeslib.as_array(buffer).view(self.dtype).reshape(self.shape)

    @property
    def _num_bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def reserve(self, shape: tuple[int, ...], purpose: str) -> None:
        """Have room for an array of `shape`."""
        self.shape = shape
        self._device.reserve(self._num_bytes, purpose)
        if self._num_bytes > self._pinned_size:
            self._free_pinned()
            self._pinned_size = 0
            self._pinned = _allocate("cudaMallocHost", self._num_bytes, purpose)
            self._pinned_size = self._num_bytes
            self._free_pinned = weakref.finalize(self, _release, "cudaFreeHost", self._pinned)

    def upload(self, array: NDArray[Any], stream: Stream) -> None:
        """Copy `array` to the GPU, in the order of the stream."""
        np.copyto(self.array, array)
        kind = runtime().cudaMemcpyKind.cudaMemcpyHostToDevice
        call("cudaMemcpyAsync", self.address, self._pinned, self._num_bytes, kind, stream.handle)

    def download(self, stream: Stream) -> None:
        """Copy from the GPU to `array`, in the order of the stream."""
        kind = runtime().cudaMemcpyKind.cudaMemcpyDeviceToHost
        call("cudaMemcpyAsync", self._pinned, self.address, self._num_bytes, kind, stream.handle)

    def free(self) -> None:
        """Give both memories back."""
        self._device.free()
        self._free_pinned()
        self._pinned = self._pinned_size = 0


class Stream:
    """What is put into it runs on the GPU one after the other, while the host goes on."""

    def __init__(self) -> None:
        self.handle = int(call("cudaStreamCreateWithFlags", runtime().cudaStreamNonBlocking))
        self.close = weakref.finalize(self, _release, "cudaStreamDestroy", self.handle)

    def wait(self) -> None:
        """Wait for all that was put in; errors of it come up here."""
        call("cudaStreamSynchronize", self.handle)

    def capture(self, enqueue: Callable[[], None]) -> CapturedGraph:
        """What `enqueue` puts in, recorded instead of run."""
        # Only this thread's calls are watched: others may be reading and writing frames, but none uses CUDA.
        call("cudaStreamBeginCapture", self.handle, runtime().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            enqueue()
        except BaseException:
            # The stream must leave capture mode, whatever became of it.
            with suppress(CudaError):
                call("cudaGraphDestroy", call("cudaStreamEndCapture", self.handle))
            runtime().cudaGetLastError()
            raise
        return CapturedGraph(call("cudaStreamEndCapture", self.handle))


class CapturedGraph:
    """A recorded sequence of work, launched at the cost of one call."""

    def __init__(self, graph: Any) -> None:
        try:
            self._executable = call("cudaGraphInstantiate", graph, 0)
        finally:
            call("cudaGraphDestroy", graph)
        self.free = weakref.finalize(self, _release, "cudaGraphExecDestroy", self._executable)

    def launch(self, stream: Stream) -> None:
        """Run it again, on the addresses that it was recorded with."""
        call("cudaGraphLaunch", self._executable, stream.handle)


def _allocate(function: str, size: int, purpose: str) -> int:
    try:
        return int(call(function, size))
    except CudaError as error:
        if error.name == "cudaErrorMemoryAllocation":
            runtime().cudaGetLastError()  # else the next call that asks for it would be told
            place = "GPU" if function == "cudaMalloc" else "computer"
            raise OutOfMemory(f"{purpose} ({size / GB:.2f} GB)", place) from error
        raise


def _release(function: str, handle: Any) -> None:
    # At the interpreter's end CUDA may be gone already, and the memory with it.
    with suppress(CudaError):
        call(function, handle)


def _nothing_to_free() -> None:
    pass
