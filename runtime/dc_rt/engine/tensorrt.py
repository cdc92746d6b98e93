"""The TensorRT backend, for both flavours: `tensorrt` and `tensorrt_rtx` differ by an import and a few settings.

The four engines run one after the other on one stream and share one workspace, as large as the largest of them needs.
An engine file is code; `dc_rt.engine.compatibility` has checked it against its manifest when it comes here.
"""

from __future__ import annotations

import functools
import logging
import mmap
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dc_rt.engine import Array, OpenEngine, cuda
from dc_rt.engine.compatibility import Unavailable, find_gpu, load_library
from dc_rt.engine.manifest import GRAPHS, LIBRARY_NAMES, Manifest
from dc_rt.engine.memory import WEIGHT_STREAMING
from dc_rt.engine.signatures import check_signature
from dc_rt.errors import UserError, option

log = logging.getLogger(__name__)
library_log = logging.getLogger("dc_rt.tensorrt")

# Left free when weights are streamed: for the arrays that go in and out, and for what CUDA itself loads.
STREAMING_RESERVE = 512 << 20

Shapes = Mapping[str, tuple[int, ...]]


def open_engines(folder: Path, manifest: Manifest, cpu_offload: str) -> tuple[OpenEngine, str]:
    """The engines of `folder`, ready to be opened; `manifest` is what `compatibility.choose_build` gives.

    Raises:
        Unavailable: TensorRT judges by their headers that they cannot run here.
        UserError: they were not built for this offload, or are no engines.
    """
    streamed = cpu_offload == "sequential"
    if streamed and WEIGHT_STREAMING not in manifest.builds[manifest.flavour].flags:
        raise _not_streamable(folder, manifest.flavour)
    shared = Shared(manifest.flavour, Advice.on(folder, manifest, cpu_offload))
    for graph in GRAPHS:
        shared.check_validity(folder / manifest.file(graph))

    def open_engine(graph: str) -> TensorRtEngine:
        # The denoiser runs many times in a row on arrays of one size: the others' launches are no part of their time.
        path = folder / manifest.file(graph)
        engine = TensorRtEngine(path, shared, capture=graph == "denoiser", streamed=streamed)
        try:
            check_signature(path, graph, manifest.model, *engine.shapes())
        except UserError:
            engine.close()
            raise
        return engine

    return open_engine, f"{find_gpu().name}, {LIBRARY_NAMES[manifest.flavour]} {shared.trt.__version__}"


@dataclass(frozen=True)
class Advice:
    """What helps where the GPU's memory is too small: what a set and the way that it is run leave to be changed.

    Attributes:
        folder: of the set.
        offload: how it is run: none, model or sequential.
        one_size: whether its memory is laid out for one size and the longest window, so that shorter ones save nothing.
        low_memory: whether its graphs are in the form that trades time for memory already.
        streamable: whether its weights need not all be on the GPU.
        least: of several sizes, in words the one that needs the least to compute in; empty where there is one alone.
    """

    folder: Path
    offload: str
    one_size: bool
    low_memory: bool
    streamable: bool
    least: str = ""

    @classmethod
    def on(cls, folder: Path, manifest: Manifest, offload: str) -> Advice:
        """On the engines of `manifest`, as `compatibility.choose_build` gives them."""
        one_size = all(shape.is_fixed for shape in manifest.profile.shapes)
        flags = manifest.builds[manifest.flavour].flags
        return cls(folder, offload, one_size, manifest.low_memory, WEIGHT_STREAMING in flags, _least(manifest))

    def on_workspace(self, graph: str = "") -> str:
        """On what an engine computes in."""
        if self.least:
            smaller = [f"try a smaller {option('max_res')} ({self.least})"]
        elif self.one_size:
            smaller = []
        else:
            smaller = [f"try a smaller {option('window_size')} or {option('max_res')}"]
        # Another offload gives the same depth: it comes first.
        return self._joined([*self._offloads(), *smaller, *self.on_engines(graph)])

    def on_weights(self) -> str:
        """On what an engine holds, whatever it computes."""
        return self._joined(self._offloads())

    def on_arrays(self) -> str:
        """On what goes into and comes out of an engine."""
        smaller = f"a smaller {option('window_size')}" + ("" if self.one_size else f" or {option('max_res')}")
        return self._joined([f"try {smaller}", *self._offloads()])

    def on_engines(self, graph: str = "") -> list[str]:
        """On which other engines would need less to compute in."""
        others = [f"build engines for fewer frames or pixels (dc-export build {self.folder} --profile NAME)"]
        if not self.low_memory and graph != "clip_encoder":  # which has nothing to trade
            others.append(
                "export graphs that need less (dc-export onnx --target tensorrt --low-memory) and build engines of them"
            )
        return others

    def _offloads(self) -> list[str]:
        if self.offload == "none":
            return [f"use {option('cpu_offload', 'model')}"]
        if self.offload == "sequential":
            return []
        if self.streamable:
            return [f"use {option('cpu_offload', 'sequential')}"]
        return [
            f"build engines for {option('cpu_offload', 'sequential')} "
            f"(make engines STREAMING=1, or dc-export build {self.folder} --weight-streaming)"
        ]

    def _joined(self, remedies: list[str]) -> str:
        return ", or ".join([*remedies, "close what else uses the GPU (nvidia-smi tells)"])


