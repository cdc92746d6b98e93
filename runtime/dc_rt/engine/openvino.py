"""OpenVINO on the CPU, by the package of its own: ONNX Runtime's plugin of it takes Intel's processors alone.

It reads the same graphs, and is a provider beside those of ONNX Runtime: see `dc_rt.engine.providers`.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from dc_rt.engine import Array, Interrupted
from dc_rt.engine.providers import FULL_PRECISION
from dc_rt.errors import UserError, option
from dc_rt.installation import install_command

Axes = list[int | str | None]


class OpenVinoEngine:
    """An ONNX graph, compiled by OpenVINO for the CPU."""

    def __init__(self, path: Path, options: Mapping[str, str] | None = None) -> None:
        """Compile `path`, in float32 unless `options`, OpenVINO's properties by their names, have another precision.

        Raises:
            UserError: OpenVINO cannot be loaded, cannot read the graph, or does not know a property.
        """
        self._path = path
        self._options = dict(options or {})
        self._is_interrupted = self._is_cut_off = False
        self._compile()

    def shapes(self) -> tuple[dict[str, Axes], dict[str, Axes]]:
        """Of the inputs and of the outputs, by their names; None for an axis that varies."""
        return _shapes(self._compiled.inputs), _shapes(self._compiled.outputs)

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        if self._is_interrupted:
            raise Interrupted(f"{self._path.name} was interrupted")
        if self._is_cut_off:
            self._compile()
        # Shared, not copied: they must live until the run is over.
        arrays = {name: np.asarray(array, order="C") for name, array in inputs.items()}
        try:
            # Not `infer`, which nothing can end.
            self._request.start_async(arrays, share_inputs=True)
            if self._is_interrupted:  # before there was anything to cancel
                self._request.cancel()
            self._request.wait()
        except RuntimeError as error:
            # What a run leaves that ends early, nodes of two sizes beside one another, no later run may start from.
            self._is_cut_off = True
            if self._is_interrupted:
                raise Interrupted(f"{self._path.name} was interrupted") from error
            if not re.search(r"out of memory|alloc", str(error), re.IGNORECASE):
                raise
            raise UserError(
                f"There is not enough memory to run {self._path.name} ({_cause(error)}); "
                f"try a smaller {option('window_size')} or {option('max_res')}, or {option('cpu_offload', 'model')}."
            ) from error
        # Copied: the request writes its next results into the same memory.
        return {port.any_name: np.array(self._request.get_tensor(port).data) for port in self._compiled.outputs}

    def interrupt(self) -> None:
        """End the run under way, between two of its nodes, and have later ones raise `Interrupted`."""
        self._is_interrupted = True
        self._request.cancel()

    def rearm(self) -> None:
        """Let the graph run again; one that was cut off is compiled anew when it does."""
        self._is_interrupted = False

    def _compile(self) -> None:
        try:
            self._compiled = _core().compile_model(str(self._path), "CPU", {**FULL_PRECISION, **self._options})
        except (ImportError, OSError, RuntimeError) as error:
            fix = f"check the options of {option('provider')}" if self._options else "export the engine set again"
            raise UserError(
                f"OpenVINO cannot open {self._path} ({_cause(error)}); {fix}, update OpenVINO "
                f"(`{install_command('openvino')}`), or use {option('provider', 'cpu')}."
            ) from error
        self._request = self._compiled.create_infer_request()
        self._is_cut_off = False


@functools.cache
def computes_in(precision: str) -> bool:
    """Whether this processor computes in a precision by itself: "BF16", for example."""
    return precision in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


@functools.cache
def _core() -> Any:
    return import_openvino().Core()


def import_openvino() -> Any:
    """The module; raises `ImportError` where it is not installed.

    On import it tells its maker so, by the package openvino-telemetry, and does without where it cannot import that:
    what runs here stays here.
    """
    modules: dict[str, Any] = sys.modules
    ours = modules.setdefault("openvino_telemetry", None) is None  # which makes importing it fail
    try:
        return import_module("openvino")
    finally:
        if ours:
            del modules["openvino_telemetry"]


def _shapes(ports: Any) -> dict[str, Axes]:
    return {
        port.any_name: [axis.get_length() if axis.is_static else None for axis in port.partial_shape] for port in ports
    }


def _cause(error: Exception) -> str:
    """What an error of OpenVINO says, without where in its source: its last line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
