"""The ONNX Runtime backend: the CPU by default, any other execution provider by its name and options."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from dc_rt.engine import Array, Interrupted, OpenEngine
from dc_rt.engine.manifest import Manifest
from dc_rt.engine.signatures import check_signature
from dc_rt.errors import UserError
from dc_rt.installation import gpu_command

log = logging.getLogger(__name__)

Provider = str | tuple[str, Mapping[str, Any]]
CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class OnnxEngine:
    """An ONNX graph in an inference session."""

    def __init__(self, path: Path, providers: Sequence[Provider], device: str = "cpu") -> None:
        """Open `path`; raises `UserError` where ONNX Runtime cannot.

        `device`, "cpu" or "cuda", is where inputs are put and outputs are made: where the first provider computes.
        """
        options = ort.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(path), options, providers=list(providers))
        except Exception as error:  # ONNX Runtime has an exception class a status, without a common base
            raise UserError(
                f"ONNX Runtime {ort.__version__} cannot open {path} ({_first_line(error)}); "
                "update onnxruntime, or export the engine set again (dc-export onnx)."
            ) from error
        if device == "cuda" and CUDA not in self._session.get_providers():
            raise UserError(
                f"ONNX Runtime {ort.__version__} cannot load its CUDA provider for {path}; install it again with "
                f"what it needs (`{gpu_command()}`), or hide the GPU from it (CUDA_VISIBLE_DEVICES=)."
            )
        self._path = path
        self._device = device
        self._run_options = ort.RunOptions()
        self._outputs = [output.name for output in self._session.get_outputs()]

    def shapes(self) -> tuple[dict[str, list[int | str | None]], dict[str, list[int | str | None]]]:
        """Of the inputs and of the outputs, by their names; no number for an axis that varies."""
        inputs, outputs = (
            {value.name: list(value.shape) for value in values}
            for values in (self._session.get_inputs(), self._session.get_outputs())
        )
        return inputs, outputs

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        binding = self._session.io_binding()
        # On the CPU a value is the array itself: both must live until the run is over.
        arrays = {name: np.asarray(array, order="C") for name, array in inputs.items()}
        values = {name: ort.OrtValue.ortvalue_from_numpy(array, self._device, 0) for name, array in arrays.items()}
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, self._device)
        try:
            self._session.run_with_iobinding(binding, self._run_options)
        except Exception as error:  # as above
            if self._run_options.terminate:
                raise Interrupted(f"{self._path.name} was interrupted") from error
            if not re.search(r"out of memory|allocat", str(error), re.IGNORECASE):
                raise
            raise UserError(
                f"The memory does not suffice to run {self._path.name} ({_first_line(error)}); "
                "try a smaller --window-size or --max-res, or --cpu-offload model."
            ) from error
        return dict(zip(self._outputs, binding.copy_outputs_to_cpu(), strict=True))

    def interrupt(self) -> None:
        """End the run under way, within the time of a node, and have later ones raise `Interrupted`."""
        self._run_options.terminate = True

    def rearm(self) -> None:
        """Let the graph run again."""
        self._run_options.terminate = False


def open_engines(folder: Path, manifest: Manifest, cpu_offload: str) -> tuple[OpenEngine, str]:
    """Open the graphs of `folder` on the best provider that this installation has."""
    providers = available_providers()
    if cpu_offload == "sequential":
        raise UserError(
            "Sequential offload is TensorRT's weight streaming, and these engines run on ONNX Runtime; "
            "use --cpu-offload model, which keeps one graph in memory at a time."
        )
    device, words = ("cuda", "the GPU (CUDA)") if providers[0] == CUDA else ("cpu", "the CPU")

    def open_engine(graph: str) -> OnnxEngine:
        path = folder / manifest.file(graph)
        engine = OnnxEngine(path, providers, device)
        check_signature(path, graph, manifest.model, *engine.shapes())
        return engine

    return open_engine, words


def available_providers() -> list[Provider]:
    """CUDA where this ONNX Runtime has it and it works, then the CPU."""
    if CUDA not in ort.get_available_providers():  # what it was compiled with, whatever the machine has
        return [CPU]
    ort.preload_dlls()  # CUDA's libraries lie in packages of their own, where the system does not look
    try:
        ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
    except Exception as error:  # as above
        log.warning("ONNX Runtime runs on the CPU, as CUDA does not work here: %s", _first_line(error))
        return [CPU]
    return [CUDA, CPU]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