def _least(manifest: Manifest) -> str:
    """Which of several shapes needs the least to compute in, and how much; empty where that is not known."""
    engines = manifest.builds[manifest.flavour].engines.values()
    shapes = manifest.profile.shapes
    needs = [max((engine.workspace_at(number) for engine in engines), default=0) for number in range(len(shapes))]
    if len(set(needs)) < 2:
        return ""
    number = needs.index(min(needs))
    return f"{shapes[number]} takes {needs[number] / cuda.GB:.1f} GB, the least of this set"


class Shared:
    """What the engines of a set have in common: the library, a stream, and a workspace that one at a time uses."""

    def __init__(self, flavour: str, advice: Advice | None = None) -> None:
        self.flavour = flavour
        self.advice = advice
        self.trt = load_library(flavour)
        self.logger = _logger(flavour)
        self.runtime = self.trt.Runtime(self.logger)
        self.lock = threading.Lock()
        self.workspace = cuda.DeviceMemory()
        self.num_open = 0  # engines; the last one to close frees the workspace

    @functools.cached_property
    def stream(self) -> cuda.Stream:
        """The stream that all engines run on; made at first use, since judging engines needs none."""
        return cuda.Stream()

    def check_validity(self, path: Path) -> None:
        """Let TensorRT judge an engine by its header alone, where this flavour can. Nothing is deserialised.

        Raises:
            Unavailable: it cannot run here.
            UserError: it is no engine.
        """
        if not hasattr(self.runtime, "get_engine_validity"):
            return
        with path.open("rb") as file:
            header = file.read(self.runtime.engine_header_size)
        self.logger.errors.clear()
        validity, diagnostics = self.runtime.get_engine_validity(header)
        if validity != self.trt.EngineValidity.INVALID:
            return
        flags = self.trt.EngineInvalidityDiagnostics.__members__.items()
        found = [name for name, flag in flags if int(flag) & diagnostics]
        reason = ", ".join(name.lower().replace("_", " ") for name in found) or self.logger.reason
        failure = f"{LIBRARY_NAMES[self.flavour]} cannot run {path} here ({reason})"
        if "MALFORMED_ENGINE" in found:
            raise UserError(f"{failure}; {self._again(path)}")
        if "cuda" in reason.lower():
            fix = "install a current NVIDIA driver"
        elif "INSUFFICIENT_GPU_MEMORY" in found:
            fix = ", or ".join(self.advice.on_engines()) if self.advice else "build engines that need less"
        else:
            fix = self._again(path).removesuffix(".")
        raise Unavailable(failure, fix)

    def deserialise(self, path: Path) -> Any:
        """The engine in `path`; raises `UserError` where TensorRT cannot."""
        self.logger.errors.clear()
        # Mapped, as the file may be gigabytes, and TensorRT copies what it keeps.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as contents:
            engine = self.runtime.deserialize_cuda_engine(contents)
        if engine is None:
            shortage = self.advice.on_weights() if self.advice else ""
            self.raise_for(f"the weights of {path.name}", shortage, f"cannot load {path}", self._again(path))
        return engine

    def raise_for(self, purpose: str, shortage: str, failure: str, fix: str) -> NoReturn:
        """Raise `UserError` for what TensorRT could not do: it gives its reason in its log alone.

        `shortage` is what helps where that is memory, which it lacked for `purpose`.
        """
        if re.search(
            r"out ?of ?memory|could not be allocated|cudaErrorMemoryAllocation", str(self.logger.errors), re.I
        ):
            raise cuda.OutOfMemory(purpose, fix=shortage)
        raise UserError(f"{LIBRARY_NAMES[self.flavour]} {failure} ({self.logger.reason}); {fix}")

    def _again(self, path: Path) -> str:
        return f"build the engines again with `dc-export build {path.parent} --flavour {self.flavour}`."


