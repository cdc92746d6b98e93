"""The ONNX Runtime backend: the CPU by default, any other execution provider by its name and options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime as ort

from dc_rt.engine import Array, OpenEngine
from dc_rt.engine.manifest import Manifest
from dc_rt.errors import UserError

Provider = str | tuple[str, Mapping[str, Any]]


class OnnxEngine:
    """An ONNX graph in an inference session."""

    def __init__(self, path: Path, providers: Sequence[Provider]) -> None:
        """Open `path`; raises `UserError` where ONNX Runtime cannot."""
        options = ort.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(str(path), options, providers=list(providers))
        except Exception as error:  # ONNX Runtime has an exception class a status, without a common base
            raise UserError(
                f"ONNX Runtime {ort.__version__} cannot open {path} ({_first_line(error)}); "
                "update onnxruntime, or export the engine set again (dc-export onnx)."
            ) from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, **inputs: Array) -> dict[str, Array]:
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))


def open_engines(folder: Path, manifest: Manifest, cpu_offload: str) -> tuple[OpenEngine, str]:
    """Open the graphs of `folder` on the best provider that this installation has."""
    providers = available_providers()
    if cpu_offload == "sequential":
        raise UserError(
            "Sequential offload is TensorRT's weight streaming, and these engines run on ONNX Runtime; "
            "use --cpu-offload model, which keeps one graph in memory at a time."
        )
    device = "the GPU (CUDA)" if providers[0] == "CUDAExecutionProvider" else "the CPU"
    return lambda graph: OnnxEngine(folder / manifest.file(graph), providers), device


def available_providers() -> list[Provider]:
    """CUDA where this ONNX Runtime has it, then the CPU."""
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    return [provider for provider in wanted if provider in ort.get_available_providers()]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0]
