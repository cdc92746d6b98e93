"""Engines: named arrays in, named arrays out, whatever runs them.

A backend is a function `open_engines(folder, manifest, cpu_offload) -> (open, device)`: `open(graph)` gives the
`Engine` of one of the four graphs, `device` says in words where it runs. An engine keeps nothing of its inputs, whose
memory is used again. One that holds memory elsewhere has a method `close` that frees it. One whose run can be ended
from another thread has a method `interrupt`, which ends this run and all later ones, and a method `rearm`, after which
it runs again. Any package can add a backend: `name = "module:function"` in its entry-point group `dc_rt.backends`
makes it one that `load_engines` takes by that name.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from dc_rt.attention import check_attention
from dc_rt.engine.compatibility import Unavailable, choose_build
from dc_rt.engine.manifest import GRAPHS, MANIFEST, File, Manifest, Model, Profile, Range
from dc_rt.errors import UserError, option
from dc_rt.installation import PACKAGE, install_command
from dc_rt.torch_steps import check_torch_steps

__all__ = [
    "BACKENDS",
    "CPU_OFFLOADS",
    "GRAPHS",
    "MANIFEST",
    "Engine",
    "EngineSet",
    "File",
    "Interrupted",
    "Manifest",
    "Model",
    "OpenEngine",
    "Profile",
    "Range",
    "backend_names",
    "backend_with",
    "load_engines",
]

log = logging.getLogger(__name__)

BACKENDS = ("auto", "onnx", "tensorrt", "torch")
PLUGINS = "dc_rt.backends"
CPU_OFFLOADS = ("none", "model", "sequential")

Array = NDArray[np.generic]


Engine = Callable[..., dict[str, Array]]
"""One graph, ready to run: called with its inputs by name, it gives its outputs by name."""

OpenEngine = Callable[[str], Engine]


class Interrupted(Exception):
    """An engine set was interrupted (`EngineSet.interrupt`): there is no result."""


class EngineSet:
    """The four graphs of a model on one backend; as a context manager it is closed at the end.

    `why_not_tensorrt` is a clause that goes on from "as" where `backend` was left to choose and TensorRT could not be
    had, and `tensorrt_fix` what to do about it; else they are empty. `attention` is how PyTorch computes attention,
    where it was chosen, and `torch_steps` are the steps that it is sped up by.
    """

    def __init__(
        self,
        manifest: Manifest,
        backend: str,
        device: str,
        open_engine: OpenEngine,
        one_resident: bool,
        why_not_tensorrt: str = "",
        tensorrt_fix: str = "",
        attention: str | None = None,
        torch_steps: Sequence[str] = (),
    ) -> None:
        """Open all engines now, or with `one_resident` each when its turn comes, closing the one before."""
        self.manifest = manifest
        self.backend = backend
        self.device = device
        self.why_not_tensorrt = why_not_tensorrt
        self.tensorrt_fix = tensorrt_fix
        self.attention = attention
        self.torch_steps = tuple(torch_steps)
        self._open = open_engine
        self._one_resident = one_resident
        self._engines: dict[str, Engine] = {}
        self._is_interrupted = False
        if not one_resident:
            try:
                for graph in GRAPHS:
                    self._open_engine(graph)
            except BaseException:
                self.close()
                raise

    def __call__(self, graph: str, **inputs: Array) -> NDArray[np.float32]:
        """Run one graph; each has a single float32 output (see `dc_rt.pipeline` for the shapes).

        Raises:
            Interrupted: `interrupt` was called, before or meanwhile.
        """
        self._check_not_interrupted()
        if graph not in self._engines:
            if self._one_resident:
                self.close()
            self._open_engine(graph)
        # Again, now that `interrupt` can find the engine: whatever the order, it ends the run or there is none.
        self._check_not_interrupted()
        (output,) = self._engines[graph](**inputs).values()
        return np.asarray(output, np.float32)

    def interrupt(self) -> None:
        """Have every later call raise `Interrupted`, and end the graph under way where the backend can.

        To be called from any thread. It holds until `rearm`.
        """
        self._is_interrupted = True
        for engine in self._engines.copy().values():
            if hasattr(engine, "interrupt"):
                engine.interrupt()

    def rearm(self) -> None:
        """Let graphs run again after `interrupt`."""
        self._is_interrupted = False
        for engine in self._engines.copy().values():
            if hasattr(engine, "rearm"):
                engine.rearm()

    def close(self) -> None:
        """Close the engines that are open; one that is called again is opened again."""
        while self._engines:
            _, engine = self._engines.popitem()
            if hasattr(engine, "close"):
                engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open_engine(self, graph: str) -> None:
        began = time.perf_counter()
        self._engines[graph] = self._open(graph)
        log.debug("%s opened in %.2f s", graph, time.perf_counter() - began)

    def _check_not_interrupted(self) -> None:
        if self._is_interrupted:
            raise Interrupted("the engine set was interrupted")


def load_engines(
    folder: str | os.PathLike[str],
    backend: str = "auto",
    cpu_offload: str = "none",
    provider: str | None = None,
    attention: str | None = None,
    torch_steps: Sequence[str] = (),
) -> EngineSet:
    """Check an engine set and open it.

    Args:
        folder: the engine set.
        backend: "onnx", "tensorrt", "torch" (the reference, on the checkpoint that the set was exported from), the
            name of one that another package adds, or "auto": TensorRT where the set has engines for it that run
            here, else ONNX Runtime.
        cpu_offload: "none"; "model" keeps one engine in memory at a time; "sequential" does so too, and streams its
            weights (TensorRT, and PyTorch on a GPU).
        provider: ONNX Runtime's execution provider, as "NAME" or "NAME:key=value,...", for example "cpu" or
            "openvino:INFERENCE_NUM_THREADS=4" (`dc-rt doctor` lists the names); CUDA where it works unless given, else
            the CPU.
            Means ONNX Runtime where `backend` is "auto".
        attention: how PyTorch computes attention, one of `dc_rt.attention.ATTENTIONS`; for "torch" alone.
        torch_steps: what speeds PyTorch up, of `dc_rt.torch_steps.TORCH_STEPS`; for "torch" without an offload alone.

    Raises:
        UserError: the set is missing, incomplete, changed or not for this backend, or the backend, the provider, the
            attention or a step cannot run here.
    """
    backend = backend_with(backend, provider)
    check_offload(cpu_offload)
    if attention is not None:
        check_attention(attention, backend)
    torch_steps = check_torch_steps(torch_steps, backend, cpu_offload)
    folder = Path(folder)
    manifest = Manifest.read(folder)
    log.debug("engine set %s: %s %s, profile %s", folder, manifest.model.name, manifest.precision, manifest.profile)
    why_not_tensorrt = tensorrt_fix = ""
    if backend in ("auto", "tensorrt"):
        try:
            built = choose_build(folder, manifest, named=backend == "tensorrt")
            open_engine, device = _open_backend("tensorrt")(folder, built, cpu_offload)
            return EngineSet(built, "tensorrt", device, open_engine, one_resident=cpu_offload != "none")
        except Unavailable as error:
            if backend == "tensorrt":
                raise
            backend, why_not_tensorrt, tensorrt_fix = "onnx", error.reason, error.fix
            log.debug("not TensorRT, as %s", error.reason)
    open_backend = _open_backend(backend)
    if backend == "onnx":
        open_backend = partial(open_backend, provider=provider)
    if attention is not None:
        open_backend = partial(open_backend, attention=attention)
    if torch_steps:
        open_backend = partial(open_backend, torch_steps=torch_steps)
    open_engine, device = open_backend(folder, manifest, cpu_offload)
    if backend == "onnx":  # which has opened nothing yet
        manifest.check_contents(folder)
    one_resident = cpu_offload != "none" and backend != "torch"
    return EngineSet(
        manifest, backend, device, open_engine, one_resident, why_not_tensorrt, tensorrt_fix, attention, torch_steps
    )


def check_offload(cpu_offload: str) -> None:
    """Raise `UserError` unless there is such an offload."""
    if cpu_offload not in CPU_OFFLOADS:
        raise UserError(f"There is no {option('cpu_offload', cpu_offload)}; choose one of {', '.join(CPU_OFFLOADS)}.")


def backend_with(backend: str, provider: str | None) -> str:
    """The backend that the two options mean together: a provider is ONNX Runtime's.

    Raises:
        UserError: there is no such backend, or it takes no provider.
    """
    if backend not in BACKENDS and backend not in (found := backend_names()):
        raise UserError(f"There is no {option('backend', backend)}; choose one of {', '.join(found)}.")
    if provider is None:
        return backend
    if backend not in ("auto", "onnx"):
        raise UserError(
            f"{option('provider', provider)} is of ONNX Runtime, and {option('backend', backend)} is something else; "
            f"use {option('backend', 'onnx')}, or leave {option('provider')} out."
        )
    return "onnx"


def backend_names() -> tuple[str, ...]:
    """The backends that are built in, then those that installed packages add, by name."""
    added = {plugin.name for plugin in entry_points(group=PLUGINS)}
    return (*BACKENDS, *sorted(added.difference(BACKENDS)))


OpenEngines = Callable[..., tuple[OpenEngine, str]]


def _open_backend(backend: str) -> OpenEngines:
    if module := {"onnx": "onnx_runtime", "tensorrt": "tensorrt"}.get(backend):
        built_in: OpenEngines = import_module(f"dc_rt.engine.{module}").open_engines
        return built_in
    for plugin in entry_points(group=PLUGINS, name=backend):
        try:
            loaded: OpenEngines = plugin.load()
        except Exception as error:  # another package's code, which may raise anything
            package = plugin.dist.name if plugin.dist else ""
            fix = (
                f"install what it needs with `{install_command('export')}`"
                if package == PACKAGE
                else f"update or reinstall the package {package} that adds it"
            )
            raise UserError(
                f"The {backend} backend cannot be imported ({error}); {fix}, or use {option('backend', 'auto')}."
            ) from error
        return loaded
    raise UserError(
        f"The {backend} backend is not in this installation; use {option('backend', 'auto')} "
        "(`dc-rt doctor` lists what this machine can run)."
    )