class TensorRtEngine:
    """One engine with its execution context and its arrays; `close` frees them all."""

    def __init__(self, path: Path, shared: Shared, capture: bool, streamed: bool) -> None:
        """Load the engine in `path`.

        Args:
            path: of the engine.
            shared: with the other engines.
            capture: record runs in a CUDA graph, to be launched again while shapes and addresses stay.
            streamed: keep only those weights on the GPU that there is room for, and send the others for each run.

        Raises:
            UserError: TensorRT cannot load it, the GPU's memory is full, or its weights cannot be streamed.
        """
        self._path = path
        self._shared = shared
        self._rtx = shared.flavour == "rtx"
        # A recorded graph would hold on to where the weights were when it was recorded.
        self._captures = capture and not streamed
        self._engine = shared.deserialise(path)
        self._streamed = streamed
        self._reports: Callable[[str, float], None] | None = None
        if streamed and not self._engine.streamable_weights_size:
            raise _not_streamable(path.parent, shared.flavour)
        self._cache = RuntimeCache(path.with_suffix(".cache")) if self._rtx else None
        self._profile = 0  # the number of the optimisation profile that the context is in
        self._specialised = True  # whether the context is one that compiles kernels for its shapes
        # How many weights may stay on the GPU depends on the frames, and is to be set before there is a context.
        self._context: Any = None if streamed else self._create_context()
        self._arrays: dict[str, cuda.Staged] = {}
        self._inputs: list[str] = []
        for name in map(self._engine.get_tensor_name, range(self._engine.num_io_tensors)):
            self._arrays[name] = cuda.Staged(np.dtype(shared.trt.nptype(self._engine.get_tensor_dtype(name))))
            if self._engine.get_tensor_mode(name) == shared.trt.TensorIOMode.INPUT:
                self._inputs.append(name)
        # What the context was last given: shapes, bytes of workspace, and addresses, the workspace's first.
        self._shapes: Shapes = {}
        self._need = 0
        self._bound: tuple[int, ...] = ()
        self._graph: cuda.CapturedGraph | None = None
        self._runs = 0  # since then
        shared.num_open += 1

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        values = {name: np.asarray(inputs[name], self._arrays[name].dtype) for name in self._inputs}
        outputs = [name for name in self._arrays if name not in values]
        with self._shared.lock:
            self._shared.logger.errors.clear()
            try:
                self._prepare({name: value.shape for name, value in values.items()})
                stream = self._shared.stream
                for name, value in values.items():
                    self._arrays[name].upload(value, stream)
                self._run(stream)
                for name in outputs:
                    self._arrays[name].download(stream)
                stream.wait()
            except cuda.CudaError as error:
                raise UserError(
                    f"{self._path} stopped running ({error}); see whether `nvidia-smi` still finds the GPU, and run "
                    "the same command again."
                ) from error
            self._runs += 1
            if self._cache and self._runs == 1:
                self._cache.write()
            return {name: self._arrays[name].array.copy() for name in outputs}

    def shapes(self) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
        """Of the inputs and of the outputs, by their names; -1 for an axis that varies."""
        every = {name: tuple(self._engine.get_tensor_shape(name)) for name in self._arrays}
        inputs = {name: every[name] for name in self._inputs}
        return inputs, {name: shape for name, shape in every.items() if name not in inputs}

    def profile(self, report: Callable[[str, float], None]) -> None:
        """Have `report` told, at each later run, of every layer's name and its milliseconds.

        The runs are launched layer by layer, and not as a CUDA graph, which has no layers.
        """
        self._captures, self._reports = False, report
        self._drop_graph()
        if self._context is not None:
            self._context.profiler = make_profiler(self._shared.trt, report)

    def close(self) -> None:
        """Free all that the engine has on the GPU and beside it; it is of no use afterwards."""
        if self._engine is None:
            return
        with self._shared.lock:
            self._shared.stream.wait()
            self._drop_graph()
            # In this order: each refers to the next.
            self._context = None
            self._cache = None
            self._engine = None
            for staged in self._arrays.values():
                staged.free()
            self._shared.num_open -= 1
            if not self._shared.num_open:
                self._shared.workspace.free()

    def _create_context(self) -> Any:
        """An execution context without memory of its own, in the first optimisation profile."""
        self._profile = 0
        managed = self._shared.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        settings = managed
        if self._rtx:
            strategies = self._shared.trt.CudaGraphStrategy
            settings = self._engine.create_runtime_config()
            settings.set_execution_context_allocation_strategy(managed)
            settings.cuda_graph_strategy = strategies.WHOLE_GRAPH_CAPTURE if self._captures else strategies.DISABLED
            # From the first run on the same kernels, not others until those for the shape are compiled: runs of the
            # same frames give the same bits, and one run fills the cache.
            kernels = self._shared.trt.DynamicShapesKernelSpecializationStrategy
            settings.dynamic_shapes_kernel_specialization_strategy = (
                kernels.EAGER if self._specialised else kernels.NONE
            )
            if self._cache:
                self._cache.attach(settings)
        context = self._engine.create_execution_context(settings)
        if context is None:
            self._fail("cannot prepare")
        if self._reports:
            context.profiler = make_profiler(self._shared.trt, self._reports)
        return context

    def _stream_weights(self, profile: int) -> None:
        """Set how much of the weights may stay on the GPU; while there is no context, as TensorRT asks for."""
        # What TensorRT proposes does not count the workspace that is still to grow.
        need = self._engine.get_device_memory_size_for_profile_v2(profile)
        growth = max(need - self._shared.workspace.size, 0)
        room = cuda.free_bytes() - growth - STREAMING_RESERVE
        budget = min(self._engine.get_weight_streaming_automatic_budget(), room, self._engine.streamable_weights_size)
        self._engine.weight_streaming_budget_v2 = max(budget, 0)

    def _prepare(self, shapes: Shapes) -> None:
        """Give the context its shapes, memory and addresses, unless it has them."""
        reshaped = self._context is None or shapes != self._shapes
        if reshaped:
            self._reshape(shapes)
        # Another engine may have had it replaced by a larger one.
        self._reserve_workspace(self._need)
        addresses = (self._shared.workspace.address, *(staged.address for staged in self._arrays.values()))
        if not reshaped and addresses == self._bound:
            return
        self._drop_graph()
        if self._rtx and self._captures and self._bound and addresses != self._bound:
            # TensorRT-RTX's own recordings hold the old addresses; only a new context is sure to be without them.
            profile = self._profile
            self._context, self._shapes, self._bound = None, {}, ()
            self._context = self._create_context()
            self._set_shapes(shapes, profile)
        self._context.set_device_memory(self._shared.workspace.address, self._shared.workspace.size)
        for name, staged in self._arrays.items():
            if not self._context.set_tensor_address(name, staged.address):
                self._fail(f"does not take the address of {name} in")
        self._shapes, self._bound, self._runs = shapes, addresses, 0

    def _reshape(self, shapes: Shapes) -> None:
        """Have a context in the optimisation profile that takes these shapes, and room for the arrays."""
        profile = choose_profile(self._engine, shapes)
        if profile is None:
            self._refuse(shapes)
        if self._streamed and (self._context is None or profile != self._profile):
            self._context = None
            self._stream_weights(profile)
        if self._rtx and is_specialised(shapes) != self._specialised:
            self._context, self._specialised = None, is_specialised(shapes)
        if self._context is None:  # also where an earlier call could not make it anew
            self._context = self._create_context()
            self._bound = ()
        self._shapes = {}  # until all of it is done
        self._need = self._set_shapes(shapes, profile)
        for name, staged in self._arrays.items():
            with _advised(self._shared.advice.on_arrays() if self._shared.advice else ""):
                staged.reserve(tuple(self._context.get_tensor_shape(name)), f"{name} of {self._path.name}")

    def _refuse(self, shapes: Shapes) -> NoReturn:
        runs = "; ".join(
            " and ".join(f"{name} of {list(low)} to {list(high)}" for name, (low, high) in spans.items())
            for spans in profile_spans(self._engine, shapes)
        )
        given = " and ".join(f"{name} of {list(shape)}" for name, shape in shapes.items())
        raise UserError(
            f"{self._path.name} runs {runs}, not {given}; build engines of a profile that covers it "
            f"(dc-export build {self._path.parent} --profile NAME)."
        )

    def _set_shapes(self, shapes: Shapes, profile: int) -> int:
        """Tell the context the shapes of its inputs; gives the bytes of workspace that it then needs."""
        if profile != self._profile:
            # In the order of the stream, so that what is under way there is not disturbed; it invalidates all shapes.
            if not self._context.set_optimization_profile_async(profile, self._shared.stream.handle):
                self._fail("does not take an optimisation profile in")
            self._shared.stream.wait()
            self._profile = profile
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                self._refuse(shapes)
        if missing := self._context.infer_shapes():
            self._fail(f"does not find the shapes of {', '.join(missing)} in")
        need: int = self._context.update_device_memory_size_for_shapes()
        if self._engine.streamable_weights_size:
            # TensorRT's answer may leave out what streaming takes; to count it twice costs megabytes.
            need += self._engine.weight_streaming_scratch_memory_size
        return need

    def _reserve_workspace(self, size: int) -> None:
        """Have the shared workspace be at least `size` bytes; the other engines notice its new address."""
        if size > self._shared.workspace.size:
            self._shared.stream.wait()
            with _advised(self._workspace_advice()):
                self._shared.workspace.reserve(size, f"the workspace of {self._path.name}")

    def _workspace_advice(self) -> str:
        return self._shared.advice.on_workspace(self._path.name.partition(".")[0]) if self._shared.advice else ""

    def _run(self, stream: cuda.Stream) -> None:
        # The first run at a shape sets up what a recording must not contain; TensorRT-RTX records by itself.
        if self._captures and not self._rtx and self._runs > 0:
            try:
                self._graph = self._graph or stream.capture(self._enqueue)
            except (cuda.CudaError, UserError) as error:
                log.info("%s runs without a CUDA graph (%s)", self._path, error)
                self._captures = False
        if self._graph:
            self._graph.launch(stream)
        else:
            self._enqueue()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._shared.stream.handle):
            self._fail("cannot run")

    def _drop_graph(self) -> None:
        if self._graph:
            self._graph.free()
            self._graph = None

    def _fail(self, failure: str) -> NoReturn:
        fix = f"use {option('backend', 'onnx')}, and report this with what `dc-rt doctor` prints."
        purpose, shortage = f"running {self._path.name}", self._workspace_advice()
        self._shared.raise_for(purpose, shortage, f"{failure} {self._path}", fix)


def make_profiler(trt: Any, report: Callable[[str, float], None]) -> Any:
    """An `IProfiler` that passes on what it is told of each layer: its name and its milliseconds."""

    class Profiler(trt.IProfiler):
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            report(layer_name, ms)

    return Profiler()


def choose_profile(engine: Any, shapes: Shapes) -> int | None:
    """The number of the first optimisation profile of an `ICudaEngine` that takes inputs of these shapes, if any."""
    for number, spans in enumerate(profile_spans(engine, shapes)):
        if all(_is_within(shapes[name], *span) for name, span in spans.items()):
            return number
    return None


def is_specialised(shapes: Shapes) -> bool:
    """Whether TensorRT-RTX is to compile kernels for these shapes, which takes seconds and stays in its cache.

    A video's last window has any number of frames, and so have its shots: they run on kernels for any shape. Windows
    are as long as they are asked for, in numbers that people give: multiples of 10 and of 16. The other graphs take few
    frames, in few numbers.
    """
    frames = [shape[1] for shape in shapes.values() if len(shape) == 5]  # [1,T,4,h,w]
    return all(count % 10 == 0 or count % 16 == 0 for count in frames)


def _is_within(shape: Sequence[int], low: Sequence[int], high: Sequence[int]) -> bool:
    return len(shape) == len(low) and all(a <= size <= b for size, a, b in zip(shape, low, high, strict=True))


def profile_spans(engine: Any, names: Iterable[str]) -> Iterator[dict[str, tuple[Sequence[int], Sequence[int]]]]:
    """Of each optimisation profile, the smallest and the largest shape of those of the inputs that vary."""
    varying = [name for name in names if -1 in tuple(engine.get_tensor_shape(name))]
    for number in range(engine.num_optimization_profiles):
        spans = {name: engine.get_tensor_profile_shape(name, number) for name in varying}
        yield {name: (tuple(low), tuple(high)) for name, (low, _, high) in spans.items()}


class RuntimeCache:
    """The kernels that TensorRT-RTX compiled for this GPU, kept in a file beside the engine.

    It saves seconds and nothing else: what cannot be read or written is noted in the log and done without.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cache: Any = None
        self._written = b""

    def attach(self, settings: Any) -> None:
        """Have `settings`, an IRuntimeConfig, use the cache; the first one makes it of the file."""
        if self._cache is None:
            self._cache = settings.create_runtime_cache()
            self._written = read_cache(self._path)
            if self._written and not self._cache.deserialize(self._written):
                log.warning("%s is not of this GPU, driver and version; kernels are compiled anew.", self._path)
        settings.set_runtime_cache(self._cache)

    def write(self) -> None:
        """Write the file if there is anything new."""
        contents = bytes(self._cache.serialize() or b"")
        if contents and contents != self._written:
            write_cache(self._path, contents)
            self._written = contents


def read_cache(path: Path) -> bytes:
    """What is in a cache file; nothing where there is none, or none that can be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        log.warning("The kernel cache cannot be read (%s); kernels are compiled anew.", error)
        return b""


def write_cache(path: Path, contents: bytes) -> None:
    """Write a cache file, whole or not at all: other runs may be reading it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.write_bytes(contents)
        draft.replace(path)
    except OSError as error:
        log.warning("The kernel cache cannot be kept (%s); every start will compile kernels anew.", error)
        with suppress(OSError):
            draft.unlink()


@contextmanager
def _advised(fix: str) -> Iterator[None]:
    """Have a GPU with too little memory be told of with what helps."""
    try:
        yield
    except cuda.OutOfMemory as error:
        if error.place != "GPU" or not fix:
            raise
        raise cuda.OutOfMemory(error.purpose, fix=fix) from error


def _not_streamable(folder: Path, flavour: str) -> UserError:
    return UserError(
        "Sequential offload streams weights, and these engines were built without it; build them with `make engines "
        f"STREAMING=1` or `dc-export build {folder} --flavour {flavour} --weight-streaming`, or use "
        f"{option('cpu_offload', 'model')}."
    )


@functools.cache
def _logger(flavour: str) -> Any:
    """TensorRT's log, of which it keeps one a process: `errors` are those since they were last cleared."""
    trt = load_library(flavour)

    class Log(trt.ILogger):  # type: ignore[name-defined]  # a variable, to mypy
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        @property
        def reason(self) -> str:
            # The first error is the cause of those that follow.
            return self.errors[0] if self.errors else "it gives no reason"

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(message.strip().split("\n", 1)[0].rstrip("."))
            # Never louder: what of it matters to a user becomes a sentence.
            library_log.debug("%s: %s", severity.name, message)

    return Log()
